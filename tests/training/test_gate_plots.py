"""Diagnostics of layers with options of directions, gradients of both states, and the plot of gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import KIND, Variant, as_tuple, assert_same_bits, make_case, make_layer

import fastrnn
from fastrnn.diagnostics import gradient_flow, hidden_states, plot_gates, plot_gradient_flow


@pytest.fixture
def pyplot() -> Iterator[Any]:
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@KIND
def test_reverse_is_the_second_direction(kind: str) -> None:
    v = Variant(kind, 1, True, dtype=np.float64)
    case = make_case(v)
    both = make_layer(v, case.params)
    params = {k.removesuffix("_reverse"): a for k, a in case.params.items() if k.endswith("_reverse")}
    one = make_layer(replace(v, bidirectional=False, reverse=True), params)
    kwargs = {"lengths": case.lengths}
    assert_same_bits(hidden_states(one, case.x, **kwargs)[0], hidden_states(both, case.x, **kwargs)[1])
    dy = case.dy[..., v.H :]
    assert_same_bits(
        gradient_flow(one, case.x, dy, **kwargs)[0], gradient_flow(both, case.x, case.dy, **kwargs)[1]
    )
    assert_same_bits(gradient_flow(one, case.x, **kwargs)[0], gradient_flow(both, case.x, **kwargs)[1])


@pytest.mark.parametrize("merge", ["sum", "mul", "ave"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_merged_directions(kind: str, merge: str) -> None:
    v = Variant(kind, 2, True, merge=merge, dtype=np.float64)
    case = make_case(v)
    layer = make_layer(v, case.params)
    h = hidden_states(layer, case.x, state=case.state)
    y, _ = layer(case.x, case.state)
    a, b = h[2:]
    np.testing.assert_allclose({"sum": a + b, "mul": a * b, "ave": (a + b) / 2}[merge], y, rtol=1e-12)
    # dL/dh of the first step of the reverse direction is all that reaches its output at the last time
    flow = gradient_flow(layer, case.x, case.dy, state=case.state)
    direct = {"sum": case.dy[0], "mul": case.dy[0] * a[0], "ave": case.dy[0] / 2}[merge]
    assert flow[3, 0] == pytest.approx(np.linalg.norm(direct))
    # without later steps, dL/dh of the layer below is what goes through the input weights of the layer above
    one = gradient_flow(layer, case.x[:1], case.dy[:1], state=case.state)
    eps, total = 1e-6, 0.0
    upper = make_layer(
        replace(v, num_layers=1, I=v.H),
        {name.replace("_l1", "_l0"): array for name, array in case.params.items() if "_l1" in name},
    )
    state = tuple(s[2:] for s in as_tuple(case.state))
    h0, h1 = hidden_states(layer, case.x[:1], state=case.state)[:2]
    for i in np.ndindex(h0.shape):
        sides = []
        for step in (eps, -eps):
            changed = h0.copy()
            changed[i] += step
            joined = {"sum": changed + h1, "mul": changed * h1, "ave": (changed + h1) / 2}[merge]
            sides.append((upper(joined, state if v.states == 2 else state[0])[0] * case.dy[:1]).sum())
        total += ((sides[0] - sides[1]) / (2 * eps)) ** 2
    assert one[0, 0] == pytest.approx(np.sqrt(total), rel=1e-6)


@KIND
def test_a_learned_state_is_where_it_begins(kind: str) -> None:
    v = Variant(kind, 2, True, learned_state=True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    y, _ = layer(case.x)
    assert_same_bits(np.concatenate(list(hidden_states(layer, case.x)[2:]), axis=2), y)
    first = tuple(np.repeat(case.params[n][:, None], v.B, axis=1) for n in ("h_0", "c_0")[: v.states])
    want = gradient_flow(layer, case.x, state=first if v.states == 2 else first[0])
    assert_same_bits(gradient_flow(layer, case.x), want)


def test_both_gradients_side_by_side(pyplot: Any) -> None:
    layer = fastrnn.LSTM(2, 5, 2, rng=0)
    x = np.random.default_rng(0).standard_normal((7, 3, 2)).astype(np.float32)
    both = gradient_flow(layer, x, wrt="both")
    assert list(both) == ["dL/dh", "dL/dc"]
    assert_same_bits(both["dL/dh"], gradient_flow(layer, x))
    assert_same_bits(both["dL/dc"], gradient_flow(layer, x, wrt="c"))
    ax = plot_gradient_flow(both)
    labels = [line.get_label() for line in ax.lines]
    assert labels == ["dL/dh h_n[0]", "dL/dh h_n[1]", "dL/dc h_n[0]", "dL/dc h_n[1]"]
    assert ax.get_ylabel() == "norm of the gradient"
    assert plot_gradient_flow(both["dL/dh"]).get_ylabel() == "norm of dL/dh_t"
    with pytest.raises(ValueError, match="wrt: expected 'h' for a layer without c, got 'both'"):
        gradient_flow(fastrnn.GRU(2, 5), x, wrt="both")


def test_gates_over_a_sentence(pyplot: Any) -> None:
    words = ["the", "cat", "sat", "down"]
    layer = fastrnn.LSTM(2, 5, bidirectional=True, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    inside = layer.trace(x)
    axes = plot_gates(inside, "l0_reverse", sequence=1, steps=words)
    assert [ax.get_ylabel() for ax in axes] == ["i", "f", "g", "o", "c", "h"]
    assert [label.get_text() for label in axes[-1].get_xticklabels()] == words
    for ax, name in zip(axes, "ifgoch", strict=True):
        drawn = np.asarray(ax.images[0].get_array())
        np.testing.assert_array_equal(drawn, inside[f"{name}_l0_reverse"][:, 1].T.astype(np.float64))
    assert axes[0].images[0].get_clim() == (0.0, 1.0)
    low, high = axes[4].images[0].get_clim()
    assert -low == high > 0


def test_gates_of_other_layers_and_layouts(pyplot: Any) -> None:
    x = np.ones((3, 4, 2), np.float32)  # [B, T, I]
    gru = fastrnn.GRU(2, 5, 2, batch_first=True, rng=0)
    inside = gru.trace(x)
    axes = plot_gates(inside, "l1", sequence=2, batch_first=True)
    assert [ax.get_ylabel() for ax in axes] == ["r", "z", "n", "h"]
    assert axes[0].images[0].get_array().shape == (5, 4)
    assert axes[-1].get_xlabel() == "step t"
    rnn = fastrnn.RNN(2, 5, rng=0)
    (ax,) = plot_gates(rnn.trace(x[0]))
    assert ax.get_ylabel() == "h"
    (ax,) = plot_gates(rnn.trace(x[0]), names=["a"])
    ragged = fastrnn.Ragged.from_list([x[0], x[1, :2]])
    (ax,) = plot_gates(rnn.trace(ragged), sequence=1)
    assert ax.images[0].get_array().shape == (5, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "l3"}, "part: expected the end of a name in the trace, got 'l3'"),
        ({"names": ["i", "x"]}, r"names: expected some of \['i', 'f', 'g', 'o', 'c', .*\], got 'x'"),
        ({"names": []}, "names: expected some of .*, got none"),
        ({"steps": ["a"]}, "steps: expected 4 labels, got 1"),
    ],
)
def test_bad_calls(arguments: Any, message: str, pyplot: Any) -> None:
    inside = fastrnn.LSTM(2, 5, rng=0).trace(np.ones((4, 2), np.float32))
    with pytest.raises(ValueError, match=message):
        plot_gates(inside, **arguments)


def test_the_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = fastrnn.LSTM(2, 5, rng=0).trace(np.ones((4, 2), np.float32))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match="plot_gates needs matplotlib: pip install"):
        plot_gates(inside)
