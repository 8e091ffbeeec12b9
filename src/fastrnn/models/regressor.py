"""SequenceRegressor: numbers for each sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import expect
from fastrnn.losses import mse
from fastrnn.models._data import mean_and_scale, r_squared
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import numbers
from fastrnn.models._run import Run
from fastrnn.models._sequence_model import SequenceModel

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class SequenceRegressor(SequenceModel):
    """One number, or several, for each sequence (many to one); a str is a sequence of characters.

    `X` and its hyperparameters are those of `SequenceClassifier`. `y` is an array [n] or [n, K] of numbers. They are
    standardised, and the loss is the mean squared error of the standardised values.

    Parameters
    ----------
    inputs, bidirectional, pooling, embedding_size, embedding, min_count, word_dropout, bucketing
        as of `SequenceClassifier`.
    n_estimators : int
        number of networks, each with a seed of its own. `predict` takes the mean of their values.
    **hyperparameters
        of every model: see `Model`.

    Attributes
    ----------
    n_features_in_, feature_names_in_
        as those of `SequenceClassifier`.
    config_, modules_, history_
        see `Model`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal(n) for n in rng.integers(3, 9, 80)]
    >>> model = SequenceRegressor(hidden_size=16, epochs=40, lr=0.02, verbose=False)
    >>> model = model.fit(X, [x.mean() for x in X])
    >>> model.score(X, [x.mean() for x in X]) > 0.9
    True
    """

    pooling: str = "last"

    def predict(self, X: Any) -> Array:
        """Return the values of each sequence, [n], or [n, K] where `y` was [n, K] in fit."""
        return self._said(self._outputs(X)[0])

    def _said(self, outputs: list[Array]) -> Array:
        """Return the values [n] or [n, K]: the mean over the networks."""
        scale, mean = np.array(self.config_["target_scale"]), np.array(self.config_["target_mean"])
        values = np.mean([z.astype(np.float64) for z in outputs], axis=0) * scale + mean
        return np.asarray(values[:, 0] if self.config_["one_dimensional"] else values)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return R^2, the mean over the columns of `y`; for a constant one 0, or 1 without any error."""
        predicted = self.predict(X)
        right = self._targets(y, len(predicted))
        weights = self._sample_weights(sample_weight, [1] * len(predicted))
        w = None if weights is None else np.concatenate(weights)
        return r_squared(right, predicted.reshape(len(predicted), -1), w)

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        config = self._input_config(X)
        targets = self._targets(y)
        mean, scale = mean_and_scale(targets, name="y")
        config |= {"target_mean": mean.tolist(), "target_scale": scale.tolist()}
        return config | {"one_dimensional": np.asarray(y).ndim == 1}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], extra: Any = None) -> Any:
        inputs = self._inputs(X, config)
        targets = self._targets(y, len(inputs))
        width = len(config["target_mean"])
        expect(targets.shape[1] == width, "y", f"{width} values each, as in fit", targets.shape[1])
        targets = (targets - np.array(config["target_mean"])) / np.array(config["target_scale"])
        weights = self._sample_weights(extra, self._counts(inputs))
        rows = list(targets.astype(self._made.dtype))
        return (inputs, rows) if weights is None else (inputs, rows, weights)

    def _targets(self, y: Any, n: int | None = None) -> Array:
        """Return the targets as float64 [n, K]."""
        if y is None:
            raise ValueError("y: requires y to be passed, but the target y is None")
        targets = numbers("y", y, "numbers [n] or [n, K]")
        expect(targets.shape[1], "y", "numbers [n] or [n, K]", f"shape {targets.shape}")
        expect(n is None or len(targets) == n, "y", f"one for each of the {n} sequences", len(targets))
        return targets

    def _build(self, make: Factory) -> dict[str, Any]:
        _ = self.config_["target_scale"], self.config_["one_dimensional"]
        return self._build_stack(make, len(self.config_["target_mean"]))

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        inputs, rows, *weights = ([part[i] for i in batch] for part in data)
        x, right = self._forward(run, inputs), np.stack(rows)
        options: dict[str, Any] = {}
        if weights and run.train:
            w = np.broadcast_to(np.concatenate(weights[0])[:, None] / right.size, right.shape)
            options = {"weights": w, "reduction": "sum"}
        loss, dz = mse(run("head", x), right, **options)
        if run.train:
            self._back(run, run.back(dz, "head").x, inputs)
        return loss, len(right)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.target_tags.required = "regressor", True
        tags.target_tags.multi_output = True
        tags.regressor_tags = RegressorTags(poor_score=False)
        return tags
