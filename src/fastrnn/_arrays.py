"""Conversion of array arguments: the slow path behind the checks of the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_array(name: str, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """``value`` as an array of ``dtype`` with contiguous, aligned rows; real floats are cast.

    Anything that :func:`numpy.asarray` or DLPack takes. Integers, booleans, complex numbers, strings and
    objects are refused rather than cast, because they are more often a mistake than a wish.

    Raises
    ------
    TypeError
        Where the elements are not real floating-point numbers, or some of them are masked.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(f"{name}: expected an array without masked elements, got a masked array")
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{name}: expected an array of real floats, got {type(value).__name__}") from error
    if array.dtype.kind != "f" and not (array.size == 0 and isinstance(value, (list, tuple))):
        kind = type(value).__name__ if array.dtype.kind == "O" else f"an array of {array.dtype}"
        raise TypeError(f"{name}: expected an array of real floats, got {kind}")
    return np.require(array, dtype, ["C", "A"]).reshape(array.shape)


def as_lengths(value: Any, rows: int, steps: int, name: str = "lengths") -> NDArray[np.int64]:
    """Row lengths as an int64 array [rows], each in 0..steps."""
    array = _integers(name, value)
    if array.shape != (rows,):
        raise ValueError(f"{name}: expected shape ({rows},), got {array.shape}")
    if array.size and (array.min() < 0 or array.max() > steps):
        wrong = int(array.min() if array.min() < 0 else array.max())
        raise ValueError(f"{name}: expected values from 0 to {steps}, got {wrong}")
    return array


def as_rows(value: Any, rows: int) -> NDArray[np.int64]:
    """Indices of rows of a stream."""
    array = np.atleast_1d(np.asarray(value))
    if array.dtype.kind == "b":
        if array.shape != (rows,):
            raise ValueError(f"rows: expected shape ({rows},), got {array.shape}")
        return np.flatnonzero(array).astype(np.int64)
    array = _integers("rows", array).ravel()
    if array.size and (array.min() < 0 or array.max() >= rows):
        wrong = int(array.min() if array.min() < 0 else array.max())
        raise ValueError(f"rows: expected values from 0 to {rows - 1}, got {wrong}")
    return array


def as_reset(value: Any, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Reset flags as a C-contiguous bool array of ``shape``."""
    array = np.asarray(value)
    if array.dtype.kind != "b":
        raise TypeError(f"reset: expected an array of bool, got an array of {array.dtype}")
    if array.shape != tuple(shape):
        raise ValueError(f"reset: expected shape {tuple(shape)}, got {array.shape}")
    return np.ascontiguousarray(array)


def _integers(name: str, value: Any) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected an array of integers, got an array of {array.dtype}")
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected values that fit int64, got {int(array.max())}")
    return np.ascontiguousarray(array, dtype=np.int64).reshape(array.shape)
