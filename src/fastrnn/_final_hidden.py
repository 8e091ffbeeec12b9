"""The final hidden state of a recurrent layer as one array, and the way back of its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import as_array, expect, readable

Array = NDArray[Any]
State = Any  # h [L*D, B, output], or the pair (h, c) of an LSTM


class FinalHidden:
    """What a recurrent layer can do with its final state."""

    num_layers: int
    hidden_size: int
    proj_size: int
    bidirectional: bool
    merge: str
    dtype: np.dtype[Any]

    def _cell(self) -> str:
        raise NotImplementedError

    def final_hidden(self, state: State) -> Array:
        """Return the final hidden state of the last layer, both directions side by side, or as ``merge`` joins them.

        That is what a classifier of whole sequences reads. In a bidirectional layer it differs from y at the last
        step, whose reverse half has read that step only.

        Parameters
        ----------
        state
            As a call returns it.

        Returns
        -------
        array as y, without the axis of time

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> lstm = fastrnn.LSTM(3, 4, num_layers=2, bidirectional=True)
        >>> y, state, tape = lstm.forward(np.ones((5, 2, 3), np.float32))
        >>> h = lstm.final_hidden(state)
        >>> h.shape
        (2, 8)
        >>> lstm.backward(tape, dstate=lstm.final_hidden_backward(np.ones_like(h))).x.shape
        (5, 2, 3)
        """
        h = state[0] if self._cell() == "lstm" and isinstance(state, (tuple, list)) else state
        array = readable("state", h, "the state that a call returned")
        directions, width = 1 + self.bidirectional, self.proj_size or self.hidden_size
        whole = (self.num_layers * directions, "B", width)
        fits = array.ndim in (2, 3) and (len(array), array.shape[-1]) == (whole[0], width)
        expect(fits, "state", f"h of shape ({whole[0]}, B, {width})", f"shape {array.shape}")
        if self.merge == "concat":
            return np.concatenate(list(array[-directions:]), axis=-1)
        forward, back = array[-2:]
        if self.merge == "mul":
            return np.asarray(forward * back)
        total = np.asarray(forward + back)
        return total if self.merge == "sum" else total * total.dtype.type(0.5)

    def final_hidden_backward(self, dh: ArrayLike, state: State = None) -> State:
        """Return the ``dstate`` of :meth:`backward` for a gradient of what :meth:`final_hidden` returned.

        Parameters
        ----------
        dh : array as that
        state
            The state that :meth:`final_hidden` was given. Only ``merge="mul"`` needs it.

        Returns
        -------
        dstate
            dL/dh_n [L*D, B, output], which is 0 in all layers but the last, or for an LSTM the pair of that and None.
        """
        directions, width = 1 + self.bidirectional, self.proj_size or self.hidden_size
        merges = self.merge != "concat"
        array = as_array("dh", dh, self.dtype)
        wanted = width if merges else directions * width
        fits = array.ndim in (1, 2) and array.shape[-1] == wanted
        expect(fits, "dh", f"shape (B, {wanted})", array.shape)
        full = np.zeros((self.num_layers * directions, *array.shape[:-1], width), self.dtype)
        full[-directions:] = array if merges else np.split(array, directions, axis=-1)
        if self.merge == "ave":
            full[-2:] *= self.dtype.type(0.5)
        if self.merge == "mul":
            expect(state is not None, "state", "the final state, which merge='mul' needs", "None", TypeError)
            h = state[0] if self._cell() == "lstm" and isinstance(state, (tuple, list)) else state
            last = as_array("state", h, self.dtype)
            expect(last.shape == full.shape, "state", f"h of shape {full.shape}", last.shape)
            full[-2:] *= last[:-3:-1]  # each direction with the other's
        return (full, None) if self._cell() == "lstm" else full
