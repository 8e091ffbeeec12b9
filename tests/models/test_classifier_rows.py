"""SequenceClassifier on what its documentation names: a list of arrays [T, D] of unequal length."""

import numpy as np

from fastrnn.models import SequenceClassifier


def test_a_list_of_arrays_of_unequal_length():
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((n, 3)) + label for n, label in ((4, 0), (7, 3), (1, 0), (5, 3)) * 8]
    y = [0, 1] * 16
    model = SequenceClassifier(hidden_size=8, epochs=20, lr=0.02, verbose=False).fit(X, y)
    assert model.n_features_in_ == 3
    assert model.score(X, y) > 0.9


def test_the_features_of_an_array_are_its_columns():
    X = np.array([[0.0, 0, 0, 0], [1, 1, 1, 1]] * 4)
    assert SequenceClassifier(hidden_size=4, epochs=1, verbose=False).fit(X, [0, 1] * 4).n_features_in_ == 4
