"""What a backward pass returns."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


class Gradients:
    """Gradients of a loss with respect to everything a forward pass took.

    Attributes
    ----------
    x : array or Ragged or None
        As the input; None where there was none.
    state : array or pair of arrays or None
        As the initial state: dL/dh_0, or (dL/dh_0, dL/dc_0) for an LSTM. Given also when the state was not.
    params : dict of str to array
        By parameter name, views of ``flat``.
    flat : array
        All parameter gradients in one contiguous buffer, in the order of the layer's own ``flat``: one
        all-reduce, one optimiser step.
    """

    __slots__ = ("flat", "params", "state", "x")

    def __init__(self, x: Any, state: Any, params: dict[str, NDArray[Any]], flat: NDArray[Any]) -> None:
        self.x = x
        self.state = state
        self.params = params
        self.flat = flat

    def __repr__(self) -> str:
        return f"Gradients(x, state, params=[{', '.join(self.params)}], flat[{self.flat.size}])"
