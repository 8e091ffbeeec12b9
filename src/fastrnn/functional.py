"""Pure functions of arrays: the same core as the classes, with the parameters given as a dict.

Sizes, layers, directions, bias, projection and dtype are read off the names and shapes of ``params``,
which are those of ``torch.nn`` (``weight_ih_l0``, ..., ``weight_hr_l0_reverse``). With ``h_0`` (and ``c_0``) among them
the initial state is learned. ``reverse`` and ``merge`` are arguments, as of the classes.

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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn._arrays import _float_dtype, _probability, expect, misfits, readable, some
from fastrnn._final_hidden import State
from fastrnn._parameters import GATES
from fastrnn._recurrent import Recurrent, warn_needless_dropout
from fastrnn._signatures import CallOptions, ForwardOptions, passes_on
from fastrnn._tapes import LayerTape
from fastrnn.gradients import Gradients
from fastrnn.layers import elman, gated

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["gru", "gru_backward", "gru_forward", "lstm", "lstm_backward", "lstm_forward"]
__all__ += ["rnn", "rnn_backward", "rnn_forward"]

Params = Mapping[str, Any]


class InferenceOptions(CallOptions, total=False):
    """Keyword arguments of the inference functions: those of a call, and those of the layer that it stands for."""

    batch_first: bool
    reverse: bool
    merge: str


class TrainingOptions(InferenceOptions, ForwardOptions, total=False):
    """Keyword arguments of the training passes, as of ``forward`` of a layer."""

    dropout: float
    rng: np.random.Generator | int | None


class _Borrowed(Recurrent):
    """A layer on parameters that belong to the caller."""

    def __init__(
        self,
        cell: str,
        params: Params,
        batch_first: bool = False,
        dropout: float = 0.0,
        rng: Any = None,
        reverse: bool = False,
        merge: str = "concat",
    ) -> None:
        expect(isinstance(params, Mapping), "params", "a mapping", type(params).__name__, TypeError)
        arrays = {name: readable(f"params: {name}", value, "real floats") for name, value in params.items()}
        for name in ("weight_ih_l0", "weight_hh_l0"):
            if name not in arrays or arrays[name].ndim != 2:
                got = (
                    f"shape {arrays[name].shape}"
                    if name in arrays
                    else f"the names {some(sorted(arrays)) or []}"
                )
                raise ValueError(f"params: expected a matrix {name}, got {got}")
        self._cell_name = cell
        self.dtype = _float_dtype(arrays["weight_hh_l0"].dtype)
        self.input_size = arrays["weight_ih_l0"].shape[1]
        self.hidden_size = max(arrays["weight_hh_l0"].shape[0] // GATES[cell], 1)
        self.proj_size = arrays["weight_hr_l0"].shape[0] if cell == "lstm" and "weight_hr_l0" in arrays else 0
        self.bidirectional = "weight_ih_l0_reverse" in arrays
        self.bias = "bias_ih_l0" in arrays
        self.num_layers = 1
        while f"weight_ih_l{self.num_layers}" in arrays:
            self.num_layers += 1
        self._set_directions(reverse, merge)
        self.learned_state = "h_0" in arrays
        self.batch_first, self.dropout = bool(batch_first), _probability("dropout", dropout)
        warn_needless_dropout(self.dropout, self.num_layers, 5)
        self.rng = np.random.default_rng(rng)
        self.shapes = self._shapes()
        wrong = misfits(self.shapes, arrays)
        wrong += [
            f"{name}: expected {self.dtype}, got {arrays[name].dtype}"
            for name in self.shapes
            if name in arrays and arrays[name].dtype != self.dtype
        ]
        if wrong:
            raise ValueError("params: " + some(wrong, "; "))
        self._connect(tuple(np.require(arrays[name], requirements=["C", "A"]) for name in self.shapes))

    def _cell(self) -> str:
        return self._cell_name


def _infer(
    cell: str,
    x: ArrayLike | None,
    state: State,
    params: Params,
    *,
    batch_first: bool = False,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: int | None = None,
    mask: ArrayLike | None = None,
    return_layers: bool = False,
    reverse: bool = False,
    merge: str = "concat",
) -> tuple[Any, ...]:
    layer = _Borrowed(cell, params, batch_first, reverse=reverse, merge=merge)
    return layer(x, state, lengths=lengths, reset=reset, steps=steps, mask=mask, return_layers=return_layers)


def _forward(
    cell: str,
    x: ArrayLike | None,
    state: State,
    params: Params,
    *,
    batch_first: bool = False,
    dropout: float = 0.0,
    rng: np.random.Generator | int | None = None,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    steps: int | None = None,
    mask: ArrayLike | None = None,
    return_layers: bool = False,
    reverse: bool = False,
    merge: str = "concat",
    checkpoint: int | str | None = None,
) -> tuple[Any, ...]:
    layer = _Borrowed(cell, params, batch_first, dropout, rng, reverse, merge)
    y, last, tape, *layers = layer.forward(
        x, state, lengths=lengths, reset=reset, steps=steps, mask=mask, return_layers=return_layers,
        checkpoint=checkpoint,
    )  # fmt: skip
    return (y, last, LayerTape(tape, layer), *layers)


def _layer_of(tape: Any) -> Recurrent:
    if not isinstance(tape, LayerTape):
        raise TypeError(f"tape: expected a tape of the forward function, got {type(tape).__name__}")
    layer: Recurrent = tape.layer
    return layer


@passes_on(_infer)
def lstm(
    x: ArrayLike | None, state: State, params: Params, **options: Unpack[InferenceOptions]
) -> tuple[Any, ...]:
    """Run an LSTM for inference; return ``y, (h_n, c_n)``. Arguments as of a call of :class:`fastrnn.LSTM`."""
    return _infer("lstm", x, state, params, **options)


@passes_on(_forward)
def lstm_forward(
    x: ArrayLike | None, state: State, params: Params, **options: Unpack[TrainingOptions]
) -> tuple[Any, ...]:
    """Run an LSTM for training; return ``y, (h_n, c_n), tape``. See :meth:`fastrnn.LSTM.forward`."""
    return _forward("lstm", x, state, params, **options)


def lstm_backward(
    tape: Any,
    dy: ArrayLike | None = None,
    dstate: State = None,
    *,
    dy_last: ArrayLike | None = None,
    need_dx: bool = True,
    dlayers: Sequence[Any] | None = None,
) -> Gradients:
    """Return the gradients of an LSTM (BPTT); see :meth:`fastrnn.LSTM.backward`."""
    return _layer_of(tape)._backward(tape.tape, dy, dstate, dy_last, need_dx, dlayers)


@passes_on(_infer)
def gru(
    x: ArrayLike | None,
    state: State,
    params: Params,
    *,
    reset_after: bool = True,
    **options: Unpack[InferenceOptions],
) -> tuple[Any, ...]:
    """Run a GRU for inference; return ``y, h_n``. Arguments as of a call of :class:`fastrnn.GRU`."""
    return _infer(gated(reset_after), x, state, params, **options)


@passes_on(_forward)
def gru_forward(
    x: ArrayLike | None,
    state: State,
    params: Params,
    *,
    reset_after: bool = True,
    **options: Unpack[TrainingOptions],
) -> tuple[Any, ...]:
    """Run a GRU for training; return ``y, h_n, tape``. See :meth:`fastrnn.GRU.forward`."""
    return _forward(gated(reset_after), x, state, params, **options)


def gru_backward(
    tape: Any,
    dy: ArrayLike | None = None,
    dstate: State = None,
    *,
    dy_last: ArrayLike | None = None,
    need_dx: bool = True,
    dlayers: Sequence[Any] | None = None,
) -> Gradients:
    """Return the gradients of a GRU (BPTT); see :meth:`fastrnn.GRU.backward`."""
    return _layer_of(tape)._backward(tape.tape, dy, dstate, dy_last, need_dx, dlayers)


@passes_on(_infer)
def rnn(
    x: ArrayLike | None,
    state: State,
    params: Params,
    *,
    nonlinearity: str = "tanh",
    **options: Unpack[InferenceOptions],
) -> tuple[Any, ...]:
    """Run an Elman RNN for inference; return ``y, h_n``. Arguments as of a call of :class:`fastrnn.RNN`."""
    return _infer(elman(nonlinearity), x, state, params, **options)


@passes_on(_forward)
def rnn_forward(
    x: ArrayLike | None,
    state: State,
    params: Params,
    *,
    nonlinearity: str = "tanh",
    **options: Unpack[TrainingOptions],
) -> tuple[Any, ...]:
    """Run an Elman RNN for training; return ``y, h_n, tape``. See :meth:`fastrnn.RNN.forward`."""
    return _forward(elman(nonlinearity), x, state, params, **options)


def rnn_backward(
    tape: Any,
    dy: ArrayLike | None = None,
    dstate: State = None,
    *,
    dy_last: ArrayLike | None = None,
    need_dx: bool = True,
    dlayers: Sequence[Any] | None = None,
) -> Gradients:
    """Return the gradients of an Elman RNN (BPTT); see :meth:`fastrnn.RNN.backward`."""
    return _layer_of(tape)._backward(tape.tape, dy, dstate, dy_last, need_dx, dlayers)
