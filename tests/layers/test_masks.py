"""Masks: steps that are skipped, as Keras does, forward and backward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import (
    KINDS,
    Variant,
    as_tuple,
    assert_close,
    assert_gradient,
    assert_same_bits,
    both_dtypes,
    make_case,
    make_layer,
    numeric_gradient,
    run_layer,
    run_reference,
)

import fastrnn
from fastrnn import functional

TABLE = [
    Variant(kind, layers, T=7, B=4, **options)
    for kind in KINDS
    for layers, options in [
        (1, {}),
        (2, {"bidirectional": True}),
        (1, {"reverse": True}),
        (2, {"reverse": True}),
    ]
]
ROWS = pytest.mark.parametrize("rows", ["dense", "lengths", "reset", "lengths and reset"])


def mask_of(v: Variant, seed: int = 0) -> np.ndarray:
    """Return a mask [T, B] with gaps anywhere, all of one sequence and none of another."""
    mask = np.random.default_rng([seed, v.T, v.B]).random((v.T, v.B)) < 0.6
    mask[:, -1], mask[:, -2] = False, True
    return mask


@ROWS
@pytest.mark.parametrize("v", both_dtypes(TABLE), ids=str)
def test_equals_reference(v: Variant, rows: str) -> None:
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows} | {"mask": mask_of(v)}
    want = run_reference(v, case, **kwargs)
    layer = make_layer(v, case.params)
    assert_close(run_layer(layer, case, **kwargs), want, v.dtype)
    y, last = layer(case.x, case.state, **kwargs)
    np.testing.assert_allclose(y, want["y"], rtol=1.3e-6, atol=1e-5)
    np.testing.assert_allclose(as_tuple(last)[0], want["h_n"], rtol=1.3e-6, atol=1e-5)


@ROWS
@pytest.mark.parametrize(
    "v", [replace(v, I=2, H=3, T=5, dtype=np.float64) for v in TABLE if v.kind in ("lstm", "gru")], ids=str
)
def test_gradcheck(v: Variant, rows: str) -> None:
    case = make_case(v, seed=3)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows} | {"mask": mask_of(v)}
    layer = make_layer(v, case.params)

    def loss() -> float:
        y, last = layer(case.x, case.state, **kwargs)
        ends = zip(as_tuple(last), as_tuple(case.dstate), strict=True)
        return float((y * case.dy).sum() + sum((s * d).sum() for s, d in ends))

    got = run_layer(layer, case, **kwargs)
    inputs = {"dx": case.x} | {"d" + key: value for key, value in layer.params.items()}
    inputs |= {f"d{letter}_0": s for letter, s in zip("hc", as_tuple(case.state), strict=False)}
    for key, array in inputs.items():
        assert_gradient(got[key], numeric_gradient(loss, array), key)


def test_outputs_repeat_as_in_keras() -> None:
    """Numbers of the equation h_t = h_{t-1} + x_t, by hand: Keras 3 gives the same for its SimpleRNN."""
    params = {"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.ones((1, 1))}
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0]).reshape(5, 1, 1)
    mask = np.array([[False], [True], [False], [True], [False]])
    y, h = functional.rnn(x, np.full((1, 1, 1), 10.0), params, nonlinearity="relu", mask=mask)
    assert y.ravel().tolist() == [0.0, 12.0, 12.0, 16.0, 16.0]
    assert h.item() == 16.0
    y, h = functional.rnn(x, None, params, nonlinearity="relu", mask=mask, reverse=True)
    assert y.ravel().tolist() == [6.0, 6.0, 4.0, 4.0, 0.0]
    assert h.item() == 6.0


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_the_steps_that_are_taken_have_the_bits_of_a_ragged(v: Variant) -> None:
    case, mask = make_case(v), mask_of(v)
    layer = make_layer(v, case.params)
    kept = fastrnn.Ragged.from_list([case.x[mask[:, b], b] for b in range(v.B)])
    want, last, want_tape = layer.forward(kept, case.state)
    y, got_last, tape = layer.forward(case.x, case.state, mask=mask)
    assert_same_bits(np.concatenate([y[mask[:, b], b] for b in range(v.B)]), want.values)
    assert_same_bits(got_last, last)
    alone = np.where(mask[..., None], case.dy, 0).astype(v.dtype)  # no gradient where outputs repeat
    g = layer.backward(tape, alone, case.dstate)
    of_kept = fastrnn.Ragged.from_list([case.dy[mask[:, b], b] for b in range(v.B)])
    want_g = layer.backward(want_tape, of_kept, case.dstate)
    assert_same_bits(g.flat, want_g.flat)
    assert_same_bits(np.concatenate([g.x[mask[:, b], b] for b in range(v.B)]), want_g.x.values)
    assert not g.x[~mask].any()


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_layouts(v: Variant) -> None:
    """Batch first, unbatched, Ragged, frozen, checkpoints, lists: the bits of the same batch."""
    case, mask = make_case(v), mask_of(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case, mask=mask)
    first = make_layer(v, case.params, batch_first=True)
    y, _, tape = first.forward(case.x.swapaxes(0, 1), case.state, mask=mask.T, checkpoint=2)
    assert_same_bits(np.ascontiguousarray(y.swapaxes(0, 1)), want["y"])
    g = first.backward(tape, case.dy.swapaxes(0, 1), case.dstate)
    assert_same_bits(np.ascontiguousarray(g.x.swapaxes(0, 1)), want["dx"])
    layer.freeze()
    assert_same_bits(layer(case.x.tolist(), case.state, mask=mask.tolist())[0], want["y"])

    one = [
        tuple(s[:, 0] for s in state) if v.states == 2 else state[:, 0] for state in (case.state, case.dstate)
    ]
    y, last, tape = layer.forward(case.x[:, 0], one[0], mask=mask[:, 0])
    assert_same_bits(y, np.ascontiguousarray(want["y"][:, 0]))
    assert_same_bits(as_tuple(last)[0], np.ascontiguousarray(want["h_n"][:, 0]))
    g = layer.backward(tape, case.dy[:, 0], one[1])
    assert_same_bits(g.x, np.ascontiguousarray(want["dx"][:, 0]))
    assert_same_bits(as_tuple(g.state)[0], np.ascontiguousarray(want["dh_0"][:, 0]))

    padded = run_layer(layer, case, mask=mask, lengths=case.lengths)
    ragged, flags, dy = (fastrnn.Ragged.from_padded(a, case.lengths) for a in (case.x, mask, case.dy))
    y, _, tape = layer.forward(ragged, case.state, mask=flags.values)
    assert_same_bits(y.values, fastrnn.Ragged.from_padded(padded["y"], case.lengths).values)
    g = layer.backward(tape, dy, case.dstate)
    assert_same_bits(g.x.values, fastrnn.Ragged.from_padded(padded["dx"], case.lengths).values)
    assert_same_bits(
        layer.backward(layer.forward(ragged, mask=flags.values)[2], dy.values).x.lengths, g.x.lengths
    )


@pytest.mark.parametrize("v", [v for v in TABLE if v.num_layers == 2], ids=str)
def test_dy_last_and_layers(v: Variant) -> None:
    case, mask = make_case(v), mask_of(v)
    layer = make_layer(v, case.params)
    for lengths in (None, case.lengths):
        n = np.full(v.B, v.T) if lengths is None else lengths
        dy = np.zeros_like(case.dy)
        dy[np.maximum(n - 1, 0), np.arange(v.B)] = case.dy[0] * (n > 0)[:, None]
        kwargs = {"mask": mask, "lengths": lengths}
        want = run_layer(layer, case, dy, **kwargs)
        assert_same_bits(run_layer(layer, case, None, dy_last=case.dy[0], **kwargs), want)
    y, _, tape, layers = layer.forward(case.x, case.state, mask=mask, return_layers=True)
    assert len(layers) == 2
    assert layers[1] is y
    below = make_layer(replace(v, num_layers=1), {k: a for k, a in case.params.items() if "_l0" in k})
    state = tuple(s[: v.D] for s in as_tuple(case.state))
    assert_same_bits(layers[0], below(case.x, state if v.states == 2 else state[0], mask=mask)[0])
    got = layer.backward(tape, dlayers=[case.dy, None])
    want_g = below.backward(
        below.forward(case.x, state if v.states == 2 else state[0], mask=mask)[2], case.dy
    )
    np.testing.assert_allclose(got.x, want_g.x, rtol=1e-5, atol=1e-6)


def test_all_steps_are_the_call_without_a_mask() -> None:
    v = Variant("lstm", 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    assert_same_bits(run_layer(layer, case, mask=np.ones((v.T, v.B), bool)), want)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (3, 2)])
def test_no_steps(shape: tuple[int, int]) -> None:
    layer = fastrnn.GRU(3, 4, learned_state=True, rng=0)
    x, mask = np.ones((*shape, 3), np.float32), np.zeros(shape, bool)
    y, h, tape = layer.forward(x, mask=mask)
    assert y.shape == (*shape, 4)
    assert not y.any()
    assert h.shape == (1, shape[1], 4)
    assert layer.backward(tape, y).x.shape == x.shape


X = np.ones((4, 2, 3), np.float32)
M = np.ones((4, 2), bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda n: n(X, mask=M[:3]), ValueError, r"mask: expected shape \(4, 2\), got \(3, 2\)"),
        (lambda n: n(X, mask=M * 1.0), TypeError, "mask: expected an array of bool, got an array of float64"),
        (lambda n: n(None, mask=M, steps=4), ValueError, "steps: expected None with a mask, got 4"),
        (lambda n: n(None, mask=M), ValueError, "mask: expected None where x is None"),
        (lambda n: n(X[..., :2], mask=M), ValueError, r"x: expected shape \(T, B, 3\)"),
        (
            lambda n: n(X[:, 0], mask=M[:, 0], lengths=[2]),
            ValueError,
            "lengths: expected None for an unbatched",
        ),
        (lambda n: n(X, mask=M, lengths=[5, 1]), ValueError, "lengths: expected values from 0 to 4"),
        (lambda n: n(X, mask=M, reset=M[:2]), ValueError, "reset: expected"),
        (
            lambda n: n(fastrnn.Ragged(X[:, 0], [4]), mask=M[:, 0], lengths=[4]),
            ValueError,
            "lengths: expected None with a Ragged x",
        ),
        (
            lambda n: n.backward(n.forward(X, mask=M)[2], X[:2]),
            ValueError,
            r"dy: expected shape \(4, 2, 4\), got \(2, 2, 3\)",
        ),
        (
            lambda n: n.backward(n.forward(X, mask=M)[2], fastrnn.Ragged(np.ones((4, 4)), [4])),
            ValueError,
            "dy: expected an array",
        ),
        (
            lambda n: n.backward(n.forward(X, mask=M)[2], np.ones((4, 2, 4)), dy_last=np.ones((2, 4))),
            ValueError,
            "dy_last: expected None where dy is given",
        ),
        (
            lambda n: n.backward(n.forward(X, mask=M)[2], dy_last=np.ones((3, 4))),
            ValueError,
            r"dy_last: expected shape \(2, 4\)",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fastrnn.GRU(3, 4, rng=0))


def test_a_tape_serves_once_and_knows_its_parameters() -> None:
    layer = fastrnn.GRU(3, 4, rng=0)
    y, _, tape = layer.forward(X, mask=M)
    assert tape.nbytes > 0
    layer.backward(tape, y)
    with pytest.raises(ValueError, match="tape: expected an unused tape"):
        layer.backward(tape, y)
    _, _, tape = layer.forward(X, mask=M)
    layer.flat = layer.flat * 2
    with pytest.raises(ValueError, match="tape: expected the parameters to be those of its forward"):
        layer.backward(tape, y)
