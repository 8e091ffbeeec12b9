"""Captioners: the gradient to the features, and training step by step."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_same_bits, numeric_gradient
from small_tasks import bits, make, state

from fastrnn.models import Captioner


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_captioner_gradient_to_the_features(cell: str) -> None:
    rng = np.random.default_rng(0)
    features, captions = rng.standard_normal((3, 5)), ["ab", "b", "aab"]
    model = Captioner(
        cell=cell, hidden_size=4, num_layers=2, optimizer="sgd", lr=0.0, dtype="float64", verbose=False
    )
    _, gradient = model.partial_fit(features, captions)
    want = numeric_gradient(lambda: model.partial_fit(features, captions)[0], features)
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-9)
    assert abs(gradient).max() > 1e-6


def test_captioner_trains_what_makes_the_features() -> None:
    """A linear map in front, trained through the gradient to its output, beats training the captioner only."""
    from fastrnn import optim
    from fastrnn.nn import Linear

    rng = np.random.default_rng(0)
    images, captions = rng.standard_normal((8, 6)).astype(np.float32), [f"{i:03b}" for i in range(8)]
    final = []
    for lr in (0.0, 0.05):
        front = Linear(6, 2, rng=1)
        optimiser = optim.Adam([front], lr=lr)
        model = Captioner(hidden_size=16, lr=0.01, verbose=False)
        for _ in range(60):
            features, tape = front.forward(images)
            loss, gradient = model.partial_fit(features, captions)
            optimiser.step([front.backward(tape, gradient)])
        final.append(loss)
    assert final[1] < 0.7 * final[0]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_partial_fit_has_no_end_for_a_schedule(schedule: str) -> None:
    """The rate would be 0 from the second step on."""
    model = Captioner(schedule=schedule, verbose=False)
    with pytest.raises(ValueError, match=r"^schedule: expected 'constant', since steps have no end, got"):
        model.partial_fit(np.eye(2), ["ab", "cd"])
    assert not hasattr(model, "modules_")


def test_partial_fit_goes_on_after_fit() -> None:
    model, X, y = make("captioner")
    for _ in range(2):  # the second fit makes new weights: they are what the next step changes
        model.fit(X, y)
        before = {name: array.copy() for name, array in bits(model).items()}
        model.partial_fit(X, y)
        assert all((array != before[name]).any() for name, array in bits(model).items())


def test_captions_to_features_that_are_not_finite_change_nothing() -> None:
    model, X, y = make("captioner")
    bad = X.copy()
    bad[0, 0] = np.nan
    with pytest.raises(
        ValueError, match="X: expected numbers that are finite in float32, got NaN or infinity"
    ):
        model.partial_fit(bad, y)
    assert not state(model)
    with pytest.raises(ValueError, match="captions: expected at least 1 sequence, got 0"):
        model.partial_fit(X, y, captions=[])
    model.partial_fit(X, y)
    weights = {name: array.copy() for name, array in bits(model).items()}
    with pytest.raises(ValueError, match="X: expected numbers that are finite"):
        model.partial_fit(bad, y)
    assert_same_bits(bits(model), weights)
