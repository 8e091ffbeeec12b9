"""Every variant that PyTorch has too: outputs, states and all gradients, dense and packed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import (
    Variant,
    assert_close,
    both_dtypes,
    make_case,
    make_layer,
    make_torch,
    run_layer,
    run_torch,
    variants,
)

torch = pytest.importorskip("torch", reason="torch is not installed, so nothing is compared with PyTorch")
# torch says that its own projections are slow
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
TABLE = [v for v in both_dtypes(variants(I=6, H=9, T=7, B=4)) if v.kind != "gru_before" and not v.options]


def assert_alike(got: np.ndarray, want: np.ndarray) -> None:
    """Numbers close to each other, of one shape and dtype."""
    assert (got.shape, got.dtype) == (
        want.shape,
        want.dtype,
    )  # NumPy 1.26 has no `strict` for assert_allclose
    np.testing.assert_allclose(got, want, rtol=1.3e-6, atol=1e-5)


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_dense(v: Variant) -> None:
    case = make_case(v)
    want = run_torch(make_torch(v, case.params), case)
    assert_close(run_layer(make_layer(v, case.params), case), want, v.dtype)


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_packed(v: Variant) -> None:
    case = make_case(v)
    lengths = np.array([3, 7, 1, 5])
    want = run_torch(make_torch(v, case.params), case, lengths)
    assert_close(run_layer(make_layer(v, case.params), case, lengths=lengths), want, v.dtype)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("kind", ["rnn_tanh", "lstm", "gru"])
def test_shapes_of_outputs(kind: str, batched: bool, batch_first: bool) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    net = make_torch(v, case.params, batch_first=batch_first)
    layer = make_layer(v, case.params, batch_first=batch_first)
    x = case.x.transpose(1, 0, 2) if batch_first else case.x
    x = x.copy() if batched else case.x[:, 0].copy()
    with torch.no_grad():
        want_y, want_last = net(torch.from_numpy(x))
    y, last = layer(x)
    assert_alike(y, want_y.numpy())
    pairs = zip(last, want_last, strict=True) if v.states == 2 else [(last, want_last)]
    for got, want in pairs:
        assert_alike(got, want.numpy())


@pytest.mark.parametrize(
    "v", [replace(v, B=1) for v in TABLE if v.dtype == np.float64 and v.num_layers == 2], ids=str
)
def test_state_dict_goes_both_ways(v: Variant) -> None:
    layer = make_layer(v)
    net = make_torch(v, dict(layer.state_dict()))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[key].numpy(), value)
    torch.nn.init.normal_(net.weight_hh_l0)
    layer.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(layer.params["weight_hh_l0"], net.weight_hh_l0.detach().numpy())


@pytest.mark.parametrize("kind", ["rnn_tanh", "rnn_relu", "lstm", "gru"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(kind: str, bias: bool) -> None:
    import fastrnn

    rng = np.random.default_rng(0)
    x, h, c, dh, dc = (rng.standard_normal((3, n)).astype(np.float32) for n in (5, 7, 7, 7, 7))
    if kind.startswith("rnn"):
        cell = fastrnn.RNNCell(5, 7, bias, nonlinearity=kind[4:])
        net = torch.nn.RNNCell(5, 7, bias, nonlinearity=kind[4:])
    else:
        cell = {"lstm": fastrnn.LSTMCell, "gru": fastrnn.GRUCell}[kind](5, 7, bias)
        net = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[kind](5, 7, bias)
    net.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in cell.state_dict().items()})
    states, dstates = ((h, c), (dh, dc)) if kind == "lstm" else ((h,), (dh,))

    leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, *states)]
    new = net(leaves[0], tuple(leaves[1:]) if kind == "lstm" else leaves[1])
    new = new if kind == "lstm" else (new,)
    torch.autograd.backward(list(new), [torch.from_numpy(d) for d in dstates])

    got, tape = cell.forward(x, states if kind == "lstm" else h)
    g = cell.backward(tape, dstates if kind == "lstm" else dh)
    pairs = [(g.x, leaves[0].grad)]
    pairs += list(zip(got if kind == "lstm" else [got], [s.detach() for s in new], strict=True))
    pairs += list(zip(g.state if kind == "lstm" else [g.state], [s.grad for s in leaves[1:]], strict=True))
    pairs += [(g.params[key], p.grad) for key, p in net.named_parameters()]
    for one, other in pairs:
        assert_alike(one, other.numpy())
