"""Assignments to parameters by name: an array has the shape of the parameter, or is one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits

import fastrnn

NAMED: dict[str, Callable[[], Any]] = {
    "parameters": lambda: fastrnn.GRU(3, 4, rng=0),
    "gradients": lambda: fastrnn.GRU(3, 4, rng=0).backward(
        fastrnn.GRU(3, 4, rng=0).forward(np.ones((2, 1, 3), np.float32))[2], np.ones((2, 1, 4), np.float32)
    ),
}


@pytest.mark.parametrize("shape", [(1,), (4,), (1, 4), (12, 1), (1, 12, 4)])
@pytest.mark.parametrize("name", NAMED)
def test_an_array_of_another_shape_is_not_broadcast(name: str, shape: tuple[int, ...]) -> None:
    """NumPy would repeat a row, which is hardly ever meant."""
    owner = NAMED[name]()
    before = owner.flat.copy()
    message = r"weight_hh_l0: expected shape \(12, 4\), got"
    with pytest.raises(ValueError, match=message):
        owner.params["weight_hh_l0"] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=message):
        owner.params.update(weight_hh_l0=np.zeros(shape, np.float32))
    assert_same_bits(owner.flat, before)
    owner.params["weight_hh_l0"] = 0.5
    assert (owner.params["weight_hh_l0"] == 0.5).all()
