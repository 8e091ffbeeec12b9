"""RNNCell, LSTMCell and GRUCell: one step, forward and backward, equal to the layer's step bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import GATES, KIND, TOLERANCE, assert_gradient, assert_same_bits, numeric_gradient

import fastrnn
from fastrnn import reference

BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def make_cell(kind: str, I: int, H: int, bias: bool = True, dtype: Any = np.float32, seed: int = 0) -> Any:
    kwargs = {"dtype": dtype, "rng": np.random.default_rng(seed)}
    if kind == "lstm":
        return fastrnn.LSTMCell(I, H, bias, **kwargs)
    if kind.startswith("gru"):
        return fastrnn.GRUCell(I, H, bias, reset_after=kind == "gru", **kwargs)
    return fastrnn.RNNCell(I, H, bias, kind[4:], **kwargs)


def data(kind: str, B: int, I: int, H: int, dtype: Any) -> tuple[np.ndarray, Any, Any]:
    """x, a state, and the gradient of a state."""
    rng = np.random.default_rng(1)
    x, *state = (rng.standard_normal((B, n)).astype(dtype) for n in (I, H, H, H, H))
    return (x, tuple(state[:2]), tuple(state[2:])) if kind == "lstm" else (x, state[0], state[1])


@BIAS
@DTYPES
@KIND
def test_equals_reference(kind: str, dtype: Any, bias: bool) -> None:
    x, state, dstate = data(kind, 3, 5, 7, dtype)
    cell = make_cell(kind, 5, 7, bias, dtype)
    params = {key: p.astype(np.float64) for key, p in cell.params.items()}
    pair = kind == "lstm"
    step = reference.CELLS[kind]
    want, saved = step.forward(x, state if pair else (state,), params)
    grads = {key: np.zeros_like(p) for key, p in params.items()}
    dx, dwant = step.backward(dstate if pair else (dstate,), saved, params, grads)

    got, tape = cell.forward(x, state)
    g = cell.backward(tape, dstate)
    tolerance = TOLERANCE[np.dtype(dtype)]
    for one, other in zip(got if pair else (got,), want, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, **tolerance)
    for one, other in zip(g.state if pair else (g.state,), dwant, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)
    np.testing.assert_allclose(g.x, dx, **tolerance)
    assert list(g.params) == list(params)
    for key, value in grads.items():
        np.testing.assert_allclose(g.params[key], value, err_msg=key, **tolerance)
    assert_same_bits(cell(x, state), got)


@KIND
def test_equals_one_step_of_the_layer(kind: str) -> None:
    x, state, dstate = data(kind, 4, 6, 19, np.float32)
    cell = make_cell(kind, 6, 19)
    kwargs: dict[str, Any] = {"nonlinearity": kind[4:]} if kind.startswith("rnn") else {}
    if kind.startswith("gru"):
        kwargs["reset_after"] = kind == "gru"
    layer = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[kind.split("_")[0]](
        6, 19, **kwargs
    )
    layer.load_state_dict({key + "_l0": p for key, p in cell.params.items()})

    def one(s: Any) -> Any:
        return tuple(a[None] for a in s) if kind == "lstm" else s[None]

    _, want, tape = layer.forward(x[None], one(state))
    wanted = layer.backward(tape, None, one(dstate))
    got, tape = cell.forward(x, state)
    g = cell.backward(tape, dstate)
    assert_same_bits(one(got), want)
    assert_same_bits(one(g.state), wanted.state)
    assert_same_bits(g.x, wanted.x[0])
    assert_same_bits({key + "_l0": p for key, p in g.params.items()}, dict(wanted.params))


@BIAS
@KIND
def test_gradcheck(kind: str, bias: bool) -> None:
    x, state, dstate = data(kind, 2, 3, 4, np.float64)
    cell = make_cell(kind, 3, 4, bias, np.float64)
    states, dstates = (state, dstate) if kind == "lstm" else ((state,), (dstate,))

    def loss() -> float:
        new = cell(x, state)
        pairs = zip(new if kind == "lstm" else (new,), dstates, strict=True)
        return float(sum((s * d).sum() for s, d in pairs))

    _, tape = cell.forward(x, state)
    g = cell.backward(tape, dstate)
    pairs = [(x, g.x), *zip(states, g.state if kind == "lstm" else (g.state,), strict=True)]
    pairs += [(p, g.params[key]) for key, p in cell.params.items()]
    for array, gradient in pairs:
        assert_gradient(gradient, numeric_gradient(loss, array))


@KIND
def test_unbatched_and_without_state(kind: str) -> None:
    x, state, _ = data(kind, 1, 5, 7, np.float32)
    cell = make_cell(kind, 5, 7)
    pair = kind == "lstm"
    want = cell(x, state)
    got = cell(x[0], tuple(s[0] for s in state) if pair else state[0])
    assert_same_bits(tuple(s[None] for s in got) if pair else got[None], want)
    zeros = tuple(np.zeros_like(s) for s in state) if pair else np.zeros_like(state)
    assert_same_bits(cell(x), cell(x, zeros))


@BIAS
@KIND
def test_parameters(kind: str, bias: bool) -> None:
    cell = make_cell(kind, 5, 7, bias)
    rows = GATES[kind] * 7
    shapes = {"weight_ih": (rows, 5), "weight_hh": (rows, 7)}
    if bias:
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    assert {key: p.shape for key, p in cell.params.items()} == shapes
    assert list(cell.params) == list(shapes)
    cell.flat[:] = 0
    assert not any(p.any() for p in cell.params.values())


def test_options_are_shown() -> None:
    assert repr(fastrnn.RNNCell(3, 4, False, "relu")) == "RNNCell(3, 4, bias=False, nonlinearity='relu')"
    assert repr(fastrnn.GRUCell(3, 4, reset_after=False)) == "GRUCell(3, 4, reset_after=False)"


def test_a_gradient_may_be_a_list() -> None:
    cell = fastrnn.GRUCell(2, 3, rng=0)
    x, dh = np.ones((2, 2), np.float32), [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    want = cell.backward(cell.forward(x)[1], np.array(dh, np.float32))
    assert_same_bits(cell.backward(cell.forward(x)[1], dh).flat, want.flat)
