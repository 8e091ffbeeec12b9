"""Single steps: RNNCell, LSTMCell and GRUCell, as those of ``torch.nn``, with forward and backward.

A cell is a layer of one step: the same core, the same bits as one step of the layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn._arrays import as_array, expect
from fastrnn._final_hidden import State
from fastrnn._parameters import Parameters
from fastrnn._recurrent import Recurrent
from fastrnn._tapes import CellTape
from fastrnn.gradients import Gradients, views_of
from fastrnn.layers import GRU, LSTM, RNN

if TYPE_CHECKING:
    from typing_extensions import Self


class Cell(Parameters):
    """What the cells share: parameters weight_ih, weight_hh, bias_ih, bias_hh, and one step of a layer."""

    def __init__(self, layer: Recurrent) -> None:
        # The layer owns the numbers; the cell has other names for the same buffer.
        self._layer = layer
        self.input_size, self.hidden_size, self.bias = layer.input_size, layer.hidden_size, layer.bias
        self.dtype = layer.dtype
        self.shapes = {name.removesuffix("_l0"): shape for name, shape in layer.shapes.items()}
        self._flat = layer.flat
        self.params = views_of(self._flat, self.shapes)

    def __setstate__(self, kept: dict[str, Any]) -> None:
        super().__setstate__(kept | {"_flat": kept["_layer"].flat})

    def _changed(self, how: str) -> None:
        self._layer._changed(how)

    def constrain(self, name: str, *, mask: Any = None, sign: Any = None) -> Self:
        """Constrain a parameter; see :meth:`fastrnn.LSTM.constrain`."""
        expect(name in self.shapes, "name", f"one of {', '.join(self.shapes)}", repr(name))
        self._layer.constrain(f"{name}_l0", mask=mask, sign=sign)
        return self

    def _one_step(self, x: ArrayLike, state: State) -> tuple[Any, State]:
        """Return ``x`` with a time axis, and the state with a layer axis."""
        array = as_array("x", x, self.dtype)
        if array.ndim not in (1, 2) or array.shape[-1] != self.input_size:
            raise ValueError(
                f"x: expected shape (B, {self.input_size}) or ({self.input_size},), got {array.shape}"
            )
        if state is None:
            return array[None], None
        expected = (*array.shape[:-1], self.hidden_size)

        def part(name: str, value: Any) -> Any:
            h = as_array(name, value, self.dtype)
            if h.shape != expected:
                raise ValueError(f"{name}: expected shape {expected}, got {h.shape}")
            return h[None]

        if not isinstance(self._layer, LSTM):
            pair = isinstance(state, tuple) and len(state) == 2 and np.ndim(state[0]) == len(expected)
            expect(not pair, "state", "an array h", "a pair (h, c), which only an LSTM has", TypeError)
            return array[None], part("state", state)
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"state: expected a pair (h, c), got {type(state).__name__}")
        return array[None], (part("state[0]", state[0]), part("state[1]", state[1]))

    @staticmethod
    def _without_layer(state: State) -> State:
        return tuple(part[0] for part in state) if isinstance(state, tuple) else state[0]

    def __call__(self, x: ArrayLike, state: State = None) -> State:
        """Do one step of inference; return the next state, h or (h, c). Arguments as of :meth:`forward`."""
        x_1, state_0 = self._one_step(x, state)
        return self._without_layer(self._layer(x_1, state_0)[1])

    def forward(self, x: ArrayLike, state: State = None) -> tuple[State, Any]:
        """Do one step of training.

        Parameters
        ----------
        x : array [B, I] or [I]
        state : array [B, H] or [H], or for an LSTM a pair of them, optional
            Zeros by default.

        Returns
        -------
        state
            The next h, or (h, c).
        tape
            For :meth:`backward`.
        """
        x_1, state_0 = self._one_step(x, state)
        _, state_n, tape = self._layer.forward(x_1, state_0)
        return self._without_layer(state_n), CellTape(tape, x_1.shape[1:-1])

    def backward(self, tape: Any, dstate: State, *, need_dx: bool = True) -> Gradients:
        """Return the gradients, from those of the next state.

        Parameters
        ----------
        tape
            From :meth:`forward`. It serves one backward.
        dstate : array [B, H] or [H], or for an LSTM a pair of them
            dL/dh of the next state, or the pair (dL/dh, dL/dc), of which either may be None.
        need_dx : bool
            Whether dL/dx is computed. Where nobody asks for it, leave it out: that takes less time.

        Returns
        -------
        Gradients
            ``.x``, ``.state``, ``.params`` and ``.flat``.
        """
        expect(type(tape) is CellTape, "tape", "a tape of forward", type(tape).__name__, TypeError)
        expected = (*tape.batch_shape, self.hidden_size)

        def part(name: str, value: Any) -> Any:
            if value is None:
                return None
            d = as_array(name, value, self.dtype)
            expect(d.shape == expected, name, f"shape {expected}", d.shape)
            return d[None]

        parts = dstate if isinstance(dstate, (tuple, list)) else (dstate,)
        missing = all(value is None for value in parts)
        expect(not missing, "dstate", "dL/dh of the next state", "None", TypeError)
        lifted: Any
        if not isinstance(self._layer, LSTM):
            lifted = part("dstate", dstate)
        elif isinstance(dstate, (tuple, list)) and len(dstate) == 2:
            lifted = (part("dstate[0]", dstate[0]), part("dstate[1]", dstate[1]))
        else:
            raise TypeError(f"dstate: expected a pair (h, c), got {type(dstate).__name__}")
        g = self._layer.backward(tape.tape, None, lifted, need_dx=need_dx)
        return Gradients(g.x[0] if need_dx else None, self._without_layer(g.state), self.shapes, g.flat)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{repr(self._layer).removeprefix(type(self._layer).__name__)}"


class RNNCell(Cell):
    """One step of an Elman RNN; parameters as torch.nn.RNNCell.

    >>> import numpy as np, fastrnn
    >>> fastrnn.RNNCell(3, 4)(np.ones((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(RNN(input_size, hidden_size, 1, nonlinearity, bias, dtype=dtype, rng=rng))


class LSTMCell(Cell):
    """One step of an LSTM; parameters as torch.nn.LSTMCell.

    >>> import numpy as np, fastrnn
    >>> h, c = fastrnn.LSTMCell(3, 4)(np.ones((2, 3), np.float32))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(LSTM(input_size, hidden_size, 1, bias, dtype=dtype, rng=rng))


class GRUCell(Cell):
    """One step of a GRU; parameters as torch.nn.GRUCell.

    >>> import numpy as np, fastrnn
    >>> fastrnn.GRUCell(3, 4)(np.ones((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(GRU(input_size, hidden_size, 1, bias, reset_after=reset_after, dtype=dtype, rng=rng))
