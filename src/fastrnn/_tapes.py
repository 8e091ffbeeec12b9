"""Tapes: what a training pass keeps for its backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn._core as _core

Tape = _core.Tape

# The class is the core's. What a reader sees of it is text, and text is easier to keep in Python.
Tape.__doc__ = """What ``forward`` of a layer keeps for ``backward``; ``forward`` makes it.

It holds what the gradients need of every step and refers to the input, the initial state, the output and the
parameters, so none of them may change before the backward pass. It serves one backward.

Attributes
----------
nbytes : int
    Memory that the tape holds, in bytes.
"""


def _describe(tape: Any) -> str:
    return f"{type(tape).__name__}(nbytes={tape.nbytes})"


Tape.__repr__ = _describe  # type: ignore[method-assign]


class _Wrapped:
    """A tape of the core with what else its backward needs to know."""

    __slots__ = ("tape",)

    def __init__(self, tape: Any) -> None:
        self.tape = tape

    @property
    def nbytes(self) -> int:
        """Memory that the tape holds, in bytes."""
        return int(self.tape.nbytes)

    __repr__ = _describe


class RaggedTape(_Wrapped):
    """The tape of a pass over a Ragged, with the lengths of its sequences."""

    __slots__ = ("lengths",)

    def __init__(self, tape: Tape, lengths: NDArray[np.int64]) -> None:
        super().__init__(tape)
        self.lengths = lengths


class CellTape(_Wrapped):
    """The tape of one step of a cell, with its batch axes: (B,), or () without a batch."""

    __slots__ = ("batch_shape",)

    def __init__(self, tape: Tape, batch_shape: tuple[int, ...]) -> None:
        super().__init__(tape)
        self.batch_shape = batch_shape


class LayerTape(_Wrapped):
    """A tape with the layer that made it, where the caller holds only the parameters."""

    __slots__ = ("layer",)

    def __init__(self, tape: Any, layer: Any) -> None:
        super().__init__(tape)
        self.layer = layer
