"""The losses that fit reports: means over tokens, whatever the batches, and without smoothing where it is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn.losses import log_softmax, softmax_cross_entropy
from fastrnn.models import Captioner, Forecaster, LanguageModel, Seq2Seq, SequenceClassifier, SequenceTagger

# An untrained model of a learning rate of 0: every batch meets the same weights, so the loss of an epoch is that of
# its data. Batches of three leave an uneven last one, and the sequences have one token, or many.
STILL: dict[str, Any] = {"hidden_size": 6, "epochs": 2, "lr": 0.0, "verbose": False, "batch_size": 3}
WORDS = ["a", "abcabcabc", "b", "cabcab", "c", "a", "bbbbbbbbbbbbbbbbbbbb"]
TAGS = [list(word) for word in WORDS]
TASKS: dict[str, tuple[type, dict[str, Any], Any, Any]] = {
    "tagger": (SequenceTagger, {}, WORDS, TAGS),
    "classifier": (SequenceClassifier, {}, WORDS, [word[0] for word in WORDS]),
    "seq2seq": (Seq2Seq, {}, WORDS, WORDS),
    "captioner": (Captioner, {}, np.eye(7), WORDS),
    "forecaster": (Forecaster, {"steps": 8}, [np.sin(np.arange(n)) for n in (3, 30, 4, 9, 8, 7, 20)], None),
}


def whole(name: str) -> float:
    """The loss of all the data in one batch."""
    kind, options, X, y = TASKS[name]
    model = kind(**STILL | options | {"batch_size": 1000}).fit(X, y)
    return float(model._mean_loss(model._prepare(X, y, model.config_)))


@pytest.mark.parametrize("name", [name for name in TASKS if name != "forecaster"])
def test_the_loss_of_an_epoch_is_a_mean_over_tokens(name: str) -> None:
    kind, options, X, y = TASKS[name]
    model = kind(**STILL | options).fit(X, y)
    for log in model.history_:
        assert log["loss"] == pytest.approx(whole(name), rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_the_validation_loss_is_a_mean_over_tokens(name: str) -> None:
    kind, options, X, y = TASKS[name]
    model = kind(**STILL | options).fit(X, y, validation=X if y is None else (X, y))
    for log in model.history_:
        assert log["val_loss"] == pytest.approx(whole(name), rel=1e-5)


def test_the_loss_of_a_tagger_by_hand() -> None:
    """-log p of the right tag, over all tokens of all words."""
    model = SequenceTagger(**STILL).fit(WORDS, TAGS, validation=(WORDS, TAGS))
    order = model.config_["classes"]
    right = [
        p[order.index(t)]
        for ps, ts in zip(model.predict_proba(WORDS), TAGS, strict=True)
        for p, t in zip(ps, ts, strict=True)
    ]
    want = -np.mean(np.log(right))
    assert model.history_[0]["loss"] == pytest.approx(want, rel=1e-5)
    assert model.history_[0]["val_loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("name", ["tagger", "classifier", "seq2seq", "captioner"])
def test_the_validation_loss_is_not_smoothed(name: str) -> None:
    """Label smoothing is for training; runs with and without it are compared by their validation loss."""
    kind, options, X, y = TASKS[name]
    plain, smooth = (
        kind(**STILL | options, label_smoothing=s).fit(X, y, validation=(X, y)).history_[0]
        for s in (0.0, 0.5)
    )
    assert smooth["val_loss"] == plain["val_loss"]
    assert smooth["loss"] != pytest.approx(plain["loss"], rel=1e-3)


def test_the_smoothed_loss_of_a_classifier_by_hand() -> None:
    model = SequenceClassifier(**STILL, label_smoothing=0.25).fit(WORDS, [word[0] for word in WORDS])
    p = model.predict_proba(WORDS)
    targets = [model.config_["classes"].index(word[0]) for word in WORDS]
    want, _ = softmax_cross_entropy(np.log(p), targets, label_smoothing=0.25)
    assert model.history_[0]["loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("length", [999, 1000, 1001, 1002, 2500])
def test_a_language_model_reads_a_long_text_as_one(length: int) -> None:
    """Evaluation goes in chunks, and carries the state from one to the next."""
    text = "".join(np.random.default_rng(0).choice(list("abcd"), length))
    options: dict[str, Any] = {"hidden_size": 8, "epochs": 4, "batch_size": 2, "steps": 20, "lr": 0.05}
    model = LanguageModel(**options, verbose=False).fit("abcddcba" * 30)
    ids = np.array([model.config_["vocabulary"].index(token) for token in text])
    modules = model.modules_
    h, _ = modules["rnn"](modules["embedding"](ids[:-1, None]))
    log_p = log_softmax(modules["head"](h[:, 0]).astype(np.float64))
    want = log_p[np.arange(length - 1), ids[1:]].mean()
    assert model.score(text) == pytest.approx(want, rel=1e-6)
    assert model.perplexity(text) == pytest.approx(np.exp(-want), rel=1e-6)
