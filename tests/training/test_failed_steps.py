"""A step whose gradient is not finite leaves the optimiser as it was, not the parameters alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits

from fastrnn import optim

OPTIMISERS: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=optim.linear(0.1, 10), momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.1),
    "adamw": lambda p: optim.AdamW(p, lr=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.1, momentum=0.5),
}


@pytest.mark.parametrize("dtypes", [[np.float32], [np.float64, np.float32]], ids=["one dtype", "two dtypes"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_that_is_not_finite_leaves_no_trace(name: str, wrong: float, dtypes: list[Any]) -> None:
    """It is not counted either: schedules and the corrections of Adam go by the number of steps."""

    def run(failing: bool) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        params = [np.ones(5, dtype) for dtype in dtypes]
        optimiser = OPTIMISERS[name](params)
        for i in range(3):
            gradients = [np.full(5, i + 1.0, dtype) for dtype in dtypes]
            if failing:
                bad = [g.copy() for g in gradients]
                bad[-1][2] = wrong
                norm = optimiser.step(bad, clip_norm=1.0)
                assert not np.isfinite(norm)
            optimiser.step(gradients, clip_norm=1.0)
        return params, optimiser.state_dict()

    got, want = run(True), run(False)
    assert_same_bits(tuple(got[0]), tuple(want[0]))
    assert_same_bits(got[1], want[1])
