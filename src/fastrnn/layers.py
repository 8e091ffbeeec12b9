"""RNN, LSTM and GRU: parameters, and calls into the core.

Names, argument order, parameter shapes and gate order are those of ``torch.nn``.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

import fastrnn._core as _core
from fastrnn._arrays import _float_dtype, _probability, _size, as_array, expect, misfits, readable
from fastrnn.gradients import Gradients as Gradients
from fastrnn.gradients import views_of
from fastrnn.ragged import Ragged

Array = NDArray[Any]
State = Any  # h [L*D, B, output], or the pair (h, c) of an LSTM

MAX_LAYERS = 10_000  # far beyond any use; every layer has named arrays of its own, so more would only hang

# isinstance of a Ragged, or to look this up in its module, takes a fiftieth of a short call
_ndarray = np.ndarray


def parameter_shapes(
    gates: int,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    directions: int,
    proj_size: int,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters, in the order of the flat buffer."""
    output = proj_size or hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(num_layers):
        inputs = input_size if layer == 0 else directions * output
        for suffix in ("", "_reverse")[:directions]:
            shapes[f"weight_ih_l{layer}{suffix}"] = (gates * hidden_size, inputs)
            shapes[f"weight_hh_l{layer}{suffix}"] = (gates * hidden_size, output)
            if bias:
                shapes[f"bias_ih_l{layer}{suffix}"] = (gates * hidden_size,)
                shapes[f"bias_hh_l{layer}{suffix}"] = (gates * hidden_size,)
            if proj_size:
                shapes[f"weight_hr_l{layer}{suffix}"] = (proj_size, hidden_size)
    return shapes


class Parameters:
    """Named parameters that are views of one contiguous buffer.

    Assigning to ``flat``, or to a name in ``params``, sets the numbers in that buffer. Copies are independent, those of
    pickle and :mod:`copy` too; what is copied together, as a layer and its optimiser, stays together.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]) -> None:
        self.shapes = dict(shapes)
        size = sum(math.prod(shape) for shape in self.shapes.values())
        if size * dtype.itemsize > sys.maxsize:
            raise MemoryError(f"parameters: {size} numbers of {dtype} cannot be addressed")
        self._flat: Array = np.zeros(size, dtype)
        self.params: dict[str, Array] = views_of(self._flat, self.shapes)

    @property
    def flat(self) -> Array:
        """All parameters in one contiguous buffer."""
        return self._flat

    @flat.setter
    def flat(self, value: Any) -> None:
        if value is self._flat:  # as after flat -= ...
            return
        array = as_array("flat", value, self._flat.dtype)
        expect(array.shape == self._flat.shape, "flat", f"shape {self._flat.shape}", array.shape)
        self._before_change("flat")
        self._flat[...] = array

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name.

        >>> import fastrnn
        >>> list(fastrnn.GRU(2, 3).state_dict())
        ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
        """
        return {name: value.copy() for name, value in self.params.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter; tensors of other libraries are taken where NumPy can read them.

        Raises
        ------
        ValueError
            Missing, unexpected and misshapen entries, all named in one message; nothing is changed.

        Examples
        --------
        >>> import fastrnn
        >>> a, b = fastrnn.GRU(2, 3), fastrnn.GRU(2, 3)
        >>> b.load_state_dict(a.state_dict())
        >>> bool((a.flat == b.flat).all())
        True
        """
        expect(isinstance(state, Mapping), "state_dict", "a mapping", type(state).__name__, TypeError)
        arrays = {
            name: readable(f"state_dict: {name}", value, "real floats") for name, value in state.items()
        }
        wrong = misfits(self.shapes, arrays)
        wrong += [
            f"{name}: expected real floats, got {arrays[name].dtype}"
            for name in self.shapes
            if name in arrays and arrays[name].dtype.kind != "f"
        ]
        if wrong:
            raise ValueError("state_dict: " + "; ".join(wrong))
        self._before_change("load_state_dict")
        for name, view in self.params.items():
            view[...] = arrays[name]

    def _before_change(self, what: str) -> None:
        """Called before parameters are overwritten, by ``what``."""

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: views would come back as arrays of their own."""
        return {name: value for name, value in self.__dict__.items() if name != "params"}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__dict__.update(kept)
        # the array itself, which others may have been copied with, unless it is one of another kind (joblib's maps)
        self._flat = np.require(self._flat, requirements=["C", "A", "W", "E"])
        self.params = views_of(self._flat, self.shapes)

    def __copy__(self) -> Parameters:
        return copy.deepcopy(self)


class Recurrent(Parameters):
    """What RNN, LSTM and GRU share."""

    _gates = 1

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: DTypeLike,
        rng: np.random.Generator | int | None,
    ) -> None:
        self.input_size = _size("input_size", input_size)
        self.hidden_size = _size("hidden_size", hidden_size)
        self.num_layers = _size("num_layers", num_layers)
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"num_layers: expected at most {MAX_LAYERS}, got {num_layers}")
        self.proj_size = _size("proj_size", proj_size, 0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size: expected less than hidden_size {hidden_size}, got {proj_size}")
        self.bias, self.batch_first, self.bidirectional = bool(bias), bool(batch_first), bool(bidirectional)
        self.dropout = _probability("dropout", dropout)
        self.dtype = _float_dtype(dtype)
        self.rng = np.random.default_rng(rng)
        directions = 2 if self.bidirectional else 1
        self._stateful = cell == "lstm"
        super().__init__(
            parameter_shapes(
                self._gates,
                self.input_size,
                self.hidden_size,
                self.num_layers,
                self.bias,
                directions,
                self.proj_size,
            ),
            self.dtype,
        )
        # torch.nn's default: uniform within 1 / sqrt(hidden_size), biases too
        bound = 1.0 / np.sqrt(self.hidden_size)
        for start in range(0, self.flat.size, 1 << 20):  # in pieces: the draws are float64
            piece = self.flat[start : start + (1 << 20)]
            piece[:] = self.rng.uniform(-bound, bound, piece.size)
        self._network = _core.Network(
            cell, self.input_size, self.hidden_size, self.proj_size, self.num_layers, self.bidirectional,
            self.bias, self.batch_first, self.dtype == np.float64,
        )  # fmt: skip
        self._arrays = tuple(self.params.values())
        self._weights: Any = self._arrays

    # -- calls --------------------------------------------------------------------------------------------

    def __call__(
        self,
        x: ArrayLike | Ragged | None,
        state: State = None,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        steps: int | None = None,
    ) -> tuple[Any, State]:
        """Inference: nothing is kept.

        Parameters
        ----------
        x : array [T, B, I], [B, T, I] if ``batch_first``, [T, I] unbatched; or Ragged; or None
            Anything NumPy or DLPack can read, any strides; floats are cast to the layer's dtype. None with
            ``steps`` runs without input (biases and recurrent part only).
        state : array [L*D, B, output], or for an LSTM the pair of that and c [L*D, B, H], optional
            Initial state; zeros by default. Without the batch axis for an unbatched ``x``.
        lengths : int array [B], optional
            Steps of each row, any order, zeros allowed. Padded outputs are 0, the final state is that
            after each row's last step, and the reverse direction starts there.
        reset : bool array shaped as ``x`` without its last axis, optional
            True where a step begins a new segment: neither state nor gradient crosses that boundary.
        steps : int, optional
            Number of steps where ``x`` is None.

        Returns
        -------
        y : array [T, B, D*output], laid out as ``x``; Ragged for a Ragged
            Hidden states of the last layer, forward direction first.
        state : as ``state``
            After each row's last step.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, what was expected and what came.
        MemoryError
            Where the outputs cannot be held.
        """
        if lengths is None and (type(x) is _ndarray or not (x is None or isinstance(x, Ragged))):
            return self._network.infer(self._weights, x, state, reset, steps)
        return self._forward(x, state, lengths, reset, steps, False, 0)

    def forward(
        self,
        x: ArrayLike | Ragged | None,
        state: State = None,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        steps: int | None = None,
        checkpoint: int | str | None = None,
    ) -> tuple[Any, State, Any]:
        """Training pass: as a call, and the tape that :meth:`backward` needs.

        The layer stays untouched; any number of tapes can be alive, from any number of threads. The tape
        refers to ``x``, the initial state, ``y`` (which comes back read-only) and the parameters: none
        may change before its backward. Dropout between layers is drawn from the layer's ``rng``.

        Parameters
        ----------
        x, state, lengths, reset, steps
            As in a call.
        checkpoint : int or "auto", optional
            Keep the state only every so many steps and compute the rest again in backward: less memory
            for about a third more time, the same bits (Gruslys et al. 2016). "auto" is about sqrt(T).

        Returns
        -------
        y, state
            As a call.
        tape
            Serves one backward; ``tape.nbytes`` is what it keeps.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> lstm = fastrnn.LSTM(3, 4)
        >>> y, (h_n, c_n), tape = lstm.forward(np.ones((5, 2, 3), np.float32))
        >>> lstm.backward(tape, dy=np.ones_like(y)).x.shape
        (5, 2, 3)
        """
        plain = lengths is None and steps is None and checkpoint is None and not self.dropout
        if plain and type(x) is _ndarray:
            return self._network.forward(
                self._weights, x, state, None, reset, None, False, True, 0, None, 1.0
            )
        return self._forward(x, state, lengths, reset, steps, True, _checkpoint(checkpoint))

    def _forward(
        self,
        x: Any,
        state: State,
        lengths: ArrayLike | None,
        reset: ArrayLike | None,
        steps: int | None,
        keep: bool,
        checkpoint: int,
    ) -> tuple[Any, ...]:
        ragged = isinstance(x, Ragged)
        values, row_lengths = x, lengths
        if ragged:
            if lengths is not None:
                raise ValueError("lengths: expected None with a Ragged x, got an array")
            values, row_lengths = x.values, x.lengths
        if steps is not None:
            steps = _size("steps", steps, 0)
        masks, scale = None, 1.0
        if keep and self.dropout and self.num_layers > 1:
            masks, scale = self._dropout_masks, 1.0 / (1.0 - self.dropout)
        out = self._network.forward(
            self._weights, values, state, row_lengths, reset, steps, ragged, keep, checkpoint, masks, scale
        )
        if not ragged:
            return out
        y = Ragged.__new__(Ragged)
        y.values, y.lengths = out[0], x.lengths
        if not keep:
            return (y, *out[1:])
        return (y, out[1], _RaggedTape(out[2], x.lengths))

    def _dropout_masks(self, positions: int) -> NDArray[np.bool_]:
        """Kept units between layers, drawn once for both passes: [L - 1, positions, D * output]."""
        width = (2 if self.bidirectional else 1) * (self.proj_size or self.hidden_size)
        return self.rng.random((self.num_layers - 1, positions, width), np.float32) >= self.dropout

    def backward(self, tape: Any, dy: ArrayLike | Ragged | None = None, dstate: State = None) -> Gradients:
        """BPTT: gradients of a loss with respect to input, initial state and parameters.

        Parameters
        ----------
        tape
            From :meth:`forward`; it serves one backward.
        dy : array shaped as ``y``, or [B, D*output] for the last step of each row only, optional
            dL/dy. Where the tape came from a Ragged, a Ragged or its values.
        dstate : as the state, optional
            dL/dh_n, or the pair (dL/dh_n, dL/dc_n), either may be None.

        Returns
        -------
        Gradients
            ``.x``, ``.state``, ``.params`` (dict with the keys of ``layer.params``), ``.flat``.

        Raises
        ------
        ValueError
            For a second backward on the same tape, and for wrong shapes.
        """
        ragged = isinstance(tape, _RaggedTape)
        if ragged:
            lengths, tape = tape.lengths, tape.tape
            if not isinstance(dy, Ragged) and dy is not None and (lengths != 1).any():
                total = int(lengths.sum())
                expected = f"a Ragged, since {total} rows may be all steps or the last ones"
                expect(total != len(lengths), "dy", expected, f"shape {np.shape(dy)}")
            if isinstance(dy, Ragged):
                if not np.array_equal(dy.lengths, lengths):
                    expected, got = (
                        np.array2string(np.asarray(a), threshold=8) for a in (lengths, dy.lengths)
                    )
                    raise ValueError(f"dy.lengths: expected {expected}, got {got}")
                dy = dy.values
        elif not isinstance(tape, _core.Tape):
            raise TypeError(f"tape: expected a tape of forward, got {type(tape).__name__}")
        dx, dstate0, flat = self._network.backward(tape, dy, dstate)
        if ragged and dx is not None:
            values, dx = dx, Ragged.__new__(Ragged)
            dx.values, dx.lengths = values, lengths
        return Gradients(dx, dstate0, self.shapes, flat)

    # -- frozen layers --------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Pack the weights once and make the parameters read-only; calls then skip the packing.

        >>> import fastrnn
        >>> lstm = fastrnn.LSTM(3, 4)
        >>> lstm.freeze(); lstm.flat.flags.writeable
        False
        >>> lstm.unfreeze(); lstm.flat.flags.writeable
        True
        """
        if self.frozen:
            return
        self._weights = self._network.pack(self._arrays)
        self._set_writeable(False)

    def unfreeze(self) -> None:
        """Undo :meth:`freeze`."""
        self._weights = self._arrays
        self._set_writeable(True)

    @property
    def frozen(self) -> bool:
        """Whether the weights are packed and read-only."""
        return self._weights is not self._arrays

    def _set_writeable(self, value: bool) -> None:
        self.flat.flags.writeable = value
        for view in self.params.values():
            view.flags.writeable = value

    def _before_change(self, what: str) -> None:
        if self.frozen:
            raise ValueError(f"{what}: the layer is frozen; unfreeze() it first")

    def stream(self, batch_size: int = 1) -> Stream:
        """A running state with packed weights, for one step at a time.

        The weights are packed as they are now (shared, where the layer is frozen). Many streams, also of
        one layer, may run in different threads.

        >>> import numpy as np, fastrnn
        >>> stream = fastrnn.GRU(3, 4).stream()
        >>> stream.step(np.ones(3, np.float32)).shape
        (4,)
        """
        if self.bidirectional:
            raise ValueError("stream: expected a layer of one direction, got a bidirectional one")
        rows = _size("batch_size", batch_size)
        weights = self._weights if self.frozen else self._network.pack(self._arrays)
        return Stream(self, weights, rows)

    # -- description ----------------------------------------------------------------------------------------

    def _options(self) -> list[str]:
        named = [
            ("num_layers", self.num_layers, 1),
            ("bias", self.bias, True),
            ("batch_first", self.batch_first, False),
            ("dropout", self.dropout, 0.0),
            ("bidirectional", self.bidirectional, False),
            ("proj_size", self.proj_size, 0),
        ]
        return [f"{name}={value!r}" for name, value, default in named if value != default]

    def __repr__(self) -> str:
        options = self._options() + ([] if self.dtype == np.float32 else [f"dtype=np.{self.dtype}"])
        return f"{type(self).__name__}({', '.join([str(self.input_size), str(self.hidden_size), *options])})"

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: everything but the core's objects."""
        core = ("_network", "_arrays", "_weights")
        return {k: v for k, v in super().__getstate__().items() if k not in core} | {"frozen": self.frozen}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        super().__setstate__({name: value for name, value in kept.items() if name != "frozen"})
        self._network = _core.Network(
            self._cell_name(), self.input_size, self.hidden_size, self.proj_size, self.num_layers,
            self.bidirectional, self.bias, self.batch_first, self.dtype == np.float64,
        )  # fmt: skip
        self._arrays = tuple(self.params.values())
        self._weights = self._arrays
        if kept["frozen"]:
            self.freeze()

    def _cell_name(self) -> str:
        raise NotImplementedError


class _RaggedTape:
    """A tape whose rows are ragged."""

    __slots__ = ("lengths", "tape")

    def __init__(self, tape: Any, lengths: NDArray[np.int64]) -> None:
        self.tape, self.lengths = tape, lengths

    @property
    def nbytes(self) -> int:
        return int(self.tape.nbytes)


def _checkpoint(value: int | str | None) -> int:
    """Steps between checkpoints; 0: none, -1: as the core chooses, about the square root of all."""
    if isinstance(value, str) and value != "auto":
        raise ValueError(f'checkpoint: expected None, "auto" or a number of steps, got {value!r}')
    return 0 if value is None else -1 if isinstance(value, str) else _size("checkpoint", value)


class RNN(Recurrent):
    """Elman RNN: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or relu (Elman 1990).

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h.
    num_layers : int
        Layers stacked on each other's outputs.
    nonlinearity : {"tanh", "relu"}
    bias : bool
        Whether there are b_ih and b_hh.
    batch_first : bool
        Arrays are [B, T, features] instead of [T, B, features].
    dropout : float
        Probability with which an output of a lower layer is dropped in the training pass.
    bidirectional : bool
        A second set of parameters reads each sequence from its end; outputs are joined.
    dtype : float32 or float64
    rng : numpy Generator or seed, optional
        For the initial parameters (uniform within 1 / sqrt(hidden_size)) and dropout.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> y, h_n = fastrnn.RNN(3, 4)(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h_n.shape
    ((5, 2, 4), (1, 2, 4))
    """

    _gates = 1

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
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        super().__init__(
            f"rnn_{nonlinearity}", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            0, dtype, rng,
        )  # fmt: skip

    def _cell_name(self) -> str:
        return f"rnn_{self.nonlinearity}"

    def _options(self) -> list[str]:
        return super()._options() + (["nonlinearity='relu'"] if self.nonlinearity == "relu" else [])


class LSTM(Recurrent):
    """LSTM with forget gate, gates i, f, g, o (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng
        As :class:`RNN`.
    proj_size : int
        0, or the size to which h is projected (Sak et al. 2014); then y and h have that size, c does not.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> y, (h_n, c_n) = fastrnn.LSTM(3, 4, bidirectional=True)(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h_n.shape, c_n.shape
    ((5, 2, 8), (2, 2, 4), (2, 2, 4))
    """

    _gates = 4

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
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            dtype, rng,
        )  # fmt: skip

    def _cell_name(self) -> str:
        return "lstm"


class GRU(Recurrent):
    """GRU, gates r, z, n (Cho et al. 2014).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng
        As :class:`RNN`.
    reset_after : bool
        True: n = tanh(W_in x + b_in + r * (W_hn h + b_hn)), as PyTorch and cuDNN have it.
        False: n = tanh(W_in x + b_in + W_hn (r * h) + b_hn), as in the first version of the paper.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> y, h_n = fastrnn.GRU(3, 4, num_layers=2)(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h_n.shape
    ((5, 2, 4), (2, 2, 4))
    """

    _gates = 3

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
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.reset_after = bool(reset_after)
        super().__init__(
            self._cell_name(), input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            0, dtype, rng,
        )  # fmt: skip

    def _cell_name(self) -> str:
        return "gru" if self.reset_after else "gru_before"

    def _options(self) -> list[str]:
        return super()._options() + ([] if self.reset_after else ["reset_after=False"])


class Stream:
    """A layer's running state, one step or one chunk at a time; made by ``layer.stream(batch_size)``.

    Equal to the whole-sequence call bit for bit. A step allocates nothing where ``out`` is given and takes
    no lock; a stream belongs to one thread at a time.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> stream = fastrnn.LSTM(1, 8).stream(batch_size=2)
    >>> out = np.empty((2, 8), np.float32)
    >>> _ = stream.step(np.ones((2, 1), np.float32), out=out)
    >>> stream.run(np.ones((10, 2, 1), np.float32)).shape
    (10, 2, 8)
    """

    def __init__(self, layer: Recurrent, weights: Any, batch_size: int) -> None:
        self.batch_size = batch_size
        self._network, self._weights, self._batch_first = layer._network, weights, layer.batch_first
        self._core = _core.Stream(layer._network, weights, batch_size)
        self.step = self._core.step  # x [B, I] or, for one row, [I]; out likewise

    def run(self, x: ArrayLike) -> Array:
        """A chunk of steps [T, B, I] ([B, T, I] if the layer is batch-first, [T, I] for one row)."""
        x = readable("x", x, "an array of real floats")
        shape = x.shape
        unbatched = len(shape) == 2 and self.batch_size == 1
        if not unbatched and (len(shape) != 3 or shape[0 if self._batch_first else 1] != self.batch_size):
            raise ValueError(f"x: expected 3 dimensions with {self.batch_size} rows, got shape {shape}")
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
        """h [L, B, output], or (h, c) for an LSTM: a copy to keep, or set it."""
        return self._core.state

    @state.setter
    def state(self, value: State) -> None:
        self._core.state = value

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Zero the state, of all rows or of those named (indices, or a bool array [B])."""
        self._core.reset(rows)
