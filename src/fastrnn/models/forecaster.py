"""Forecaster: the next values of a real-valued series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import _size, expect, number, numbers
from fastrnn.losses import gaussian_nll
from fastrnn.models._base import Model
from fastrnn.models._data import scale_of, scaled, take
from fastrnn.models._factory import Factory
from fastrnn.models._run import Run

Array = NDArray[Any]
Seed = np.random.Generator | int | None

# Log-variances of standardised values are BOUND * tanh(raw / BOUND): no variance can vanish or explode.
BOUND = 10.0


@dataclass(eq=False, kw_only=True)
class Forecaster(Model):
    """Autoregressive forecasts: at each step mean and variance of the next values (Salinas et al. 2020).

    `X` is a series, an array [T] or [T, D], or a list of them; there is no `y`. Values are standardised. The network
    adds to the last value, so an untrained model forecasts almost no change.

    Parameters
    ----------
    steps : int
        length of the windows on which the model is trained, and of the history that a forecast reads.
    **hyperparameters
        of every model: see `Model`.

    Examples
    --------
    >>> series = np.sin(np.arange(600) * 2 * np.pi / 20)
    >>> model = Forecaster(hidden_size=16, steps=60, epochs=60, batch_size=2, lr=0.01, verbose=False)
    >>> model = model.set_params(schedule="cosine").fit(series)
    >>> bool(abs(model.predict(series, 10) - np.sin(np.arange(600, 610) * 2 * np.pi / 20)).max() < 0.3)
    True
    """

    steps: int = 100

    def predict(self, X: ArrayLike, horizon: int = 1) -> Array:
        """Return the next `horizon` values after the series `X`: [horizon], or [horizon, D] for an `X` [T, D].

        Each step reads the mean that the step before it has forecast.
        """
        return self._unscaled(self._paths(X, horizon, 1, None)[:, 0])

    def predict_interval(
        self, X: ArrayLike, horizon: int = 1, level: float = 0.9, *, samples: int = 500, rng: Seed = 0
    ) -> tuple[Array, Array]:
        """Return lower and upper bounds of the next values: each value lies between its own with probability `level`.

        The bounds are quantiles of `samples` futures that are drawn step by step.
        """
        expect(0 < number("level", level) < 1, "level", "0 < level < 1", level)
        paths = self._paths(X, horizon, samples, np.random.default_rng(rng))
        low, high = np.quantile(paths, [(1 - level) / 2, (1 + level) / 2], axis=1)
        return self._unscaled(low), self._unscaled(high)

    def score(self, X: ArrayLike, y: None = None) -> float:
        """Return R^2 of the forecasts one step ahead, over the series `X` from its second value on."""
        x = self._one(X)
        expect(len(x) >= 2, "X", "at least 2 steps", len(x))
        mean, _, _ = self._forward(Run(self.modules_, train=False), x[:-1, None])
        return float(1 - np.square(mean[:, 0] - x[1:]).sum() / np.square(x[1:] - x[1:].mean(axis=0)).sum())

    def _paths(self, X: ArrayLike, horizon: int, samples: int, rng: Any) -> Array:
        """Return standardised futures [horizon, samples, D]: drawn, or the means where `rng` is None."""
        horizon, samples = _size("horizon", horizon), _size("samples", samples)
        x, state = self._one(X)[-self.steps :, None], None
        out: list[Array] = []
        for _ in range(horizon):
            mean, log_var, state = self._forward(Run(self.modules_, train=False), x, state)
            following = mean[-1:]
            if rng is not None:
                if not out:  # all samples share the history, which is read once
                    following, log_var = (np.repeat(a, samples, axis=1) for a in (following, log_var))
                    state = take(state, np.zeros(samples, np.intp))
                following = following + np.exp(log_var[-1:] / 2) * rng.standard_normal(following.shape)
            x = following.astype(self.dtype)
            out.append(x[0])
        return np.array(out, np.float64)

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        return {**scale_of(_series(X)), "one_dimensional": np.ndim(X[0] if _many(X) else X) == 1}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any]) -> list[Array]:
        series = [scaled(s, config, self.dtype) for s in _series(X)]
        expect(max(map(len, series)) >= 2, "X", "at least 2 steps", "n_samples = 1")
        return series

    def _one(self, X: Any) -> Array:
        self._check_fitted()
        series = _series(X)
        expect(len(series) == 1, "X", "one series", len(series))
        expect(len(series[0]), "X", "at least 1 step", "0")
        return scaled(series[0], self.config_, self.dtype)

    def _unscaled(self, values: Array) -> Array:
        values = np.asarray(values * np.array(self.config_["scale"]) + np.array(self.config_["mean"]))
        return np.asarray(values[..., 0] if self.config_["one_dimensional"] else values)

    def _build(self, make: Factory) -> dict[str, Any]:
        width, _ = len(self.config_["mean"]), self.config_["one_dimensional"]
        rnn = make.recurrent(width)
        head = make.linear(self.hidden_size, 2 * width)
        head.flat *= 0.1  # begin near "no change, variance 1"
        return {"rnn": rnn, "drop_out": make.dropout(), "head": head}

    def _plan(self, data: Any, rng: np.random.Generator | None) -> list[Any]:
        # Windows follow each other from a random start, so that each epoch cuts the series at other places.
        windows = []
        for i, series in enumerate(data):
            last = len(series) - 1
            start = 0 if rng is None else int(rng.integers(min(self.steps, max(len(series) - self.steps, 1))))
            windows += [(i, t, min(t + self.steps, last)) for t in range(start, last, self.steps)]
        if rng is not None:
            windows = [windows[i] for i in rng.permutation(len(windows))]
        return [windows[i : i + self.batch_size] for i in range(0, len(windows), self.batch_size)]

    def _forward(self, run: Run, x: Array, state: Any = None, **kwargs: Any) -> tuple[Array, Array, Any]:
        """Return mean and log-variance [T, B, D] of what follows each step of `x`, and the state."""
        h, state = run("rnn", x, state, **kwargs)
        raw = run("head", run("drop_out", h))
        width = x.shape[-1]
        return x + raw[..., :width], BOUND * np.tanh(raw[..., width:] / BOUND), state

    def _step(self, run: Run, data: Any, batch: Any) -> tuple[float, int]:
        lengths = np.array([stop - start for _, start, stop in batch])
        x = np.zeros((lengths.max(), len(batch), data[0].shape[1]), data[0].dtype)
        target = np.zeros_like(x)
        for b, (i, start, stop) in enumerate(batch):
            x[: lengths[b], b] = data[i][start:stop]
            target[: lengths[b], b] = data[i][start + 1 : stop + 1]
        mean, log_var, _ = self._forward(run, x, lengths=lengths)
        weights = np.arange(len(x))[:, None] < lengths
        loss, (dmean, dlog_var) = gaussian_nll(mean, log_var, target, weights)
        if run.train:
            draw = dlog_var * (1 - np.square(log_var / BOUND))
            run.back(np.concatenate([dmean, draw], axis=-1), "head", "drop_out", "rnn")
        return loss, int(lengths.sum())


def _many(X: Any) -> bool:
    return isinstance(X, (list, tuple)) and len(X) > 0 and np.ndim(X[0]) > 0


def _series(X: Any) -> list[Array]:
    """Return one series or a list of them as a list of float64 [T, D]."""
    return [numbers(f"X[{i}]", series) for i, series in enumerate(X)] if _many(X) else [numbers("X", X)]
