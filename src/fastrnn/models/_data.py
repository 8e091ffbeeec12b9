"""Data of models: tokens and their indices, sequences of numbers and their scale, states of batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect

Array = NDArray[Any]


class Vocabulary(list[Any]):
    """Tokens, each at its index; index 0 is for unknown ones."""

    @property
    def places(self) -> dict[Any, int]:
        """The index of every token, made once."""
        if "_places" not in vars(self):
            self._places = {s: i for i, s in enumerate(self) if s is not None}
        return self._places

    def __reduce__(self) -> Any:
        return Vocabulary, (list(self),)


def vocabulary(
    sequences: Iterable[Iterable[Any]], special: Sequence[Any] = (None,), min_count: int = 1
) -> Vocabulary:
    """Return `special`, then the tokens (str or int), the most frequent first. Index 0 is for unknown ones."""
    counts: Counter[Any] = Counter()
    for sequence in sequences:
        counts.update(sequence)
    common = [s for s, n in counts.items() if n >= min_count]
    return Vocabulary([*special, *sorted(common, key=lambda s: (-counts[s], str(s)))])


def encode(tokens: Sequence[Any], vocabulary: Vocabulary) -> Array:
    """Return the index of every token, 0 for an unknown one."""
    places = vocabulary.places
    return np.fromiter((places.get(s, 0) for s in tokens), np.intp, len(tokens))


def pad(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Return int sequences as one array [T, B], padded with 0, and their lengths."""
    lengths = np.array([len(s) for s in sequences], np.intp)
    out = np.zeros((int(lengths.max(initial=0)), len(sequences)), np.intp)
    for b, s in enumerate(sequences):
        out[: len(s), b] = s
    return out, lengths


def bucketed(order: Array, lengths: Sequence[Any], size: int, rng: np.random.Generator) -> list[Array]:
    """Return batches of sequences of like lengths, in random order.

    Sequences of `order` are sorted by length in stretches of a hundred batches, so that batches differ by epoch.
    """
    stretch = 100 * size
    stretches = [
        sorted(order[i : i + stretch], key=lengths.__getitem__) for i in range(0, len(order), stretch)
    ]
    batches = [np.array(part[i : i + size]) for part in stretches for i in range(0, len(part), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def width_of(sequences: Sequence[Array]) -> int:
    """Return the number of features D of sequences [T, D]; a sequence without steps may have any."""
    filled = [s for s in sequences if s.size]
    if not filled:
        shape = f"(shape=({len(sequences)}, 0))"
        raise ValueError(f"X: got 0 feature(s) {shape} while a minimum of 1 is required.")
    widths = sorted({s.shape[1] for s in filled})
    expect(len(widths) == 1, "X", "sequences [T, D] of one D", widths)
    return int(widths[0])


def mean_and_scale(steps: Array, otherwise: Any = 1.0, name: str = "X") -> tuple[Array, Array]:
    """Return mean and standard deviation of every feature of `steps` [T, D], `otherwise` for that of a constant one.

    A feature is constant if its variance is no more than what rounding makes of one, as in scikit-learn's
    StandardScaler.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        same = steps.max(axis=0) == steps.min(axis=0)
        mean, variance = np.where(same, steps[0], steps.mean(axis=0)), np.where(same, 0.0, steps.var(axis=0))
        n, eps = len(steps), np.finfo(np.float64).eps
        constant = variance <= n * eps * variance + (n * mean * eps) ** 2
    finite_ = np.isfinite(mean).all() and np.isfinite(variance).all()
    expect(finite_, name, "numbers whose variance is finite in float64", "greater ones")
    return mean, np.where(constant, otherwise, np.sqrt(variance))


def r_squared(right: Array, predicted: Array, weights: Array | None = None) -> float:
    """Return R^2 as scikit-learn does: the mean over columns [n, K], and for a constant one 0, or 1 without errors."""
    w = np.ones((len(right), 1)) if weights is None else weights[:, None]
    errors = (w * np.square(predicted - right)).sum(axis=0)
    spread = (w * np.square(right - np.average(right, axis=0, weights=w[:, 0]))).sum(axis=0)
    constant = right.max(axis=0) == right.min(axis=0)  # the spread of one is not 0 where its mean is rounded
    ratio = 1 - errors / np.where(constant | (spread == 0), 1.0, spread)
    return float(np.mean(np.where(constant | (spread == 0), errors == 0, ratio)))


def scale_of(sequences: Sequence[Array]) -> dict[str, Any]:
    """Return mean and standard deviation of every feature of sequences [T, D]."""
    width = width_of(sequences)
    mean, scale = mean_and_scale(np.concatenate([s for s in sequences if s.size]))
    return {"n_features": width, "mean": mean.tolist(), "scale": scale.tolist()}


def expect_width(sequence: Array, width: int, owner: str) -> None:
    """Raise unless a sequence [T, D] has the D of fit, or no steps."""
    if sequence.size and sequence.shape[1] != width:
        own = sequence.shape[1]
        got = f"{sequence.shape}: X has {own} features, but {owner} is expecting {width} features as input"
        more = ". Reshape your data" if own == 1 else ""
        raise ValueError(f"X: expected {width} values a step, as in fit, got {got}{more}")


def scaled(sequence: Array, mean: Any, scale: Any, dtype: str) -> Array:
    """Return a sequence [T, D] less the mean, in standard deviations."""
    mean, scale = np.array(mean), np.array(scale)
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
