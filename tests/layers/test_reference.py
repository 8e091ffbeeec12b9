"""The oracle itself: against PyTorch, and by finite differences where PyTorch has no such thing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import (
    KINDS,
    Variant,
    assert_close,
    assert_gradient,
    make_case,
    make_torch,
    numeric_gradient,
    run_reference,
    run_torch,
    variants,
)

from fastrnn import reference

F64 = variants(dtype=np.float64, I=3, H=5)
F64_TORCH = [v for v in F64 if v.kind != "gru_before" and not v.options]


@pytest.mark.parametrize("v", F64_TORCH, ids=str)
def test_equals_torch(v: Variant) -> None:
    case = make_case(v)
    assert_close(run_reference(v, case), run_torch(make_torch(v, case.params), case), np.float64)


@pytest.mark.parametrize("v", F64_TORCH, ids=str)
def test_lengths_equal_packed_sequences(v: Variant) -> None:
    case = make_case(replace(v, B=4))
    lengths = np.array([2, v.T, 1, 4])
    want = run_torch(make_torch(v, case.params), case, lengths)
    case.x[np.arange(v.T)[:, None] >= lengths] = np.nan  # nothing may come of the padding
    case.dy[np.arange(v.T)[:, None] >= lengths] = np.inf
    assert_close(run_reference(v, case, lengths=lengths), want, np.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ["dense", "lengths", "reset", "lengths and reset"])
def test_gradients_by_finite_differences(kind: str, rows: str) -> None:
    v = Variant(kind, 2, True, True, 2 if kind == "lstm" else 0, I=2, H=3, T=4, B=3, dtype=np.float64)
    case = make_case(v)
    rng = np.random.default_rng(1)
    kwargs = {"masks": [rng.uniform(0.5, 2, (v.T, v.B, v.D * v.out))]}
    if "lengths" in rows:
        kwargs["lengths"] = case.lengths
    if "reset" in rows:
        kwargs["reset"] = case.reset
    pair = isinstance(case.state, tuple)
    states, dstates = (case.state, case.dstate) if pair else ((case.state,), (case.dstate,))

    def loss() -> float:
        y, last, _ = reference.forward(kind, case.x, case.state, case.params, **kwargs)
        ends = zip(last if pair else (last,), dstates, strict=True)
        return float((y * case.dy).sum() + sum((s * d).sum() for s, d in ends))

    got = run_reference(v, case, **kwargs)
    inputs = {"dx": case.x} | {"d" + key: value for key, value in case.params.items()}
    inputs |= {f"d{letter}_0": s for letter, s in zip("hc", states, strict=False)}
    for key, array in inputs.items():
        assert_gradient(got[key], numeric_gradient(loss, array), key)


def test_reset_before_multiplies_before_the_recurrent_product() -> None:
    """One step by hand, with the equation of Cho et al. 2014."""
    v = Variant("gru_before", I=2, H=3, T=1, B=1, dtype=np.float64)
    case = make_case(v)
    W, R = (case.params[key].reshape(3, 3, -1) for key in ("weight_ih_l0", "weight_hh_l0"))
    b_i, b_h = (case.params[key].reshape(3, 3) for key in ("bias_ih_l0", "bias_hh_l0"))
    x, h = case.x[0, 0], case.state[0, 0]
    r = 1 / (1 + np.exp(-(W[0] @ x + b_i[0] + R[0] @ h + b_h[0])))
    z = 1 / (1 + np.exp(-(W[1] @ x + b_i[1] + R[1] @ h + b_h[1])))
    n = np.tanh(W[2] @ x + b_i[2] + R[2] @ (r * h) + b_h[2])
    y, _, _ = reference.forward("gru_before", case.x, case.state, case.params)
    np.testing.assert_allclose(y[0, 0], (1 - z) * n + z * h, rtol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_equals_independent_segments(kind: str) -> None:
    """Forward direction: cut the sequence at the boundary and start again from zeros."""
    v = Variant(kind, T=6, B=1, dtype=np.float64)
    case = make_case(v)
    reset = np.zeros((6, 1), bool)
    reset[[2, 5]] = True
    y, last, _ = reference.forward(kind, case.x, case.state, case.params, reset=reset)
    state = case.state
    for segment in (slice(0, 2), slice(2, 5), slice(5, 6)):
        want, end, _ = reference.forward(kind, case.x[segment], state, case.params)
        np.testing.assert_array_equal(y[segment], want)
        state = None
    np.testing.assert_array_equal(last, end)


@pytest.mark.parametrize("kind", KINDS)
def test_reverse_direction_is_cut_at_the_same_boundary(kind: str) -> None:
    """The reverse half equals the forward half on flipped segments; the last one has the initial state."""
    v = Variant(kind, 1, True, T=5, B=1, dtype=np.float64)
    case = make_case(v)
    reset = np.array([[True], [False], [False], [True], [False]])
    y, last, _ = reference.forward(kind, case.x, case.state, case.params, reset=reset)
    params = {key[:-8]: value for key, value in case.params.items() if key.endswith("_reverse")}
    h_0 = tuple(s[1:] for s in case.state) if v.states == 2 else case.state[1:]
    late, _, _ = reference.forward(kind, case.x[3:][::-1], h_0, params)
    early, end, _ = reference.forward(kind, case.x[:3][::-1], None, params)
    np.testing.assert_array_equal(y[:, :, v.H :], np.concatenate([early[::-1], late[::-1]]))
    last, end = (last[0], end[0]) if v.states == 2 else (last, end)
    np.testing.assert_array_equal(last[1:], end)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_length_zero_keep_their_state(kind: str) -> None:
    v = Variant(kind, 2, True, T=3, B=2, dtype=np.float64)
    case = make_case(v)
    y, last, tape = reference.forward(
        kind, case.x, case.state, case.params, lengths=[0, 3], reset=np.ones((3, 2))
    )
    assert not y[:, 0].any()
    dx, dfirst, _ = reference.backward(tape, case.dy, case.dstate)
    assert not dx[:, 0].any()
    pairs = [(last, case.state), (dfirst, case.dstate)]
    for got, want in pairs if v.states == 1 else [p for a, b in pairs for p in zip(a, b, strict=True)]:
        np.testing.assert_array_equal(got[:, 0], want[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_equals_zeros(kind: str) -> None:
    v = Variant(kind, 2, True, dtype=np.float64)
    case = make_case(v)
    y, _, _ = reference.forward(kind, None, case.state, case.params, steps=4)
    want, _, _ = reference.forward(kind, np.zeros((4, v.B, v.I)), case.state, case.params)
    np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_float32(kind: str) -> None:
    v = Variant(kind, 2, True, proj_size=3 if kind == "lstm" else 0)
    case = make_case(v)
    y, last, tape = reference.forward(kind, case.x, case.state, case.params)
    dx, dfirst, dparams = reference.backward(tape, case.dy, case.dstate)
    arrays = [
        y,
        dx,
        *dparams.values(),
        *(last if v.states == 2 else [last]),
        *(dfirst if v.states == 2 else [dfirst]),
    ]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    np.testing.assert_allclose(y, run_reference(v, case)["y"], rtol=1.3e-6, atol=1e-5)
