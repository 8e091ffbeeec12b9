"""Lists of sequences of unequal length, as people have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn.models import SequenceClassifier, SequenceTagger

pytest.importorskip("tqdm")

ROWS = [
    [["a", "good", "film"], ["bad"], ["good"], ["a", "bad", "film"]],  # words
    [[1.0, 1.0, 2.0], [-1.0], [2.0], [-2.0, -1.0]],  # numbers
    [[(1.0, 0.0), (2.0, 0.0)], [(-1.0, 0.0)], [(2.0, 0.0)], [(-2.0, 0.0), (-1.0, 0.0)]],  # [T, D]
    ["ab", "c", "a", "cdd"],
]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceTagger])
def test_lists_of_unequal_length(kind: Any, rows: list[Any]) -> None:
    labels: list[Any] = [1, 0, 1, 0]
    if kind is SequenceTagger:
        labels = [[label] * len(row) for label, row in zip(labels, rows, strict=True)]
    model = kind(hidden_size=8, epochs=40, lr=0.05, verbose=False).fit(rows, labels)
    assert model.score(rows, labels) == 1
    assert all(np.array_equal(p, y) for p, y in zip(model.predict(rows), labels, strict=True))
