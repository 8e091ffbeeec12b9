"""Frozen layers: their weights are packed once, in their own type or a smaller one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import fastrnn._core as _core
from fastrnn._parameters import Array, Changes, Parameters

if TYPE_CHECKING:
    from typing_extensions import Self

# What weights a layer can be frozen with.
WEIGHTS = ("float32", "bfloat16", "int8")


class Frozen(Parameters):
    """What a recurrent layer can do with its packed weights."""

    dtype: np.dtype[Any]
    hidden_size: int
    _network: _core.Network
    _infer: Callable[..., tuple[Any, ...]]  # its method of that name
    _arrays: tuple[Array, ...]  # the parameters, in its order
    _weights: Any  # what calls hand to it: the parameters, or packed weights

    def _connect(self, arrays: tuple[Array, ...]) -> None:
        """Make the core's network, with ``arrays`` as its weights."""
        raise NotImplementedError

    def freeze(self, weights: str = "float32") -> Self:
        """Pack the weights once, so that calls need not, and make the parameters read-only; return the layer.

        Smaller weights take less memory and less time, at the price of small errors. They serve inference only. The
        parameters themselves stay as they are. The page on low precision in the documentation says when to use which.

        Parameters
        ----------
        weights : {"float32", "bfloat16", "int8"}
            The type of the packed weights. "float32" keeps the numbers of the layer, also those of a layer of
            float64. "bfloat16" rounds them to 8 bits of precision. "int8" rounds each row of a weight matrix to
            multiples of a 127th of its largest number, and so does each step with x_t and h_t of each sequence.
            A layer that is frozen already is frozen anew if the type differs.

        Raises
        ------
        ValueError
            The type is not one of these; or it is not "float32" and the layer is of float64; or it is "int8" and a
            weight is NaN or infinite.

        Examples
        --------
        >>> import fastrnn
        >>> lstm = fastrnn.LSTM(3, 4).freeze()
        >>> lstm.frozen, lstm.flat.flags.writeable
        (True, False)
        >>> lstm.freeze(weights="int8").weights_dtype
        'int8'
        >>> lstm.unfreeze().flat.flags.writeable
        True
        """
        if not isinstance(weights, str) or weights not in WEIGHTS:
            raise ValueError(f"weights: expected {', '.join(map(repr, WEIGHTS))}, got {weights!r}")
        if weights != "float32" and self.dtype != np.float32:
            raise ValueError(f"weights: expected 'float32' for a layer of {self.dtype}, got {weights!r}")
        with Changes.lock:
            if self.frozen and self._weights.type == weights:
                return self
            if weights == "int8":
                for name, array in zip(self.shapes, self._arrays, strict=True):
                    if name.startswith("weight") and not np.isfinite(array).all():
                        raise ValueError(
                            f"{name}: expected finite numbers for weights of int8, got NaN or infinity"
                        )
            was_frozen = self.frozen
            self._set_writeable(False)  # first, so that nobody changes what is packed already
            try:
                self._weights = self._network.pack(self._arrays, weights)
            except BaseException:
                self._set_writeable(not was_frozen)
                raise
        return self

    def unfreeze(self) -> Self:
        """Undo :meth:`freeze`; return the layer."""
        with Changes.lock:
            self._weights = self._arrays
            self._set_writeable(True)
        return self

    @property
    def frozen(self) -> bool:
        """Whether the weights are packed and read-only."""
        return type(self._weights) is not tuple

    @property
    def weights_dtype(self) -> str:
        """The type of the weights that calls read: "float32", "float64", or what :meth:`freeze` was given."""
        weights = self._weights
        small = type(weights) is not tuple and weights.type != "float32"
        return str(weights.type if small else self.dtype)

    def _changed(self, how: str) -> None:
        with Changes.lock:
            super()._changed(how)
            # A tape refers to the tuple of its forward. A new tuple of the same arrays costs the next forward nothing.
            self._arrays = tuple(list(self._arrays))
            if not self.frozen:
                self._weights = self._arrays

    def _gate_rows(self, name: str) -> int:
        return 0 if name.startswith(("weight_hr", "h_0", "c_0")) else self.hidden_size

    def _set_writeable(self, value: bool) -> None:
        self.flat.flags.writeable = value
        for view in self.params.values():
            view.flags.writeable = value

    def _before_change(self, what: str) -> None:
        if self.frozen:
            raise ValueError(f"{what}: the layer is frozen; unfreeze() it first")

    def __getstate__(self) -> dict[str, Any]:
        # The core's objects are made again.
        core = ("_network", "_infer", "_arrays", "_weights")
        return {k: v for k, v in super().__getstate__().items() if k not in core} | {
            "frozen": self._packed_type()
        }

    def __setstate__(self, kept: dict[str, Any]) -> None:
        super().__setstate__({name: value for name, value in kept.items() if name != "frozen"})
        self._connect(tuple(self.params.values()))
        if kept["frozen"]:  # True in pickles of the first version
            self.freeze("float32" if kept["frozen"] is True else kept["frozen"])

    def _packed_type(self) -> str:
        """Return the type of frozen weights, "" where the layer is not frozen."""
        weights = self._weights
        return "" if type(weights) is tuple else str(weights.type)
