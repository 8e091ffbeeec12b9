"""What happens inside a layer at every step, by the equations of `fastrnn.reference`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import as_array, as_lengths, as_reset, expect
from fastrnn.ragged import Ragged

if TYPE_CHECKING:
    from fastrnn._recurrent import Recurrent

Array = NDArray[Any]
Named = dict[str, Array]
Params = Mapping[str, Array]


def trace(layer: Recurrent, x: Any, state: Any, lengths: Any, reset: Any) -> dict[str, Any]:
    """Return the arrays of :meth:`fastrnn.LSTM.trace`."""
    from fastrnn import reference  # nothing else in a layer needs it

    batch = _TimeFirst(layer, x, lengths)
    flags = None if reset is None else batch.by_time(as_reset(reset, batch.shape))
    wide = {name: value.astype(np.float64) for name, value in layer.params.items()}
    _, _, tape = reference.forward(
        layer._cell(), batch.x.astype(np.float64), _wide(layer, state, batch), wide,
        lengths=batch.lengths, reset=flags, reverse=layer.reverse, merge=layer.merge,
    )  # fmt: skip
    named: dict[str, Any] = {}
    ends = [suffix for level in reference.suffixes(wide) for suffix in level]
    outputs = [h for level in tape.outputs for h in level]
    for suffix, h, made in zip(ends, outputs, tape.passes, strict=True):
        p = reference.select(wide, suffix)
        arrays: Named = {}
        for t, rows, *_, saved in made:
            for name, value in _INSIDE[layer._cell()](saved, p).items():
                if name not in arrays:
                    arrays[name] = np.zeros((*batch.x.shape[:2], value.shape[1]))
                arrays[name][t, rows] = value
        named |= {name + suffix: batch.as_x(a.astype(layer.dtype)) for name, a in (arrays | {"h": h}).items()}
    return named


class _TimeFirst:
    """The input of a layer as [T, B, I], and its way back."""

    def __init__(self, layer: Recurrent, x: Any, lengths: Any) -> None:
        self.ragged = isinstance(x, Ragged)
        self.batch_first = layer.batch_first and not self.ragged
        if isinstance(x, Ragged):
            expect(lengths is None, "lengths", "None with a Ragged x", "an array")
            self.shape: tuple[int, ...] = x.values.shape[:1]
            x, lengths = x.to_padded(), x.lengths
        array = as_array("x", x, layer.dtype)
        fits = array.ndim in (2, 3) and array.shape[-1] == layer.input_size
        wanted = ("(B, T, " if self.batch_first else "(T, B, ") + f"{layer.input_size})"
        expect(fits, "x", f"shape {wanted} or (T, {layer.input_size})", array.shape)
        if not self.ragged:
            self.shape = array.shape[:-1]
        self.batched = array.ndim == 3
        expect(self.batched or lengths is None, "lengths", "None for an unbatched sequence", "an array")
        self.x = self._turned(array) if self.batched else array[:, None]
        steps, batch = self.x.shape[:2]
        self.lengths = np.full(batch, steps) if lengths is None else as_lengths(lengths, batch, steps)

    def by_time(self, flags: Array) -> Array:
        """Return flags, one for each step as x has them, as [T, B]."""
        if self.ragged:
            return Ragged(flags, self.lengths).to_padded().astype(bool)
        return self._turned(flags) if self.batched else flags[:, None]

    def as_x(self, array: Array) -> Any:
        """Return an array [T, B, H] laid out as x."""
        if self.ragged:
            return Ragged.from_padded(array, self.lengths)
        return np.ascontiguousarray(self._turned(array)) if self.batched else array[:, 0]

    def _turned(self, array: Array) -> Array:
        return array.swapaxes(0, 1) if self.batch_first else array


def _wide(layer: Recurrent, state: Any, batch: _TimeFirst) -> Any:
    """Return an initial state with its batch axis in float64, or None."""
    count, output = layer.num_layers * (1 + layer.bidirectional), layer.proj_size or layer.hidden_size

    def part(name: str, value: Any, width: int) -> Array:
        shape = (count, batch.x.shape[1], width) if batch.batched else (count, width)
        array = as_array(name, value, np.dtype(np.float64))
        expect(array.shape == shape, name, f"shape {shape}", array.shape)
        return array if batch.batched else array[:, None]

    if state is None:
        return None
    if layer._states() == 1:
        return part("state", state, output)
    pair = isinstance(state, (tuple, list)) and len(state) == 2
    expect(pair, "state", "a pair (h, c)", type(state).__name__, TypeError)
    return part("state[0]", state[0], output), part("state[1]", state[1], layer.hidden_size)


# What a step of the reference kept for its backward, and its parameters, as named arrays; a_ is a pre-activation.


def _sums(x: Array, h: Array, p: Params) -> tuple[Array, Array]:
    """Return the input part and the recurrent part of the pre-activations of all gates."""
    a, u = x @ p["weight_ih"].T, h @ p["weight_hh"].T
    return (a + p["bias_ih"], u + p["bias_hh"]) if "bias_ih" in p else (a, u)


def _rnn(saved: tuple[Array, ...], p: Params) -> Named:
    x, h_prev, _ = saved
    return {"a": np.add(*_sums(x, h_prev, p))}


def _lstm(saved: tuple[Array, ...], p: Params) -> Named:
    x, h_prev, _, i, f, g, o, c = saved
    a = np.split(np.add(*_sums(x, h_prev, p)), 4, axis=1)
    return {"i": i, "f": f, "g": g, "o": o, "c": c} | dict(zip(("a_i", "a_f", "a_g", "a_o"), a, strict=True))


def _gru(saved: tuple[Array, ...], p: Params) -> Named:
    x, h_prev, r, z, n, u = saved
    inputs, recurrent = (np.split(a, 3, axis=1) for a in _sums(x, h_prev, p))
    a_r, a_z = inputs[0] + recurrent[0], inputs[1] + recurrent[1]
    return {"r": r, "z": z, "n": n, "a_r": a_r, "a_z": a_z, "a_n": inputs[2] + r * u}


def _gru_before(saved: tuple[Array, ...], p: Params) -> Named:
    x, h_prev, r, z, n = saved
    inputs, recurrent = (np.split(a, 3, axis=1) for a in _sums(x, h_prev, p))
    _, gated = (np.split(a, 3, axis=1)[2] for a in _sums(x, r * h_prev, p))
    a_r, a_z = inputs[0] + recurrent[0], inputs[1] + recurrent[1]
    return {"r": r, "z": z, "n": n, "a_r": a_r, "a_z": a_z, "a_n": inputs[2] + gated}


_INSIDE: dict[str, Callable[[tuple[Array, ...], Params], Named]] = {
    "rnn_tanh": _rnn,
    "rnn_relu": _rnn,
    "lstm": _lstm,
    "gru": _gru,
    "gru_before": _gru_before,
}
