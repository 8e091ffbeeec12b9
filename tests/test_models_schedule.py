"""The learning rate falls to 0 over all epochs, not before."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fastrnn.models import Forecaster, LanguageModel, SequenceClassifier

pytest.importorskip("tqdm")

CASES: list[Any] = [
    (LanguageModel(steps=4, batch_size=2), ("abcd" * 30,)),
    (LanguageModel(steps=500, batch_size=1), ("abcd" * 700,)),
    (Forecaster(steps=8, batch_size=4), (np.sin(np.arange(200) / 5),)),
    (SequenceClassifier(batch_size=2), (["ab", "cd", "ba", "dc"], [0, 1, 0, 1])),
]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(("model", "data"), CASES)
def test_every_epoch_learns_and_the_last_one_ends_at_zero(model: Any, data: Any, schedule: str) -> None:
    seen: list[np.ndarray[Any, Any]] = []

    def keep(model: Any, log: dict[str, float]) -> None:
        seen.append(np.concatenate([piece.flat.copy() for piece in model.modules_.values()]))

    model.set_params(schedule=schedule, epochs=6, optimizer="sgd", lr=0.1, hidden_size=4, verbose=False)
    model.fit(*data, callbacks=[keep])
    moved = [float(np.abs(b - a).max()) for a, b in pairwise(seen)]
    assert min(moved) > 0
    assert moved[-1] < moved[0]
