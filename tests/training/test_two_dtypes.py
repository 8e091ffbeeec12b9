"""An optimiser of parameters of two dtypes: its gradients have one norm and are clipped together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import optim

MAKE: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=0.5, momentum=0.5, weight_decay=0.1),
    "adam": lambda p: optim.Adam(p, lr=0.1, eps=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.1, eps=0.1),
}


def test_the_norm_is_that_of_all() -> None:
    params = [np.zeros(1, np.float64), np.zeros(1, np.float32)]
    gradients = [np.array([3.0]), np.array([4.0], np.float32)]
    assert optim.SGD(params, lr=1.0).step(gradients, clip_norm=1.0) == 5.0
    np.testing.assert_allclose([params[0][0], params[1][0]], [-0.6, -0.8], rtol=1e-6)
    np.testing.assert_array_equal([gradients[0][0], gradients[1][0]], [3, 4])


@pytest.mark.parametrize("limit", [0.5, 1e6], ids=["clipped", "not clipped"])
@pytest.mark.parametrize("name", MAKE)
def test_clipping_in_the_step_is_that_before_it(name: str, limit: float) -> None:
    def params() -> list[np.ndarray]:
        return [np.ones(3, np.float64), np.ones(5, np.float32), np.ones(2, np.float64)]

    within, before = params(), params()
    one, other = MAKE[name](within), MAKE[name](before)
    rng = np.random.default_rng(0)
    for _ in range(4):
        gradients = [rng.standard_normal(p.shape).astype(p.dtype) for p in within]
        clipped = [g.copy() for g in gradients]
        norm = optim.clip_grad_norm(clipped, limit)
        assert one.step(gradients, clip_norm=limit) == pytest.approx(norm, rel=1e-6)
        other.step(clipped)
    for got, want in zip(within, before, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
