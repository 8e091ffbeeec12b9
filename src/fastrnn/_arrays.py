"""Checks and conversions of arguments. The core calls some of them where its own quick checks do not pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def _size(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if value > 2**31 - 1:
        raise ValueError(f"{name}: expected at most {2**31 - 1}, got {value}")
    return int(value)


def _probability(name: str, value: Any) -> float:
    if not 0 <= number(name, value) < 1:
        raise ValueError(f"{name}: expected at least 0 and less than 1, got {value}")
    return float(value)


def _float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    if dtype is None:
        raise TypeError("dtype: expected float32 or float64, got None")
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}") from error
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype: expected float32 or float64, got {kind}")
    return kind


def some(items: Iterable[Any], separator: str = ", ", most: int = 6) -> str:
    """Return the first of many items as text, and how many more there are."""
    texts = [str(item) for item in items]
    more = len(texts) - most
    return separator.join(texts[:most] + [f"and {more} more"] * (more > 0))


def readable(name: str, value: Any, expected: str) -> NDArray[Any]:
    """Return ``value`` as NumPy or DLPack reads it, without a copy where none is needed.

    Raises
    ------
    TypeError
        It cannot be read, or some of its elements are masked.
    """
    refuse_masked(name, value)
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    got = type(value).__name__
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    kind = type(first).__name__
    if getattr(first, "requires_grad", False) is True:
        raise TypeError(f"{name}: expected {expected}, got a {kind} that requires grad: detach() it first")
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        if "bfloat16" in str(getattr(first, "dtype", "")):
            got = f"a {kind} of bfloat16, which NumPy does not have: make it float32 first"
        raise TypeError(f"{name}: expected {expected}, got {got}") from error
    except RuntimeError as error:  # for instance a PyTorch tensor on another device
        raise TypeError(f"{name}: expected {expected}, got {got}: {error}") from error


def refuse_masked(name: str, value: Any) -> None:
    """Raise if an array has masked elements, or one in a list at any depth."""
    if isinstance(value, (list, tuple)):
        for part in value:
            if not isinstance(part, (str, int, float)):
                refuse_masked(name, part)
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(f"{name}: expected an array without masked elements, got a masked array")


def kind_of(array: NDArray[Any], value: Any) -> str:
    """Return what an argument is, for a message: its dtype, or its type where NumPy saw but an object."""
    return type(value).__name__ if array.dtype.kind == "O" else str(array.dtype)


def misfits(shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Return what is missing, unexpected or of another shape, in words."""
    wrong = [f"missing {name}" for name in shapes if name not in arrays]
    wrong += [f"unexpected {name}" for name in arrays if name not in shapes]
    return wrong + [
        f"{name}: expected shape {shape}, got {arrays[name].shape}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]


def as_array(name: str, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return ``value`` as a C-contiguous, aligned array of ``dtype``; real floats are cast.

    It may be anything that :func:`numpy.asarray` or DLPack takes. Integers, booleans, complex numbers, strings
    and objects are refused rather than cast, because they are usually a mistake.

    Raises
    ------
    TypeError
        The elements are not real floating-point numbers, or some of them are masked.
    """
    array = readable(name, value, "an array of real floats")
    if array.dtype.kind != "f" and not (array.size == 0 and isinstance(value, (list, tuple))):
        kind = type(value).__name__ if array.dtype.kind == "O" else f"an array of {array.dtype}"
        raise TypeError(f"{name}: expected an array of real floats, got {kind}")
    return np.require(array, dtype, ["C", "A"]).reshape(array.shape)


def as_lengths(value: Any, rows: int, steps: int, name: str = "lengths") -> NDArray[np.int64]:
    """Return the lengths of ``rows`` sequences as an int64 array [rows], each from 0 to ``steps``."""
    array = _integers(name, value)
    if array.shape != (rows,):
        raise ValueError(f"{name}: expected shape ({rows},), got {array.shape}")
    if array.size and (array.min() < 0 or array.max() > steps):
        wrong = int(array.min() if array.min() < 0 else array.max())
        raise ValueError(f"{name}: expected values from 0 to {steps}, got {wrong}")
    return array


def as_rows(value: Any, rows: int) -> NDArray[np.int64]:
    """Return the indices of those sequences of a stream that ``value`` names, out of ``rows``."""
    name = "sequences"
    array = np.atleast_1d(readable(name, value, "an array of integers"))
    if array.dtype.kind == "b":
        if array.shape != (rows,):
            raise ValueError(f"{name}: expected shape ({rows},), got {array.shape}")
        return np.flatnonzero(array).astype(np.int64)
    array = _integers(name, array).ravel()
    if array.size and (array.min() < 0 or array.max() >= rows):
        wrong = int(array.min() if array.min() < 0 else array.max())
        raise ValueError(f"{name}: expected values from 0 to {rows - 1}, got {wrong}")
    return array


def as_reset(value: Any, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return reset flags as a C-contiguous bool array of ``shape``."""
    array = readable("reset", value, "an array of bool")
    if array.dtype.kind != "b":
        raise TypeError(f"reset: expected an array of bool, got an array of {array.dtype}")
    if array.shape != tuple(shape):
        raise ValueError(f"reset: expected shape {tuple(shape)}, got {array.shape}")
    return np.ascontiguousarray(array)


def _integers(name: str, value: Any) -> NDArray[np.int64]:
    array = readable(name, value, "an array of integers")
    if array.dtype.kind not in "iu" and array.size:
        kind = type(value).__name__ if array.dtype.kind == "O" else f"an array of {array.dtype}"
        raise TypeError(f"{name}: expected an array of integers, got {kind}")
    _fit_int64(name, array)
    return np.require(array, np.int64, ["C", "ALIGNED"]).reshape(array.shape)


def _fit_int64(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected values that fit int64, got {int(array.max())}")


def expect(
    fits: Any, name: str, expected: object, got: object, error: type[ValueError | TypeError] = ValueError
) -> None:
    """Raise an `error` that names the argument, what was expected and what came, unless `fits`."""
    if not fits:
        raise error(f"{name}: expected {expected}, got {got}")


def number(name: str, value: Any) -> Any:
    """Return a real number of Python or NumPy, which may be an array []."""
    value = value[()] if isinstance(value, np.ndarray) else value
    real = isinstance(value, Real) and not isinstance(value, bool)
    expect(real, name, "a number", type(value).__name__, TypeError)
    return value


def expect_writeable(name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise if any array is read-only; the keys say where they are."""
    for where, array in arrays.items():
        got = f"a read-only one{where and f' at {where}'} (a frozen layer? unfreeze() it first)"
        expect(array.flags.writeable, name, "writeable arrays", got)


def floats(name: str, value: Any) -> NDArray[Any]:
    """Return a NumPy array of real floats, of any float dtype and without a copy."""
    array = readable(name, value, "real floats")
    expect(array.dtype.kind == "f", name, "real floats", kind_of(array, value), TypeError)
    return array


def core_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    """Return the dtype in which the core computes with an array of floats: float32 or float64."""
    return np.dtype(np.float64 if array.dtype.itemsize > 4 else np.float32)


def at_least_zero(name: str, value: Any) -> float:
    """Return a finite number of at least 0."""
    expect(0 <= number(name, value) < math.inf, name, "a number of at least 0", value)
    return float(value)


def positive(name: str, value: Any) -> Any:
    """Return a number of more than 0."""
    expect(number(name, value) > 0, name, "more than 0", value)
    return value


def fraction(name: str, value: Any) -> float:
    """Return a number of at least 0 and less than 1."""
    expect(0 <= number(name, value) < 1, name, f"0 <= {name} < 1", value)
    return float(value)


def indices(name: str, value: Any) -> NDArray[np.intp]:
    """Return an array of integers."""
    array = readable(name, value, "integers")
    expect(array.dtype.kind in "iu" or not array.size, name, "integers", kind_of(array, value), TypeError)
    _fit_int64(name, array)
    return array.astype(np.intp, copy=False)


def within(name: str, array: NDArray[np.intp], stop: int) -> None:
    """Raise unless all indices are at least 0 and less than `stop`."""
    if array.size:
        low, high = array.min(), array.max()
        expect(low >= 0 and high < stop, name, f"0 <= {name.removesuffix('s')} < {stop}", f"{low} to {high}")
