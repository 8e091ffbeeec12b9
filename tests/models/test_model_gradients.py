"""The gradients of every model: some of each module, against central differences of its loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient, numeric_gradient
from small_tasks import TASKS, make

from fastrnn.models import Forecaster, SequenceClassifier, SequenceRegressor
from fastrnn.models._run import Run

SMALL: dict[str, Any] = {"hidden_size": 4, "dtype": "float64", "epochs": 1, "num_layers": 2, "lr": 0.1}


def check(model: Any, X: Any, y: Any) -> None:
    """Compare the gradients of one batch of a model after one epoch."""
    model.fit(X, y)
    data = model._prepare(X, y, model.config_)

    def batch() -> Any:
        return model._plan(data, np.random.default_rng(0))[0]

    trained = Run(model.modules_, train=True)
    loss, _ = model._step(trained, data, batch())
    assert np.isfinite(loss)
    rng = np.random.default_rng(0)
    for name, module in model.modules_.items():
        got = trained.grads[name].flat
        assert got.shape == module.flat.shape
        for i in rng.permutation(got.size)[:8]:  # a view of each, whose number is changed
            one = module.flat[i : i + 1]
            wanted = numeric_gradient(
                lambda: model._step(Run(model.modules_, train=False), data, batch())[0], one
            )
            assert_gradient(got[i : i + 1], wanted, f"{name} {i}")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("name", TASKS)
def test_gradients_of_a_model(name: str, cell: str) -> None:
    small = SMALL | {"cell": cell}
    small |= {} if name in ("forecaster", "ragged", "captioner") else {"embedding_size": 3}
    model, X, y = make(name, **small)
    if isinstance(model, Forecaster):
        X = X[:40]
    check(model, X, y)


def test_gradients_of_a_classifier_of_one_direction() -> None:
    check(
        SequenceClassifier(**SMALL, bidirectional=False, embedding_size=3, verbose=False),
        ["ab", "b", "aab"],
        [0, 1, 0],
    )


@pytest.mark.parametrize("pooling", ["max", "mean", "attention"])
@pytest.mark.parametrize(
    "X", [["ab", "b", "", "aab"], [np.eye(4)[:n] for n in (4, 1, 0, 2)]], ids=["tokens", "numbers"]
)
def test_gradients_of_pooled_models(pooling: str, X: Any) -> None:
    small = SMALL | {"embedding_size": 3, "pooling": pooling, "verbose": False}
    check(SequenceClassifier(**small), X, [0, 1, 0, 1])
    check(SequenceRegressor(**small, bidirectional=False), X, [0.3, 1.0, 0.1, -1.0])


GAPS = np.where(np.arange(40) % 7 == 3, np.nan, np.sin(np.arange(40.0)))
DRIVEN = np.stack([np.sin(np.arange(40.0)), np.cos(np.arange(40.0) ** 2), GAPS], axis=1)


@pytest.mark.parametrize("loss", ["gaussian", "quantile", "mae", "mse"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(
    "options",
    [{}, {"scaling": "window", "stride": 3, "season": 3}, {"missing": "mask", "target": [2, 0]}],
    ids=str,
)
def test_gradients_of_forecasts_of_a_horizon(loss: str, cell: str, options: dict[str, Any]) -> None:
    model = Forecaster(
        **SMALL | {"cell": cell}, verbose=False, horizon=4, steps=9, known=1, loss=loss, **options
    )
    check(model, DRIVEN if "missing" in options else DRIVEN[:, :2], None)


@pytest.mark.parametrize("loss", ["gaussian", "mae", "mse"])
def test_gradients_of_a_forecaster_of_known_columns_and_gaps(loss: str) -> None:
    check(Forecaster(**SMALL, verbose=False, steps=9, known=1, loss=loss, missing="mask"), DRIVEN, None)


def test_gradients_of_a_forecaster_whose_variance_is_near_its_bound() -> None:
    """There the gradient of the bounded log-variance is far from that of a free one."""
    model = Forecaster(**SMALL | {"lr": 0.0}, verbose=False).fit(np.sin(np.arange(30.0)))
    model.modules_["head"].params["bias"][1] = 8.0
    data = model._prepare(np.sin(np.arange(30.0)), None, model.config_)
    batch = model._plan(data, None)[0]
    trained = Run(model.modules_, train=True)
    model._step(trained, data, batch)
    head = model.modules_["head"].flat
    wanted = numeric_gradient(lambda: model._step(Run(model.modules_, train=False), data, batch)[0], head)
    assert_gradient(trained.grads["head"].flat, wanted)
