"""The conventions of scikit-learn: parameters, copies, its own checks, its searches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tasks import TASKS, make

from fastrnn import models
from fastrnn.models import Forecaster, Model, NotFittedError, SequenceClassifier, SequenceRegressor


@pytest.mark.parametrize("name", TASKS)
def test_params_and_clone(name: str) -> None:
    model, X, y = make(name)
    assert model.set_params(epochs=1, lr=0.5) is model
    assert (model.get_params()["epochs"], model.get_params()["lr"]) == (1, 0.5)
    with pytest.raises(ValueError, match="units: expected one of"):
        model.set_params(units=3)
    assert type(model)(**model.get_params()).get_params() == model.get_params()
    base = pytest.importorskip("sklearn.base")
    copy = base.clone(model.fit(X, y))
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "modules_")
    assert "lr=0.5" in repr(model)


@pytest.mark.parametrize("name", TASKS)
def test_not_fitted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, X, y = make(name)
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    calls = [lambda: model.predict(X), lambda: model.score(X, y), lambda: model.save(tmp_path / "m.npz")]
    for call in calls:
        with pytest.raises(NotFittedError, match=f"this {type(model).__name__} is not fitted yet"):
            call()


class Alone(Forecaster):
    """A forecaster to whose fit scikit-learn may pass a target, as it does to every estimator."""

    def fit(self, X: Any, y: Any = None, **options: Any) -> Any:
        return super().fit(X, **options)

    def score(self, X: Any, y: Any = None) -> float:
        return super().score(X)


FIXED = "a sample is a sequence of any length: its number of features is not fixed"
TIME = "rows are the steps of one series: their order is what is learned"
ONE = "one series [T] is welcome"
DRAWN = "batches are drawn from the samples: to leave one out, or to have it twice, draws others"
EXCLUDED: dict[str, dict[str, str]] = {
    "classifier": dict.fromkeys(["check_n_features_in_after_fitting", "check_classifiers_train"], FIXED)
    | {"check_sample_weight_equivalence_on_dense_data": DRAWN}
    | {"check_supervised_y_2d": "a column of labels is taken without a warning"},
    "regressor": dict.fromkeys(["check_n_features_in_after_fitting"], FIXED)
    | {"check_sample_weight_equivalence_on_dense_data": DRAWN},
    "forecaster": dict.fromkeys(
        ["check_methods_sample_order_invariance", "check_methods_subset_invariance"], TIME
    )
    | {"check_fit1d": ONE},
}
CHECKED: dict[str, Any] = {
    "classifier": SequenceClassifier(inputs="numbers"),
    "regressor": SequenceRegressor(inputs="numbers"),
    "forecaster": Alone(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EXCLUDED)
def test_estimator_checks_of_scikit_learn(name: str) -> None:
    pytest.importorskip("sklearn", minversion="1.6")
    from sklearn.utils.estimator_checks import check_estimator

    model = CHECKED[name].set_params(hidden_size=16, epochs=15, lr=0.03, batch_size=3, verbose=False)
    results = check_estimator(model, expected_failed_checks=EXCLUDED[name], on_skip=None, on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed, failed
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(EXCLUDED[name])
    assert sum(r["status"] == "passed" for r in results) > 30


@pytest.mark.parametrize("name", ["language", "tagger", "seq2seq", "captioner"])
def test_estimator_checks_that_need_no_array(name: str) -> None:
    """The others take no [n, features]: what scikit-learn checks of parameters and copies applies."""
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    model, _, _ = make(name)
    title = type(model).__name__
    for check in ("no_attributes_set_in_init", "get_params_invariance", "set_params"):
        getattr(checks, f"check_{check}")(title, model)
    checks.check_parameters_default_constructible(title, type(model)())


def test_cross_validation_and_search() -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5, 1))
    y = (X[:, :, 0].sum(axis=1) > 0).astype(int)
    model = SequenceClassifier(hidden_size=8, epochs=15, lr=0.02, verbose=False)
    search = selection.GridSearchCV(model, {"lr": [0.0, 0.02]}, cv=2).fit(X, y)
    assert search.best_params_ == {"lr": 0.02}
    assert search.best_score_ > 0.8


def test_everything_is_exported() -> None:
    assert set(models.__all__) >= {c.__name__ for c in (Model, *[task[0] for task in TASKS.values()])}
