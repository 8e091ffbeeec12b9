"""Data of models: tokens and their indices, sequences of numbers and their scale, states of batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect

Array = NDArray[Any]


def vocabulary(
    sequences: Iterable[Iterable[Any]], special: Sequence[Any] = (None,), min_count: int = 1, name: str = "X"
) -> list[Any]:
    """Return `special`, then the tokens (str or int), the most frequent first. Index 0 is for unknown ones."""
    counts: Counter[Any] = Counter()
    with _tokens(name):
        for sequence in sequences:
            counts.update(sequence)
    kinds = {type(s).__name__ for s in counts if not isinstance(s, (str, int)) or isinstance(s, bool)}
    expect(not kinds, name, "tokens that are str or int", ", ".join(kinds), TypeError)
    common = [s for s, n in counts.items() if n >= min_count]
    return [*special, *sorted(common, key=lambda s: (-counts[s], str(s)))]


def encode(tokens: Iterable[Any], vocabulary: Sequence[Any], name: str = "X") -> Array:
    """Return the index of every token, 0 for an unknown one."""
    index = {s: i for i, s in enumerate(vocabulary) if s is not None}
    with _tokens(name):
        return np.array([index.get(s, 0) for s in tokens], np.intp)


@contextmanager
def _tokens(name: str) -> Iterator[None]:
    """Name the argument where something is no sequence, or no token that can be looked up."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{name}: expected sequences of tokens that are str or int, got {error}") from error


def sized(name: str, value: Any) -> Any:
    """Return the value if it has a length, else raise."""
    expect(hasattr(value, "__len__"), name, "a sequence", type(value).__name__, TypeError)
    return value


def pad(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Return int sequences as one array [T, B], padded with 0, and their lengths."""
    lengths = np.array([len(s) for s in sequences], np.intp)
    out = np.zeros((int(lengths.max(initial=0)), len(sequences)), np.intp)
    for b, s in enumerate(sequences):
        out[: len(s), b] = s
    return out, lengths


def scale_of(sequences: Sequence[Array]) -> dict[str, Any]:
    """Return mean and standard deviation of every feature of sequences [T, D].

    A sequence without steps may have any D.
    """
    filled = [s for s in sequences if s.size]
    if not filled:
        shape = f"(shape=({len(sequences)}, 0))"
        raise ValueError(f"X: got 0 feature(s) {shape} while a minimum of 1 is required.")
    widths = sorted({s.shape[1] for s in filled})
    expect(len(widths) == 1, "X", "sequences [T, D] of one D", widths)
    steps = np.concatenate(filled)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = steps.mean(axis=0), steps.std(axis=0)
    expect(np.isfinite(std).all(), "X", "numbers whose variance is finite in float64", "greater ones")
    scale = np.where(std > 0, std, 1.0).tolist()
    return {"n_features": widths[0], "mean": mean.tolist(), "scale": scale}


def scaled(sequence: Array, config: Mapping[str, Any], dtype: str) -> Array:
    """Return a sequence [T, D] less the mean, in standard deviations."""
    mean, scale = np.array(config["mean"]), np.array(config["scale"])
    fits = not sequence.size or sequence.shape[1] == len(mean)
    expect(fits, "X", f"{len(mean)} values a step, as in fit", f"{sequence.shape}. Reshape your data")
    with np.errstate(over="ignore"):
        return finite((sequence.reshape(-1, len(mean)) - mean) / scale, dtype)


def finite(x: Array, dtype: str) -> Array:
    """Return `x` in a dtype in which it must be finite."""
    with np.errstate(over="ignore"):
        x = x.astype(dtype, copy=False)
    expect(np.isfinite(x).all(), "X", f"numbers that are finite in {dtype}", "NaN or infinity")
    return x


def each(f: Callable[[Any], Any], state: Any) -> Any:
    """Apply `f` to a state [L, B, H], or to each of a tuple of them."""
    return tuple(each(f, s) for s in state) if isinstance(state, tuple) else f(state)


def take(state: Any, places: Array) -> Any:
    """Return those sequences of the batch that `places` names, of a state or of lengths [B]."""
    return each(lambda s: None if s is None else np.take(s, places, axis=min(1, s.ndim - 1)), state)
