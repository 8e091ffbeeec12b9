"""A small task for every model, which it learns in a second."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.models import (
    Captioner,
    Forecaster,
    LanguageModel,
    Seq2Seq,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
)

SINE = np.sin(np.arange(240) * 2 * np.pi / 20)
WORDS = ["abba", "aab", "ccd", "dcdd", "ba", "cdc"]
LISTS = [np.full((n, 2), v) for n, v in ((3, 1.0), (5, -1.0), (1, 1.0), (2, -1.0))]  # of unequal length
# model, hyperparameters, X, y, least score after training
TASKS: dict[str, tuple[Any, dict[str, Any], Any, Any, float]] = {
    "language": (LanguageModel, {"steps": 10, "batch_size": 4}, "abcd" * 50, None, -0.1),
    "classifier": (SequenceClassifier, {}, WORDS, [0, 0, 1, 1, 0, 1], 1.0),
    "ragged": (SequenceClassifier, {"cell": "gru"}, LISTS, ["up", "down", "up", "down"], 1.0),
    "regressor": (SequenceRegressor, {}, WORDS, [float(w.count("b")) for w in WORDS], 0.95),
    "tagger": (SequenceTagger, {"cell": "gru"}, WORDS, [[c.upper() for c in w] for w in WORDS], 1.0),
    "forecaster": (Forecaster, {"steps": 40, "batch_size": 2}, SINE, None, 0.95),
    "seq2seq": (Seq2Seq, {"embedding_size": 16}, WORDS, [w[::-1] for w in WORDS], 1.0),
    "plain seq2seq": (
        Seq2Seq,
        {"attention": False, "bidirectional": False, "cell": "gru"},
        WORDS,
        WORDS,
        1.0,
    ),
    "captioner": (Captioner, {}, np.eye(3), [["a", "cat"], ["dogs"], ["a", "dog"]], 1.0),
}


def make(name: str, **options: Any) -> tuple[Any, Any, Any]:
    """A model that is not fitted yet, and its data."""
    kind, own, X, y, _ = TASKS[name]
    common = {"hidden_size": 16, "lr": 0.02, "epochs": 3, "batch_size": 3, "verbose": False}
    return kind(**common | own | options), X, y


def bits(model: Any) -> dict[str, np.ndarray]:
    return {f"{n}.{k}": a for n, piece in model.modules_.items() for k, a in piece.params.items()}


def state(model: Any) -> dict[str, Any]:
    """All that a model is, but for its hyperparameters."""
    return {name: value for name, value in vars(model).items() if name not in model.get_params()}
