"""Forecaster: the next values of a real-valued series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _size, expect, number
from fastrnn.models import _series
from fastrnn.models._data import expect_width, finite, r_squared
from fastrnn.models._frames import continued, forecasts
from fastrnn.models._inputs import expect_no_target, numbers
from fastrnn.models._run import Run
from fastrnn.models._series_model import SeriesModel
from fastrnn.models._stream import ModelStream

Array = NDArray[Any]
Seed = np.random.Generator | int | None

MOST = 4096  # sequences of a batch in forecasts


@dataclass(eq=False, kw_only=True)
class Forecaster(SeriesModel):
    """Forecasts of the next values, one step after the other or a whole horizon at once.

    `X` is a series, an array or DataFrame [T] or [T, D], or a list of them; there is no `y`. Values are standardised.
    The network adds to the last value, so an untrained model forecasts almost no change.

    Without a `horizon` the network forecasts mean and variance of the next step, and reads its own forecasts to go on
    (Salinas et al. 2020). With a `horizon` it is trained on forecasts of that many steps at once: one recurrent
    network reads the past, and another one goes through the steps to come and reads what is known of them.

    Parameters
    ----------
    steps : int
        length of the windows on which the model is trained, and of the history that a forecast reads.
    horizon : int, optional
        number of steps that are forecast at once; by default one, as often as it takes.
    target : int, str or list of them, optional
        the columns to forecast, by name or place; by default all that are not `known`. The others are covariates.
    known : int, str or list of them, optional
        the covariates that are known in advance, such as the day of the week or a forecast of the temperature. The
        model reads those of the steps that it forecasts, and `predict` takes them as `future`.
    loss : "gaussian", "quantile", "mae" or "mse"
        what a forecast is: mean and variance, with the likelihood of a normal distribution as loss; `quantiles`, with
        the pinball loss, which needs a horizon; or a number alone, with the absolute or the squared error.
    quantiles : tuple of float
        in ascending order, with 0.5, which is the forecast; for loss="quantile".
    scaling : "series", "fit" or "window"
        the mean and standard deviation with which values are standardised. With "series", each series has its own, in
        `fit` and in `predict`: give `predict` the whole history. With "fit", those of all training data together
        are used for every series: use it where the level means the same in all of them, or where `predict` gets the
        end of a history only. With "window", targets have those of the `steps` before the horizon.
    missing : "error" or "mask"
        what NaN is. With "mask" it is a missing value of a column to forecast: it does not count in the loss and in
        `score`, and the network reads the last value that was there, and that it is missing.
    season : int, optional
        of a model with a horizon: the second network also reads the values of so many steps before each step. 24 is a
        good choice for hourly data with a daily rhythm. At most `steps`.
    stride : int, optional
        number of steps from one horizon in training to the next, counted from the end of the series: 24 for hourly
        data if forecasts are made at midnight. By default horizons follow one another from a random start.
    n_estimators : int
        number of networks, each with a seed of its own; forecasts and bounds are their means.
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

    A horizon of 5 steps, with a covariate that is known in advance:

    >>> drive = np.random.default_rng(0).choice([-1.0, 1.0], 400)
    >>> model = Forecaster(horizon=5, known=1, steps=10, hidden_size=16, epochs=20, lr=0.02, verbose=False)
    >>> model = model.fit(np.stack([3 * drive, drive], axis=1)[:300])
    >>> model.predict(np.stack([3 * drive, drive], axis=1)[:300], future=drive[300:305]).shape
    (5, 1)
    """

    def predict(self, X: Any, horizon: int | None = None, *, future: Any = None) -> Any:
        """Return the next `horizon` values after the series `X`: [horizon], or [horizon, D] for an `X` [T, D].

        For a DataFrame or Series of pandas the forecast is one too; its index goes on from that of `X`. With a
        `target`, only its columns are returned: [horizon] for one that is no list.

        Parameters
        ----------
        X : series
        horizon : int, optional
            by default the model's own, or 1. A model without one reads the mean that it has forecast for a step, to
            forecast the next one; of a model with a horizon it is at most that.
        future : array or DataFrame [horizon, C], optional
            what the `known` covariates will be. A model to which none is known takes all columns but the target,
            where they happen to be known.
        """
        return self._ahead(X, horizon, future, None)[0]

    def predict_interval(
        self,
        X: Any,
        horizon: int | None = None,
        level: float = 0.9,
        *,
        samples: int = 500,
        rng: Seed = 0,
        future: Any = None,
    ) -> tuple[Any, Any]:
        """Return lower and upper bounds of the next values: each value lies between its own with probability `level`.

        They come from the variances or the quantiles of a model with a horizon. Of others they are quantiles of
        `samples` futures that are drawn step by step from `rng`. `horizon` and `future` are those of `predict`.
        """
        _, low, high = self._ahead(X, horizon, future, level, samples, rng)
        return low, high

    def backtest(
        self,
        X: Any,
        start: int,
        step: int = 1,
        *,
        horizon: int | None = None,
        level: float | None = None,
        samples: int = 500,
        rng: Seed = 0,
    ) -> Any:
        """Return the forecasts that `predict` makes at many places of one series, from the values before each.

        Known covariates are read from `X`. The model is not fitted again.

        Parameters
        ----------
        X : series
        start, step : int
            the first forecast is that of the values from step `start` on, the next one begins `step` later, and so on,
            as long as `X` has all the values to compare with.
        horizon : int, optional
            as in `predict`.
        level, samples, rng
            with a `level`, the bounds of `predict_interval` are returned as well.

        Returns
        -------
        forecasts : array [n, horizon], or [n, horizon, D] where `predict` returns [horizon, D]
            or a DataFrame or Series whose index has, for each value, the place of the last one that the forecast knew
            ("origin") and its own. With a `level`, a tuple of forecasts, lower and upper bounds.

        Examples
        --------
        >>> series = np.sin(np.arange(300.0))
        >>> model = Forecaster(horizon=4, steps=20, hidden_size=8, epochs=1, verbose=False).fit(series[:200])
        >>> model.backtest(series, start=200, step=10).shape
        (10, 4)
        """
        self._check_fitted()
        h = self._steps_ahead(horizon)
        series = self._one(X)
        start, step = _size("start", start), _size("step", step)
        room = f"at most {len(series) - h}, so that {h} values follow"
        expect(start <= len(series) - h, "start", room, start)
        origins = list(range(start, len(series) - h + 1, step))
        found = self._forecasts(series, origins, self._known(series, origins, h), h, level, samples, rng)
        values = [forecasts(X, self._shaped(part), origins, self._names()) for part in found]
        return values[0] if level is None else tuple(values)

    def stream(self, X: Any = None) -> ModelStream:
        """Return a stream of a model without a horizon: what it forecasts after each step of a series.

        Its ``step`` takes the values [D] of a step, or one number, and returns the forecast of the next step, as
        `predict` does, from all that was read since the stream began.

        Parameters
        ----------
        X : series, optional
            what has come before. It gives the mean and scale, and the stream reads it first. With scaling="fit" it is
            not needed.
        """
        self._check_fitted()
        columns, made = self._columns(), self._made
        for name, value in (("horizon", made.horizon), ("known", columns.known or None)):
            expect(value is None, name, "None, for a stream: what it reads is not known in advance", value)
        needed = X is None and self.config_.get("scaling", "fit") != "fit"
        expect(not needed, "X", "the series so far, whose scale is used (scaling='series')", "None")
        past = np.zeros((0, columns.width)) if X is None else self._one(X)
        scale, t = self._scale(past, self.config_), columns.targets
        last: dict[str, Array] = {}

        def read(steps: list[Any]) -> Array:
            values = numbers("x", np.reshape(steps[0], (1, -1)), nan=bool(columns.marked))
            expect_width(values, columns.width, type(self).__name__)
            gaps = np.isnan(values)
            last["values"] = np.where(gaps, last.get("values", values), values)
            last["x"] = self._standardised(last["values"], scale, self.config_, gaps)
            return last["x"]

        def answer(outputs: list[Array]) -> Array:
            base, output = last["x"][:, columns.forecast], self._method().output
            mean = np.mean([output.point(raw, base).astype(np.float64) for raw in outputs], axis=0)
            mean = mean[:, [columns.forecast.index(i) for i in t]]
            return self._shaped(mean * scale[1][t] + scale[0][t])

        stream = ModelStream(self, None, read, answer)
        for step in past:
            stream.step(step)
        return stream

    def score(self, X: Any, y: None = None) -> float:
        """Return R^2 of the forecasts one step ahead, over the series `X` from its second value on.

        Of a model with a horizon, it is that of forecasts of whole horizons, one after the other. It is the mean over
        the features, or over those of the target, and over the series of a list. As in scikit-learn, it is 0 for a
        constant feature, or 1 without any error.
        """
        expect_no_target(y)
        self._check_fitted()
        return float(np.mean([self._score(series) for series in self._read(X, self.config_)]))

    # -- forecasts --------------------------------------------------------------------------------------

    def _score(self, series: Array) -> float:
        columns, h = self._columns(), self._made.horizon if self._direct else 1
        expect(len(series) > h, "X", f"at least {h + 1} steps", len(series))
        if self._direct:
            origins = list(range(max(1, min(self._made.steps, len(series) - h)), len(series) - h + 1, h))
            said = self._forecasts(series, origins, self._known(series, origins, h), h, None)[0]
            said = said.reshape(-1, len(columns.targets))
            right = np.concatenate([series[t : t + h, columns.targets] for t in origins])
        else:
            scale = self._scale(series, self.config_)
            x = self._standardised(series, scale, self.config_)
            means = [self._method().one_ahead(Run(m, train=False), x) for m in self._networks()]
            places = [columns.forecast.index(i) for i in columns.targets]
            said = np.mean([mean.astype(np.float64) for mean in means], axis=0)[:, places]
            right = x[1:, columns.targets].astype(np.float64)
            right = np.where(np.isnan(series[1:, columns.targets]), np.nan, right)
        if not np.isnan(right).any():
            return r_squared(right, said)
        pairs = [
            (r[there], s[there])
            for r, s in zip(right.T, said.T, strict=True)
            if (there := ~np.isnan(r)).any()
        ]
        expect(pairs, "X", "a value to compare with", "none")
        return float(np.mean([r_squared(r[:, None], s[:, None]) for r, s in pairs]))

    def _ahead(
        self, X: Any, horizon: int | None, future: Any, level: float | None, samples: int = 1, rng: Seed = 0
    ) -> list[Any]:
        """Return the forecast after a series and, if there is a level, its bounds, each as `X` is."""
        self._check_fitted()
        columns, h = self._columns(), self._steps_ahead(horizon)
        series, known = self._one(X), None
        places = columns.known or columns.covariates
        if future is not None:
            got = type(future).__name__
            legal = places and (columns.known or not self._direct)
            expect(legal, "future", "None, since there are no covariates (target, known)", got)
            known = _series.future_of(future, places, self.config_.get("feature_names"), h)[:, None]
        wanted = f"the known columns of the next {h} steps"
        expect(known is not None or not columns.known, "future", wanted, "None")
        found = self._forecasts(series, [len(series)], known, h, level, samples, rng)
        return [continued(X, self._shaped(part[0]), self._names()) for part in found]

    def _forecasts(
        self,
        series: Array,
        origins: list[int],
        future: Array | None,
        horizon: int,
        level: float | None,
        samples: int = 1,
        rng: Seed = 0,
    ) -> list[Array]:
        """Return forecasts [n, horizon, targets] from the values before each origin, and bounds if there is a level.

        `future` [horizon, n, C] has covariates as they are.
        """
        columns, size = self._columns(), _size("samples", samples)
        if level is not None:
            expect(0 < number("level", level) < 1, "level", "0 < level < 1", level)
        drawn = level is not None and not self._direct
        if drawn:
            gaussian = getattr(self._made, "loss", "gaussian") == "gaussian"
            expect(gaussian, "loss", "'gaussian' for intervals without a horizon", repr(self._made.loss))
        places = columns.known or columns.covariates
        whole, parts = _series.filled(series), []
        n = max(1, MOST // (size if drawn else 16))
        state = np.random.default_rng(rng)
        seed = state.bit_generator.state
        for chunk in (slice(i, i + n) for i in range(0, len(origins), n)):
            scales = [self._scale(series[:t], self.config_) for t in origins[chunk]]
            pasts = [
                self._standardised(
                    whole[max(0, t - self._made.steps) : t], scale, self.config_,
                    np.isnan(series[max(0, t - self._made.steps) : t]),
                )
                for t, scale in zip(origins[chunk], scales, strict=True)
            ]  # fmt: skip
            mean, scale = (np.stack(part)[:, None] for part in zip(*scales, strict=True))
            known = None
            if future is not None:
                own = future[:, chunk].transpose(1, 0, 2)
                own = finite((own - mean[..., places]) / scale[..., places], self._made.dtype)
                known = own.transpose(1, 0, 2)
            results = []
            for network in self._networks():
                state.bit_generator.state = seed
                results.append(self._of_network(network, pasts, known, horizon, level, size, state))
            means = [np.mean(part, axis=0).transpose(1, 0, 2) for part in zip(*results, strict=True)]
            t = columns.targets
            parts.append([values * scale[..., t] + mean[..., t] for values in means])
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _of_network(
        self,
        network: dict[str, Any],
        pasts: list[Array],
        known: Array | None,
        horizon: int,
        level: float | None,
        samples: int,
        rng: Any,
    ) -> tuple[Array, ...]:
        """Return one network's standardised forecasts [horizon, n, targets], and bounds if there is a level."""
        method, run = self._method(), Run(network, train=False)
        if self._direct:
            return method.forecast(run, pasts, known, horizon, level)  # type: ignore[no-any-return]
        targets = self._columns().targets
        found = (method.forecast(run, pasts, known, horizon, 1, None)[:, :, 0, targets],)
        if level is None:
            return found
        paths = method.forecast(run, pasts, known, horizon, samples, rng)[..., targets]
        return *found, *np.quantile(paths, [(1 - level) / 2, (1 + level) / 2], axis=2)

    def _known(self, series: Array, origins: list[int], horizon: int) -> Array | None:
        """Return the known columns [horizon, n, C] of the steps after each origin, or None if there are none."""
        known = self._columns().known
        return np.stack([series[t : t + horizon, known] for t in origins], axis=1) if known else None

    def _steps_ahead(self, horizon: int | None) -> int:
        """Return the number of steps to forecast."""
        most = self._made.horizon if self._direct else None
        if horizon is None:
            return most or 1
        h = _size("horizon", horizon)
        expect(most is None or h <= most, "horizon", f"at most {most}, that of the model", h)
        return h
