"""What a backward pass returns."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import readable

Shapes = Mapping[str, tuple[int, ...]]

# Whoever has parameters, by the identity of the buffer that holds them.
_owners: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def register(owner: Any, flat: NDArray[Any]) -> None:
    """Let ``owner._changed(how)`` be called when ``flat`` is changed by a function of this package."""
    _owners[id(flat)] = owner
    if flat.base is not None:  # a view of a part of `flat` has the base of `flat`
        _owners[id(flat.base)] = owner


def note_change(array: NDArray[Any], how: str) -> None:
    """Tell the owner of a buffer, or of a view of it, that its numbers were changed, and by what."""
    owner = _owners.get(id(array))
    if owner is None and array.base is not None:
        owner = _owners.get(id(array.base))
    if owner is not None:
        owner._changed(how)


class Views(dict[str, NDArray[Any]]):
    """Arrays by name that are views of one buffer: to assign to a name is to overwrite the numbers there."""

    def __setitem__(self, name: str, value: Any) -> None:
        view = self[name]
        if value is not view:  # `views[name] -= step` assigns the array to itself
            array = readable(name, value, "real numbers")
            if array.shape not in ((), view.shape):
                raise ValueError(f"{name}: expected shape {view.shape}, got {array.shape}")
            view[...] = array
        note_change(view, "an assignment to params")

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Overwrite the numbers of each name that is given, as ``dict.update``."""
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __ior__(self, other: Any) -> Views:  # type: ignore[override, misc]
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def views_of(flat: NDArray[Any], shapes: Shapes) -> Views:
    """Return consecutive parts of ``flat`` in the given shapes."""
    views: dict[str, NDArray[Any]] = {}
    at = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        views[name] = flat[at : at + size].reshape(shape)
        at += size
    return Views(views)


class Gradients:
    """Gradients of a loss with respect to everything a forward pass took.

    Attributes
    ----------
    x : array or Ragged or None
        dL/dx, shaped as the input; None where there was none, and with ``need_dx=False``.
    state : array or pair of arrays or None
        dL/dh_0, or (dL/dh_0, dL/dc_0) for an LSTM, also where the initial state was left out.
    params : dict of str to array
        The gradient of each parameter by its name: views of ``flat``.
    flat : array
        The gradients of all parameters in one contiguous buffer, in the order of the layer's own ``flat``. It can
        be reduced over processes, and stepped by an optimiser, as one array.
    """

    __slots__ = ("_params", "_shapes", "flat", "state", "x")

    def __init__(self, x: Any, state: Any, shapes: Shapes, flat: NDArray[Any]) -> None:
        self.x = x
        self.state = state
        self.flat = flat
        self._shapes = shapes
        self._params: dict[str, NDArray[Any]] | None = None

    @property
    def params(self) -> dict[str, NDArray[Any]]:
        """The gradient of each parameter by its name: views of ``flat``."""
        if self._params is None:
            self._params = views_of(self.flat, self._shapes)
        return self._params

    def __reduce__(self) -> Any:
        return Gradients, (self.x, self.state, self._shapes, self.flat)

    def __repr__(self) -> str:
        parts = [f"x={_described(self.x)}", f"state={_described(self.state)}"]
        params = ", ".join(f"{name} {shape}" for name, shape in self._shapes.items())
        return f"Gradients({', '.join(parts)}, params=[{params}], flat[{self.flat.size}])"


def _described(value: Any) -> str:
    """Return the shape of an array, of each of a tuple of them, or what a Ragged says of itself."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_described, value))})"
    return f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)
