"""What must not change a result: the order of the batch, and where a batch or a sequence is split."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from conftest import (
    KINDS,
    Case,
    Variant,
    as_tuple,
    assert_same_bits,
    completed,
    make_case,
    make_layer,
    run_layer,
    same_structure,
    take_rows,
)
from hypothesis import given
from hypothesis import strategies as st

SMALL = st.builds(
    Variant,
    kind=st.sampled_from(KINDS),
    num_layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    proj_size=st.integers(0, 3),
    I=st.integers(1, 5),
    H=st.integers(4, 18),
    T=st.integers(1, 7),
    B=st.integers(1, 6),
    dtype=st.sampled_from([np.float32, np.float64]),
    options=st.sampled_from([(), ("some",)]),
).map(completed)


SEED = st.integers(0, 2**32 - 1)


def one_way(v: Variant, num_layers: int | None = None) -> Variant:
    return Variant(**vars(v) | {"bidirectional": False, "num_layers": num_layers or v.num_layers})


def whole_call(layer: Any, case: Case) -> dict[str, np.ndarray]:
    return run_layer(layer, case, lengths=case.lengths, reset=case.reset)


def split(result: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What belongs to rows, and the parameters' gradients, which are sums over them."""
    sums = {key: value for key, value in result.items() if key.startswith(("dweight", "dbias"))}
    return {key: value for key, value in result.items() if key not in sums}, sums


def assert_sums_close(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for key, value in want.items():
        rtol = 1e-5 if value.dtype == np.float32 else 1e-12
        atol = rtol * max(1.0, np.abs(value).max(initial=0))
        np.testing.assert_allclose(got[key], value, rtol=rtol, atol=atol, err_msg=key)


@given(SMALL, SEED, st.randoms())
def test_permuted_rows(v: Variant, seed: int, random: Any) -> None:
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    order = list(range(v.B))
    random.shuffle(order)
    want, want_sums = split(whole_call(layer, case))
    got, sums = split(whole_call(layer, take_rows(case, order)))
    assert_same_bits(got, {key: value[:, order] for key, value in want.items()})
    assert_sums_close(sums, want_sums)


@given(SMALL, SEED, st.integers(0, 6))
def test_split_batch(v: Variant, seed: int, at: int) -> None:
    at = min(at, v.B)
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    want, want_sums = split(whole_call(layer, case))
    one, one_sums = split(whole_call(layer, take_rows(case, slice(at))))
    two, two_sums = split(whole_call(layer, take_rows(case, slice(at, None))))
    assert_same_bits({key: np.concatenate([one[key], two[key]], axis=1) for key in one}, want)
    assert_sums_close({key: one_sums[key] + two_sums[key] for key in one_sums}, want_sums)


@given(SMALL, SEED, st.integers(0, 7))
def test_split_sequence(v: Variant, seed: int, at: int) -> None:
    v, at = one_way(v), min(at, v.T)
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    want, want_sums = split(whole_call(layer, case))
    early, late = np.minimum(case.lengths, at), np.maximum(case.lengths - at, 0)
    y1, state, tape1 = layer.forward(case.x[:at], case.state, lengths=early, reset=case.reset[:at])
    y2, last, tape2 = layer.forward(case.x[at:], state, lengths=late, reset=case.reset[at:])
    assert_same_bits(np.concatenate([y1, y2]), want["y"])
    assert_same_bits(as_tuple(last), tuple(want[letter + "_n"] for letter in "hc"[: v.states]))
    g2 = layer.backward(tape2, case.dy[at:], case.dstate)
    g1 = layer.backward(tape1, case.dy[:at], g2.state)
    assert_same_bits(np.concatenate([g1.x, g2.x]), want["dx"])
    assert_same_bits(as_tuple(g1.state), tuple(want[f"d{letter}_0"] for letter in "hc"[: v.states]))
    assert_sums_close({"d" + key: value + g2.params[key] for key, value in g1.params.items()}, want_sums)


@given(SMALL, SEED)
def test_lengths_equal_truncation(v: Variant, seed: int) -> None:
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    want, _ = split(whole_call(layer, case))
    for b, n in enumerate(case.lengths):
        one = take_rows(case, slice(b, b + 1))
        one.x, one.dy, one.reset = one.x[:n], one.dy[:n], one.reset[:n]
        got, _ = split(run_layer(layer, one, reset=one.reset))
        for key, value in got.items():
            row = want[key][:, b : b + 1]
            assert_same_bits(value, row[:n] if key in ("y", "dx") else row, f"{key} of row {b}")
        assert not want["y"][n:, b].any()
        assert not want["dx"][n:, b].any()


@given(SMALL, SEED)
def test_reverse_equals_flipping_each_row(v: Variant, seed: int) -> None:
    v = Variant(**vars(v) | {"bidirectional": True, "num_layers": 1})
    case = make_case(v, seed)
    case.dy[:, :, : v.out] = 0  # only the reverse direction has a loss
    for d in as_tuple(case.dstate):
        d[0] = 0
    want = run_layer(make_layer(v, case.params), case, lengths=case.lengths, reset=case.reset)

    def flip(a: np.ndarray) -> np.ndarray:
        out = a.copy()
        for b, n in enumerate(case.lengths):
            out[:n, b] = a[:n, b][::-1]
        return out

    # a boundary before step t lies, seen from the other end, before step n - t
    reset = np.zeros_like(case.reset)
    for b, n in enumerate(case.lengths):
        for t in range(1, n):
            reset[n - t, b] = case.reset[t, b]
    w = one_way(v)
    params = {key[: -len("_reverse")]: p for key, p in case.params.items() if key.endswith("_reverse")}
    state, dstate = (same_structure(v, (s[1:] for s in as_tuple(s))) for s in (case.state, case.dstate))
    flipped = Case(params, flip(case.x), state, flip(case.dy[:, :, v.out :]), dstate, case.lengths, reset)
    got = whole_call(make_layer(w, params), flipped)
    assert_same_bits(flip(got["y"]), np.ascontiguousarray(want["y"][:, :, v.out :]))
    assert_same_bits(got["h_n"], want["h_n"][1:])
    # the forward direction adds its zeros, so 0 and -0 are alike here
    np.testing.assert_array_equal(flip(got["dx"]), want["dx"])
    np.testing.assert_array_equal(got["dh_0"], want["dh_0"][1:])
    assert_sums_close(
        {key: value for key, value in got.items() if key.startswith("dweight")},
        {
            key[: -len("_reverse")]: want[key]
            for key in want
            if key.startswith("dweight") and "_reverse" in key
        },
    )


@given(SMALL, SEED)
def test_resets_equal_independent_segments(v: Variant, seed: int) -> None:
    """Each segment of each row by itself; only the first one has the row's state, in reverse the last one."""
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    want, want_sums = split(whole_call(layer, case))
    totals = {key: np.zeros_like(value) for key, value in want_sums.items()}
    for b, n in enumerate(case.lengths):
        starts = [0, *(t for t in range(1, n) if case.reset[t, b]), n] if n else [0]
        for start, stop in pairwise(starts):
            one = take_rows(case, slice(b, b + 1))
            one.x, one.dy = one.x[start:stop], one.dy[start:stop]
            first, last = start == 0 and not case.reset[0, b], stop == n
            one.state = same_structure(v, (s.copy() for s in as_tuple(one.state)))
            one.dstate = same_structure(v, (s.copy() for s in as_tuple(one.dstate)))
            for s, d in zip(as_tuple(one.state), as_tuple(one.dstate), strict=True):
                s[:: v.D] *= first
                d[:: v.D] *= last
                if v.bidirectional:
                    s[1::2] *= last
                    d[1::2] *= start == 0
            got, sums = split(run_layer(layer, one))
            for key in ("y", "dx"):
                np.testing.assert_array_equal(got[key][:, 0], want[key][start:stop, b], err_msg=key)
            for key, way, here in [
                ("h_n", 0, last),
                ("h_n", 1, start == 0),
                ("dh_0", 0, first),
                ("dh_0", 1, last),
            ]:
                if here and way < v.D:
                    np.testing.assert_array_equal(
                        got[key][way :: v.D, 0], want[key][way :: v.D, b], err_msg=key
                    )
            for key, value in sums.items():
                totals[key] += value
    assert_sums_close(totals, want_sums)
