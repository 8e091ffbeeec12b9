"""Series for forecasts: how they are read, which of their columns are what, and their scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn import Ragged
from fastrnn._arrays import expect
from fastrnn.models._data import mean_and_scale, scaled
from fastrnn.models._inputs import few, names_of, numbers

Array = NDArray[Any]
Scale = tuple[Array, Array]  # mean and standard deviation of every column


class Columns(NamedTuple):
    """The places of the columns of a series of `width` columns."""

    width: int
    targets: list[int]  # what predict returns
    known: list[int]  # what is known of the steps to come
    forecast: list[int]  # what the network forecasts
    marked: list[int]  # whose missing values the network sees as such

    @property
    def covariates(self) -> list[int]:
        return [i for i in range(self.width) if i not in self.targets]


@dataclass(frozen=True, eq=False)
class Series:
    """A series in standard deviations, and what is not in its numbers."""

    x: Array  # [T, D + marks]: gaps are filled, and a mark is 1 where a value was missing
    seen: Array | None  # [T, D], False where a value was missing; None where none was
    first: int = 1  # forecasts begin after at least so many steps

    def __len__(self) -> int:
        return len(self.x)


class Ends(list[Any]):
    """Series that validation reads from some step on: pairs (series [T, D], start)."""


def is_list_of_series(X: Any) -> bool:
    """Return whether `X` is a list of series, and not one series."""
    if isinstance(X, Ragged):
        return True
    listed = isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1)
    return listed and len(X) > 0 and np.ndim(X[0]) > 0


def parts_of(X: Any) -> list[Any]:
    """Return one series or a list of them as a list."""
    return list(X) if is_list_of_series(X) else [X]


def read(X: Any, missing: str) -> list[Array]:
    """Return one series or a list of them as a list of float64 [T, D], with NaN if `missing` is "mask"."""
    if not is_list_of_series(X) and getattr(X, "ndim", 0) == 3:
        raise ValueError(
            f"X: expected numbers [T] or [T, D], got shape {X.shape}. list(X) is a list of series"
        )
    names = [f"X[{i}]" for i in range(len(X))] if is_list_of_series(X) else ["X"]
    return [numbers(n, s, nan=missing == "mask") for n, s in zip(names, parts_of(X), strict=True)]


def head_of(series: Any, stop: int) -> Any:
    """Return the first `stop` steps of a series, as the same kind of thing."""
    return series.iloc[:stop] if hasattr(series, "iloc") else series[:stop]


def places_of(name: str, given: Any, width: int, names: list[str] | None) -> list[int]:
    """Return the places of the columns that the argument `name` has, by name or place, as one or as a list."""
    places = []
    for column in given if isinstance(given, list) else [given]:
        by_name = isinstance(column, str)
        known: list[Any] = list(names or []) if by_name else list(range(width))
        expect(column in known, name, f"a column among {few(known)}", repr(column))
        places.append(known.index(column))
    expect(len(set(places)) == len(places), name, "every column once", given)
    return places


def own_scale(series: Array, otherwise: Scale) -> Scale:
    """Return mean and standard deviation of every column; `otherwise` has those of columns that do not vary."""
    if not np.isnan(series).any():
        return mean_and_scale(series, otherwise[1])
    mean, scale = np.array(otherwise[0], np.float64), np.array(otherwise[1], np.float64)
    for i, column in enumerate(series.T):
        there = column[~np.isnan(column)]
        if there.size:
            (mean[i],), (scale[i],) = mean_and_scale(there[:, None], scale[i])
    return mean, scale


def filled(series: Array) -> Array:
    """Return a series with the last value in place of NaN, but for those with no value before them."""
    gaps = np.isnan(series)
    if not gaps.any():
        return series
    last = np.maximum.accumulate(np.where(gaps, 0, np.arange(len(series))[:, None]), axis=0)
    return np.take_along_axis(series, last, axis=0)


def standardised(
    series: Array, scale: Scale, columns: Columns, dtype: str, gaps: Array | None = None
) -> Array:
    """Return [T, D + marks]: a series whose gaps are filled in standard deviations, and marks where they were."""
    x = scaled(np.where(np.isnan(series), scale[0], series), *scale, dtype)
    if not columns.marked:
        return x
    marks = (np.isnan(series) if gaps is None else gaps)[:, columns.marked]
    return np.concatenate([x, marks.astype(dtype)], axis=1)


def expect_known(series: Sequence[Array], columns: Columns) -> None:
    """Raise if a column of covariates that are known has gaps."""
    for s in series:
        expect(not np.isnan(s[:, columns.known]).any(), "X", "known columns without NaN", "NaN in one")


def future_of(future: Any, places: list[int], names: list[str] | None, horizon: int) -> Array:
    """Return the covariates of the next steps as float64 [horizon, C]."""
    own = names_of(future)
    if own is not None and names is not None:
        wanted = [names[i] for i in places]
        missing = [name for name in wanted if name not in own]
        expect(not missing, "future", f"the columns {few(wanted)}", f"none with the names {few(missing)}")
        future = future[wanted]
    values = numbers("future", future)
    shape = (horizon, len(places))
    expect(values.shape == shape, "future", f"shape {shape}", values.shape)
    return values
