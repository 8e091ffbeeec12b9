"""Where the outputs of a layer and those of another engine part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import at_least_zero, expect, readable
from fastrnn._recurrent import Recurrent

Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """A place at which two outputs differ."""

    step: int
    sequence: int
    unit: int
    direction: str  # "forward", "reverse", or "both" where directions are merged
    expected: float
    got: float

    def __str__(self) -> str:
        way = f" ({self.direction} direction)" if self.direction == "reverse" else ""
        place = f"step {self.step}, sequence {self.sequence}, unit {self.unit}{way}"
        return f"{place}: expected {self.expected:.7g}, got {self.got:.7g}"


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes
    ----------
    equal : bool
        Whether every number is within the tolerance.
    largest : float
        The largest absolute difference; NaN where only one of the two is NaN.
    worst : Difference or None
        Where it is.
    first : Difference or None
        The first step, in the order in which the direction runs, with a number that is not within the tolerance; and
        there the largest difference.
    hint : str
        What the differences look like, "" if nothing is known.
    """

    equal: bool
    largest: float
    worst: Difference | None
    first: Difference | None
    hint: str

    def __str__(self) -> str:
        if self.equal:
            return f"equal within the tolerance; largest difference {self.largest:.3g}"
        lines = [f"they part at {self.first}", f"largest difference {self.largest:.3g} at {self.worst}"]
        return "\n".join(lines + [self.hint] * bool(self.hint))


def compare(
    layer: Recurrent,
    reference_outputs: ArrayLike,
    x: ArrayLike,
    state: Any = None,
    *,
    lengths: ArrayLike | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Comparison:
    """Say at which step and unit the outputs of a layer and those of another engine part.

    Weights that were taken over in a wrong way often fit in shape: gates in another order, a reset before the product,
    a bias of one half. The first step at which the outputs part, and in which units, shows what to look for.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    reference_outputs : array shaped as the layer's y
        What the other engine returned for all steps.
    x, state, lengths
        As in a call of the layer. Steps in the padding are not compared.
    rtol, atol : float
        Numbers are equal within ``atol + rtol * abs(reference)``.

    Returns
    -------
    Comparison
        Print it.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> from fastrnn import io
    >>> gru = fastrnn.GRU(3, 4, rng=0)
    >>> x = np.linspace(-1, 1, 30, dtype=np.float32).reshape(5, 2, 3)
    >>> y, _ = gru(x)
    >>> io.compare(gru, y, x).equal
    True
    >>> other = fastrnn.GRU(3, 4, reset_after=False, rng=0)
    >>> found = io.compare(other, y, x)
    >>> found.first.step
    0
    """
    expect(isinstance(layer, Recurrent), "layer", "an LSTM, GRU or RNN", type(layer).__name__, TypeError)
    rtol, atol = at_least_zero("rtol", rtol), at_least_zero("atol", atol)
    x = readable("x", x, "an array")
    want = readable("reference_outputs", reference_outputs, "an array of real floats")
    y = layer(x, state, lengths=lengths)[0]
    kinds = want.dtype.kind in "f" and not isinstance(reference_outputs, Mapping)
    expect(kinds, "reference_outputs", "an array of real floats", want.dtype, TypeError)
    expect(want.shape == y.shape, "reference_outputs", f"shape {y.shape}", want.shape)
    if want.ndim == 2:
        y, want = y[:, None], want[:, None]
    elif layer.batch_first:
        y, want = y.swapaxes(0, 1), want.swapaxes(0, 1)
    y, want = y.astype(np.float64), want.astype(np.float64)
    if lengths is not None:
        padding = np.arange(len(y))[:, None] >= np.asarray(lengths)
        y, want = np.where(padding[..., None], 0, y), np.where(padding[..., None], 0, want)
    return _compared(layer, y, want, rtol, atol)


def _gaps(y: Array, want: Array) -> Array:
    """Return absolute differences: 0 for equal infinities and for two NaN, infinite where only one is NaN."""
    same = (y == want) | (np.isnan(y) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        gaps = np.abs(y - want)
    return np.where(same, 0.0, np.where(np.isnan(gaps), np.inf, gaps))


def _compared(layer: Recurrent, y: Array, want: Array, rtol: float, atol: float) -> Comparison:
    gaps = _gaps(y, want)
    if not gaps.size:
        return Comparison(True, 0.0, None, None, "")
    with np.errstate(invalid="ignore"):
        wrong = gaps > atol + rtol * np.where(np.isfinite(want), np.abs(want), 0.0)
    split = layer.bidirectional and getattr(layer, "merge", "concat") == "concat"
    width = y.shape[2] // 2 if split else y.shape[2]
    backwards = bool(getattr(layer, "reverse", False))

    def place(index: Any) -> Difference:
        step, sequence, unit = map(int, index)
        way = (
            "reverse"
            if backwards or (split and unit >= width)
            else "both"
            if layer.bidirectional and not split
            else "forward"
        )
        values = float(want[index]), float(y[index])
        return Difference(step, sequence, unit % width, way, *values)

    worst = place(np.unravel_index(int(gaps.argmax()), gaps.shape))
    if not wrong.any():
        return Comparison(True, float(gaps.max()), worst, None, "")
    # the order in which each half runs: the reverse direction begins at the end
    ordered, ordered_gaps = wrong.copy(), gaps.copy()
    for array in (ordered, ordered_gaps):
        if backwards:
            array[:] = array[::-1].copy()
        elif split:
            array[..., width:] = array[::-1, :, width:].copy()
    step = int(ordered.any(axis=(1, 2)).argmax())
    sequence, unit = np.unravel_index(int(ordered_gaps[step].argmax()), ordered_gaps[step].shape)
    turned = backwards or (split and unit >= width)
    first = place((len(y) - 1 - step if turned else step, int(sequence), int(unit)))
    return Comparison(
        False, float(gaps.max()), worst, first, _hint(y, want, ordered, width, split, rtol, atol)
    )


def _hint(y: Array, want: Array, wrong: Array, width: int, split: bool, rtol: float, atol: float) -> str:
    """Return what the differences look like."""

    def near(a: Array, b: Array) -> bool:
        return bool(np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True))

    if near(y, want[::-1]):
        return "the reference has its steps in the reverse order"
    if split and near(y, np.concatenate([want[..., width:], want[..., :width]], axis=2)):
        return "the reference has its directions in the other order"
    if split and near(y[..., width:], want[::-1, :, width:]):
        return "the reverse half of the reference is in the order in which that direction runs"
    if split and not wrong[..., :width].any():
        return "only the reverse direction differs"
    if split and not wrong[..., width:].any():
        return "only the forward direction differs"
    if not wrong[0].any():
        return (
            "the first step agrees: look at what only later steps use, such as the recurrent weights, the reset "
            "gate of a GRU, or the forget gate of an LSTM"
        )
    rows: Array = np.any(wrong, axis=(0, 2))
    if rows.sum() < len(rows):
        return (
            f"only sequences {np.flatnonzero(rows)[:6].tolist()} differ: look at lengths and initial states"
        )
    units: Array = np.any(wrong, axis=(0, 1))
    if units.sum() < len(units):
        return f"only {int(units.sum())} of {len(units)} units differ"
    return (
        "the first step differs in all units: look at the order of gates, at biases, and at the initial state"
    )
