"""The gradients of every model: some of each module, against central differences of its loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient, numeric_gradient
from small_tasks import TASKS, make

from fastrnn.models import Forecaster, SequenceClassifier
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
