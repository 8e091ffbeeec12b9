"""Sequences as people have them: of unequal length, with resets, without inputs, with a loss at the last step only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import (
    KIND,
    Variant,
    as_tuple,
    assert_close,
    assert_same_bits,
    both_dtypes,
    make_case,
    make_layer,
    padding,
    run_layer,
    run_reference,
    same_structure,
    variants,
)

import fastrnn


@pytest.mark.parametrize("filler", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("v", both_dtypes(variants(B=5)), ids=str)
def test_padding_reaches_nothing(v: Variant, filler: float) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    pad = padding(v, case.lengths)
    case.x[pad] = case.dy[pad] = 0
    want = run_layer(layer, case, lengths=case.lengths)
    want_y, want_last = layer(case.x, case.state, lengths=case.lengths)
    case.x[pad] = case.dy[pad] = filler
    assert_same_bits(run_layer(layer, case, lengths=case.lengths), want)
    y, last = layer(case.x, case.state, lengths=case.lengths)
    assert_same_bits(y, want_y)
    assert_same_bits(last, want_last)
    assert not y[pad].any()
    assert not want["dx"][pad].any()


@KIND
def test_resets_in_the_padding_reach_nothing(kind: str) -> None:
    v = Variant(kind, 2, True, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case, lengths=case.lengths, reset=case.reset & ~padding(v, case.lengths))
    got = run_layer(layer, case, lengths=case.lengths, reset=case.reset | padding(v, case.lengths))
    assert_same_bits(got, want)


@KIND
def test_rows_of_length_zero_return_their_state(kind: str) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    case.x[...] = np.nan
    lengths = np.zeros(v.B, int)
    got = run_layer(make_layer(v, case.params), case, lengths=lengths)
    assert not got["y"].any()
    assert not got["dx"].any()
    for letter, start, dlast in zip("hc", as_tuple(case.state), as_tuple(case.dstate), strict=False):
        assert_same_bits(got[letter + "_n"], start)
        np.testing.assert_array_equal(got[f"d{letter}_0"], dlast)
    assert not any(value.any() for key, value in got.items() if key.startswith(("dweight", "dbias")))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.int64, ">i4"])
def test_lengths_of_any_integer_type(dtype: Any) -> None:
    v = Variant("gru", B=4)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = layer(case.x, lengths=[6, 0, 3, 1])[0]
    assert_same_bits(layer(case.x, lengths=np.array([6, 0, 3, 1], dtype))[0], want)
    assert_same_bits(layer(case.x, lengths=np.array([6, 9, 0, 9, 3, 9, 1, 9], dtype)[::2])[0], want)


def test_lengths_at_an_odd_address() -> None:
    """They are copied to where the core may read them."""
    memory = np.zeros(3 * 8 + 1, np.uint8)
    lengths = memory[1:].view(np.int64)
    lengths[:] = [2, 0, 4]
    layer, x = fastrnn.GRU(2, 3, rng=0), np.ones((4, 3, 2), np.float32)
    assert np.array_equal(layer(x, lengths=lengths)[0], layer(x, lengths=[2, 0, 4])[0])
    assert fastrnn.Ragged(np.ones((6, 2), np.float32), lengths).lengths.flags.aligned


@KIND
def test_lengths_with_batch_first(kind: str) -> None:
    v = Variant(kind, 2, True, B=5)
    case = make_case(v)
    want = run_layer(make_layer(v, case.params), case, lengths=case.lengths, reset=case.reset)
    layer = make_layer(v, case.params, batch_first=True)

    def turn(a: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(a.swapaxes(0, 1))

    y, _, tape = layer.forward(turn(case.x), case.state, lengths=case.lengths, reset=turn(case.reset))
    g = layer.backward(tape, turn(case.dy), case.dstate)
    assert_same_bits(turn(y), want["y"])
    assert_same_bits(turn(g.x), want["dx"])
    assert_same_bits(g.params["weight_hh_l1"], want["dweight_hh_l1"])


@pytest.mark.parametrize("v", [v for v in both_dtypes(variants(T=9)) if v.bias], ids=str)
def test_resets_equal_a_loop_over_segments(v: Variant) -> None:
    """As a recurrent policy meets them: an episode ends somewhere in a row and the next one begins."""
    case = make_case(v)
    got = run_layer(make_layer(v, case.params), case, reset=case.reset)
    assert_close(got, run_reference(v, case, reset=case.reset), v.dtype)
    if v.bidirectional:
        return  # the loop below only goes forward; `test_resets_equal_independent_segments` has both
    layer = make_layer(v, case.params)
    for b in range(v.B):
        state = same_structure(v, (s[:, b : b + 1] for s in as_tuple(case.state)))
        for t in range(v.T):
            if case.reset[t, b]:
                state = same_structure(v, (np.zeros_like(s) for s in as_tuple(state)))
            y, state = layer(case.x[t : t + 1, b : b + 1], state)
            assert_same_bits(y[0, 0], got["y"][t, b])
        assert_same_bits(as_tuple(state)[0][:, 0], got["h_n"][:, b])


@KIND
def test_no_gradient_crosses_a_reset(kind: str) -> None:
    v = Variant(kind, 2, True, T=6, B=2)
    case = make_case(v)
    reset = np.zeros((v.T, v.B), bool)
    reset[3] = True
    layer = make_layer(v, case.params)
    case.dy[:3] = 0
    got = run_layer(layer, case, dstate=None, reset=reset)
    assert not got["dx"][:3].any()
    assert got["dx"][3:].any()
    assert not got["dh_0"][::2].any()
    assert got["dh_0"][1::2].any()


@pytest.mark.parametrize("v", both_dtypes(variants()), ids=str)
def test_no_input(v: Variant) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    case.x[...] = 0
    want = run_reference(v, case)
    y, last, tape = layer.forward(None, case.state, steps=v.T)
    g = layer.backward(tape, case.dy, case.dstate)
    assert g.x is None
    got = {"y": y, "h_n": as_tuple(last)[0], "dh_0": as_tuple(g.state)[0]}
    got |= {"d" + key: value for key, value in g.params.items()}
    assert_close(got, {key: want[key] for key in got}, v.dtype)
    assert_same_bits(layer(None, case.state, steps=v.T)[0], y)


@KIND
def test_no_input_with_lengths_and_resets(kind: str) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    case.x[...] = 0
    want = run_reference(v, case, lengths=case.lengths, reset=case.reset)
    layer = make_layer(v, case.params)
    y, _ = layer(None, case.state, steps=v.T, lengths=case.lengths, reset=case.reset)
    np.testing.assert_allclose(y, want["y"], rtol=1.3e-6, atol=1e-5)


def test_a_state_of_c_alone_says_how_many_rows_there_are() -> None:
    layer, c0 = fastrnn.LSTM(3, 4, rng=0), np.ones((1, 5, 4), np.float32)
    y, _ = layer(None, (None, c0), steps=3)
    assert_same_bits(y, layer(None, (np.zeros((1, 5, 4), np.float32), c0), steps=3)[0])


@pytest.mark.parametrize("rows", ["dense", "lengths"])
@pytest.mark.parametrize("v", variants(B=5), ids=str)
def test_gradient_of_the_last_step_only(v: Variant, rows: str) -> None:
    """dy_last [B, D*H] belongs to each row's last valid step."""
    case = make_case(v)
    kwargs = {"lengths": case.lengths} if rows == "lengths" else {}
    lengths = case.lengths if rows == "lengths" else np.full(v.B, v.T)
    last_dy = case.dy[0].copy()
    case.dy[...] = 0
    for b, n in enumerate(lengths):
        if n:
            case.dy[n - 1, b] = last_dy[b]
    want = run_reference(v, case, **kwargs)
    got = run_layer(make_layer(v, case.params), case, None, dy_last=last_dy, **kwargs)
    assert_close(got, want, v.dtype)


@pytest.mark.parametrize("v", both_dtypes(variants()), ids=str)
def test_freeze(v: Variant) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    layer.freeze()
    assert_same_bits(layer(case.x, case.state)[0], want["y"])
    assert_same_bits(run_layer(layer, case), want)
    assert not layer.flat.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        layer.params["weight_hh_l0"][...] = 0
    layer.unfreeze()
    layer.params["weight_hh_l0"][...] = 0
    case.params["weight_hh_l0"][...] = 0
    assert_same_bits(layer(case.x, case.state)[0], make_layer(v, case.params)(case.x, case.state)[0])
