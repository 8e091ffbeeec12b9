"""Batches of sequences of unequal length, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import _integers, _size, as_lengths, readable
from fastrnn._deprecated import renamed


class Ragged:
    """A batch of sequences of unequal length, one after the other in one array.

    Every layer takes it in place of ``x`` and then returns one. Padding is never made.

    Parameters
    ----------
    values : array [total, features]
        The steps of the first sequence, then those of the second, and so on.
    lengths : int array [B]
        Steps of each sequence, in any order, zeros allowed. Their sum is ``total``.

    Raises
    ------
    ValueError, TypeError
        The shapes do not fit each other, or the lengths are not non-negative integers.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> batch = fastrnn.Ragged.from_list([np.ones((3, 4), np.float32), np.zeros((1, 4), np.float32)])
    >>> y, h_n = fastrnn.GRU(4, 5)(batch)
    >>> y.values.shape, y.lengths.tolist()
    ((4, 5), [3, 1])
    """

    __slots__ = ("lengths", "values")

    def __init__(self, values: ArrayLike, lengths: ArrayLike) -> None:
        self.values: NDArray[Any] = readable("values", values, "an array")
        # a copy, so that whoever writes to the array that was given does not change this batch
        self.lengths: NDArray[np.int64] = _integers("lengths", lengths).copy()
        if self.values.ndim != 2:
            raise ValueError(f"values: expected shape (total, features), got {self.values.shape}")
        if self.lengths.ndim != 1:
            raise ValueError(f"lengths: expected shape (B,), got {self.lengths.shape}")
        if self.lengths.size and self.lengths.min() < 0:
            raise ValueError(f"lengths: expected values of at least 0, got {int(self.lengths.min())}")
        total = sum(self.lengths.tolist())  # Python's integers do not wrap around
        if total != len(self.values):
            raise ValueError(f"lengths: expected a sum of {len(self.values)}, got {total}")

    @classmethod
    def _of(cls, values: NDArray[Any], lengths: NDArray[np.int64]) -> Ragged:
        """Return a Ragged of arrays that are known to fit each other."""
        ragged = cls.__new__(cls)
        ragged.values, ragged.lengths = values, lengths
        return ragged

    @classmethod
    @renamed(rows="sequences")
    def from_list(cls, sequences: Sequence[ArrayLike]) -> Ragged:
        """Join sequences, arrays [steps, features] of the same number of features.

        >>> import numpy as np, fastrnn
        >>> fastrnn.Ragged.from_list([np.ones((2, 3)), np.ones((1, 3))])
        Ragged(B=2, total=3, features=3, float64)
        """
        arrays = [readable(f"sequences[{i}]", array, "an array") for i, array in enumerate(sequences)]
        for i, array in enumerate(arrays):
            if array.ndim != 2 or array.shape[1] != arrays[0].shape[1]:
                features = arrays[0].shape[1] if arrays[0].ndim == 2 else "features"
                raise ValueError(f"sequences[{i}]: expected shape (steps, {features}), got {array.shape}")
        if not arrays:
            raise ValueError("sequences: expected at least one sequence, got none")
        return cls(np.concatenate(arrays), np.array([len(array) for array in arrays], np.int64))

    @classmethod
    def from_padded(cls, x: ArrayLike, lengths: ArrayLike, *, batch_first: bool = False) -> Ragged:
        """Take the valid steps of a padded array [T, B, features] ([B, T, features] if ``batch_first``)."""
        padded = readable("x", x, "an array")
        if padded.ndim != 3:
            raise ValueError(f"x: expected 3 dimensions, got shape {padded.shape}")
        sequences = padded if batch_first else padded.swapaxes(0, 1)
        n = as_lengths(lengths, *sequences.shape[:2])
        return cls(sequences[np.arange(sequences.shape[1]) < n[:, None]], n)

    def to_padded(self, *, batch_first: bool = False, fill: float = 0.0) -> NDArray[Any]:
        """Return an array [T, B, features] ([B, T, features] if ``batch_first``), padded with ``fill``."""
        steps = int(self.lengths.max(initial=0))
        padded = np.full((len(self), steps, self.values.shape[1]), fill, self.values.dtype)
        padded[np.arange(steps) < self.lengths[:, None]] = self.values
        return padded if batch_first else np.ascontiguousarray(padded.swapaxes(0, 1))

    def to_list(self) -> list[NDArray[Any]]:
        """Return the sequences, arrays [steps, features] that are views of ``values``."""
        if not len(self):
            return []
        return [np.asarray(array) for array in np.split(self.values, np.cumsum(self.lengths)[:-1])]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.to_list())

    def __repr__(self) -> str:
        total, features = self.values.shape
        return f"Ragged(B={len(self)}, total={total}, features={features}, {self.values.dtype})"


def chunks(
    x: ArrayLike, size: int, lengths: ArrayLike | None = None, *, batch_first: bool = False
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64] | None]]:
    """Cut a long batch into chunks in time order, for truncated BPTT with carried state.

    Parameters
    ----------
    x : array [T, B, features] or [T, features]
        Or [B, T, features] if ``batch_first``.
    size : int
        Steps of a chunk; the last one may be shorter.
    lengths : int array [B], optional
        Steps of each sequence. A chunk gets what is left of them, so that the state of a sequence that has ended
        stays what it was.

    Yields
    ------
    chunk, lengths
        A view of ``x``, and the lengths within it (None where none were given).

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> gru, state = fastrnn.GRU(3, 4), None
    >>> for chunk, _ in fastrnn.chunks(np.ones((10, 2, 3), np.float32), 4):
    ...     y, state, tape = gru.forward(chunk, state)  # gradients stop where a chunk begins
    >>> y.shape
    (2, 2, 4)
    """
    array = readable("x", x, "an array")
    size = _size("size", size)
    if array.ndim not in (2, 3):
        raise ValueError(f"x: expected 2 or 3 dimensions, got shape {array.shape}")
    axis = 1 if batch_first and array.ndim == 3 else 0
    left = None if lengths is None else _integers("lengths", lengths)
    if left is not None and (array.ndim != 3 or left.shape != (array.shape[1 - axis],)):
        raise ValueError(
            f"lengths: expected one for each sequence of x of shape {array.shape}, got {left.shape}"
        )
    if left is not None:
        left = as_lengths(left, len(left), array.shape[axis])
    for start in range(0, array.shape[axis], size):
        chunk = array[:, start : start + size] if axis else array[start : start + size]
        yield chunk, None if left is None else np.clip(left - start, 0, chunk.shape[axis])
