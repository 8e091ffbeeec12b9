"""Weights of losses that are no weights: NaN, infinity and negative numbers are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastrnn import losses
from fastrnn.nn import Linear

X, TARGET = np.ones((4, 3)), np.zeros(4, int)
LOSSES: dict[str, Callable[[Any], Any]] = {
    "softmax_cross_entropy": lambda w: losses.softmax_cross_entropy(X, TARGET, w),
    "linear_softmax_cross_entropy": lambda w: losses.linear_softmax_cross_entropy(
        Linear(3, 2, rng=0, dtype=np.float64), X, TARGET, w
    ),
    "mse": lambda w: losses.mse(X, X, w),
    "huber": lambda w: losses.huber(X, X, w),
    "gaussian_nll": lambda w: losses.gaussian_nll(X, X, X, w),
}


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_a_weight_that_is_none_is_refused(name: str, wrong: float, place: int) -> None:
    """NaN compares as false with everything, so it gets past a check that is written the wrong way round."""
    weights = np.ones(4)
    weights[place] = wrong
    with pytest.raises(ValueError, match="weights: expected no negative weight, NaN or infinity"):
        LOSSES[name](weights)
    LOSSES[name](np.ones(4))


def test_a_nan_among_the_weights_of_elements_is_refused() -> None:
    weights = np.ones((4, 3))
    weights[2, 1] = np.nan
    for name in ("mse", "huber", "gaussian_nll"):
        with pytest.raises(ValueError, match="weights: expected no negative weight, NaN or infinity"):
            LOSSES[name](weights)
