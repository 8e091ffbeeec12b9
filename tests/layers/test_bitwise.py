"""Bitwise reproducibility: one kernel set gives the same bits however the work is cut up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import (
    GATES,
    KIND,
    KINDS,
    Case,
    Variant,
    assert_same_bits,
    both_dtypes,
    completed,
    make_case,
    make_layer,
    run_layer,
    take_rows,
    variants,
)
from hypothesis import given
from hypothesis import strategies as st

import fastrnn

TABLE = [
    replace(v, proj_size=v.proj_size and 10) for v in both_dtypes(variants(I=11, H=19, T=9, B=7)) if v.bias
]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
# work shared by rows, by units, by layers and directions, or not shared
SIZES = [
    (60, 1, 8, 8),
    (8, 1, 32, 160),
    (6, 40, 33, 48),
    (15, 5, 20, 112),
    (15, 6, 20, 112),
    (3, 150, 16, 20),
    (12, 16, 48, 96),
    (500, 1, 64, 64),
]

NETWORKS = [(1, False), (2, True)]


@pytest.fixture
def threads() -> Iterator[Any]:
    """`fastrnn.set_num_threads`, undone afterwards."""
    before = fastrnn.get_num_threads()
    yield fastrnn.set_num_threads
    fastrnn.set_num_threads(before)


def without_sums(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Everything but the parameters' gradients, which are sums over rows and steps."""
    return {key: value for key, value in result.items() if not key.startswith(("dweight", "dbias"))}


@pytest.mark.parametrize("rows", ["dense", "lengths", "reset", "lengths and reset"])
@pytest.mark.parametrize("v", TABLE, ids=str)
def test_inference_equals_training(v: Variant, rows: str) -> None:
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    layer = make_layer(v, case.params)
    y, last, _ = layer.forward(case.x, case.state, **kwargs)
    got_y, got_last = layer(case.x, case.state, **kwargs)
    assert_same_bits(got_y, y)
    assert_same_bits(got_last, last)


@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES)
@pytest.mark.parametrize(("layers", "bidirectional"), NETWORKS)
@pytest.mark.parametrize("rows", ["dense", "lengths and reset"])
@DTYPES
@KIND
def test_threads(
    kind: str,
    dtype: Any,
    rows: str,
    layers: int,
    bidirectional: bool,
    T: int,
    B: int,
    I: int,
    H: int,
    threads: Any,
) -> None:
    proj_size = H // 2 if kind == "lstm" and B == 6 else 0
    v = Variant(kind, layers, bidirectional, True, proj_size, I=I, H=H, T=T, B=B, dtype=dtype)
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    layer = make_layer(v, case.params)
    threads(1)
    want = run_layer(layer, case, **kwargs)
    for n in (2, 3, 5):
        threads(n)
        assert fastrnn.get_num_threads() == n
        assert_same_bits(run_layer(layer, case, **kwargs), want, f"{n} threads")
        assert_same_bits(layer(case.x, case.state, **kwargs)[0], want["y"], f"{n} threads")


@pytest.fixture
def shuffled_shares() -> Iterator[None]:
    """Threads that share rows or units get random shares at every barrier that allows it."""
    fastrnn._core.shuffle_shares(1)
    yield
    fastrnn._core.shuffle_shares(0)


@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES)
@pytest.mark.parametrize("rows", ["dense", "lengths and reset"])
@KIND
def test_shares_of_threads_change_no_bit(
    kind: str, rows: str, T: int, B: int, I: int, H: int, threads: Any, shuffled_shares: None
) -> None:
    proj_size = H // 2 if kind == "lstm" and B == 6 else 0
    v = Variant(kind, 2, True, True, proj_size, I=I, H=H, T=T, B=B, dtype=np.float32)
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    layer = make_layer(v, case.params)
    threads(1)
    want = run_layer(layer, case, **kwargs)
    for n in (2, 3):
        threads(n)
        for checkpoint in (None, 3):
            got = run_layer(layer, case, **kwargs, checkpoint=checkpoint)
            assert_same_bits(got, want, f"{n} threads, checkpoint {checkpoint}")
        assert_same_bits(layer(case.x, case.state, **kwargs)[0], want["y"], f"{n} threads")


@pytest.mark.parametrize(("B", "H"), [(24, 320), (96, 128)], ids=["units", "rows"])
def test_shares_that_follow_the_pace_change_no_bit(B: int, H: int, threads: Any) -> None:
    case = make_case(Variant("lstm", 1, False, True, 0, I=40, H=H, T=30, B=B, dtype=np.float32))
    layer = make_layer(
        Variant("lstm", 1, False, True, 0, I=40, H=H, T=30, B=B, dtype=np.float32), case.params
    )
    sizes = (30 * B, 30, B, 40, H, H, 4, 4, 2, 1 << 19)
    assert fastrnn._core.schedule("lstm", *sizes, backward=True)[-1]  # otherwise shares are even
    threads(1)
    want = run_layer(layer, case)
    threads(2)
    for call in range(3):  # the later ones start from what the first found
        assert_same_bits(run_layer(layer, case), want, f"call {call}")


@KIND
def test_sizes_cover_every_schedule(kind: str) -> None:
    """Otherwise `test_threads` would compare one thread with itself."""
    plans = set()
    for layers, bidirectional in NETWORKS:
        network = {"layers": layers, "directions": 1 + bidirectional}
        for T, B, I, H in SIZES:
            for n in (2, 3, 5):
                sizes = (T * B, T, B, I, H, H, 4, GATES[kind], n, 1 << 20)
                for backward in (False, True):
                    plan = fastrnn._core.schedule(kind, *sizes, **network, backward=backward)
                    plans.add((*plan[:2], backward))
    several = {(n, way) for n in (2, 3, 5) for way in ("rows", "units", "pipelined")}
    wanted = several | {(1, "rows"), (2, "wavefront"), (3, "wavefront")}
    assert {(*way, backward) for way in wanted for backward in (False, True)} <= plans


def assert_packing_changes_nothing(
    v: Variant, threads: Any, *options: dict[str, Any], **sequences: Any
) -> None:
    """Frozen weights and weights that a call packs itself, or reads unpacked, give the same bits."""
    case = make_case(v)
    packed, own = make_layer(v, case.params), make_layer(v, case.params)
    packed.freeze()
    for n in (1, 2, 3):
        threads(n)
        want = run_layer(packed, case, **sequences)
        for kwargs in options:
            assert_same_bits(run_layer(own, case, **sequences, **kwargs), want, f"{n} threads {kwargs}")
        assert_same_bits(own(case.x, case.state, **sequences)[0], want["y"], f"{n} threads")


# (B, I, H): rows alone, in one tile, in several tiles and groups; widths that fit no register; depths of several pieces
ONE_STEP = [(1, 7, 5), (2, 64, 64), (3, 129, 33), (5, 1, 140), (40, 300, 24), (100, 16, 48), (130, 16, 48)]


@pytest.mark.parametrize(("layers", "bidirectional"), NETWORKS)
@pytest.mark.parametrize(("B", "I", "H"), ONE_STEP)
@DTYPES
@KIND
def test_one_step_without_packing_equals_packed_weights(
    kind: str, dtype: Any, B: int, I: int, H: int, layers: int, bidirectional: bool, threads: Any
) -> None:
    v = Variant(kind, layers, bidirectional, True, 0, I=I, H=H, T=1, B=B, dtype=dtype)
    assert_packing_changes_nothing(v, threads, {})


# (T, B, I, H): rows alone, and matrices beyond the near cache
FEW_STEPS = [(2, 1, 7, 20), (2, 1, 129, 33), (3, 1, 30, 380), (3, 6, 70, 380), (2, 40, 9, 380)]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("T", "B", "I", "H"), FEW_STEPS)
@DTYPES
@KIND
def test_few_steps_without_packing_equal_packed_weights(
    kind: str, dtype: Any, T: int, B: int, I: int, H: int, bidirectional: bool, threads: Any
) -> None:
    v = Variant(kind, 1, bidirectional, True, 0, I=I, H=H, T=T, B=B, dtype=dtype)
    case = make_case(v)
    sequences = {"lengths": case.lengths, "reset": case.reset}
    for options in ({}, sequences):
        assert_packing_changes_nothing(v, threads, {}, {"checkpoint": 1}, **options)


# (T, B, I, H): up to 128 steps and rows, a last panel and a last piece of the depth that are not full
FEW_ROWS = [(2, 1, 7, 20), (9, 1, 200, 70), (16, 8, 129, 33), (64, 2, 10, 128), (5, 3, 300, 9)]


@pytest.mark.parametrize(("layers", "bidirectional"), NETWORKS)
@pytest.mark.parametrize(("T", "B", "I", "H"), FEW_ROWS)
@DTYPES
@KIND
def test_input_weights_that_are_not_packed_equal_packed_ones(
    kind: str, dtype: Any, T: int, B: int, I: int, H: int, layers: int, bidirectional: bool, threads: Any
) -> None:
    v = Variant(kind, layers, bidirectional, True, 0, I=I, H=H, T=T, B=B, dtype=dtype)
    assert_packing_changes_nothing(v, threads, {}, {"checkpoint": 3})


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_frozen_weights_flush_subnormal_biases_too(dtype: Any) -> None:
    """b_ih + b_hh is summed when weights are packed: within the call, or before it."""
    least = np.finfo(dtype).tiny
    layer = fastrnn.RNN(1, 1, nonlinearity="relu", dtype=dtype)
    layer.flat[:] = 0
    layer.params["bias_ih_l0"][:], layer.params["bias_hh_l0"][:] = least / 8, least
    x = np.zeros((3, 1, 1), dtype)
    want = layer(x)[0]
    assert_same_bits(layer.stream().run(x), want)
    layer.freeze()
    assert_same_bits(layer(x)[0], want)


def test_weights_are_packed_where_they_serve_many_steps() -> None:
    def in_pieces(
        steps: int,
        threads: int = 1,
        rows: int = 8,
        inputs: int = 64,
        hidden: int = 64,
        cell: str = "lstm",
        **options: bool,
    ) -> Any:
        sizes = (steps * rows, steps, rows, inputs, hidden, hidden, 4, 4, threads, 1 << 20)
        return fastrnn._core.schedule(cell, *sizes, **options)[3:5]

    every, input_only, none = (True, True), (False, True), (False, False)
    for n in (1, 2):
        assert in_pieces(1, n) == every
        assert in_pieces(1, n, packed=True) == none
        assert in_pieces(1, n, cell="gru_before")[0] is False
        assert in_pieces(17, n) == none
        assert in_pieces(2, n, inputs=4) == none  # the input product is inside the step
    assert in_pieces(2) == in_pieces(16) == in_pieces(2, cell="gru_before") == input_only
    assert in_pieces(16, packed=True) == none

    # few steps: most of them of one row, and of weights beyond the near cache
    def longest(**problem: Any) -> int:
        return max(n for n in range(1, 9) if in_pieces(n, **problem) == every)

    far, back = {"hidden": 512}, {"hidden": 512, "backward": True}
    assert [longest(rows=b) for b in (1, 2, 200)] == [2, 1, 1]
    assert [longest(rows=b, **far) for b in (1, 16, 17, 128, 129)] == [3, 3, 2, 2, 1]
    assert [longest(rows=b, **back) for b in (1, 8, 9)] == [3, 2, 1]


def test_rows_that_cannot_be_shared_evenly_share_units() -> None:
    def split(rows: int, hidden: int, panels: int, total: int | None = None) -> str:
        sizes = (rows * 50 if total is None else total, 50, rows, hidden, hidden, hidden, 4, 4, 2, 1 << 20)
        way: str = fastrnn._core.schedule("lstm", *sizes, panels=panels)[1]
        return way

    assert split(7, 128, 16) == split(9, 128, 16) == "units"
    assert split(8, 128, 16) == split(32, 128, 16) == "rows"  # even
    assert split(7, 72, 9) == "rows"  # units are no more even, barriers counted in
    assert split(7, 128, 16, total=300) == "rows"  # of various lengths


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_a_row_alone_equals_that_row_in_a_batch(v: Variant) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    for kwargs in ({}, {"lengths": case.lengths, "reset": case.reset}):
        whole = without_sums(run_layer(layer, case, **kwargs))
        for b in range(v.B):
            one = take_rows(case, slice(b, b + 1))
            alone = {key: getattr(one, key) for key in kwargs}
            want = {key: value[:, b : b + 1] for key, value in whole.items()}
            assert_same_bits(without_sums(run_layer(layer, one, **alone)), want, f"row {b}")


@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES)
@DTYPES
@KIND
def test_row_counts(kind: str, dtype: Any, T: int, B: int, I: int, H: int) -> None:
    """Batches of other sizes, which choose other tiles and schedules."""
    v = Variant(kind, I=I, H=H, T=T, B=B, dtype=dtype)
    case = make_case(v)
    layer = make_layer(v, case.params)
    whole = without_sums(run_layer(layer, case))
    for rows in {1, 2, 5, B // 2, B - 1} & set(range(1, B + 1)):
        got = without_sums(run_layer(layer, take_rows(case, slice(B - rows, B))))
        assert_same_bits(
            got, {key: value[:, B - rows :] for key, value in whole.items()}, f"last {rows} rows"
        )


@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES)
@DTYPES
@KIND
def test_whole_equals_chunks(kind: str, dtype: Any, T: int, B: int, I: int, H: int) -> None:
    """Forward with the state carried over, and backward with its gradient carried back."""
    v = Variant(
        kind, 2, I=I, H=H, T=T, B=B, dtype=dtype, proj_size=H // 2 if kind == "lstm" and B == 6 else 0
    )
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = without_sums(run_layer(layer, case))
    cuts = sorted({0, 1, T // 3, T // 2, T})
    state, pieces, calls = case.state, [], []
    for start, stop in pairwise(cuts):
        y, after, tape = layer.forward(case.x[start:stop], state)
        assert_same_bits(layer(case.x[start:stop], state)[0], y, f"inference of {start}:{stop}")
        state = after
        pieces.append(y)
        calls.append((start, stop, tape))
    assert_same_bits(np.concatenate(pieces), want["y"], "y")
    last = state if v.states == 2 else (state,)
    assert_same_bits(last, tuple(want[letter + "_n"] for letter in "hc"[: v.states]), "state")
    dstate = case.dstate
    for start, stop, tape in reversed(calls):
        g = layer.backward(tape, case.dy[start:stop], dstate)
        assert_same_bits(g.x, want["dx"][start:stop], f"dx {start}:{stop}")
        dstate = g.state


@DTYPES
@KIND
def test_alignment(kind: str, dtype: Any) -> None:
    """Wherever the numbers lie in memory."""
    v = Variant(kind, I=16, H=32, T=4, B=6, dtype=dtype)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    for shift in range(1, 16):
        moved = Case(**vars(case))
        for name in ("x", "dy"):
            value = getattr(case, name)
            room = np.empty(value.size + shift, dtype)
            room[shift:] = value.ravel()
            setattr(moved, name, room[shift:].reshape(value.shape))
        assert_same_bits(run_layer(layer, moved), want, f"{shift} numbers further")


@DTYPES
@KIND
def test_repeated_calls(kind: str, dtype: Any) -> None:
    v = Variant(kind, 2, True, I=30, H=40, T=20, B=12, dtype=dtype)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    for _ in range(10):
        assert_same_bits(run_layer(layer, case), want)


@DTYPES
@KIND
def test_full_lengths_and_no_resets_change_nothing(kind: str, dtype: Any) -> None:
    v = Variant(kind, 2, True, I=9, H=21, T=8, B=6, dtype=dtype)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    full, never = np.full(v.B, v.T), np.zeros((v.T, v.B), bool)
    assert_same_bits(run_layer(layer, case, lengths=full), want)
    assert_same_bits(run_layer(layer, case, reset=never), want)
    assert_same_bits(run_layer(layer, case, lengths=full, reset=never), want)


def from_zero(case: Any, v: Variant, given: bool) -> Any:
    """The case with no state, or with one of zeros."""
    shape = (v.num_layers * (2 if v.bidirectional else 1), v.B, v.H)
    h = np.zeros((*shape[:2], v.proj_size or v.H), v.dtype)
    case.state = None if not given else (h, np.zeros(shape, v.dtype)) if v.kind == "lstm" else h
    return case


# -- properties: any layer, any sizes, and one way of cutting the work up at random

LAYERS = st.builds(
    Variant,
    kind=st.sampled_from(KINDS),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    proj_size=st.integers(0, 5),
    I=st.sampled_from([1, 3, 4, 5, 17, 40]),
    H=st.sampled_from([6, 8, 16, 19, 33, 64]),
    T=st.integers(1, 12),
    B=st.integers(1, 14),
    dtype=st.sampled_from([np.float32, np.float64]),
    options=st.sampled_from([(), ("some",)]),
).map(completed)
SEEDS = st.integers(0, 2**32 - 1)
OPTIONS = st.sets(st.sampled_from(["lengths", "reset"]))
TEAMS = st.integers(1, 5)


def run_with(n: int, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
    """`run_layer` with n threads."""
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(n)
    try:
        return run_layer(*args, **kwargs)
    finally:
        fastrnn.set_num_threads(before)


@given(LAYERS, SEEDS, OPTIONS, TEAMS)
def test_any_number_of_threads(v: Variant, seed: int, options: set[str], n: int) -> None:
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    kwargs = {key: getattr(case, key) for key in options}
    assert_same_bits(run_with(n, layer, case, **kwargs), run_with(1, layer, case, **kwargs))


@given(LAYERS, SEEDS, OPTIONS, TEAMS, st.sampled_from([None, 1, 3]), st.sampled_from([1, 2, 12, 4097]))
def test_no_state_equals_zeros(
    v: Variant, seed: int, options: set[str], n: int, checkpoint: int | None, T: int
) -> None:
    """Without a state the first step has no recurrent product, nor a term of the weight gradient.

    4097 steps: sums over more than 4096 terms are taken in blocks, of which the last has no other term.
    """
    v = replace(v, T=T, B=1, H=6) if T > 12 else replace(v, T=T)
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    kwargs = {key: getattr(case, key) for key in options} | {"checkpoint": checkpoint}
    want = run_with(n, layer, from_zero(case, v, given=True), **kwargs)
    assert_same_bits(run_with(n, layer, from_zero(case, v, given=False), **kwargs), want)
    kwargs.pop("checkpoint")
    frozen = make_layer(v, case.params)
    frozen.freeze()
    for called in (layer, frozen):
        y, last = called(case.x, None, **kwargs)
        assert_same_bits(y, want["y"])
        assert_same_bits(last[0] if v.kind == "lstm" else last, want["h_n"])


@given(LAYERS, SEEDS, OPTIONS, TEAMS, st.sampled_from([0.0, 1e30, np.inf, np.nan]), st.data())
def test_any_batch_neighbour(
    v: Variant, seed: int, options: set[str], n: int, filler: float, data: Any
) -> None:
    """Some rows in another order, between rows of other lengths and contents, on another number of threads."""
    case, other = make_case(v, seed), make_case(replace(v, B=v.B + 3), seed + 1)
    layer = make_layer(v, case.params)
    rows = data.draw(st.permutations(range(v.B)))[: data.draw(st.integers(1, v.B))]
    places = data.draw(st.permutations(range(v.B + 3)))[: len(rows)]
    kwargs = {key: getattr(case, key) for key in options}
    want = without_sums(run_with(1, layer, case, **kwargs))
    other.x[...] = filler
    other.params = case.params
    pairs = [(other.x, case.x), (other.dy, case.dy), (other.reset, case.reset)]
    for name in ("state", "dstate"):
        ours, theirs = (getattr(c, name) for c in (case, other))
        pairs += zip(theirs, ours, strict=True) if isinstance(ours, tuple) else [(theirs, ours)]
    for to, source in pairs:
        to[:, places] = source[:, rows]
    other.lengths[places] = case.lengths[rows]
    got = without_sums(run_with(n, layer, other, **{key: getattr(other, key) for key in options}))
    for key, value in want.items():
        assert_same_bits(got[key][:, places], value[:, rows], key)


def moved(a: np.ndarray, data: Any) -> np.ndarray:
    """The same numbers elsewhere: shifted in memory, strided, flipped, with axes in another order."""
    steps = [data.draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in a.shape]
    order = data.draw(st.permutations(range(a.ndim)))
    shift = data.draw(st.integers(0, 17))
    byte = data.draw(st.booleans())  # not even aligned to a number
    room = [n * abs(steps[i]) + 2 for i, n in enumerate(a.shape)]
    base = np.full((shift + int(np.prod(room)) + 1) * a.itemsize, 0xFF, np.uint8)
    numbers = base[byte : byte + (base.size - a.itemsize)].view(a.dtype)[shift:]
    view = numbers[: int(np.prod(room))].reshape([room[i] for i in order]).transpose(np.argsort(order))
    for axis, (n, step) in enumerate(zip(a.shape, steps, strict=True)):
        index = slice(1, 1 + n * step, step) if step > 0 else slice(n * -step, None if n == 0 else 0, step)
        view = view[(slice(None),) * axis + (index,)]
    view[...] = a
    return view


@given(LAYERS, SEEDS, OPTIONS, TEAMS, st.data())
def test_any_alignment_and_stride(v: Variant, seed: int, options: set[str], n: int, data: Any) -> None:
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    want = run_with(1, layer, case, **{key: getattr(case, key) for key in options})
    for name in ("x", "dy", "lengths", "reset", "state", "dstate"):
        value = getattr(case, name)
        parts = tuple(moved(s, data) for s in (value if isinstance(value, tuple) else (value,)))
        setattr(case, name, parts if isinstance(value, tuple) else parts[0])
    assert_same_bits(run_with(n, layer, case, **{key: getattr(case, key) for key in options}), want)


@given(LAYERS, SEEDS, OPTIONS, st.data())
def test_any_cuts(v: Variant, seed: int, options: set[str], data: Any) -> None:
    """A sequence in pieces, each on its own number of threads, with the state and its gradient handed on."""
    v = replace(v, bidirectional=False)
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    want = without_sums(run_with(1, layer, case, **{key: getattr(case, key) for key in options}))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, v.T), max_size=4))), v.T]
    state, pieces, calls = case.state, [], []
    before = fastrnn.get_num_threads()
    try:
        for start, stop in pairwise(cuts):
            fastrnn.set_num_threads(data.draw(TEAMS))
            kwargs: dict[str, Any] = {}
            if "lengths" in options:
                kwargs["lengths"] = np.clip(case.lengths - start, 0, stop - start)
            if "reset" in options:
                kwargs["reset"] = case.reset[start:stop]
            y, state, tape = layer.forward(case.x[start:stop], state, **kwargs)
            pieces.append(y)
            calls.append((start, stop, tape))
        dstate, dx = case.dstate, []
        for start, stop, tape in reversed(calls):
            fastrnn.set_num_threads(data.draw(TEAMS))
            g = layer.backward(tape, case.dy[start:stop], dstate)
            dstate = g.state
            dx.insert(0, g.x)
    finally:
        fastrnn.set_num_threads(before)
    assert_same_bits(np.concatenate(pieces), want["y"], "y")
    assert_same_bits(np.concatenate(dx), want["dx"], "dx")
    for i, letter in enumerate("hc"[: v.states]):
        ends = [s[i] if isinstance(s, tuple) else s for s in (state, dstate)]
        assert_same_bits(ends[0], want[letter + "_n"], letter + "_n")
        assert_same_bits(ends[1], want[f"d{letter}_0"], f"d{letter}_0")


@given(
    LAYERS,
    SEEDS,
    TEAMS,
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "auto", 1, 2, 5]),
    st.booleans(),
)
def test_any_mode(
    v: Variant, seed: int, n: int, frozen: bool, batch_first: bool, checkpoint: Any, spelled_out: bool
) -> None:
    """Inference or training, frozen, batch-major, checkpointed, with lengths and resets that say nothing."""
    case = make_case(v, seed)
    want = run_with(1, make_layer(v, case.params), case)
    layer = make_layer(v, case.params, batch_first=batch_first)
    kwargs: dict[str, Any] = {}
    if spelled_out:
        kwargs = {"lengths": np.full(v.B, v.T), "reset": np.zeros(case.reset.shape, bool)}
    if batch_first:
        case.x, case.dy = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (case.x, case.dy))
        kwargs |= {"reset": kwargs["reset"].T} if spelled_out else {}
    if frozen:
        layer.freeze()
    y, last = layer(case.x, case.state, **kwargs)
    got = run_with(n, layer, case, checkpoint=checkpoint, **kwargs)
    assert_same_bits(y, got["y"])
    assert_same_bits(last if v.states == 2 else (last,), tuple(got[c + "_n"] for c in "hc"[: v.states]))
    for key in ("y", "dx") if batch_first else ():
        got[key] = got[key].swapaxes(0, 1)
    assert_same_bits(got, want)
