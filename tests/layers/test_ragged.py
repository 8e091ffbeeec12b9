"""Ragged: sequences of unequal length without padding, with the bits of padded ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import (
    KIND,
    Variant,
    as_tuple,
    assert_same_bits,
    both_dtypes,
    make_case,
    make_layer,
    padding,
    run_layer,
    variants,
)

import fastrnn


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
    assert_same_bits(as_tuple(last)[0], want["h_n"])
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
        assert as_tuple(last)[0].shape == (4, len(lengths), 7)
        y, _, tape = layer.forward(empty)
        assert not layer.backward(tape, y).flat.any()


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
    got = layer.backward(layer.forward(rows)[2], dy_last=last)
    assert_same_bits(got.flat, layer.backward(layer.forward(rows)[2], fastrnn.Ragged(whole, [3, 1])).flat)
