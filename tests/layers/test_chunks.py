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
