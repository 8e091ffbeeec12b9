"""Masks over steps: a layer runs over the steps that a mask keeps, as a Ragged, and its outputs are spread again.

A step that is skipped has the output of the step which the direction took before it, as in Keras. So the gradient of
that output goes to the step which it came from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _integers, as_array, as_lengths, as_reset, expect, readable
from fastrnn._tapes import _Wrapped
from fastrnn.gradients import Gradients
from fastrnn.ragged import Ragged

if TYPE_CHECKING:
    from fastrnn._calls import Calls

Array = NDArray[Any]


class MaskedTape(_Wrapped):
    """The tape of a pass over the steps that a mask kept, with where they stand."""

    __slots__ = ("kept",)

    def __init__(self, tape: Any, kept: _Kept) -> None:
        super().__init__(tape)
        self.kept = kept


class _Kept:
    """Which steps of a batch a mask keeps. All steps are numbered as the rows of ``x.reshape(-1, I)``."""

    def __init__(self, layer: Calls, x: Any, mask: Any, lengths: Any, reset: Any) -> None:
        self.like = x if isinstance(x, Ragged) else None
        self.batched = True
        if isinstance(x, Ragged):
            expect(lengths is None, "lengths", "None with a Ragged x", "an array")
            n = _integers("x.lengths", x.lengths)
            self.like = Ragged._of(x.values, n.copy())
            x = as_array("x.values", x.values, layer.dtype)
            wanted = f"shape ({int(n.sum())}, {layer.input_size})"
            expect(x.shape == (int(n.sum()), layer.input_size), "x.values", wanted, x.shape)
            valid = np.arange(len(x))
        else:
            expect(x is not None, "mask", "None where x is None", "an array")
            x = as_array("x", x, layer.dtype)
            self.batched = x.ndim != 2
            wanted = ("(B, T, " if layer.batch_first else "(T, B, ") + f"{layer.input_size})"
            wanted += f" or (T, {layer.input_size})"
            expect(x.ndim in (2, 3) and x.shape[-1] == layer.input_size, "x", f"shape {wanted}", x.shape)
            fits = self.batched or lengths is None
            expect(fits, "lengths", "None for an unbatched sequence", "an array")
            numbers = np.arange(x.size // layer.input_size).reshape(x.shape[:-1])
            by_sequence = numbers[None] if x.ndim == 2 else numbers if layer.batch_first else numbers.T
            rows, steps = by_sequence.shape
            n = np.full(rows, steps) if lengths is None else as_lengths(lengths, rows, steps)
            valid = by_sequence[np.arange(steps) < n[:, None]]
        self.shape: tuple[int, ...] = x.shape[:-1]
        flags = as_flags("mask", mask, self.shape).ravel()[valid]
        sequence = np.repeat(np.arange(len(n)), n)  # of each valid step
        self.lengths: NDArray[np.int64] = np.bincount(sequence[flags], minlength=len(n)).astype(np.int64)
        self.steps = valid[flags]  # [kept] where they stand
        self.last = np.where(n > 0, valid[np.maximum(np.cumsum(n) - 1, 0)] if len(valid) else 0, -1)
        self.values = x.reshape(-1, layer.input_size)[self.steps]
        self.reset = None
        if reset is not None:
            # a reset acts at the first step that is kept from there on
            resets = np.cumsum(as_reset(reset, self.shape).ravel()[valid])
            before = np.append(0, resets)[np.cumsum(n) - n]  # those of the sequences before
            at, of = resets[flags], sequence[flags]
            first = np.append(True, of[1:] != of[:-1])[: len(of)]
            self.reset = at > np.where(first, before[of], np.append(0, at[:-1])[: len(of)])
        # The place among the kept steps from which each step's output comes, for both ways of reading; -1: none.
        ends = np.cumsum(self.lengths)
        count = np.cumsum(flags)  # of the kept steps up to each
        forward: Array = np.where(count > (ends - self.lengths)[sequence], count - 1, -1)
        back: Array = np.where(count - flags < ends[sequence], count - flags, -1)
        self._valid = valid
        self._sources = (back,) if layer.reverse else (forward, back)[: 1 + layer.bidirectional]

    def ragged(self) -> Ragged:
        return Ragged._of(self.values, self.lengths)

    def spread(self, y: Ragged) -> Any:
        """Return outputs of the kept steps as those of all steps, laid out as x."""
        values: Array = y.values
        out = np.zeros((int(np.prod(self.shape)), values.shape[1]), values.dtype)
        for part, source in zip(self._parts(values), self._sources, strict=True):
            some = source >= 0
            out[self._valid[some], part] = values[source[some], part]
        return self._as_x(out)

    def gather(self, name: str, dy: Any, width: int, dtype: Any) -> Ragged:
        """Return the gradient of the kept steps' outputs, from that of all outputs."""
        if isinstance(dy, Ragged):
            wanted = "an array" if self.like is None else "sequences of the lengths that x had"
            fits = self.like is not None and np.array_equal(dy.lengths, self.like.lengths)
            expect(fits, name, wanted, "a Ragged of other lengths")
            dy = dy.values
        array = as_array(name, dy, dtype)
        expect(array.shape == (*self.shape, width), name, f"shape {(*self.shape, width)}", array.shape)
        flat = array.reshape(-1, width)
        out = np.zeros((len(self.steps), width), dtype)
        for part, source in zip(self._parts(out), self._sources, strict=True):
            some = source >= 0
            if len(out):  # the sources do not decrease, and every kept step is its own
                starts = np.flatnonzero(np.diff(source[some], prepend=-1))
                out[:, part] = np.add.reduceat(flat[self._valid[some], part], starts, axis=0)
        return Ragged._of(out, self.lengths)

    def last_gradient(self, dy_last: Any, width: int, dtype: Any) -> Any:
        """Return dL/dy of all steps where it was given for each sequence's last one."""
        shape = (len(self.lengths), width) if self.batched else (width,)
        array = as_array("dy_last", dy_last, dtype)
        expect(array.shape == shape, "dy_last", f"shape {shape}", array.shape)
        dy = np.zeros((int(np.prod(self.shape)), width), dtype)
        dy[self.last[self.last >= 0]] = array.reshape(-1, width)[self.last >= 0]
        return self._as_x(dy)

    def spread_dx(self, dx: Ragged) -> Any:
        """Return dL/dx, which is 0 where a step was skipped."""
        out = np.zeros((int(np.prod(self.shape)), dx.values.shape[1]), dx.values.dtype)
        out[self.steps] = dx.values
        return self._as_x(out)

    def with_batch(self, state: Any) -> Any:
        """Return a state, or a gradient of one, with the batch axis that a Ragged has."""
        if self.batched or state is None:
            return state
        if isinstance(state, (tuple, list)):
            return tuple(self.with_batch(part) for part in state)
        array = readable("state", state, "an array of real floats")
        return array[:, None] if array.ndim == 2 else array

    def without_batch(self, state: Any) -> Any:
        if self.batched:
            return state
        return tuple(s[:, 0] for s in state) if isinstance(state, tuple) else state[:, 0]

    def _parts(self, values: Array) -> list[slice]:
        width = values.shape[1] // len(self._sources)
        return [slice(i * width, (i + 1) * width) for i in range(len(self._sources))]

    def _as_x(self, flat: Array) -> Any:
        if self.like is not None:
            return Ragged._of(flat, self.like.lengths)
        return flat.reshape(*self.shape, flat.shape[1])


def as_flags(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return an array of bool of the given shape."""
    array = readable(name, value, "an array of bool")
    expect(array.dtype.kind == "b", name, "an array of bool", f"an array of {array.dtype}", TypeError)
    expect(array.shape == shape, name, f"shape {shape}", array.shape)
    return array


def masked_forward(
    layer: Calls,
    x: Any,
    state: Any,
    mask: Any,
    lengths: Any,
    reset: Any,
    keep: bool,
    checkpoint: int,
    layers: bool,
) -> tuple[Any, ...]:
    """Run a layer over the steps that a mask keeps; return what its call or forward returns."""
    merged = "None for a layer whose merge is not 'concat', since each direction repeats its own outputs"
    expect(layer.merge == "concat", "mask", merged, "an array")
    kept = _Kept(layer, x, mask, lengths, reset)
    first = kept.with_batch(state)
    out = layer._forward(kept.ragged(), first, None, kept.reset, None, keep, checkpoint, None, layers)
    y, last, *rest = out
    results: list[Any] = [kept.spread(y), kept.without_batch(last)]
    if keep:
        results.append(MaskedTape(rest.pop(0), kept))
    if layers:
        results.append([*(kept.spread(hidden) for hidden in rest[0][:-1]), results[0]])
    return tuple(results)


def masked_backward(
    layer: Calls, tape: MaskedTape, dy: Any, dstate: Any, dy_last: Any, need_dx: bool, dlayers: Any
) -> Gradients:
    """Return the gradients of a pass with a mask."""
    kept, width, dtype = tape.kept, layer._output_width, layer.dtype
    if dy_last is not None:
        expect(dy is None, "dy_last", "None where dy is given", "an array")
        dy = kept.last_gradient(dy_last, width, dtype)
    if dy is not None:
        dy = kept.gather("dy", dy, width, dtype)
    if dlayers is not None:
        gathered = [
            None if d is None else kept.gather(f"dlayers[{i}]", d, width, dtype)
            for i, d in enumerate(dlayers)
        ]
        dlayers = [*gathered, None]
    g = layer._backward(tape.tape, dy, kept.with_batch(dstate), None, need_dx, dlayers)
    dx = None if g.x is None else kept.spread_dx(g.x)
    return Gradients(dx, kept.without_batch(g.state), layer.shapes, g.flat)
