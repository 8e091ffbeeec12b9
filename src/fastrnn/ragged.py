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
    values : array [total, features], or [total] for one number a step, such as token ids
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
        if self.values.ndim not in (1, 2):
            raise ValueError(f"values: expected shape (total, features) or (total,), got {self.values.shape}")
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
        """Join sequences, arrays [steps, features] of the same number of features, or [steps].

        >>> import numpy as np, fastrnn
        >>> fastrnn.Ragged.from_list([np.ones((2, 3)), np.ones((1, 3))])
        Ragged(B=2, total=3, features=3, float64)
        >>> fastrnn.Ragged.from_list([[5, 3], [8]])
        Ragged(B=2, total=3, int64)
        """
        arrays = [readable(f"sequences[{i}]", array, "an array") for i, array in enumerate(sequences)]
        for i, array in enumerate(arrays):
            if array.ndim not in (1, 2) or array.shape[1:] != arrays[0].shape[1:]:
                if arrays[0].ndim == 1:
                    raise ValueError(f"sequences[{i}]: expected shape (steps,), got {array.shape}")
                features = arrays[0].shape[1] if arrays[0].ndim == 2 else "features"
                raise ValueError(f"sequences[{i}]: expected shape (steps, {features}), got {array.shape}")
        if not arrays:
            raise ValueError("sequences: expected at least one sequence, got none")
        return cls(np.concatenate(arrays), np.array([len(array) for array in arrays], np.int64))

    @classmethod
    def from_padded(cls, x: ArrayLike, lengths: ArrayLike, *, batch_first: bool = False) -> Ragged:
        """Take the valid steps of a padded array [T, B, features] or [T, B] ([B, T, ...] if ``batch_first``)."""
        padded = readable("x", x, "an array")
        if padded.ndim not in (2, 3):
            raise ValueError(f"x: expected 3 dimensions, or 2 of one number a step, got shape {padded.shape}")
        sequences = padded if batch_first else padded.swapaxes(0, 1)
        n = as_lengths(lengths, *sequences.shape[:2])
        return cls(sequences[np.arange(sequences.shape[1]) < n[:, None]], n)

    def to_padded(self, *, batch_first: bool = False, fill: float = 0.0) -> NDArray[Any]:
        """Return an array [T, B, features] or [T, B] ([B, T, ...] if ``batch_first``), padded with ``fill``."""
        steps = int(self.lengths.max(initial=0))
        padded = np.full((len(self), steps, *self.values.shape[1:]), fill, self.values.dtype)
        padded[np.arange(steps) < self.lengths[:, None]] = self.values
        return padded if batch_first else np.ascontiguousarray(padded.swapaxes(0, 1))

    def to_list(self) -> list[NDArray[Any]]:
        """Return the sequences, arrays [steps, features] or [steps] that are views of ``values``."""
        if not len(self):
            return []
        return [np.asarray(array) for array in np.split(self.values, np.cumsum(self.lengths)[:-1])]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.to_list())

    def __repr__(self) -> str:
        features = "".join(f"features={size}, " for size in self.values.shape[1:])
        return f"Ragged(B={len(self)}, total={len(self.values)}, {features}{self.values.dtype})"


def length_mask(
    lengths: ArrayLike, steps: int | None = None, *, batch_first: bool = False
) -> NDArray[np.bool_]:
    """Return which steps of a padded batch are valid: the weights of a loss for sequences of these lengths.

    Parameters
    ----------
    lengths : int array [B]
    steps : int, optional
        Steps of the padded batch; by default the largest length.

    Returns
    -------
    bool array [T, B], or [B, T] if ``batch_first``

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> fastrnn.length_mask([2, 1]).tolist()
    [[True, True], [True, False]]
    >>> y = np.ones((2, 2, 3))
    >>> loss, dy = fastrnn.losses.mse(y, np.zeros_like(y), fastrnn.length_mask([2, 1]))
    >>> dy[1, 1].tolist()
    [0.0, 0.0, 0.0]
    """
    n = _integers("lengths", lengths)
    if n.ndim != 1:
        raise ValueError(f"lengths: expected shape (B,), got {n.shape}")
    total = int(n.max(initial=0)) if steps is None else _size("steps", steps, 0)
    n = as_lengths(n, len(n), max(total, 0))
    mask = np.arange(total) < n[:, None]
    return mask if batch_first else np.ascontiguousarray(mask.T)


def chunks(
    x: ArrayLike | Ragged | tuple[Any, ...],
    size: int,
    lengths: ArrayLike | None = None,
    *,
    batch_first: bool = False,
) -> Iterator[tuple[Any, NDArray[np.int64] | None]]:
    """Cut a long batch into chunks in time order, for truncated BPTT with carried state.

    Parameters
    ----------
    x : array, Ragged, or tuple of several that are cut alike
        An array is [T, B, features], [T, B] of integers or bool, or one sequence [T, features] or [T]. If
        ``batch_first``, it is [B, T, features] or [B, T]. An array [T, B] of floats, such as weights, is only known
        to be a batch in a tuple with one of the others. Of a Ragged every sequence is cut; a chunk holds all of them,
        with 0 steps where one has ended.
    size : int
        Steps of a chunk; the last one may be shorter.
    lengths : int array [B], optional
        Steps of each sequence. A chunk gets what is left of them, so that the state of a sequence that has ended
        stays what it was. A Ragged has its own.

    Yields
    ------
    chunk, lengths
        A view of ``x`` (of a Ragged a copy), or a tuple of such, and the lengths within it (None where none were
        given).

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> gru, state = fastrnn.GRU(3, 4), None
    >>> for chunk, _ in fastrnn.chunks(np.ones((10, 2, 3), np.float32), 4):
    ...     y, state, tape = gru.forward(chunk, state)  # gradients stop where a chunk begins
    >>> y.shape
    (2, 2, 4)
    >>> ids = np.arange(20).reshape(2, 10)
    >>> [(a.shape, b.shape) for (a, b), _ in fastrnn.chunks((ids, ids + 1), 4, batch_first=True)]
    [((2, 4), (2, 4)), ((2, 4), (2, 4)), ((2, 2), (2, 2))]
    """
    size = _size("size", size)
    several = isinstance(x, tuple)
    parts: tuple[Any, ...] = x if isinstance(x, tuple) else (x,)
    names = [f"x[{i}]" for i in range(len(parts))] if several else ["x"]
    if not parts:
        raise ValueError("x: expected at least one array, got an empty tuple")
    cut: Iterator[tuple[tuple[Any, ...], NDArray[np.int64] | None]]
    if any(isinstance(part, Ragged) for part in parts):
        cut = _ragged_chunks(names, parts, size, lengths)
    else:
        arrays = [readable(name, part, "an array") for name, part in zip(names, parts, strict=True)]
        cut = _array_chunks(names, arrays, size, lengths, batch_first)
    for chunk, left in cut:
        yield (chunk if several else chunk[0]), left


def _array_chunks(
    names: list[str], arrays: list[NDArray[Any]], size: int, lengths: Any, batch_first: bool
) -> Iterator[tuple[tuple[Any, ...], NDArray[np.int64] | None]]:
    for name, array in zip(names, arrays, strict=True):
        if array.ndim not in (1, 2, 3):
            raise ValueError(f"{name}: expected 1 to 3 dimensions, got shape {array.shape}")
    # Two dimensions of floats are one sequence with its features, unless something beside them is a batch.
    batched = any(a.ndim == 3 or (a.ndim == 2 and a.dtype.kind in "iub") for a in arrays)
    axis = 1 if batch_first and batched else 0
    for name, array in zip(names, arrays, strict=True):
        if (batched and array.ndim < 2) or array.shape[: 1 + batched] != arrays[0].shape[: 1 + batched]:
            wanted = (
                f"{'steps and sequences' if batched else 'steps'} as {names[0]} of shape {arrays[0].shape}"
            )
            raise ValueError(f"{name}: expected {wanted}, got shape {array.shape}")
    steps = arrays[0].shape[axis]
    left = None if lengths is None else _integers("lengths", lengths)
    if left is not None and (not batched or left.shape != (arrays[0].shape[1 - axis],)):
        raise ValueError(
            f"lengths: expected one for each sequence of x of shape {arrays[0].shape}, got {left.shape}"
        )
    if left is not None:
        left = as_lengths(left, len(left), steps)
    for start in range(0, steps, size):
        part = (slice(None), slice(start, start + size)) if axis else slice(start, start + size)
        n = min(size, steps - start)
        yield tuple(a[part] for a in arrays), None if left is None else np.clip(left - start, 0, n)


def _ragged_chunks(
    names: list[str], parts: tuple[Any, ...], size: int, lengths: Any
) -> Iterator[tuple[tuple[Any, ...], None]]:
    if lengths is not None:
        raise ValueError("lengths: expected None with a Ragged x, got an array")
    for name, part in zip(names, parts, strict=True):
        if not isinstance(part, Ragged):
            raise TypeError(f"{name}: expected a Ragged, as one of the others is, got {type(part).__name__}")
        if not np.array_equal(part.lengths, parts[0].lengths):
            raise ValueError(f"{name}: expected sequences of the lengths of {names[0]}, got other lengths")
    n = parts[0].lengths
    begins = np.cumsum(n) - n
    step = np.arange(int(n.sum())) - np.repeat(begins, n)  # of its sequence
    for start in range(0, int(n.max(initial=0)), size):
        inside = (step >= start) & (step < start + size)
        left = np.clip(n - start, 0, size)
        yield tuple(Ragged._of(part.values[inside], left.copy()) for part in parts), None
