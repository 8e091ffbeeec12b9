"""Metrics that fit measures on the validation data after each epoch."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from small_tasks import SINE, WORDS, make

from fastrnn.models import Forecaster, LanguageModel, SequenceClassifier, SequenceTagger

KW: dict[str, Any] = {"hidden_size": 6, "epochs": 2, "lr": 0.02, "batch_size": 3, "verbose": False}
Y = [0, 0, 1, 1, 0, 1]


def longest(model: Any, X: Any, y: Any) -> float:
    return float(max(map(len, X)))


def test_several_metrics_by_name_and_function(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    model = SequenceClassifier(**KW | {"verbose": True})
    model.fit(
        WORDS, Y, validation=(WORDS, Y), metrics=["accuracy", "f1_macro", "neg_log_loss", longest, "score"]
    )
    last = model.history_[-1]
    assert last["val_accuracy"] == last["val_score"] == model.score(WORDS, Y)
    assert last["val_f1_macro"] == pytest.approx(metrics.f1_score(Y, model.predict(WORDS), average="macro"))
    assert -last["val_neg_log_loss"] == pytest.approx(last["val_loss"], rel=1e-5)
    assert last["val_longest"] == 4.0
    assert "val_f1_macro=" in capsys.readouterr().err


def test_metrics_of_every_epoch_are_of_its_weights() -> None:
    seen: list[float] = []
    model = SequenceClassifier(**KW | {"epochs": 4})
    model.fit(
        WORDS, Y, validation=(WORDS[:4], Y[:4]), metrics={"own": lambda m, X, y: m.score(X, y)},
        callbacks=[lambda m, log: seen.append(m.score(WORDS[:4], Y[:4]))],
    )  # fmt: skip
    assert [log["val_own"] for log in model.history_] == seen


def test_scorers_of_a_tagger_count_steps() -> None:
    pytest.importorskip("sklearn")
    tags = [list(word) for word in WORDS]
    model = SequenceTagger(**KW).fit(
        WORDS, tags, validation=(WORDS, tags), metrics=["accuracy", "neg_log_loss"]
    )
    assert model.history_[-1]["val_accuracy"] == model.score(WORDS, tags)
    assert -model.history_[-1]["val_neg_log_loss"] == pytest.approx(model.history_[-1]["val_loss"], rel=1e-5)


def test_models_without_a_target() -> None:
    model = LanguageModel(**KW, steps=5).fit("abcd" * 20, validation=0.2, metrics="score")
    assert model.history_[-1]["val_score"] == pytest.approx(-model.history_[-1]["val_loss"])
    for options in ({}, {"horizon": 3}):
        series = Forecaster(**KW, steps=20, **options).fit(
            [SINE, SINE * 2], validation=0.2, metrics=["score"]
        )
        assert all(np.isfinite(log["val_score"]) for log in series.history_)
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="metrics: expected functions for a model without y, got 'r2'"):
        model.fit("abcd" * 20, validation=0.2, metrics=["r2"])


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (["f1_banana"], ValueError, "metrics: expected 'score' or the name of a scorer of scikit-learn"),
        ([3], TypeError, r"metrics: expected str and functions \(model, X, y\), got int"),
        (3, TypeError, "metrics: expected a list or dict"),
        ({3: "score"}, TypeError, "metrics: expected names that are str"),
        (["score", "score"], ValueError, "metrics: expected every name once"),
        ([lambda m, X, y: "good"], TypeError, "metrics: expected a number from '<lambda>', got str"),
    ],
)
def test_bad_metrics(metrics: Any, error: type[Exception], message: str) -> None:
    pytest.importorskip("sklearn")
    model = SequenceClassifier(**KW)
    with pytest.raises(error, match=message):
        model.fit(WORDS, Y, validation=(WORDS, Y), metrics=metrics)
    assert "modules_" not in vars(model)


def test_metrics_need_validation_data_and_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    model, X, y = make("classifier")
    with pytest.raises(ValueError, match="metrics: expected validation data to go with it, got None"):
        model.fit(X, y, metrics=["score"])
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        model.fit(X, y, validation=0.3, metrics=["f1"])
    model.fit(X, y, validation=0.3, metrics=["score"])
