"""The base class of RNN, LSTM and GRU: calls into the core."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

import fastrnn._core as _core
from fastrnn._arrays import _float_dtype, _probability, _size, expect
from fastrnn._final_hidden import FinalHidden, State
from fastrnn._parameters import GATES, Array, Changes, Parameters, parameter_shapes
from fastrnn._stream import Stream
from fastrnn._tapes import RaggedTape
from fastrnn.gradients import Gradients
from fastrnn.ragged import Ragged

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_LAYERS = 10_000  # far beyond any use; every layer has named arrays of its own, so more would only hang

# What weights a layer can be frozen with.
WEIGHTS = ("float32", "bfloat16", "int8")

# A global of this module: a short call notices a look-up in another module.
_ndarray = np.ndarray


def warn_needless_dropout(dropout: float, num_layers: int, stacklevel: int) -> None:
    """Warn where dropout has no effect, as PyTorch does."""
    if dropout and num_layers == 1:
        warnings.warn(
            f"dropout: expected num_layers of at least 2 with dropout={dropout}, got 1: it acts between layers",
            stacklevel=stacklevel,
        )


class Recurrent(FinalHidden, Parameters):
    """What RNN, LSTM and GRU share."""

    def __init__(
        self,
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
        warn_needless_dropout(self.dropout, self.num_layers, 4)
        self.dtype = _float_dtype(dtype)
        self.rng = np.random.default_rng(rng)
        super().__init__(self._shapes(), self.dtype)
        # torch.nn's default: uniform within 1 / sqrt(hidden_size), biases too
        bound = 1.0 / np.sqrt(self.hidden_size)
        for start in range(0, self.flat.size, 1 << 20):  # in chunks, because the draws are float64
            chunk = self.flat[start : start + (1 << 20)]
            chunk[:] = self.rng.uniform(-bound, bound, chunk.size)
        self._connect(tuple(self.params.values()))

    def _cell(self) -> str:
        """Return the core's name of the cell."""
        raise NotImplementedError

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(
            GATES[self._cell()], self.input_size, self.hidden_size, self.num_layers, self.bias,
            1 + self.bidirectional, self.proj_size,
        )  # fmt: skip

    def _connect(self, arrays: tuple[Array, ...]) -> None:
        """Make the core's network, with ``arrays`` as its weights."""
        self._network = _core.Network(
            self._cell(), self.input_size, self.hidden_size, self.proj_size, self.num_layers,
            self.bidirectional, self.bias, self.batch_first, self.dtype == np.float64,
        )  # fmt: skip
        self._arrays = arrays
        self._weights: Any = arrays

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
        """Run the layer for inference: no tape is kept.

        Parameters
        ----------
        x : array [T, B, I], [B, T, I] if ``batch_first``, [T, I] unbatched; or Ragged; or None
            Anything that NumPy or DLPack can read, with any strides. Floats are cast to the layer's dtype. With
            None and ``steps`` the layer runs without input: biases and recurrent part only.
        state : array [L*D, B, output], or for an LSTM the pair of that and c [L*D, B, H], optional
            Initial state, by default zeros. It has no batch axis if ``x`` has none.
        lengths : int array [B], optional
            Steps of each sequence, in any order, zeros allowed. Outputs in the padding are 0. The final state is
            that after each sequence's last step, and the reverse direction starts there.
        reset : bool array shaped as ``x`` without its last axis, optional
            True where a step begins a new segment: neither state nor gradient crosses that boundary.
        steps : int, optional
            Number of steps where ``x`` is None.

        Returns
        -------
        y : array [T, B, D*output], laid out as ``x``; Ragged for a Ragged
            Hidden states of the last layer, forward direction first.
        state : as the argument
            After each sequence's last step.

        Raises
        ------
        ValueError, TypeError
            The message names the argument, what was expected and what came.
        MemoryError
            There is no memory for the outputs.
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
        """Run the layer for training: a call that also returns the tape which :meth:`backward` needs.

        The layer itself does not change. Any number of tapes can be alive at once, made by any number of threads.
        A tape refers to ``x``, the initial state, ``y`` (which is read-only) and the parameters: change none of
        them before its backward. If the parameters were changed by an optimiser, ``load_state_dict``, an assignment
        or another function of this package, backward says so. Numbers that are written into the arrays
        (``layer.flat[...] = 0``, ``x[0] = 1``) are not noticed, and the gradient is wrong. Dropout between layers is
        drawn from the layer's ``rng``.

        Parameters
        ----------
        x, state, lengths, reset, steps
            As in a call.
        checkpoint : int or "auto", optional
            Keep the state only every so many steps and compute the rest again in backward. That takes less memory
            and more time, and gives the same bits (Gruslys et al. 2016). "auto" is about sqrt(T).

        Returns
        -------
        y, state
            As from a call.
        tape
            For one backward; ``tape.nbytes`` is the memory that it holds.

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
        values, counts = x, lengths
        if ragged:
            if lengths is not None:
                raise ValueError("lengths: expected None with a Ragged x, got an array")
            values, counts = x.values, x.lengths
            if isinstance(counts, np.ndarray):
                counts = counts.copy()  # the outputs must fit what the core has read, whatever x becomes
        if steps is not None:
            steps = _size("steps", steps, 0)
        masks, scale = None, 1.0
        if keep and self.dropout and self.num_layers > 1:
            masks, scale = self._dropout_masks, 1.0 / (1.0 - self.dropout)
        out = self._network.forward(
            self._weights, values, state, counts, reset, steps, ragged, keep, checkpoint, masks, scale
        )
        if not ragged:
            return out
        y = Ragged._of(out[0], counts)  # type: ignore[arg-type]
        if not keep:
            return (y, *out[1:])
        return (y, out[1], RaggedTape(out[2], counts))  # type: ignore[arg-type]

    def _dropout_masks(self, positions: int) -> NDArray[np.bool_]:
        """Draw which units between layers are kept in both passes: [L - 1, positions, D * output]."""
        width = (1 + self.bidirectional) * (self.proj_size or self.hidden_size)
        return self.rng.random((self.num_layers - 1, positions, width), np.float32) >= self.dropout

    def backward(
        self,
        tape: Any,
        dy: ArrayLike | Ragged | None = None,
        dstate: State = None,
        *,
        dy_last: ArrayLike | None = None,
        need_dx: bool = True,
    ) -> Gradients:
        """Return the gradients of a loss with respect to input, initial state and parameters (BPTT).

        At least one of ``dy``, ``dy_last`` and ``dstate`` is needed.

        Parameters
        ----------
        tape
            From :meth:`forward`. It serves one backward.
        dy : array shaped as ``y``, optional
            dL/dy of all steps. Where ``x`` was a Ragged, a Ragged or its values.
        dstate : as the state, optional
            dL/dh_n, or the pair (dL/dh_n, dL/dc_n), of which either may be None.
        dy_last : array [B, D*output], optional
            dL/dy of each sequence's last step, in place of ``dy``. In a bidirectional layer that is not the gradient
            of the final state: the reverse half of y at the last step is the first step of the reverse direction.
            For the final state use :meth:`final_hidden_backward`.
        need_dx : bool
            Whether dL/dx is computed. Where nobody asks for it, as for the data themselves, leave it out: that
            takes less time.

        Returns
        -------
        Gradients
            ``.x``, ``.state``, ``.params`` (dict with the keys of ``layer.params``), ``.flat``.

        Raises
        ------
        ValueError
            The tape has served a backward before, the parameters have changed since its forward, no gradient is
            given, or a shape does not fit. The tape stays usable, except if it has served.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> lstm = fastrnn.LSTM(3, 4)
        >>> y, state, tape = lstm.forward(np.ones((5, 2, 3), np.float32))
        >>> lstm.backward(tape, dy_last=np.ones((2, 4), np.float32), need_dx=False)
        Gradients(x=None, state=(array(1, 2, 4), array(1, 2, 4)), params=[weight_ih_l0 (16, 3), \
weight_hh_l0 (16, 4), bias_ih_l0 (16,), bias_hh_l0 (16,)], flat[144])
        """
        return self._backward(tape, dy, dstate, dy_last, need_dx)

    def _backward(self, tape: Any, dy: Any, dstate: State, dy_last: Any, need_dx: bool) -> Gradients:
        # The core's warning about the old use of dy points at the caller of the function that calls this one.
        ragged = isinstance(tape, RaggedTape)
        if ragged:
            lengths, tape = tape.lengths, tape.tape
            if not isinstance(dy, Ragged) and dy is not None and (lengths != 1).any():
                total = int(lengths.sum())
                expected = (
                    f"a Ragged or dy_last, since {total} vectors may be of all steps or of the last ones"
                )
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
        no_dstate = dstate is None or (isinstance(dstate, (tuple, list)) and all(d is None for d in dstate))
        if dy is None and dy_last is None and no_dstate:
            raise ValueError("dy: expected a gradient in dy, dy_last or dstate, got none in any of them")
        weights = tape.weights
        if weights is not self._arrays and type(weights) is tuple and weights[0] is self._arrays[0]:
            raise ValueError(
                "tape: expected the parameters to be those of its forward, got others: they were changed since by "
                f"{self._change}. Call backward before you change them, or forward again"
            )
        dx, dstate0, flat = self._network.backward(tape, dy, dstate, need_dx, dy_last)
        if ragged and dx is not None:
            dx = Ragged._of(dx, lengths)
        return Gradients(dx, dstate0, self.shapes, flat)

    # -- frozen layers --------------------------------------------------------------------------------------

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

    def _set_writeable(self, value: bool) -> None:
        self.flat.flags.writeable = value
        for view in self.params.values():
            view.flags.writeable = value

    def _before_change(self, what: str) -> None:
        if self.frozen:
            raise ValueError(f"{what}: the layer is frozen; unfreeze() it first")

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a running state, for one step at a time.

        The stream packs the weights as they are now; streams of a frozen layer share its packed weights. Different
        streams, also of one layer, may run in different threads.

        Parameters
        ----------
        batch_size : int
            Number of sequences that are stepped together.

        Examples
        --------

        >>> import numpy as np, fastrnn
        >>> stream = fastrnn.GRU(3, 4).stream()
        >>> stream.step(np.ones(3, np.float32)).shape
        (4,)
        """
        if self.bidirectional:
            raise ValueError("stream: expected a layer of one direction, got a bidirectional one")
        size = _size("batch_size", batch_size)
        weights = self._weights  # read once: another thread may freeze the layer, or undo that
        if type(weights) is tuple:
            weights = self._network.pack(weights)
        return Stream(self, weights, size)

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
        # The core's objects are made again.
        core = ("_network", "_arrays", "_weights")
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


def _checkpoint(value: int | str | None) -> int:
    """Return the steps between checkpoints; 0 is for none, -1 for the core's choice, about sqrt(T)."""
    if isinstance(value, str) and value != "auto":
        raise ValueError(f'checkpoint: expected None, "auto" or a number of steps, got {value!r}')
    return 0 if value is None else -1 if isinstance(value, str) else _size("checkpoint", value)
