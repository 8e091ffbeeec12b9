"""Forecaster: the next values of a real-valued series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import Ragged
from fastrnn._arrays import _size, expect, number
from fastrnn.losses import gaussian_nll
from fastrnn.models._base import Model
from fastrnn.models._data import expect_width, mean_and_scale, r_squared, scale_of, scaled, take
from fastrnn.models._factory import Factory
from fastrnn.models._frames import continued
from fastrnn.models._inputs import check_names, common_names, expect_no_target, few, names_of, numbers
from fastrnn.models._run import Run

Array = NDArray[Any]
Seed = np.random.Generator | int | None

# Log-variances of standardised values are BOUND * tanh(raw / BOUND): no variance can vanish or explode.
BOUND = 10.0


@dataclass(eq=False, kw_only=True)
class Forecaster(Model):
    """Autoregressive forecasts: at each step mean and variance of the next values (Salinas et al. 2020).

    `X` is a series, an array or DataFrame [T] or [T, D], or a list of them; there is no `y`. Values are standardised.
    The network adds to the last value, so an untrained model forecasts almost no change.

    Parameters
    ----------
    steps : int
        length of the windows on which the model is trained, and of the history that a forecast reads.
    scaling : "series" or "fit"
        the mean and standard deviation with which values are standardised. With "series", each series has its own, in
        `fit` and in `predict`: give `predict` the whole history. With "fit", those of all training data together
        are used for every series: use it where the level means the same in all of them, or where `predict` gets the
        end of a history only.
    target : int, str or list of them, optional
        the columns to forecast, by name or place; by default all. The others are covariates: the model reads them,
        and forecasts them where `predict` is not given their `future`.
    **hyperparameters
        of every model: see `Model`.

    Attributes
    ----------
    n_features_in_ : int
        number of values D of a step.
    feature_names_in_ : array of str
        names of the columns, where `X` was a DataFrame or a list of them.
    config_, modules_, history_
        see `Model`.

    Examples
    --------
    >>> series = np.sin(np.arange(600) * 2 * np.pi / 20)
    >>> model = Forecaster(hidden_size=16, steps=60, epochs=60, batch_size=2, lr=0.01, verbose=False)
    >>> model = model.set_params(schedule="cosine").fit(series)
    >>> bool(abs(model.predict(series, 10) - np.sin(np.arange(600, 610) * 2 * np.pi / 20)).max() < 0.3)
    True
    """

    steps: int = 100
    scaling: str = "series"
    target: int | str | list[Any] | None = None

    def predict(self, X: Any, horizon: int = 1, *, future: Any = None) -> Any:
        """Return the next `horizon` values after the series `X`: [horizon], or [horizon, D] for an `X` [T, D].

        Each step reads the mean that the step before it has forecast. For a DataFrame or Series of pandas the
        forecast is one too; its index goes on from that of `X`. With a `target`, only its columns are returned:
        [horizon] for one that is no list.

        Parameters
        ----------
        X : series
        horizon : int
        future : array or DataFrame [horizon, C], optional
            what the covariates (all columns but the target) will be, where that is known.
        """
        paths, scale = self._paths(X, horizon, 1, None, future)
        return self._like(X, self._unscaled(paths[:, 0], scale))

    def predict_interval(
        self,
        X: Any,
        horizon: int = 1,
        level: float = 0.9,
        *,
        samples: int = 500,
        rng: Seed = 0,
        future: Any = None,
    ) -> tuple[Any, Any]:
        """Return lower and upper bounds of the next values: each value lies between its own with probability `level`.

        The bounds are quantiles of `samples` futures that are drawn step by step; `future` is that of `predict`.
        """
        expect(0 < number("level", level) < 1, "level", "0 < level < 1", level)
        paths, scale = self._paths(X, horizon, samples, np.random.default_rng(rng), future)
        low, high = np.quantile(paths, [(1 - level) / 2, (1 + level) / 2], axis=1)
        return self._like(X, self._unscaled(low, scale)), self._like(X, self._unscaled(high, scale))

    def score(self, X: Any, y: None = None) -> float:
        """Return R^2 of the forecasts one step ahead, over the series `X` from its second value on.

        It is the mean over the features, or over those of the target. As in scikit-learn, it is 0 for a constant one,
        or 1 without any error.
        """
        expect_no_target(y)
        x, _, _ = self._one(X)
        expect(len(x) >= 2, "X", "at least 2 steps", len(x))
        mean, _, _ = self._forward(Run(self.modules_, train=False), x[:-1, None])
        columns = self._targets()
        return r_squared(x[1:, columns].astype(np.float64), mean[:, 0, columns].astype(np.float64))

    def _paths(
        self, X: Any, horizon: int, samples: int, rng: Any, future: Any = None
    ) -> tuple[Array, tuple[Array, Array]]:
        """Return standardised futures [horizon, samples, D], and the mean and scale with which they were.

        They are drawn, or the means where `rng` is None.
        """
        horizon, samples = _size("horizon", horizon), _size("samples", samples)
        series, *scale = self._one(X)
        x, state = series[-self._made.steps :, None], None
        known = None if future is None else self._known(future, horizon, (scale[0], scale[1]))
        out: list[Array] = []
        for h in range(horizon):
            mean, log_var, state = self._forward(Run(self.modules_, train=False), x, state)
            following = mean[-1:]
            if rng is not None:
                if not out:  # all samples share the history, which is read once
                    following, log_var = (np.repeat(a, samples, axis=1) for a in (following, log_var))
                    state = take(state, np.zeros(samples, np.intp))
                following = following + np.exp(log_var[-1:] / 2) * rng.standard_normal(following.shape)
            x = following.astype(self._made.dtype)
            if known is not None:
                x[..., self._covariates()] = known[h]
            out.append(x[0])
        return np.array(out, np.float64), (scale[0], scale[1])

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        expect_no_target(y)
        series = _series(X)
        config = scale_of(series)
        if self.scaling == "series":
            # For a history that is constant, or too short for a scale of its own, that of the median series.
            own = [mean_and_scale(s)[1] for s in series if s.size]
            config["scale"] = np.median(own, axis=0).tolist()
        one_dimensional = np.asarray(_parts(X)[0]).ndim == 1
        config |= {"one_dimensional": one_dimensional, "scaling": self.scaling}
        config["n_features_in"] = config["n_features"]
        names = common_names(_parts(X))
        if self.target is not None:
            config["targets"] = self._target_places(config["n_features"], names)
            config["one_dimensional"] = not isinstance(self.target, list)
        return config if names is None else config | {"feature_names": names}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], sample_weight: Any = None) -> list[Array]:
        if isinstance(X, _Ends):
            scales = [self._scale(s[:start], config) for s, start in X]
            pairs = [(s[start - 1 :], scale) for (s, start), scale in zip(X, scales, strict=True)]
        else:
            pairs = [(s, self._scale(s, config)) for s in self._read(X, config)]
        series = [scaled(s, *scale, self._made.dtype) for s, scale in pairs]
        expect(max(map(len, series)) >= 2, "X", "at least 2 steps", "n_samples = 1")
        return series

    def _hold_out(self, X: Any, y: Any, sample_weight: Any, fraction: float) -> tuple[Any, Any]:
        expect_no_target(y)
        series = _series(X)
        starts = [len(s) - max(1, round(fraction * len(s))) for s in series]
        enough = max(starts) >= 2
        expect(enough, "validation", "a series with 2 steps to train on", f"a fraction of {fraction}")
        parts = [_head(part, start) for part, start in zip(_parts(X), starts, strict=True)]
        ends = [(s, start) for s, start in zip(series, starts, strict=True) if start]
        return (parts if _many(X) else parts[0], None, None), _Ends(ends)

    def _scale(self, series: Array, config: dict[str, Any]) -> tuple[Array, Array]:
        """Return the mean and the scale with which a series [T, D] is standardised."""
        mean, scale = np.array(config["mean"]), np.array(config["scale"])
        if config.get("scaling", "fit") == "fit" or not series.size:
            return mean, scale
        return mean_and_scale(series, scale)

    def _read(self, X: Any, config: dict[str, Any]) -> list[Array]:
        """Return one series or several of them, which must have the features of fit."""
        owner = type(self).__name__
        check_names(owner, common_names(_parts(X)), config.get("feature_names"))
        series = _series(X)
        for s in series:
            expect_width(s, config["n_features"], owner)
        return series

    def _one(self, X: Any) -> tuple[Array, Array, Array]:
        """Return one series, standardised, and its mean and scale."""
        self._check_fitted()
        series = self._read(X, self.config_)
        expect(len(series) == 1, "X", "one series", len(series))
        expect(len(series[0]), "X", "at least 1 step", "0")
        mean, scale = self._scale(series[0], self.config_)
        return scaled(series[0], mean, scale, self._made.dtype), mean, scale

    def _unscaled(self, values: Array, scale: tuple[Array, Array]) -> Array:
        values = np.asarray(values * scale[1] + scale[0])[..., self._targets()]
        return np.asarray(values[..., 0] if self.config_["one_dimensional"] else values)

    def _like(self, X: Any, values: Array) -> Any:
        names = self.config_.get("feature_names")
        return continued(X, values, None if names is None else [names[i] for i in self._targets()])

    def _targets(self) -> list[int]:
        """Return the places of the columns to forecast."""
        return list(self.config_.get("targets", range(self.config_["n_features"])))

    def _covariates(self) -> list[int]:
        return sorted({*range(self.config_["n_features"])} - {*self._targets()})

    def _known(self, future: Any, horizon: int, scale: tuple[Array, Array]) -> Array:
        """Return the standardised covariates of the next steps [horizon, C]."""
        places, names = self._covariates(), self.config_.get("feature_names")
        expect(places, "future", "None, since there are no covariates (target)", type(future).__name__)
        own = names_of(future)
        if own is not None and names is not None:
            wanted = [names[i] for i in places]
            missing = [name for name in wanted if name not in own]
            expect(not missing, "future", f"the columns {few(wanted)}", f"none with the names {few(missing)}")
            future = future[wanted]
        values = numbers("future", future)
        shape = (horizon, len(places))
        expect(values.shape == shape, "future", f"shape {shape}", values.shape)
        return scaled(values, scale[0][places], scale[1][places], self._made.dtype)

    def _target_places(self, width: int, names: list[str] | None) -> list[int]:
        """Return the places of the columns that `target` names."""
        places = []
        for column in self.target if isinstance(self.target, list) else [self.target]:
            by_name = isinstance(column, str)
            known: list[Any] = list(names or []) if by_name else list(range(width))
            expect(column in known, "target", f"a column among {few(known)}", repr(column))
            places.append(known.index(column))
        expect(len(set(places)) == len(places), "target", "every column once", self.target)
        return places

    def _build(self, make: Factory) -> dict[str, Any]:
        width, _ = len(self.config_["mean"]), self.config_["one_dimensional"]
        rnn = make.recurrent(width)
        head = make.linear(self.hidden_size, 2 * width)
        head.flat *= 0.1  # begin near "no change, variance 1"
        return {"rnn": rnn, "drop_out": make.dropout(), "head": head}

    def _plan(self, data: Any, rng: np.random.Generator | None) -> list[Any]:
        # Windows follow each other from a random start, so that each epoch cuts the series at other places.
        windows, steps, size = [], self._made.steps, self._made.batch_size
        for i, series in enumerate(data):
            last = len(series) - 1
            start = 0 if rng is None else int(rng.integers(min(steps, max(len(series) - steps, 1))))
            windows += [(i, t, min(t + steps, last)) for t in range(start, last, steps)]
        if rng is not None:
            windows = [windows[i] for i in rng.permutation(len(windows))]
        return [windows[i : i + size] for i in range(0, len(windows), size)]

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
            run.back(np.concatenate([dmean, draw], axis=-1), "head", "drop_out", "rnn", need_dx=False)
        return loss, int(lengths.sum())


class _Ends(list[Any]):
    """Series that validation reads from some step on: pairs (series [T, D], start)."""


def _many(X: Any) -> bool:
    if isinstance(X, Ragged):
        return True
    listed = isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1)
    return listed and len(X) > 0 and np.ndim(X[0]) > 0


def _parts(X: Any) -> list[Any]:
    """Return one series or a list of them as a list."""
    return list(X) if _many(X) else [X]


def _series(X: Any) -> list[Array]:
    """Return one series or a list of them as a list of float64 [T, D]."""
    if _many(X):
        return [numbers(f"X[{i}]", series) for i, series in enumerate(X)]
    if getattr(X, "ndim", 0) == 3:
        raise ValueError(
            f"X: expected numbers [T] or [T, D], got shape {X.shape}. list(X) is a list of series"
        )
    return [numbers("X", X)]


def _head(series: Any, stop: int) -> Any:
    return series.iloc[:stop] if hasattr(series, "iloc") else series[:stop]
