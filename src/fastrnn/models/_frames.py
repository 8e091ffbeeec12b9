"""DataFrames and Series of pandas that go on from others."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray


def continued(X: Any, values: NDArray[Any], names: list[str] | None = None) -> Any:
    """Return `values` as they are, or as what pandas has for them where `X` is of pandas.

    `names` are those of the columns of `values`; by default they are those of `X`.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(X, (pandas.DataFrame, pandas.Series)):
        return values
    index = _following(X.index, len(values), pandas)
    if values.ndim == 1:
        frame = isinstance(X, pandas.DataFrame)
        name = (names[0] if names else None) if frame else X.name
        return pandas.Series(values, index=index, name=name)
    columns = names or (X.columns if values.shape[1] == X.shape[1] else None)
    return pandas.DataFrame(values, index=index, columns=columns)


def forecasts(X: Any, values: NDArray[Any], origins: list[int], names: list[str] | None = None) -> Any:
    """Return forecasts [n, horizon] or [n, horizon, K] as they are, or as what pandas has for them.

    The index of that has the last value before each origin, and the place of each forecast.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(X, (pandas.DataFrame, pandas.Series)):
        return values
    n, horizon = values.shape[:2]
    places = np.array(origins)
    pairs = [X.index[np.repeat(places - 1, horizon)]]
    pairs += [X.index[(places[:, None] + np.arange(horizon)).reshape(-1)]]
    index = pandas.MultiIndex.from_arrays(pairs, names=["origin", X.index.name])
    flat = values.reshape(n * horizon, *values.shape[2:])
    if flat.ndim == 1:
        name = (names[0] if names else None) if isinstance(X, pandas.DataFrame) else X.name
        return pandas.Series(flat, index=index, name=name)
    columns = names or (X.columns if flat.shape[1] == X.shape[1] else None)
    return pandas.DataFrame(flat, index=index, columns=columns)


def _following(index: Any, n: int, pandas: Any) -> Any:
    """Return the `n` entries after an index of equal steps; after others, 0 to n - 1."""
    if isinstance(index, pandas.RangeIndex):
        return pandas.RangeIndex(index.stop, index.stop + n * index.step, index.step)
    if isinstance(index, pandas.PeriodIndex):
        return pandas.period_range(index[-1] + 1, periods=n, name=index.name)
    if isinstance(index, pandas.DatetimeIndex):
        step = index.freq or _step(index, pandas)
        if step is not None:
            return pandas.date_range(index[-1], periods=n + 1, freq=step, name=index.name)[1:]
    return pandas.RangeIndex(n)


def _step(index: Any, pandas: Any) -> Any:
    """Return the distance of times that are equally far apart, by the clock or by the calendar, or None."""
    if len(index) < 3:
        return None
    steps = index[1:] - index[:-1]
    if (steps == steps[0]).all() and steps[0] > pandas.Timedelta(0):
        return steps[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 3 tells that the type of the result will change
        return pandas.infer_freq(index)
