"""Gradient flow against PyTorch and finite differences, hidden states against the layers, the plots."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from conftest import Variant, assert_same_bits, make_case, make_layer

import fastrnn
from fastrnn.diagnostics import gradient_flow, hidden_states, plot_gradient_flow, plot_hidden_states

TABLE = [
    Variant(kind, layers, bidirectional, dtype=np.float64)
    for kind in ("rnn_tanh", "rnn_relu", "lstm", "gru")
    for layers, bidirectional in ((1, False), (2, False), (2, True))
]


def torch_states(v: Variant, case: Any, row: int, length: int) -> list[list[Any]]:
    """The graph of one row, cell by cell: h_t of every layer and direction, and the output of the last layer."""
    import torch

    params = {k: torch.from_numpy(p).requires_grad_() for k, p in case.params.items()}
    name = {"rnn_tanh": "RNNCell", "rnn_relu": "RNNCell", "lstm": "LSTMCell", "gru": "GRUCell"}[v.kind]
    inputs = list(torch.from_numpy(case.x[:length, row]))
    out = []
    for layer in range(v.num_layers):
        ways = []
        for way in range(v.D):
            options = {"nonlinearity": v.kind[4:]} if v.kind.startswith("rnn") else {}
            cell = getattr(torch.nn, name)(len(inputs[0]), v.H, dtype=torch.float64, **options)
            end = f"_l{layer}" + "_reverse" * way
            cell.load_state_dict({k: params[k + end] for k in cell.state_dict()})
            i = layer * v.D + way
            state: Any = tuple(torch.from_numpy(s[i, row]) for s in case.state) if v.states == 2 else None
            state = torch.from_numpy(case.state[i, row]) if state is None else state
            hs = []
            for x in inputs[::-1] if way else inputs:
                state = cell(x, state)
                h = state[0] if v.states == 2 else state
                h.retain_grad()
                hs.append(h)
            ways.append(hs[::-1] if way else hs)
        out += ways
        inputs = [torch.cat(hs) for hs in zip(*ways, strict=True)]
    return [*out, inputs]


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_gradient_flow_against_pytorch(v: Variant) -> None:
    pytest.importorskip("torch")
    case = make_case(v)
    squares, default = np.zeros((2, v.num_layers * v.D, v.T))
    for row, length in enumerate(case.lengths):
        for total, loss in ((squares, "dy"), (default, "last")):
            if length == 0:
                continue
            *states, y = torch_states(v, case, row, length)
            if loss == "dy":
                sum((h * d).sum() for h, d in zip(y, _tensors(case.dy[:, row]), strict=False)).backward()
            else:
                sum(hs[0 if i % v.D else -1].sum() for i, hs in enumerate(states[-v.D :])).backward()
            for i, hs in enumerate(states):
                total[i, :length] += [0 if h.grad is None else float(h.grad.square().sum()) for h in hs]
    layer = make_layer(v, case.params)
    got = gradient_flow(layer, case.x, case.dy, state=case.state, lengths=case.lengths)
    np.testing.assert_allclose(got, np.sqrt(squares), rtol=1e-9, atol=1e-12)
    got = gradient_flow(layer, case.x, state=case.state, lengths=case.lengths)
    np.testing.assert_allclose(got, np.sqrt(default), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"proj_size": 2}, {"num_layers": 2, "bidirectional": True}]
)
def test_gradient_flow_of_the_cell_state(options: dict[str, Any]) -> None:
    """dL/dc of LSTMs that are written out in PyTorch, for a loss of the last layer's outputs."""
    torch = pytest.importorskip("torch")
    layer = fastrnn.LSTM(2, 3, dtype=np.float64, rng=0, **options)
    rng = np.random.default_rng(1)
    D, P, T = 1 + layer.bidirectional, layer.proj_size or 3, 6
    x, dy = rng.standard_normal((T, 1, 2)), rng.standard_normal((T, 1, D * P))
    state = (
        rng.standard_normal((layer.num_layers * D, 1, P)),
        rng.standard_normal((layer.num_layers * D, 1, 3)),
    )
    params = {name: torch.from_numpy(a) for name, a in layer.params.items()}
    cells, inputs = [], list(torch.from_numpy(x[:, 0]))
    for i in range(layer.num_layers):
        ways = []
        for way in range(D):
            end = f"_l{i}" + "_reverse" * way
            h, c = (torch.from_numpy(part[i * D + way, 0]) for part in state)
            hs, cs = [], []
            for x_t in inputs[::-1] if way else inputs:
                z = params["weight_ih" + end] @ x_t + params["weight_hh" + end] @ h
                if layer.bias:
                    z = z + params["bias_ih" + end] + params["bias_hh" + end]
                gates = z.reshape(4, 3)
                c = gates[1].sigmoid() * c + gates[0].sigmoid() * gates[2].tanh()
                c.requires_grad_() if not c.requires_grad else None
                c.retain_grad()
                h = gates[3].sigmoid() * c.tanh()
                h = params["weight_hr" + end] @ h if layer.proj_size else h
                hs.append(h)
                cs.append(c)
            ways.append(hs[::-1] if way else hs)
            cells.append(cs[::-1] if way else cs)
        inputs = [torch.cat(hs) for hs in zip(*ways, strict=True)]
    sum((h * torch.from_numpy(d[0])).sum() for h, d in zip(inputs, dy, strict=True)).backward()
    want = [[float(c.grad.norm()) for c in cs] for cs in cells]
    got = gradient_flow(layer, x, dy, state=state, wrt="c")
    np.testing.assert_allclose(got, want, rtol=1e-9)


def _tensors(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)


@pytest.mark.parametrize("kind", ["gru_before", "lstm"])
def test_gradient_flow_by_finite_differences(kind: str) -> None:
    v = Variant(kind, proj_size=4 if kind == "lstm" else 0, dtype=np.float64)
    case = make_case(v)
    layer = make_layer(v, case.params)
    flow = gradient_flow(layer, case.x, case.dy, state=case.state)[0]
    for t in range(v.T):
        _, state = layer(case.x[: t + 1], case.state)
        h = state[0] if v.states == 2 else state
        numeric = np.zeros_like(h)
        for i in np.ndindex(h.shape):
            sides = []
            for eps in (1e-6, -1e-6):
                changed = h.copy()
                changed[i] += eps
                after = (changed, state[1]) if v.states == 2 else changed
                y, _ = layer(case.x[t + 1 :], after)
                sides.append((y * case.dy[t + 1 :]).sum() + (changed[0] * case.dy[t]).sum())
            numeric[i] = (sides[0] - sides[1]) / 2e-6
        assert flow[t] == pytest.approx(np.linalg.norm(numeric), rel=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("v", [*TABLE, Variant("lstm", 2, True, proj_size=3)], ids=str)
def test_hidden_states_are_those_of_the_call(v: Variant, batch_first: bool) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params, batch_first=batch_first)
    x = case.x.swapaxes(0, 1) if batch_first else case.x
    states = hidden_states(layer, x, state=case.state, lengths=case.lengths)
    y, last = layer(x, case.state, lengths=case.lengths)
    y = y.swapaxes(0, 1) if batch_first else y
    assert_same_bits(np.concatenate(list(states[-v.D :]), axis=2), np.ascontiguousarray(y))
    h_n = last[0] if v.states == 2 else last
    for row in np.flatnonzero(case.lengths):
        ends = [0 if i % v.D else case.lengths[row] - 1 for i in range(len(states))]
        assert_same_bits(states[np.arange(len(states)), ends, row], h_n[:, row])


def test_layouts_agree() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((n, 3)).astype(np.float32) for n in (4, 6, 0)]
    ragged = fastrnn.Ragged.from_list(rows)
    layer = fastrnn.GRU(3, 5, 2, bidirectional=True, rng=0)
    first = fastrnn.GRU(3, 5, 2, bidirectional=True, batch_first=True, rng=0)
    whole = gradient_flow(layer, ragged.to_padded(), lengths=ragged.lengths)
    assert_same_bits(gradient_flow(layer, ragged), whole)
    assert_same_bits(gradient_flow(first, ragged), whole)
    assert_same_bits(gradient_flow(first, ragged.to_padded(batch_first=True), lengths=ragged.lengths), whole)
    dy = rng.standard_normal((4, 10)).astype(np.float32)
    assert_same_bits(gradient_flow(first, rows[0], dy), gradient_flow(layer, rows[0][:, None], dy[:, None]))
    assert hidden_states(layer, rows[0]).shape == (4, 4, 1, 5)


def test_states_are_those_of_a_call() -> None:
    rng = np.random.default_rng(0)
    layer = fastrnn.LSTM(2, 4, 2, proj_size=3, rng=0)
    x, h, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 1, 2), (2, 1, 3), (2, 1, 4)))
    for state in ((None, c), (h, None), (None, None), [h, c]):
        y, _ = layer(x, state)
        assert_same_bits(hidden_states(layer, x, state=state)[-1], y)
        one = tuple(None if s is None else s[:, 0] for s in state)
        assert_same_bits(hidden_states(layer, x[:, 0], state=one), hidden_states(layer, x, state=state))
        assert_same_bits(gradient_flow(layer, x[:, 0], state=one), gradient_flow(layer, x, state=state))


def test_the_gradient_of_a_ragged_batch_may_be_ragged() -> None:
    ragged = fastrnn.Ragged(np.ones((6, 2)), [2, 4])
    dy = fastrnn.Ragged(np.random.default_rng(0).standard_normal((6, 3)), [2, 4])
    for first in (False, True):
        layer = fastrnn.GRU(2, 3, batch_first=first, rng=0)
        whole = gradient_flow(layer, ragged, dy)
        assert_same_bits(gradient_flow(layer, ragged, dy.to_padded()), whole)
        x = ragged.to_padded(batch_first=first)
        assert_same_bits(gradient_flow(layer, x, dy, lengths=[2, 4]), whole)


def test_padding_reaches_nothing_and_nan_stays() -> None:
    layer = fastrnn.LSTM(2, 4, 2, bidirectional=True, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 2, 2))
    x[3:, 1] = np.nan
    flow = gradient_flow(layer, x, lengths=[5, 3])
    assert np.isfinite(flow).all()
    assert (hidden_states(layer, x, lengths=[5, 3])[:, 3:, 1] == 0).all()
    assert np.isnan(gradient_flow(layer, x)).any()


def test_vanishing_exploding_and_what_helps() -> None:
    """The remedies, each in one argument: the gradient is there after 200 steps, or it is not."""
    x = np.zeros((200, 1, 1))

    def ratio(layer: Any) -> float:
        state = np.ones((1, 1, 32)) if isinstance(layer, fastrnn.RNN) else None  # relu has no slope at 0
        flow = gradient_flow(layer, x, state=state)[0]
        return float(flow[0] / flow[-1])

    init = fastrnn.init
    assert ratio(fastrnn.RNN(1, 32, rng=0)) < 1e-20
    assert ratio(init.orthogonal(fastrnn.RNN(1, 32, rng=0), rng=0, gain=1.2)) > 1e-6
    assert ratio(init.identity(fastrnn.RNN(1, 32, nonlinearity="relu", rng=0))) == pytest.approx(1)
    assert ratio(
        init.identity(fastrnn.RNN(1, 32, nonlinearity="relu", dtype=np.float64), scale=1.1)
    ) == pytest.approx(1.1**199)
    plain, forget = fastrnn.LSTM(1, 32, rng=0), init.forget_bias(fastrnn.LSTM(1, 32, rng=0), 5.0)
    assert ratio(forget) > 1e6 * ratio(plain)


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().subplots(2)
    layer = fastrnn.RNN(1, 4, 2, rng=0)
    x = np.ones((6, 2, 1), np.float32)
    flow = gradient_flow(layer, x)
    assert plot_gradient_flow({"rnn": flow, "zero": np.zeros(6)}, ax=axes[0]) is axes[0]
    assert axes[0].get_yscale() == "log"
    lines = {line.get_label(): line.get_ydata() for line in axes[0].lines}
    assert_same_bits(lines["rnn h_n[1]"], flow[1])
    assert np.isnan(lines["zero"]).all()
    states = hidden_states(layer, x)
    assert plot_hidden_states(states, sequence=1, ax=axes[1]) is axes[1]
    assert_same_bits(np.asarray(axes[1].images[0].get_array()), states[-1, :, 1].T.astype(np.float64))
    with pytest.raises(ValueError, match=r"flow: expected shape \[T\]"):
        plot_gradient_flow(np.ones((2, 2, 2)), ax=axes[0])
    with pytest.raises(ValueError, match="states: expected shape"):
        plot_hidden_states(np.ones(3), ax=axes[1])


def test_plots_without_axes_make_a_figure() -> None:
    pytest.importorskip("matplotlib")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    ax = plot_gradient_flow([1.0, 0.1])
    assert ax.get_legend() is None
    pyplot.close(ax.figure)


@pytest.mark.parametrize("plot", [plot_gradient_flow, plot_hidden_states])
def test_plots_say_what_to_install(plot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=f"{plot.__name__} needs matplotlib: pip install"):
        plot(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda layer: gradient_flow(3, np.ones((2, 1, 1))), TypeError, "layer: expected an RNN, LSTM or"),
        (
            lambda layer: gradient_flow(layer, np.ones((2, 1, 3))),
            ValueError,
            r"x: expected shape \(T, B, 2\)",
        ),
        (
            lambda layer: gradient_flow(layer, np.ones((2, 1, 2)), wrt="c"),
            ValueError,
            "wrt: expected 'h' for a",
        ),
        (
            lambda layer: gradient_flow(layer, np.ones((2, 1, 2)), wrt="x"),
            ValueError,
            "wrt: expected 'h', 'c' or 'both'",
        ),
        (lambda layer: gradient_flow(layer, np.ones(2)), ValueError, r"x: expected shape .* got \(2,\)"),
        (lambda layer: gradient_flow(layer, np.ones((2, 2), int)), TypeError, "x: expected an array of real"),
        (
            lambda layer: gradient_flow(layer, np.ones((4, 1, 2)), np.ones((3, 1, 3))),
            ValueError,
            r"dy: expected \(4, 1\) steps and sequences, got \(3, 1\)",
        ),
        (
            lambda layer: gradient_flow(layer, np.ones((4, 1, 2)), np.ones((4, 1, 2))),
            ValueError,
            r"dy: expected shape \(T, B, 3\)",
        ),
        (
            lambda layer: hidden_states(layer, np.ones((4, 1, 2)), lengths=[5]),
            ValueError,
            "lengths: expected values from 0 to 4, got 5",
        ),
        (
            lambda layer: hidden_states(layer, fastrnn.Ragged(np.ones((4, 2)), [4]), lengths=[4]),
            ValueError,
            "lengths: expected None with a Ragged x",
        ),
        (
            lambda layer: hidden_states(layer, np.ones((4, 2)), lengths=[4]),
            ValueError,
            "lengths: expected None for an unbatched sequence, got an array",
        ),
        (
            lambda layer: hidden_states(layer, np.ones((4, 1, 2)), state=np.ones((2, 1, 3))),
            ValueError,
            r"state: expected shape \(1, 1, 3\), got \(2, 1, 3\)",
        ),
        (
            lambda layer: gradient_flow(layer, np.ones((4, 1, 2)), state=np.ones((1, 3))),
            ValueError,
            r"state: expected shape \(1, 1, 3\), got \(1, 3\)",
        ),
        (
            lambda layer: hidden_states(fastrnn.LSTM(2, 3), np.ones((4, 1, 2)), state=np.ones((1, 1, 3))),
            TypeError,
            r"state: expected a pair \(h, c\), got ndarray",
        ),
        (
            lambda layer: hidden_states(
                fastrnn.LSTM(2, 3, proj_size=2), np.ones((4, 1, 2)), state=(None, np.ones((1, 1, 2)))
            ),
            ValueError,
            r"state\[1\]: expected shape \(1, 1, 3\), got \(1, 1, 2\)",
        ),
        (
            lambda layer: gradient_flow(
                layer, fastrnn.Ragged(np.ones((6, 2)), [2, 4]), fastrnn.Ragged(np.ones((6, 3)), [4, 2])
            ),
            ValueError,
            r"dy: expected sequences of lengths \[2, 4\], got \[4, 2\]",
        ),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fastrnn.GRU(2, 3, rng=0))
