"""What the Forecaster learns from series besides weights, and how it cuts them up for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn.models import _series
from fastrnn.models._autoregressive import Autoregressive
from fastrnn.models._base import Model
from fastrnn.models._data import expect_width, width_of
from fastrnn.models._direct import Direct
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import check_names, common_names, expect_no_target
from fastrnn.models._run import Run
from fastrnn.models._series import Columns, Ends, Scale, Series

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class SeriesModel(Model):
    """Series, their columns and scales; one step ahead or a horizon."""

    steps: int = 100
    horizon: int | None = None
    target: int | str | list[Any] | None = None
    known: int | str | list[Any] | None = None
    loss: str = "gaussian"
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    scaling: str = "series"
    missing: str = "error"
    season: int | None = None
    stride: int | None = None
    n_estimators: int = 1

    # -- what fit learns --------------------------------------------------------------------------------

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        expect_no_target(y)
        for name, needs in (
            ("loss='quantile'", self.loss == "quantile"),
            ("scaling='window'", self.scaling == "window"),
            ("a stride", self.stride is not None),
            ("a season", self.season is not None),
        ):
            expect(self.horizon is not None or not needs, "horizon", f"a number of steps, for {name}", "None")
        within = f"at most the {self.steps} steps of a history"
        expect(self.season is None or self.season <= self.steps, "season", within, self.season)
        parts, series = _series.parts_of(X), _series.read(X, self.missing)
        width = width_of(series)
        every = np.concatenate([s for s in series if s.size])
        gaps = np.isnan(every)
        expect(not gaps.all(axis=0).any(), "X", "a value in every column", "NaN only")
        mean, scale = _series.own_scale(every, (np.zeros(width), np.ones(width)))
        if self.scaling != "fit":
            # For a history that is constant, or too short for a scale of its own, that of the median series.
            own = [_series.own_scale(s, (mean, np.ones(width)))[1] for s in series if s.size]
            scale = np.median(own, axis=0)
        config: dict[str, Any] = {"n_features": width, "mean": mean.tolist(), "scale": scale.tolist()}
        config |= {"one_dimensional": np.asarray(parts[0]).ndim == 1, "scaling": self.scaling}
        config["n_features_in"], names = width, common_names(parts)
        if self.known is not None:
            config["known"] = _series.places_of("known", self.known, width, names)
            config["targets"] = [i for i in range(width) if i not in config["known"]]
            expect(config["targets"], "known", "a column that is left to forecast", "all columns")
        if self.target is not None:
            config["targets"] = _series.places_of("target", self.target, width, names)
            both = [i for i in config["targets"] if i in config.get("known", [])]
            expect(not both, "known", "columns that are no target", f"{both} in both")
            config["one_dimensional"] = not isinstance(self.target, list)
        return config if names is None else config | {"feature_names": names}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], extra: Any = None) -> list[Series]:
        if isinstance(X, Ends):
            back = self._made.steps if self._direct else 1
            triples = [(s, start, max(0, start - back)) for s, start in X]
        else:
            triples = [(s, len(s), 0) for s in self._read(X, config)]
        columns, found = self._columns(config), []
        _series.expect_known([s for s, _, _ in triples], columns)
        first = self._made.steps if self._direct else 1
        for s, start, begin in triples:
            gaps = np.isnan(s)[begin:]
            x = self._standardised(_series.filled(s)[begin:], self._scale(s[:start], config), config, gaps)
            least = start - begin if isinstance(X, Ends) else first
            found.append(Series(x, ~gaps if gaps.any() else None, least))
        longest, least = max(map(len, found)), (self._made.horizon or 1) + 1 if self._direct else 2
        expect(longest >= least, "X", f"at least {least} steps", f"n_samples = {longest}")
        counted = any(s.seen is None or s.seen[1:, columns.forecast].any() for s in found)
        expect(counted, "X", "a value to forecast", "NaN only")
        return found

    def _hold_out(self, X: Any, y: Any, extra: Any, fraction: float) -> tuple[Any, Any]:
        expect_no_target(y)
        parts, series, made = _series.parts_of(X), _series.read(X, self.missing), self._made
        counts = [max(1, round(fraction * len(s))) for s in series]
        if self._direct:  # whole horizons, and the places where they begin are kept
            unit = made.stride or 1
            counts = [-(-max(n, made.horizon) // unit) * unit for n in counts]
        starts = [max(0, len(s) - n) for s, n in zip(series, counts, strict=True)]
        least = made.horizon + 1 if self._direct else 2
        enough = max(starts) >= least
        expect(enough, "validation", f"a series with {least} steps to train on", f"a fraction of {fraction}")
        heads = [_series.head_of(part, start) for part, start in zip(parts, starts, strict=True)]
        ends = [(s, start) for s, start in zip(series, starts, strict=True) if 0 < start < len(s)]
        expect(ends, "validation", "a series to hold out from", f"a fraction of {fraction}")
        return (heads if _series.is_list_of_series(X) else heads[0], None, None), Ends(ends)

    def _scored(self, X: Any) -> Any:
        back = self._made.steps if self._direct else 1
        return [s[max(0, start - back) :] for s, start in X] if isinstance(X, Ends) else X

    def _scale(self, series: Array, config: dict[str, Any]) -> Scale:
        """Return the mean and the scale with which a series [T, D] is standardised."""
        common = np.array(config["mean"]), np.array(config["scale"])
        if config.get("scaling", "fit") == "fit" or not series.size:
            return common
        return _series.own_scale(series, common)

    def _standardised(self, series: Array, scale: Scale, config: dict[str, Any], gaps: Any = None) -> Array:
        if gaps is None:
            series, gaps = _series.filled(series), np.isnan(series)
        return _series.standardised(series, scale, self._columns(config), self._made.dtype, gaps)

    def _read(self, X: Any, config: dict[str, Any]) -> list[Array]:
        """Return one series or several of them, which must have the features of fit."""
        owner = type(self).__name__
        check_names(owner, common_names(_series.parts_of(X)), config.get("feature_names"))
        series = _series.read(X, getattr(self._made, "missing", "error"))
        width = config["n_features"]
        for s in series:
            expect_width(s, width, owner)
        return [s if s.size else s.reshape(0, width) for s in series]

    def _one(self, X: Any) -> Array:
        """Return one series [T, D], as it is."""
        series = self._read(X, self.config_)
        expect(len(series) == 1, "X", "one series", len(series))
        expect(len(series[0]), "X", "at least 1 step", "0")
        _series.expect_known(series, self._columns())
        return series[0]

    def _shaped(self, values: Array) -> Array:
        return np.asarray(values[..., 0] if self.config_["one_dimensional"] else values)

    def _names(self) -> list[str] | None:
        names = self.config_.get("feature_names")
        return None if names is None else [names[i] for i in self._columns().targets]

    def _columns(self, config: dict[str, Any] | None = None) -> Columns:
        config = self.config_ if config is None else config
        width, known = config["n_features"], list(config.get("known", []))
        every = [i for i in range(width) if i not in known]
        targets = list(config.get("targets", every))
        forecast = targets if self._direct else every
        masked = getattr(self._made, "missing", "error") == "mask"
        return Columns(width, targets, known, forecast, forecast if masked else [])

    # -- what Model asks for ----------------------------------------------------------------------------

    @property
    def _direct(self) -> bool:
        return getattr(self._made, "horizon", None) is not None

    def _method(self, config: dict[str, Any] | None = None) -> Any:
        return (Direct if self._direct else Autoregressive)(self._made, self._columns(config))

    def _build(self, make: Factory) -> dict[str, Any]:
        _ = len(self.config_["mean"]), self.config_["one_dimensional"]
        return self._method().build(make)  # type: ignore[no-any-return]

    def _plan(self, data: Any, rng: np.random.Generator | None) -> list[Any]:
        return self._method().plan(data, rng)  # type: ignore[no-any-return]

    def _step(self, run: Run, data: Any, batch: Any) -> tuple[float, int]:
        return self._method().step(run, data, batch)  # type: ignore[no-any-return]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "mask"
        return tags
