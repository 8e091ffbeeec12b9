"""Checkpoints and chunks: long sequences in less memory, with the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import KIND, Variant, assert_same_bits, both_dtypes, make_case, make_layer, run_layer, variants

import fastrnn


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


# -- kinds of arrays --------------------------------------------------------------------------------------------


IDS = np.arange(20).reshape(10, 2)  # [T, B]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_chunks_of_ids(dtype: Any) -> None:
    """[B, T] of integers was one chunk of everything."""
    ids = IDS.astype(dtype)
    for first in (False, True):
        x = ids.T if first else ids
        pieces = [p for p, _ in fastrnn.chunks(x, 4, batch_first=first)]
        assert [p.shape for p in pieces] == [(2, n) if first else (n, 2) for n in (4, 4, 2)]
        np.testing.assert_array_equal(np.concatenate(pieces, axis=int(first)), x)
        lengths = [n.tolist() for _, n in fastrnn.chunks(x, 4, [10, 5], batch_first=first) if n is not None]
        assert lengths == [[4, 4], [4, 1], [2, 0]]


def test_chunks_of_one_sequence() -> None:
    """[T, features] of floats, as a batch-first layer takes it without a batch, and [T]."""
    x = np.ones((10, 3), np.float32)
    assert [p.shape for p, _ in fastrnn.chunks(x, 4, batch_first=True)] == [(4, 3), (4, 3), (2, 3)]
    assert [p.tolist() for p, _ in fastrnn.chunks(np.arange(3), 2)] == [[0, 1], [2]]


def test_chunks_of_several_arrays() -> None:
    """Floats [T, B], such as weights, are a batch beside a batch."""
    x, weights, starts = np.ones((10, 2, 3)), np.ones((10, 2)), np.zeros((10, 2), bool)
    for first in (False, True):
        arrays = tuple(a.swapaxes(0, 1) if first else a for a in (x, IDS, weights, starts))
        cut = list(fastrnn.chunks(arrays, 4, [10, 5], batch_first=first))
        assert len(cut) == 3
        for i, whole in enumerate(arrays):
            np.testing.assert_array_equal(np.concatenate([c[i] for c, _ in cut], axis=int(first)), whole)
        assert [n.tolist() for _, n in cut if n is not None] == [[4, 4], [4, 1], [2, 0]]
    (((one,), _),) = fastrnn.chunks((IDS,), 10)
    assert one.shape == IDS.shape


@KIND
def test_chunks_of_a_ragged_equal_the_whole(kind: str) -> None:
    v = Variant(kind, 2, T=10, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params)
    x = fastrnn.Ragged.from_padded(case.x, case.lengths)
    want, want_last = layer(x, case.state)
    ids = fastrnn.Ragged(np.arange(len(x.values)), x.lengths)
    state, pieces, numbers = case.state, [], []
    for (part, number), lengths in fastrnn.chunks((x, ids), 4):
        assert lengths is None
        y, state = layer(part, state)
        pieces.append(y.to_list())
        numbers.append(number.to_list())
    assert_same_bits(np.concatenate([p for b in zip(*pieces, strict=True) for p in b]), want.values)
    np.testing.assert_array_equal(
        np.concatenate([p for b in zip(*numbers, strict=True) for p in b]), ids.values
    )
    assert_same_bits(state, want_last)


RAGGED = fastrnn.Ragged(np.ones((5, 3)), [3, 2])


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.ones((2, 2, 2, 2)), {}, r"^x: expected 1 to 3 dimensions, got shape \(2, 2, 2, 2\)"),
        (np.float32(1), {}, r"^x: expected 1 to 3 dimensions, got shape \(\)"),
        (
            (IDS, IDS[1:]),
            {},
            r"^x\[1\]: expected steps and sequences as x\[0\] of shape \(10, 2\), got .* \(9, 2\)",
        ),
        ((IDS, IDS[:, 0]), {}, r"^x\[1\]: expected steps and sequences"),
        ((), {}, "^x: expected at least one array"),
        (IDS, {"lengths": [1]}, "^lengths: expected one for each sequence"),
        (np.ones((4, 3)), {"lengths": [4]}, "^lengths: expected one for each sequence"),
        (RAGGED, {"lengths": [3, 2]}, "^lengths: expected None with a Ragged x"),
        ((RAGGED, IDS), {}, r"^x\[1\]: expected a Ragged, as one of the others is, got ndarray"),
        (
            (RAGGED, fastrnn.Ragged(np.ones((5, 1)), [2, 3])),
            {},
            r"^x\[1\]: expected sequences of the lengths of x\[0\]",
        ),
        (np.ma.masked_equal(IDS, 3), {}, "^x: expected an array without masked elements"),
        ((IDS, np.ma.masked_equal(IDS, 3)), {}, r"^x\[1\]: expected an array without masked elements"),
    ],
)
def test_bad_chunks(x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        list(fastrnn.chunks(x, 4, **options))


def test_length_mask() -> None:
    assert fastrnn.length_mask([2, 0, 3]).T.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert fastrnn.length_mask([2, 0], 4, batch_first=True).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert fastrnn.length_mask([]).shape == (0, 0)
    for bad, message in (
        (([5], 4), "lengths: expected values from 0 to 4, got 5"),
        (([-1],), "lengths: expected values from 0 to 0, got -1"),
        (([[1]],), r"lengths: expected shape \(B,\)"),
        (([1.0],), "lengths: expected an array of integers"),
        (([1], -1), "steps: expected at least 0, got -1"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            fastrnn.length_mask(*bad)
