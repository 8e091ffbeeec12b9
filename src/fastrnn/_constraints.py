"""Constraints of parameters: numbers that stay 0, and numbers that keep their sign."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect, kind_of, readable

Array = NDArray[Any]


class Constraint:
    """What the numbers of one parameter may be: 0 where the mask is false, and not of the wrong sign.

    ``rows``: how many rows a gate has where the parameter stacks several of them, else 0.
    """

    __slots__ = ("_mask", "_shape", "_sign")

    def __init__(self, shape: tuple[int, ...], rows: int, mask: Any, sign: Any) -> None:
        self._shape = shape if not rows else (shape[0] // rows, rows, *shape[1:])
        self._mask = self._sign = None
        if mask is not None:
            array = readable("mask", mask, "an array of bool")
            expect(array.dtype.kind == "b", "mask", "an array of bool", kind_of(array, mask), TypeError)
            self._mask = _fitted("mask", array, shape, self._shape)
        if sign is not None:
            array = readable("sign", sign, "an array of -1, 0 and 1")
            wanted = "an array of -1, 0 and 1"
            expect(array.dtype.kind in "iuf", "sign", wanted, kind_of(array, sign), TypeError)
            others = array[~np.isin(array, (-1, 0, 1))]
            expect(not others.size, "sign", wanted, f"one with {others.ravel()[:1]}")
            self._sign = _fitted("sign", array.astype(np.int8), shape, self._shape)

    def apply(self, parameter: Array) -> None:
        """Set the numbers that must not be to 0, in place."""
        view = parameter.reshape(self._shape)
        if self._mask is not None:
            np.copyto(view, 0, where=~self._mask)
        if self._sign is not None:
            wrong = ((view < 0) & (self._sign > 0)) | ((view > 0) & (self._sign < 0))
            np.copyto(view, 0, where=wrong)


def _fitted(name: str, array: Array, shape: tuple[int, ...], by_gate: tuple[int, ...]) -> Array:
    """Return a copy of an array that is broadcast to the shape of a parameter, or to that of its gates."""
    for wanted in (shape, by_gate[1:]):
        try:
            broadcast = np.broadcast_to(array, wanted)
        except ValueError:
            continue
        full = broadcast if wanted == shape else np.broadcast_to(broadcast, by_gate)
        return np.array(full.reshape(by_gate))
    each = f", or to {by_gate[1:]}, that of a gate" if by_gate != shape else ""
    raise ValueError(f"{name}: expected a shape that can be broadcast to {shape}{each}, got {array.shape}")
