"""What a model is after fit has failed, was interrupted, or its hyperparameters were changed; what callbacks may do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits
from small_tasks import TASKS, bits, make, state

from fastrnn.models import Captioner, Model, SequenceClassifier


def said(model: Any, name: str, X: Any) -> Any:
    """Return what a model predicts, as something that can be compared with ==."""
    if name == "forecaster":
        return [*model.predict(X, 5).tolist(), *np.ravel(model.predict_interval(X, 3, samples=9)).tolist()]
    if name == "language":
        return [model.predict_proba(X).tolist(), model.generate(20, rng=0), model.score(X)]
    if hasattr(model, "predict_proba"):
        return [p.tolist() for p in model.predict_proba(X)]
    if name == "regressor":
        return model.predict(X).tolist()
    return [model.predict(X), model.predict(X, beam=3)]


def copies(model: Any) -> dict[str, Any]:
    return {name: array.copy() for name, array in bits(model).items()}


@pytest.mark.parametrize("name", TASKS)
def test_a_fit_that_diverges_leaves_the_model_as_it_was(name: str) -> None:
    model, X, y = make(name)
    kept = model.fit(X, y).get_params()
    before, weights, answers = state(model), copies(model), said(model, name, X)
    model.set_params(cell="rnn_relu", optimizer="sgd", lr=1e30, clip=None, epochs=50, batch_size=1)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError):
        model.fit(X, y)
    model.set_params(**kept)
    assert state(model) == before
    assert_same_bits(bits(model), weights)
    assert said(model, name, X) == answers


@pytest.mark.parametrize("error", [ValueError, MemoryError, ImportError, SystemExit])
def test_a_fit_that_fails_in_an_epoch_leaves_the_model_as_it_was(error: Any, tmp_path: Path) -> None:
    def fail(m: Any, log: dict[str, Any]) -> None:
        if log["epoch"] == 2:
            raise error("from a callback")

    model, X, y = make("classifier")
    with pytest.raises(error):
        model.fit(X, y, callbacks=[fail])
    assert not state(model)
    model.fit(X, y)
    before, weights = state(model), copies(model)
    for options in ({}, {"validation": (X, y)}, {"resume": tmp_path / "run.npz"}):
        with pytest.raises(error, match=r"from a callback"):
            model.fit(X[:4], y[:4], callbacks=[fail], **options)
        assert state(model) == before
        assert_same_bits(bits(model), weights)


def test_a_step_that_fails_draws_no_numbers() -> None:
    """The mask of the next step is the one that it would have been."""

    class Failing(Captioner):
        fails = False

        def _update(self, *args: Any, **kwargs: Any) -> float:
            if self.fails:
                raise FloatingPointError("on purpose")
            return super()._update(*args, **kwargs)

    _, X, y = make("captioner")
    models = [Failing(hidden_size=8, dropout=0.5, verbose=False) for _ in range(2)]
    for model in models:
        model.partial_fit(X, y)
    models[0].fails = True
    with pytest.raises(FloatingPointError, match=r"on purpose"):
        models[0].partial_fit(X, y)
    models[0].fails = False
    losses = [model.partial_fit(X, y)[0] for model in models]
    assert losses[0] == losses[1]


def interrupt(epoch: int) -> Any:
    def callback(model: Any, log: dict[str, Any]) -> None:
        if log["epoch"] == epoch:
            raise KeyboardInterrupt

    return callback


def test_ctrl_c_keeps_the_best_weights_and_the_history() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 6)), rng.integers(0, 2, 20)  # nothing to learn but by heart
    held = (X[:10], 1 - y[:10])
    model = SequenceClassifier(hidden_size=16, epochs=100, lr=0.03, verbose=False)
    with pytest.raises(
        KeyboardInterrupt, match=r"fit was interrupted in epoch 16. The model keeps the weights of ep"
    ):
        model.fit(X, y, validation=held, callbacks=[interrupt(15)])
    losses = [log["val_loss"] for log in model.history_]
    assert len(losses) == 15
    assert losses[-1] > min(losses)
    assert model._mean_loss(model._prepare(*held, model.config_)) == min(losses)


@pytest.mark.parametrize("name", TASKS)
def test_ctrl_c_in_the_middle_of_an_epoch(name: str, tmp_path: Path) -> None:
    kind, calls = TASKS[name][0], []

    class Interrupted(kind):  # type: ignore[misc, valid-type]
        def _update(self, *args: Any, **kwargs: Any) -> float:
            calls.append(1)
            if len(self.history_) == 2:
                raise KeyboardInterrupt
            return float(super()._update(*args, **kwargs))

    whole, X, y = make(name, epochs=2)
    held = X if y is None else (X, y)
    whole.fit(X, y, validation=held)
    model = Interrupted(**(whole.get_params() | {"epochs": 5}))
    with pytest.raises(KeyboardInterrupt, match=r"in epoch 3\. .*To go on, call fit with resume=.* again"):
        model.fit(X, y, validation=held, resume=tmp_path / "run.npz")
    assert model.history_ == whole.history_
    assert_same_bits(bits(model), bits(whole))
    model.predict(X)


def test_ctrl_c_without_validation_keeps_the_last_weights() -> None:
    model, X, y = make("classifier", epochs=9)
    seen: list[Any] = []
    keep: list[Any] = [lambda m, log: seen.append(copies(m)), interrupt(2)]
    with pytest.raises(
        KeyboardInterrupt, match=r"interrupted in epoch 3. The model keeps its last weights and hist"
    ):
        model.fit(X, y, callbacks=keep)
    assert len(model.history_) == 2
    assert_same_bits(bits(model), seen[-1])


@pytest.mark.parametrize("name", TASKS)
def test_set_params_after_fit_changes_nothing_of_what_is_predicted(name: str, tmp_path: Path) -> None:
    model, X, y = make(name, epochs=10)
    answers = said(model.fit(X, y), name, X)
    score = model.score(X, y)
    others: dict[str, Any] = {
        "cell": "rnn_tanh", "hidden_size": 99, "num_layers": 3, "dropout": 0.5, "init": "orthogonal",
        "batch_size": 1, "dtype": "float64", "random_state": 5, "lr": 0.5, "schedule": "linear", "steps": 2,
        "attention": not getattr(model, "attention", True), "min_count": 9, "embedding_size": 3,
        "bidirectional": not getattr(model, "bidirectional", True), "label_smoothing": 0.5, "inputs": "numbers",
        "scaling": "fit", "class_weight": "balanced", "clip": None, "epochs": 1, "optimizer": "sgd",
        "weight_decay": 0.1, "patience": 3, "verbose": True,
        "texts": True, "target": 0, "pooling": "max", "word_dropout": 0.5, "embedding": {"a": [1.0, 2.0]},
        "n_estimators": 2, "bucketing": True, "horizon": 3, "known": 0, "loss": "mae", "quantiles": (0.5,),
        "missing": "mask", "stride": 2, "guided_attention": 1.0, "guided_epochs": 0.1, "season": 2,
    }  # fmt: skip
    kept = model.get_params()
    assert set(kept) <= set(others)
    for key in kept:
        model.set_params(**{key: others[key]})
        assert said(model, name, X) == answers, key
        assert model.score(X, y) == score
    model.save(tmp_path / "model.npz")
    assert Model.load(tmp_path / "model.npz").get_params() == kept


class Returned:
    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


@pytest.mark.parametrize(
    "value", [None, 0, 1, 5, "12 bytes", [0], np.ones(3), np.float32(0.5), np.array(True), Returned()]
)
def test_only_true_ends_training(value: Any) -> None:
    model, X, y = make("classifier")
    model.fit(X, y, callbacks=[lambda m, log: value])
    assert len(model.history_) == 3
    for true in (True, np.True_):
        model.fit(X, y, callbacks=[lambda m, log, true=true: true, lambda m, log: value])
        assert len(model.history_) == 1


def test_what_callbacks_put_into_the_log_is_saved_or_refused_at_once(tmp_path: Path) -> None:
    sound: dict[str, Any] = {
        "when": "12:30",
        "n": 3,
        "f1": np.float32(0.5),
        "none": None,
        "nan": math.nan,
        "ok": True,
    }
    path = tmp_path / "run.npz"
    one, X, y = make("classifier", epochs=2)
    one.fit(X, y, resume=path, callbacks=[lambda m, log: log.update(sound)])
    more = make("classifier", epochs=4)[0].fit(
        X, y, resume=path, callbacks=[lambda m, log: log.update(sound)]
    )
    assert [log["when"] for log in more.history_] == ["12:30"] * 4
    assert more.history_[0]["f1"] == 0.5
    for odd in ([1.0], np.ones(2), {1}, object(), b"x", np.datetime64("2020-01-01"), 1j):
        model, X, y = make("classifier")
        with pytest.raises(
            TypeError, match=r"callbacks: expected numbers and str in the log, got .* for 'odd'"
        ):
            model.fit(
                X, y, resume=tmp_path / "odd.npz", callbacks=[lambda m, log, odd=odd: log.update(odd=odd)]
            )
        model.fit(X, y, resume=tmp_path / "odd.npz")  # the checkpoint of the first epoch is sound
        (tmp_path / "odd.npz").unlink()
        model.fit(X, y, callbacks=[lambda m, log, odd=odd: log.update(odd=odd)])
    with pytest.raises(TypeError, match=r"names in the log that are str, got 3"):
        model.fit(X, y, resume=tmp_path / "odd.npz", callbacks=[lambda m, log: log.update({3: 1})])


def test_callbacks_may_not_change_what_fit_measures() -> None:
    model, X, y = make("classifier")
    for name in ("loss", "val_loss", "epoch"):
        with pytest.raises(ValueError, match=f"callbacks: expected the log's {name} as it was, got None"):
            model.fit(X, y, validation=(X, y), callbacks=[lambda m, log, name=name: log.pop(name) and None])


def test_a_validation_loss_that_is_nan_is_not_the_best() -> None:
    class Odd(SequenceClassifier):
        def _mean_loss(self, data: Any) -> float:
            return math.nan if not self.history_ else super()._mean_loss(data)

    _, X, y = make("classifier")
    model = Odd(hidden_size=8, epochs=6, patience=3, lr=0.02, verbose=False).fit(X, y, validation=(X, y))
    assert len(model.history_) == 6
    assert model._mean_loss(model._prepare(X, y, model.config_)) == model.history_[-1]["val_loss"]


def test_a_checkpoint_is_no_model_and_a_model_no_checkpoint(tmp_path: Path) -> None:
    model, X, y = make("classifier")
    model.fit(X, y, resume=tmp_path / "run.npz").save(tmp_path / "model.npz")
    for kind in (Model, SequenceClassifier):
        with pytest.raises(
            ValueError, match=r"got a checkpoint of fit\(..., resume=path\): fit goes on"
        ) as caught:
            kind.load(tmp_path / "run.npz")
        assert len(str(caught.value).replace(str(tmp_path), "")) < 200
    with pytest.raises(
        ValueError, match=r"got a saved model without one: SequenceClassifier.load reads it"
    ) as caught:
        model.fit(X, y, resume=tmp_path / "model.npz")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 200
