"""Pure functions of arrays: the same core as the classes, with the parameters given as a dict.

Sizes, layers, directions, bias, projection and dtype are read off the names and shapes of ``params``,
which are those of ``torch.nn`` (``weight_ih_l0``, ..., ``weight_hr_l0_reverse``).

Examples
--------
>>> import numpy as np
>>> from fastrnn import functional
>>> params = {"weight_ih_l0": np.ones((4, 3), np.float32), "weight_hh_l0": np.eye(4, dtype=np.float32)}
>>> y, h_n, tape = functional.rnn_forward(np.ones((5, 2, 3), np.float32), None, params)
>>> functional.rnn_backward(tape, np.ones_like(y)).params["weight_hh_l0"].shape
(4, 4)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import fastrnn._core as _core
from fastrnn._arrays import _float_dtype, _probability, expect, misfits, readable
from fastrnn.gradients import Gradients
from fastrnn.layers import Recurrent, State, parameter_shapes


class _Borrowed(Recurrent):
    """A layer on parameters that belong to the caller."""

    def __init__(
        self, cell: str, gates: int, params: Mapping[str, Any], batch_first: bool, dropout: float, rng: Any
    ):
        expect(isinstance(params, Mapping), "params", "a mapping", type(params).__name__, TypeError)
        arrays = {name: readable(f"params: {name}", value, "real floats") for name, value in params.items()}
        for name in ("weight_ih_l0", "weight_hh_l0"):
            if name not in arrays or arrays[name].ndim != 2:
                got = f"shape {arrays[name].shape}" if name in arrays else f"the names {sorted(arrays)}"
                raise ValueError(f"params: expected a matrix {name}, got {got}")
        self.dtype = _float_dtype(arrays["weight_hh_l0"].dtype)
        self.input_size = arrays["weight_ih_l0"].shape[1]
        self.hidden_size = max(arrays["weight_hh_l0"].shape[0] // gates, 1)
        self.proj_size = arrays["weight_hr_l0"].shape[0] if cell == "lstm" and "weight_hr_l0" in arrays else 0
        self.bidirectional = "weight_ih_l0_reverse" in arrays
        self.bias = "bias_ih_l0" in arrays
        self.num_layers = 1
        while f"weight_ih_l{self.num_layers}" in arrays:
            self.num_layers += 1
        self.batch_first, self.dropout = bool(batch_first), _probability("dropout", dropout)
        self.rng = np.random.default_rng(rng)
        self._stateful = cell == "lstm"
        self.shapes = parameter_shapes(
            gates, self.input_size, self.hidden_size, self.num_layers, self.bias, 1 + self.bidirectional,
            self.proj_size,
        )  # fmt: skip
        wrong = misfits(self.shapes, arrays)
        wrong += [
            f"{name}: expected {self.dtype}, got {arrays[name].dtype}"
            for name in self.shapes
            if name in arrays and arrays[name].dtype != self.dtype
        ]
        if wrong:
            raise ValueError("params: " + "; ".join(wrong))
        self._network = _core.Network(
            cell, self.input_size, self.hidden_size, self.proj_size, self.num_layers, self.bidirectional,
            self.bias, self.batch_first, self.dtype == np.float64,
        )  # fmt: skip
        self._arrays = tuple(np.require(arrays[name], requirements=["C", "A"]) for name in self.shapes)
        self._weights = self._arrays


class _Tape:
    """A tape and the layer that made it."""

    __slots__ = ("layer", "tape")

    def __init__(self, layer: Recurrent, tape: Any) -> None:
        self.layer, self.tape = layer, tape

    @property
    def nbytes(self) -> int:
        return int(self.tape.nbytes)


def _infer(cell: str, gates: int, x: Any, state: State, params: Any, batch_first: bool, **steps: Any) -> Any:
    return _Borrowed(cell, gates, params, batch_first, 0.0, None)(x, state, **steps)


def _forward(
    cell: str,
    gates: int,
    x: Any,
    state: State,
    params: Any,
    batch_first: bool,
    dropout: float,
    rng: Any,
    checkpoint: int | str | None,
    **steps: Any,
) -> Any:
    layer = _Borrowed(cell, gates, params, batch_first, dropout, rng)
    y, last, tape = layer.forward(x, state, checkpoint=checkpoint, **steps)
    return y, last, _Tape(layer, tape)


def _backward(tape: Any, dy: Any, dstate: State) -> Gradients:
    if not isinstance(tape, _Tape):
        raise TypeError(f"tape: expected a tape of the forward function, got {type(tape).__name__}")
    return tape.layer.backward(tape.tape, dy, dstate)


def lstm(
    x: ArrayLike | None,
    state: State,
    params: Mapping[str, Any],
    *,
    batch_first: bool = False,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: int | None = None,
) -> tuple[Any, State]:
    """LSTM inference: ``y, (h_n, c_n)``; arguments as a call of :class:`fastrnn.LSTM`."""
    return _infer("lstm", 4, x, state, params, batch_first, lengths=lengths, reset=reset, steps=steps)  # type: ignore[no-any-return]


def lstm_forward(
    x: ArrayLike | None,
    state: State,
    params: Mapping[str, Any],
    *,
    batch_first: bool = False,
    dropout: float = 0.0,
    rng: Any = None,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: int | None = None,
    checkpoint: int | str | None = None,
) -> tuple[Any, State, Any]:
    """LSTM training pass: ``y, (h_n, c_n), tape``; see :meth:`fastrnn.LSTM.forward`."""
    return _forward(  # type: ignore[no-any-return]
        "lstm",
        4,
        x,
        state,
        params,
        batch_first,
        dropout,
        rng,
        checkpoint,
        lengths=lengths,
        reset=reset,
        steps=steps,
    )


def lstm_backward(tape: Any, dy: ArrayLike | None = None, dstate: State = None) -> Gradients:
    """BPTT of an LSTM; see :meth:`fastrnn.LSTM.backward`."""
    return _backward(tape, dy, dstate)


def gru(
    x: ArrayLike | None,
    state: State,
    params: Mapping[str, Any],
    *,
    reset_after: bool = True,
    batch_first: bool = False,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: int | None = None,
) -> tuple[Any, State]:
    """GRU inference: ``y, h_n``; arguments as a call of :class:`fastrnn.GRU`."""
    cell = "gru" if reset_after else "gru_before"
    return _infer(cell, 3, x, state, params, batch_first, lengths=lengths, reset=reset, steps=steps)  # type: ignore[no-any-return]


def gru_forward(
    x: ArrayLike | None,
    state: State,
    params: Mapping[str, Any],
    *,
    reset_after: bool = True,
    batch_first: bool = False,
    dropout: float = 0.0,
    rng: Any = None,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: int | None = None,
    checkpoint: int | str | None = None,
) -> tuple[Any, State, Any]:
    """GRU training pass: ``y, h_n, tape``; see :meth:`fastrnn.GRU.forward`."""
    cell = "gru" if reset_after else "gru_before"
    return _forward(  # type: ignore[no-any-return]
        cell,
        3,
        x,
        state,
        params,
        batch_first,
        dropout,
        rng,
        checkpoint,
        lengths=lengths,
        reset=reset,
        steps=steps,
    )


def gru_backward(tape: Any, dy: ArrayLike | None = None, dstate: State = None) -> Gradients:
    """BPTT of a GRU; see :meth:`fastrnn.GRU.backward`."""
    return _backward(tape, dy, dstate)


def _elman(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
    return f"rnn_{nonlinearity}"


def rnn(
    x: ArrayLike | None,
    state: State,
    params: Mapping[str, Any],
    *,
    nonlinearity: str = "tanh",
    batch_first: bool = False,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: int | None = None,
) -> tuple[Any, State]:
    """Elman RNN inference: ``y, h_n``; arguments as a call of :class:`fastrnn.RNN`."""
    cell = _elman(nonlinearity)
    return _infer(cell, 1, x, state, params, batch_first, lengths=lengths, reset=reset, steps=steps)  # type: ignore[no-any-return]


def rnn_forward(
    x: ArrayLike | None,
    state: State,
    params: Mapping[str, Any],
    *,
    nonlinearity: str = "tanh",
    batch_first: bool = False,
    dropout: float = 0.0,
    rng: Any = None,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: int | None = None,
    checkpoint: int | str | None = None,
) -> tuple[Any, State, Any]:
    """Elman RNN training pass: ``y, h_n, tape``; see :meth:`fastrnn.RNN.forward`."""
    cell = _elman(nonlinearity)
    return _forward(  # type: ignore[no-any-return]
        cell,
        1,
        x,
        state,
        params,
        batch_first,
        dropout,
        rng,
        checkpoint,
        lengths=lengths,
        reset=reset,
        steps=steps,
    )


def rnn_backward(tape: Any, dy: ArrayLike | None = None, dstate: State = None) -> Gradients:
    """BPTT of an Elman RNN; see :meth:`fastrnn.RNN.backward`."""
    return _backward(tape, dy, dstate)
