"""Models of several networks, whose mean is what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tasks import SINE, WORDS, state

from fastrnn.models import Forecaster, SequenceClassifier, SequenceRegressor, SequenceTagger, load
from fastrnn.models._views import curves

KW: dict[str, Any] = {"hidden_size": 6, "epochs": 2, "lr": 0.02, "batch_size": 3, "verbose": False}
Y = [0, 0, 1, 1, 0, 1]
TASKS: dict[str, tuple[Any, Any, Any, Any]] = {
    "classifier": (SequenceClassifier, WORDS, Y, lambda m: m.predict_proba(WORDS)),
    "tagger": (
        SequenceTagger,
        WORDS,
        [list(w) for w in WORDS],
        lambda m: np.concatenate(m.predict_proba(WORDS)),
    ),
    "regressor": (SequenceRegressor, WORDS, [float(y) for y in Y], lambda m: m.predict(WORDS)),
    "forecaster": (Forecaster, SINE, None, lambda m: m.predict(SINE, 5)),
    "interval": (Forecaster, SINE, None, lambda m: np.stack(m.predict_interval(SINE, 3, samples=20))),
    "horizon": (
        lambda **kw: Forecaster(**kw, horizon=4, steps=20),
        SINE,
        None,
        lambda m: np.stack([m.predict(SINE), *m.predict_interval(SINE)]),
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_mean_of_networks_of_following_seeds(name: str, tmp_path: Path) -> None:
    kind, X, y, said = TASKS[name]
    several = kind(**KW, n_estimators=3, random_state=5).fit(X, y)
    alone = [kind(**KW, random_state=5 + i).fit(X, y) for i in range(3)]
    np.testing.assert_allclose(said(several), np.mean([said(m) for m in alone], axis=0), rtol=1e-12)
    assert [log["loss"] for log in several.history_] == [log["loss"] for m in alone for log in m.history_]
    assert [log["estimator"] for log in several.history_] == [1, 1, 2, 2, 3, 3]
    assert np.isfinite(several.score(X, y) if y is not None else several.score(X))
    several.save(tmp_path / "model.npz")
    other = load(tmp_path / "model.npz")
    np.testing.assert_array_equal(said(other), said(several))
    assert other.get_params() == several.get_params()
    several.set_params(n_estimators=1)
    np.testing.assert_array_equal(said(other), said(several))  # what was fitted stays


def test_validation_and_checkpoints_of_each(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    options: dict[str, Any] = {"validation": (WORDS, Y), "metrics": ["score"]}
    model = SequenceClassifier(**KW, n_estimators=2).fit(WORDS, Y, **options)
    first = SequenceClassifier(**KW | {"epochs": 1}, n_estimators=2)
    first.fit(WORDS, Y, **options, resume=path)
    assert {p.name for p in tmp_path.iterdir()} == {"run.npz", "run.1.npz"}
    went_on = SequenceClassifier(**KW, n_estimators=2).fit(WORDS, Y, **options, resume=path)
    np.testing.assert_array_equal(went_on.predict_proba(WORDS), model.predict_proba(WORDS))
    assert went_on.history_ == model.history_
    assert all("val_score" in log for log in model.history_)


def test_callbacks_and_interruptions() -> None:
    epochs: list[Any] = []

    def stop(member: Any, log: dict[str, Any]) -> bool:
        epochs.append((log["estimator"], log["epoch"], member.random_state))
        if log["estimator"] == 2 and log["epoch"] == 2:
            raise KeyboardInterrupt
        return log["estimator"] == 1

    model = SequenceRegressor(**KW | {"epochs": 3}, n_estimators=4, random_state=7)
    with pytest.raises(KeyboardInterrupt, match="fit was interrupted in epoch 3"):
        model.fit(WORDS, Y, callbacks=[stop])
    assert epochs == [(1, 1, 7), (2, 1, 8), (2, 2, 8)]
    assert model.n_estimators == 4
    assert len(model._networks()) == 2
    assert np.isfinite(model.predict(WORDS)).all()
    assert [log["epoch"] for log in model.history_] == [1, 1, 2]

    def at_once(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(WORDS, Y, callbacks=[at_once])
    assert len(model._networks()) == 1
    assert np.isfinite(model.predict(WORDS)).all()


def test_a_failed_fit_changes_nothing() -> None:
    model = SequenceRegressor(**KW, n_estimators=2).fit(WORDS, Y)
    before, said = state(model), model.predict(WORDS)

    def fail(member: Any, log: dict[str, Any]) -> None:
        if log["estimator"] == 2:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        model.fit(WORDS, Y, callbacks=[fail])
    assert state(model) == before
    np.testing.assert_array_equal(model.predict(WORDS), said)


def test_a_curve_for_each() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    model = SequenceRegressor(**KW, n_estimators=3).fit(WORDS, Y, validation=(WORDS, Y))
    axes = curves(model.history_, pyplot.figure().add_subplot())
    assert len(axes.lines) == 6
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
    assert all(len(line.get_xdata()) == 2 for line in axes.lines)
    pyplot.close()
