"""Pooling over time: what it computes, and what it is good for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import Ragged
from fastrnn.losses import log_softmax
from fastrnn.models import SequenceClassifier, SequenceRegressor, load

KW: dict[str, Any] = {"hidden_size": 8, "epochs": 3, "lr": 0.02, "verbose": False}
WORDS = ["abba", "aab", "ccd", "dcdd", "ba", "cdc"]
LABELS = [0, 0, 1, 1, 0, 1]


def by_hand(model: SequenceClassifier, word: str) -> np.ndarray:
    """The probabilities of a word, from the hidden states of all its steps."""
    m = model.modules_
    ids = np.array([model.config_["vocabulary"].index(c) for c in word])
    y, _ = m["rnn"](Ragged.from_list([m["embedding"](ids)]))
    h = y.values.astype(np.float64)
    if model.pooling == "attention":
        score = np.tanh(h @ m["pool"].params["weight"].T + m["pool"].params["bias"])
        score = score @ m["pool_score"].params["weight"].T + m["pool_score"].params["bias"]
        p = np.exp(score - score.max())
        pooled = (p / p.sum() * h).sum(axis=0)
    else:
        pooled = h.max(axis=0) if model.pooling == "max" else h.mean(axis=0)
    z = m["head"].params["weight"] @ pooled + m["head"].params["bias"]
    return np.exp(log_softmax(z))


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_pooled_outputs_by_hand(pooling: str, bidirectional: bool, tmp_path: Any) -> None:
    model = SequenceClassifier(**KW, pooling=pooling, bidirectional=bidirectional).fit(WORDS, LABELS)
    p = model.predict_proba(WORDS)
    np.testing.assert_allclose(p, [by_hand(model, word) for word in WORDS], rtol=1e-5)
    for i, word in enumerate(WORDS):  # whatever the batch
        np.testing.assert_array_equal(model.predict_proba([word])[0], p[i])
    model.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(load(tmp_path / "model.npz").predict_proba(WORDS), p)  # type: ignore[attr-defined]


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
def test_a_sign_in_the_middle_of_a_long_sequence_is_found(pooling: str) -> None:
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((60, 2)) * 0.3 for _ in range(120)]
    y = np.arange(120) % 2
    for x, label in zip(X, y, strict=True):
        x[rng.integers(20, 40), 0] = 3.0 if label else -3.0
    model = SequenceClassifier(
        **KW | {"epochs": 25}, pooling=pooling, bidirectional=False, cell="rnn_tanh", batch_size=8
    )
    assert model.fit(X[:80], y[:80]).score(X[80:], y[80:]) > 0.95


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
def test_sequences_without_steps_are_pooled_to_zero(pooling: str) -> None:
    model = SequenceRegressor(**KW, pooling=pooling).fit([*WORDS, ""], [*LABELS, 2.0])
    outputs, _ = model._outputs(["", "ab"])
    np.testing.assert_array_equal(outputs[0][0], model.modules_["head"].params["bias"])
    assert np.isfinite(model.predict(["", "", "ab"])).all()


def test_a_pooling_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"pooling: expected one of \['last', 'max', 'mean', 'attention'\]"):
        SequenceClassifier(pooling="median").fit(WORDS, LABELS)
