"""Initialisation: how what is drawn is distributed."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn import init


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5)])
def test_orthogonal_matrices_favour_no_direction(shape: tuple[int, int]) -> None:
    """They are drawn from Haar measure. Without the correction of signs, LAPACK's QR leaves the diagonal of Q
    mostly negative (Mezzadri 2007)."""
    rng = np.random.default_rng(0)
    drawn = np.array([init.orthogonal(np.empty(shape), rng) for _ in range(600)])
    # Every element has mean 0 and the variance 1 / max(shape): this is six standard errors of the mean.
    limit = 6 / np.sqrt(max(shape) * len(drawn))
    assert abs(drawn.mean(axis=0)).max() < limit
    diagonal = drawn[:, np.arange(min(shape)), np.arange(min(shape))]
    assert 0.4 < (diagonal > 0).mean() < 0.6


def test_both_kinds_of_orthogonal_matrices_are_drawn() -> None:
    """Rotations, and those with a reflection, each half of the time."""
    rng = np.random.default_rng(0)
    signs = [np.linalg.det(init.orthogonal(np.empty((4, 4)), rng)) for _ in range(400)]
    np.testing.assert_allclose(np.abs(signs), 1)
    assert 0.35 < np.mean(np.array(signs) > 0) < 0.65
