"""Sequences as people have them: ragged, resetting, without inputs or targets, streamed, and in chunks."""

from __future__ import annotations

import threading
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import (
    KINDS,
    Case,
    Variant,
    assert_close,
    assert_same_bits,
    both_dtypes,
    make_case,
    make_layer,
    run_layer,
    run_reference,
    variants,
)
from hypothesis import given
from hypothesis import strategies as st

import fastrnn

KIND = pytest.mark.parametrize("kind", KINDS)
ONE_WAY = [v for v in variants() if not v.bidirectional and v.bias]


def tuples(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


def same_structure(v: Variant, arrays: Any) -> Any:
    arrays = tuple(arrays)
    return arrays if v.states == 2 else arrays[0]


def padding(v: Variant, lengths: np.ndarray) -> np.ndarray:
    """[T, B], true behind the end of a row."""
    return np.arange(v.T)[:, None] >= lengths


# -- lengths


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
    for letter, start, dlast in zip("hc", tuples(case.state), tuples(case.dstate), strict=False):
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


# -- Ragged


def test_ragged_converts() -> None:
    rows = [np.arange(2 * n, dtype=np.float32).reshape(n, 2) + 10 * n for n in (3, 0, 1, 2)]
    ragged = fastrnn.Ragged.from_list(rows)
    np.testing.assert_array_equal(ragged.lengths, [3, 0, 1, 2])
    np.testing.assert_array_equal(ragged.values, np.concatenate(rows))
    for got, want in zip(ragged.to_list(), rows, strict=True):
        np.testing.assert_array_equal(got, want, strict=True)
    padded = ragged.to_padded()
    np.testing.assert_array_equal(ragged.to_padded(batch_first=True), padded.swapaxes(0, 1))
    again = fastrnn.Ragged.from_padded(padded, ragged.lengths)
    np.testing.assert_array_equal(again.values, ragged.values)
    assert padded.shape == (3, 4, 2)
    for b, row in enumerate(rows):
        np.testing.assert_array_equal(padded[: len(row), b], row)
        assert not padded[len(row) :, b].any()


@pytest.mark.parametrize("v", both_dtypes(variants(B=5)), ids=str)
def test_ragged_equals_padded(v: Variant) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case, lengths=case.lengths)

    def ragged(a: np.ndarray) -> Any:
        return fastrnn.Ragged.from_list([a[:n, b] for b, n in enumerate(case.lengths)])

    y, last, tape = layer.forward(ragged(case.x), case.state)
    assert isinstance(y, fastrnn.Ragged)
    assert_same_bits(y.values, ragged(want["y"]).values)
    assert_same_bits(tuples(last)[0], want["h_n"])
    g = layer.backward(tape, ragged(case.dy), case.dstate)
    assert isinstance(g.x, fastrnn.Ragged)
    assert_same_bits(g.x.values, ragged(want["dx"]).values)
    for key, value in g.params.items():
        assert_same_bits(value, want["d" + key], key)
    y, _ = layer(ragged(case.x), case.state)
    assert_same_bits(y.values, ragged(want["y"]).values)


@pytest.mark.parametrize("checkpoint", [None, 2])
@KIND
def test_ragged_with_resets(kind: str, checkpoint: int | None) -> None:
    """reset [total] lies as the values do."""
    v = Variant(kind, 2, True, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case, lengths=case.lengths, reset=case.reset)
    valid = ~padding(v, case.lengths).T
    x, dy = (fastrnn.Ragged.from_padded(a, case.lengths) for a in (case.x, case.dy))
    y, _, tape = layer.forward(x, case.state, reset=case.reset.T[valid], checkpoint=checkpoint)
    g = layer.backward(tape, dy, case.dstate)
    assert_same_bits(y.values, fastrnn.Ragged.from_padded(want["y"], case.lengths).values)
    assert_same_bits(
        {"d" + key: p for key, p in g.params.items()}, {k: want[k] for k in want if k[1:] in g.params}
    )


@KIND
def test_ragged_of_nothing(kind: str) -> None:
    layer = make_layer(Variant(kind, 2, True))
    for lengths in ([], [0], [0, 0, 0]):
        empty = fastrnn.Ragged(np.zeros((0, 5), np.float32), lengths)
        assert len(empty.to_list()) == len(list(empty)) == len(empty) == len(lengths)
        assert empty.to_padded().shape == (0, len(lengths), 5)
        y, last = layer(empty)
        assert y.values.shape == (0, 14)
        assert tuples(last)[0].shape == (4, len(lengths), 7)
        y, _, tape = layer.forward(empty)
        assert not layer.backward(tape, y).flat.any()


# -- reset


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
        state = same_structure(v, (s[:, b : b + 1] for s in tuples(case.state)))
        for t in range(v.T):
            if case.reset[t, b]:
                state = same_structure(v, (np.zeros_like(s) for s in tuples(state)))
            y, state = layer(case.x[t : t + 1, b : b + 1], state)
            assert_same_bits(y[0, 0], got["y"][t, b])
        assert_same_bits(tuples(state)[0][:, 0], got["h_n"][:, b])


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


# -- inputs and outputs at any step


@pytest.mark.parametrize("v", both_dtypes(variants()), ids=str)
def test_no_input(v: Variant) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    case.x[...] = 0
    want = run_reference(v, case)
    y, last, tape = layer.forward(None, case.state, steps=v.T)
    g = layer.backward(tape, case.dy, case.dstate)
    assert g.x is None
    got = {"y": y, "h_n": tuples(last)[0], "dh_0": tuples(g.state)[0]}
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


@pytest.mark.parametrize("rows", ["dense", "lengths"])
@pytest.mark.parametrize("v", variants(B=5), ids=str)
def test_gradient_of_the_last_step_only(v: Variant, rows: str) -> None:
    """dy [B, D*H] belongs to each row's last valid step."""
    case = make_case(v)
    kwargs = {"lengths": case.lengths} if rows == "lengths" else {}
    lengths = case.lengths if rows == "lengths" else np.full(v.B, v.T)
    last_dy = case.dy[0].copy()
    case.dy[...] = 0
    for b, n in enumerate(lengths):
        if n:
            case.dy[n - 1, b] = last_dy[b]
    want = run_reference(v, case, **kwargs)
    got = run_layer(make_layer(v, case.params), case, dy=last_dy, **kwargs)
    assert_close(got, want, v.dtype)


# -- freeze


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


# -- stream


@pytest.mark.parametrize("batch_size", [1, 3, 17])
@pytest.mark.parametrize("v", both_dtypes(ONE_WAY), ids=str)
def test_stream_equals_the_whole_sequence(v: Variant, batch_size: int) -> None:
    v = Variant(**vars(v) | {"B": batch_size})
    case = make_case(v)
    layer = make_layer(v, case.params)
    y, last = layer(case.x)
    stream = layer.stream(batch_size)
    out = np.empty((batch_size, v.out), v.dtype)
    for t in range(2):
        assert_same_bits(stream.step(case.x[t]), y[t])
    assert stream.step(case.x[2], out=out) is out
    assert_same_bits(out, y[2])
    assert_same_bits(stream.run(case.x[3:]), y[3:])
    assert_same_bits(stream.state, last)
    stream.reset()
    assert_same_bits(stream.run(case.x), y)


@KIND
def test_stream_resets_rows(kind: str) -> None:
    v = Variant(kind, 2, B=4)
    case = make_case(v)
    layer = make_layer(v, case.params)
    reset = np.zeros((v.T, v.B), bool)
    reset[3, [0, 2]] = True
    want, _ = layer(case.x, reset=reset)
    stream = layer.stream(4)
    stream.run(case.x[:3])
    stream.reset(sequences=[0, 2])
    assert_same_bits(stream.run(case.x[3:]), want[3:])
    mask = np.array([True, False, True, False])
    stream.reset()
    stream.run(case.x[:3])
    stream.reset(sequences=mask)
    assert_same_bits(stream.run(case.x[3:]), want[3:])


@KIND
def test_stream_state_can_be_set(kind: str) -> None:
    v = Variant(kind, 2)
    case = make_case(v)
    layer = make_layer(v, case.params)
    stream = layer.stream(v.B)
    stream.state = case.state
    assert_same_bits(stream.run(case.x), layer(case.x, case.state)[0])


def test_stream_does_not_allocate() -> None:
    layer = fastrnn.LSTM(8, 16)
    stream = layer.stream(1)
    x, out = np.ones((1, 8), np.float32), np.empty((1, 16), np.float32)
    for _ in range(10):
        stream.step(x, out=out)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        stream.step(x, out=out)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 1000


def test_streams_share_a_frozen_layer_between_threads() -> None:
    layer = fastrnn.GRU(6, 20, 2)
    layer.freeze()
    x = np.random.default_rng(0).standard_normal((8, 200, 1, 6)).astype(np.float32)
    want = [layer(part)[0] for part in x]
    got: list[Any] = [None] * len(x)

    def work(i: int) -> None:
        stream = layer.stream(1)
        got[i] = np.stack([stream.step(step) for step in x[i]])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(x))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(got, want, strict=True):
        assert_same_bits(one, other)


# -- checkpoints and chunks


@pytest.mark.parametrize("checkpoint", [1, 2, 3, 7, 11, 100, "auto"])
@pytest.mark.parametrize("v", [v for v in both_dtypes(variants(T=11, B=4)) if v.bias], ids=str)
def test_checkpoints_give_the_same_bits(v: Variant, checkpoint: Any) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    assert_same_bits(run_layer(layer, case, checkpoint=checkpoint), want)
    kwargs = {"lengths": case.lengths, "reset": case.reset}
    want = run_layer(layer, case, **kwargs)
    assert_same_bits(run_layer(layer, case, checkpoint=checkpoint, **kwargs), want)


def test_checkpoints_save_memory() -> None:
    layer = fastrnn.LSTM(4, 32)
    x = np.zeros((1000, 1, 4), np.float32)
    whole, saved = (layer.forward(x, checkpoint=c)[2].nbytes for c in (None, "auto"))
    assert 1000 * 32 * 4 * 4 <= whole <= 1.2 * 1000 * 32 * 6 * 4
    assert saved < whole / 8


@KIND
def test_tape_is_at_most_gates_plus_two(kind: str) -> None:
    """Numbers a step and row: (gates + 2) H."""
    v = Variant(kind, I=3, H=32, T=100, B=8)
    case = make_case(v)
    _, _, tape = make_layer(v).forward(case.x)
    gates = {"lstm": 4, "gru": 3, "gru_before": 3}.get(kind, 1)
    assert tape.nbytes <= 1.05 * (gates + 2) * v.H * v.T * v.B * 4


def test_chunks_cover_the_sequence() -> None:
    x = np.arange(7 * 2 * 3, dtype=np.float32).reshape(7, 2, 3)
    pieces = list(fastrnn.chunks(x, 3))
    assert [(len(p), lengths) for p, lengths in pieces] == [(3, None), (3, None), (1, None)]
    np.testing.assert_array_equal(np.concatenate([p for p, _ in pieces]), x)
    turned = list(fastrnn.chunks(x.swapaxes(0, 1), 3, batch_first=True))
    np.testing.assert_array_equal(np.concatenate([p for p, _ in turned], axis=1).swapaxes(0, 1), x)
    lengths = [part.tolist() for _, part in fastrnn.chunks(x, 3, [7, 4])]
    assert lengths == [[3, 3], [3, 1], [1, 0]]


@KIND
def test_chunks_with_lengths_equal_the_whole(kind: str) -> None:
    v = Variant(kind, 2, T=10, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want, want_last = layer(case.x, case.state, lengths=case.lengths)
    state, pieces = case.state, []
    for x, lengths in fastrnn.chunks(case.x, 4, case.lengths):
        y, state = layer(x, state, lengths=lengths)
        pieces.append(y)
    assert_same_bits(np.concatenate(pieces), want)
    assert_same_bits(state, want_last)


# -- properties

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
).map(lambda v: v if v.kind == "lstm" else Variant(**vars(v) | {"proj_size": 0}))
SEED = st.integers(0, 2**32 - 1)


def one_way(v: Variant, num_layers: int | None = None) -> Variant:
    return Variant(**vars(v) | {"bidirectional": False, "num_layers": num_layers or v.num_layers})


def rows_of(case: Case, rows: Any) -> Case:
    state, dstate = (tuple(s[:, rows] for s in tuples(s)) for s in (case.state, case.dstate))
    if not isinstance(case.state, tuple):
        state, dstate = state[0], dstate[0]
    return Case(
        case.params, case.x[:, rows], state, case.dy[:, rows], dstate, case.lengths[rows], case.reset[:, rows]
    )


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
    got, sums = split(whole_call(layer, rows_of(case, order)))
    assert_same_bits(got, {key: value[:, order] for key, value in want.items()})
    assert_sums_close(sums, want_sums)


@given(SMALL, SEED, st.integers(0, 6))
def test_split_batch(v: Variant, seed: int, at: int) -> None:
    at = min(at, v.B)
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    want, want_sums = split(whole_call(layer, case))
    one, one_sums = split(whole_call(layer, rows_of(case, slice(at))))
    two, two_sums = split(whole_call(layer, rows_of(case, slice(at, None))))
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
    assert_same_bits(tuples(last), tuple(want[letter + "_n"] for letter in "hc"[: v.states]))
    g2 = layer.backward(tape2, case.dy[at:], case.dstate)
    g1 = layer.backward(tape1, case.dy[:at], g2.state)
    assert_same_bits(np.concatenate([g1.x, g2.x]), want["dx"])
    assert_same_bits(tuples(g1.state), tuple(want[f"d{letter}_0"] for letter in "hc"[: v.states]))
    assert_sums_close({"d" + key: value + g2.params[key] for key, value in g1.params.items()}, want_sums)


@given(SMALL, SEED)
def test_lengths_equal_truncation(v: Variant, seed: int) -> None:
    case = make_case(v, seed)
    layer = make_layer(v, case.params)
    want, _ = split(whole_call(layer, case))
    for b, n in enumerate(case.lengths):
        one = rows_of(case, slice(b, b + 1))
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
    for d in tuples(case.dstate):
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
    state, dstate = (same_structure(v, (s[1:] for s in tuples(s))) for s in (case.state, case.dstate))
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
            one = rows_of(case, slice(b, b + 1))
            one.x, one.dy = one.x[start:stop], one.dy[start:stop]
            first, last = start == 0 and not case.reset[0, b], stop == n
            one.state = same_structure(v, (s.copy() for s in tuples(one.state)))
            one.dstate = same_structure(v, (s.copy() for s in tuples(one.dstate)))
            for s, d in zip(tuples(one.state), tuples(one.dstate), strict=True):
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


def test_lengths_at_an_odd_address() -> None:
    """They are copied to where the core may read them."""
    memory = np.zeros(3 * 8 + 1, np.uint8)
    lengths = memory[1:].view(np.int64)
    lengths[:] = [2, 0, 4]
    layer, x = fastrnn.GRU(2, 3, rng=0), np.ones((4, 3, 2), np.float32)
    assert np.array_equal(layer(x, lengths=lengths)[0], layer(x, lengths=[2, 0, 4])[0])
    assert fastrnn.Ragged(np.ones((6, 2), np.float32), lengths).lengths.flags.aligned


def test_a_state_of_c_alone_says_how_many_rows_there_are() -> None:
    layer, c0 = fastrnn.LSTM(3, 4, rng=0), np.ones((1, 5, 4), np.float32)
    y, _ = layer(None, (None, c0), steps=3)
    assert_same_bits(y, layer(None, (np.zeros((1, 5, 4), np.float32), c0), steps=3)[0])


def test_rows_of_a_subclass() -> None:
    class Named(fastrnn.Ragged):
        pass

    layer, values = fastrnn.GRU(3, 4, rng=0), np.ones((3, 3), np.float32)
    assert_same_bits(layer(Named(values, [2, 1]))[0].values, layer(fastrnn.Ragged(values, [2, 1]))[0].values)


def test_the_last_steps_of_ragged_rows() -> None:
    layer, rows = fastrnn.GRU(3, 4, rng=0), fastrnn.Ragged(np.ones((4, 3), np.float32), [3, 1])
    last = np.ones((2, 4), np.float32)
    whole = np.zeros((4, 4), np.float32)
    whole[[2, 3]] = last
    got = layer.backward(layer.forward(rows)[2], last)
    assert_same_bits(got.flat, layer.backward(layer.forward(rows)[2], fastrnn.Ragged(whole, [3, 1])).flat)
