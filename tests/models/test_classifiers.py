"""Classifiers and taggers on sequences of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_tasks import make

from fastrnn.models import SequenceClassifier, SequenceTagger


def test_kinds_of_sequences() -> None:
    kinds: list[tuple[Any, Any]] = [
        (np.array([[0.0, 1.0], [1.0, 0.0]] * 3), np.array([0, 1] * 3)),
        ([[0.0, 1.0, 2.0], [1.0, 0.0]] * 3, [True, False] * 3),
        ([np.ones(3), np.zeros((0,)), -np.ones(2)] * 2, ["a", "b", "c"] * 2),
        ([["the", "cat"], [], ["a", "dog"]] * 2, ["a", "b", "c"] * 2),
        (np.array(["ab", "cd"] * 3), [3, 7] * 3),
    ]
    for X, y in kinds:
        model = SequenceClassifier(hidden_size=8, epochs=60, lr=0.03, verbose=False).fit(X, y)
        assert model.predict(X).tolist() == list(y)
        p = model.predict_proba(X)
        assert p.shape == (6, len(model.classes_))
        np.testing.assert_allclose(p.sum(axis=1), 1)


def test_taggers_give_a_label_a_step() -> None:
    model, X, y = make("tagger", epochs=2)
    model.fit(X, y)
    p = model.predict_proba([*X, ""])
    assert [row.shape for row in p] == [(len(row), 4) for row in [*X, ""]]
    assert model.predict(["unknown"])[0].shape == (7,)


def test_a_list_of_arrays_of_unequal_length() -> None:
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((n, 3)) + label for n, label in ((4, 0), (7, 3), (1, 0), (5, 3)) * 8]
    y = [0, 1] * 16
    model = SequenceClassifier(hidden_size=8, epochs=20, lr=0.02, verbose=False).fit(X, y)
    assert model.n_features_in_ == 3
    assert model.score(X, y) > 0.9


def test_the_features_of_an_array_are_its_columns() -> None:
    X = np.array([[0.0, 0, 0, 0], [1, 1, 1, 1]] * 4)
    assert SequenceClassifier(hidden_size=4, epochs=1, verbose=False).fit(X, [0, 1] * 4).n_features_in_ == 4


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
