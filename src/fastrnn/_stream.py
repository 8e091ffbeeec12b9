"""Streams: a layer that runs step by step and carries its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

import fastrnn._core as _core
from fastrnn._arrays import readable
from fastrnn._deprecated import renamed

if TYPE_CHECKING:
    from fastrnn._final_hidden import State
    from fastrnn._recurrent import Recurrent

Array = NDArray[Any]


class Stream:
    """A layer's running state, one step or one chunk at a time; made by ``layer.stream(batch_size)``.

    The results are those of one call over the whole sequence, bit for bit. A step allocates nothing where ``out``
    is given, and it takes no lock. Use a stream from one thread at a time.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> stream = fastrnn.LSTM(1, 8).stream(batch_size=2)
    >>> stream
    Stream(LSTM(1, 8), batch_size=2)
    >>> out = np.empty((2, 8), np.float32)
    >>> _ = stream.step(np.ones((2, 1), np.float32), out=out)
    >>> stream.run(np.ones((10, 2, 1), np.float32)).shape
    (10, 2, 8)
    """

    def __init__(self, layer: Recurrent, weights: Any, batch_size: int) -> None:
        self.batch_size = batch_size
        self._network, self._weights, self._batch_first = layer._network, weights, layer.batch_first
        self._layer_text = repr(layer)
        self._core = _core.Stream(layer._network, weights, batch_size)
        # The core's method takes the place of the one below, so that a step enters no Python function.
        self.__dict__["step"] = self._core.step

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Run one step and carry the state on.

        Parameters
        ----------
        x : array [B, I], or [I] where ``batch_size`` is 1
            Floats are cast to the layer's dtype.
        out : array [B, output], or [output] where ``x`` is [I], optional
            Takes the result: C-contiguous and of the layer's dtype. By default a new array.

        Returns
        -------
        y : array
            ``out``, or the new array: the hidden state of the last layer.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> fastrnn.GRU(3, 4).stream().step(np.ones(3, np.float32)).shape
        (4,)
        """
        return self._core.step(x, out)

    def run(self, x: ArrayLike) -> Array:
        """Run a chunk of steps and carry the state on.

        Parameters
        ----------
        x : array [T, B, I], or [B, T, I] if the layer is batch-first, or [T, I] where ``batch_size`` is 1

        Returns
        -------
        y : array [T, B, output], laid out as ``x``
            Hidden states of the last layer.
        """
        x = readable("x", x, "an array of real floats")
        shape = x.shape
        unbatched = len(shape) == 2 and self.batch_size == 1
        if not unbatched and (len(shape) != 3 or shape[0 if self._batch_first else 1] != self.batch_size):
            raise ValueError(f"x: expected 3 dimensions and a batch of {self.batch_size}, got shape {shape}")
        state = self.state
        if unbatched:
            state = tuple(s[:, 0] for s in state) if isinstance(state, tuple) else state[:, 0]
        y, after = self._network.infer(self._weights, x, state, None, None)
        if unbatched:
            after = tuple(s[:, None] for s in after) if isinstance(after, tuple) else after[:, None]
        self._core.state = after
        return y  # type: ignore[no-any-return]

    @property
    def state(self) -> State:
        """A copy of the state: h [L, B, output], or the pair (h, c) of an LSTM. Assign to it to set the state."""
        return self._core.state

    @state.setter
    def state(self, value: State) -> None:
        self._core.state = value

    @renamed(rows="sequences")
    def reset(self, sequences: ArrayLike | None = None) -> None:
        """Set the state to zero.

        Parameters
        ----------
        sequences : int array, or bool array [B], optional
            The sequences of the batch whose state becomes zero: their indices, or a mask. By default all.
        """
        self._core.reset(sequences)

    def __reduce__(self) -> Any:
        raise TypeError(
            "Stream: cannot be copied or pickled. Keep the layer and stream.state, and make a new one"
        )

    def __repr__(self) -> str:
        return f"Stream({self._layer_text}, batch_size={self.batch_size})"
