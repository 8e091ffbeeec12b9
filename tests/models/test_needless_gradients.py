"""Models compute no gradient of their data, because nobody asks for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import GRU, LSTM
from fastrnn.models import Forecaster, SequenceClassifier, SequenceTagger

S = np.sin(np.arange(60.0))
KW: dict[str, Any] = {"hidden_size": 4, "epochs": 1, "verbose": False}


@pytest.mark.parametrize(
    ("fit", "needed"),
    [
        (lambda: Forecaster(**KW).fit(S), False),
        (lambda: SequenceClassifier(**KW).fit([S[:5], S[:4]] * 4, [0, 1] * 4), False),
        (lambda: SequenceTagger(**KW).fit([S[:5], S[:4]] * 4, [[0] * 5, [1] * 4] * 4), False),
        (lambda: SequenceClassifier(**KW).fit(["abc", "cd"] * 4, [0, 1] * 4), True),
    ],
)
def test_no_gradient_of_the_data(fit: Any, needed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    for kind in (LSTM, GRU):
        backward = kind.backward

        def spy(self: Any, *args: Any, _backward: Any = backward, **kwargs: Any) -> Any:
            g = _backward(self, *args, **kwargs)
            seen.append(g.x is not None)
            return g

        monkeypatch.setattr(kind, "backward", spy)
    fit()
    assert seen
    assert all(x is needed for x in seen)
