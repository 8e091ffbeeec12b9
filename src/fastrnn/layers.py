"""RNN, LSTM and GRU.

Names, argument order, parameter shapes and gate order are those of ``torch.nn``.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike

from fastrnn._final_hidden import State
from fastrnn._parameters import Array, Parameters, parameter_shapes
from fastrnn._recurrent import MAX_LAYERS, Recurrent
from fastrnn._stream import Stream
from fastrnn._tapes import Tape
from fastrnn.gradients import Gradients

__all__ = ["GRU", "LSTM", "MAX_LAYERS", "RNN", "Array", "Gradients", "Parameters", "Recurrent", "State"]
__all__ += ["Stream", "Tape", "parameter_shapes"]

# What the docstrings of the classes share: each of these lines in them is replaced.
SHARED_PARAMETERS = {
    "{sizes}": """\
input_size, hidden_size : int
        Features of x and of h.
    num_layers : int
        Number of layers; each reads the outputs of the one below.""",
    "{options}": """\
bias : bool
        Whether there are b_ih and b_hh.
    batch_first : bool
        Whether arrays are [B, T, features] instead of [T, B, features].
    dropout : float
        Probability with which an output of all but the last layer is dropped in the training pass.
    bidirectional : bool
        Whether a second set of parameters reads each sequence from its end; the outputs of both are joined.""",
    "{directions}": """\
reverse : bool
        Whether the layer reads each sequence from its end; y_t stays beside x_t. Only without ``bidirectional``.
    merge : {"concat", "sum", "mul", "ave"}
        What becomes of the outputs of both directions: side by side, their sum, product or mean. It is done in every
        layer, so the next one reads what was merged, as in a stack of Keras' Bidirectional. Only with
        ``bidirectional``.
    learned_state : bool
        Whether there are parameters h_0 [L*D, output] and, for an LSTM, c_0 [L*D, hidden_size], zeros at first. They
        are the initial state wherever none is given. ``reset`` of a call is refused then.""",
    "{numbers}": """\
dtype : float32 or float64
    rng : numpy Generator or seed, optional
        Draws the initial parameters (uniform within 1 / sqrt(hidden_size)) and the dropout.""",
}

Class = TypeVar("Class", bound=type)


def _documented(cls: Class) -> Class:
    """Put the shared parameters into the docstring of a class."""
    for line, text in SHARED_PARAMETERS.items():
        cls.__doc__ = cls.__doc__ and cls.__doc__.replace(line, text)
    return cls


@_documented
class RNN(Recurrent):
    """Elman RNN: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or relu (Elman 1990).

    Parameters
    ----------
    {sizes}
    nonlinearity : {"tanh", "relu"}
    {options}
    {directions}
    {numbers}

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> y, h_n = fastrnn.RNN(3, 4)(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h_n.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        merge: str = "concat",
        learned_state: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.nonlinearity = nonlinearity
        elman(nonlinearity)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype, rng,
            reverse=reverse, merge=merge, learned_state=learned_state,
        )  # fmt: skip

    def _cell(self) -> str:
        return elman(self.nonlinearity)

    def _options(self) -> list[str]:
        return super()._options() + (["nonlinearity='relu'"] if self.nonlinearity == "relu" else [])


@_documented
class LSTM(Recurrent):
    """LSTM with forget gate, gates i, f, g, o (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    Parameters
    ----------
    {sizes}
    {options}
    proj_size : int
        Where it is not 0, h is projected to this size (Sak et al. 2014): y and h have it, c has hidden_size.
    {directions}
    {numbers}

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> y, (h_n, c_n) = fastrnn.LSTM(3, 4, bidirectional=True)(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h_n.shape, c_n.shape
    ((5, 2, 8), (2, 2, 4), (2, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        reverse: bool = False,
        merge: str = "concat",
        learned_state: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            dtype,
            rng,
            reverse=reverse,
            merge=merge,
            learned_state=learned_state,
        )

    def _cell(self) -> str:
        return "lstm"


@_documented
class GRU(Recurrent):
    """GRU, gates r, z, n (Cho et al. 2014).

    Parameters
    ----------
    {sizes}
    {options}
    reset_after : bool
        True: n = tanh(W_in x + b_in + r * (W_hn h + b_hn)), as PyTorch and cuDNN have it.
        False: n = tanh(W_in x + b_in + W_hn (r * h) + b_hn), as in the first version of the paper.
    {directions}
    {numbers}

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> y, h_n = fastrnn.GRU(3, 4, num_layers=2)(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h_n.shape
    ((5, 2, 4), (2, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        reverse: bool = False,
        merge: str = "concat",
        learned_state: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.reset_after = bool(reset_after)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype, rng,
            reverse=reverse, merge=merge, learned_state=learned_state,
        )  # fmt: skip

    def _cell(self) -> str:
        return gated(self.reset_after)

    def _options(self) -> list[str]:
        return super()._options() + ([] if self.reset_after else ["reset_after=False"])


def elman(nonlinearity: str) -> str:
    """Return the core's name of the Elman cell with a nonlinearity."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
    return f"rnn_{nonlinearity}"


def gated(reset_after: bool) -> str:
    """Return the core's name of the GRU that resets after or before the recurrent product."""
    return "gru" if reset_after else "gru_before"
