"""The base class of RNN, LSTM and GRU: calls into the core."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

import fastrnn._core as _core
from fastrnn._arrays import _float_dtype, _probability, _size, expect
from fastrnn._cell_options import CellOptions
from fastrnn._final_hidden import FinalHidden, State
from fastrnn._masks import MaskedTape, masked_backward, masked_forward
from fastrnn._parameters import GATES, Array, Changes, Parameters, parameter_shapes
from fastrnn._signatures import BackwardOptions, CallOptions, ForwardOptions, passes_on
from fastrnn._stream import Stream
from fastrnn._tapes import RaggedTape
from fastrnn._trace import trace
from fastrnn.gradients import Gradients
from fastrnn.ragged import Ragged

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

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


MERGES = ("concat", "sum", "mul", "ave")


class Recurrent(FinalHidden, Parameters):
    """What RNN, LSTM and GRU share."""

    _chosen: CellOptions | None = (
        None  # the options of the cells; None in layers that were pickled before there were any
    )
    # layers that were pickled before there were these options have none of them
    reverse = False
    merge = "concat"
    learned_state = False

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
        *,
        reverse: bool = False,
        merge: str = "concat",
        learned_state: bool = False,
        **options: Any,
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
        self._set_directions(reverse, merge)
        self.learned_state = bool(learned_state)
        self.dropout = _probability("dropout", dropout)
        warn_needless_dropout(self.dropout, self.num_layers, 4)
        self.dtype = _float_dtype(dtype)
        self.rng = np.random.default_rng(rng)
        self._chosen = CellOptions(self._cell(), 1 + self.bidirectional, self.proj_size, options)
        super().__init__(self._shapes(), self.dtype)
        # torch.nn's default: uniform within 1 / sqrt(hidden_size), biases too
        bound = 1.0 / np.sqrt(self.hidden_size)
        weights = self.flat[
            : self.flat.size - sum(self.params[n].size for n in ("h_0", "c_0") if n in self.params)
        ]
        for start in range(0, weights.size, 1 << 20):  # in chunks, because the draws are float64
            chunk = weights[start : start + (1 << 20)]
            chunk[:] = self.rng.uniform(-bound, bound, chunk.size)
        self._connect(tuple(self.params.values()))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], prefix: str = "", **options: Any) -> Self:
        """Return a layer with the parameters of a state dict, whose names and shapes say its sizes.

        Parameters
        ----------
        state : dict of str to array
            As of ``torch.nn``: sizes, layers, directions, biases and the projection of an LSTM follow from it. The
            names of a cell (``weight_ih``) are those of a layer of one.
        prefix : str
            What the names of the layer's parameters begin with, such as "gru." in the state dict of a model.
        options
            Of the class, for what no parameter shows: ``batch_first``, ``nonlinearity``, ``reset_after``, ``dropout``.

        Raises
        ------
        ValueError
            The entries are not those of such a layer. The message says which prefix they have.

        Examples
        --------
        >>> import fastrnn
        >>> model = {f"gru.{k}": v for k, v in fastrnn.GRU(3, 4, num_layers=2, bidirectional=True).state_dict().items()}
        >>> fastrnn.GRU.from_state_dict(model, prefix="gru.", batch_first=True)
        GRU(3, 4, num_layers=2, batch_first=True, bidirectional=True)
        """
        from fastrnn._state_dicts import options_of

        cell = next(c.__name__ for c in cls.__mro__ if c.__name__ in ("RNN", "LSTM", "GRU"))
        found, arrays = options_of(cell, state, prefix)
        layer = cls(**found | options)
        layer.load_state_dict(arrays)
        return layer

    def _cell(self) -> str:
        """Return the core's name of the cell."""
        raise NotImplementedError

    def _set_directions(self, reverse: bool, merge: str) -> None:
        """Check and keep the options that say how the directions read and what becomes of their outputs."""
        self.reverse, self.merge = bool(reverse), merge
        one = "False with bidirectional=True, which reads both ways"
        expect(not (self.reverse and self.bidirectional), "reverse", one, "True")
        expect(merge in MERGES, "merge", "'concat', 'sum', 'mul' or 'ave'", repr(merge))
        fits = self.bidirectional or merge == "concat"
        expect(fits, "merge", "'concat' without bidirectional=True", repr(merge))

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(
            GATES[self._cell()], self.input_size, self.hidden_size, self.num_layers, self.bias,
            1 + self.bidirectional, self.proj_size,
            merge=self.merge, states=self._states() if self.learned_state else 0,
            peepholes=self._chosen is not None and self._chosen.peepholes,
        )  # fmt: skip

    def _states(self) -> int:
        """Return how many arrays the state has."""
        return 2 if self._cell() == "lstm" else 1

    @property
    def _output_width(self) -> int:
        """Numbers of a step of y."""
        directions = 1 + (self.bidirectional and self.merge == "concat")
        return directions * (self.proj_size or self.hidden_size)

    def _connect(self, arrays: tuple[Array, ...]) -> None:
        """Make the core's network, with ``arrays`` as its weights."""
        self._network = _core.Network(
            self._cell(), self.input_size, self.hidden_size, self.proj_size, self.num_layers,
            self.bidirectional, self.bias, self.batch_first, self.dtype == np.float64, self.reverse, self.merge,
            self.learned_state, None if self._chosen is None else self._chosen.core(),
        )  # fmt: skip
        self._arrays = arrays
        self._weights: Any = arrays

    # -- calls --------------------------------------------------------------------------------------------

    def _call(
        self,
        x: ArrayLike | Ragged | None,
        state: State,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        steps: int | None = None,
        mask: ArrayLike | None = None,
        return_layers: bool = False,
    ) -> tuple[Any, ...]:
        taken = type(x) is _ndarray or not (x is None or isinstance(x, Ragged))
        if taken and lengths is None and mask is None and not return_layers:
            return self._network.infer(self._weights, x, state, reset, steps)
        return self._forward(x, state, lengths, reset, steps, False, 0, mask, return_layers)

    @passes_on(_call)
    def __call__(
        self, x: ArrayLike | Ragged | None, state: State = None, **options: Unpack[CallOptions]
    ) -> tuple[Any, ...]:
        """Run the layer for inference: no tape is kept.

        Parameters
        ----------
        x : array [T, B, I], [B, T, I] if ``batch_first``, [T, I] unbatched; or Ragged; or None
            Anything that NumPy or DLPack can read, with any strides. Floats are cast to the layer's dtype. With
            None and ``steps`` the layer runs without input: biases and recurrent part only.
        state : array [L*D, B, output], or for an LSTM the pair of that and c [L*D, B, H], optional
            Initial state, by default zeros, or the parameters h_0 and c_0 with ``learned_state``. It has no batch axis
            if ``x`` has none.
        lengths : int array [B], optional
            Steps of each sequence, in any order, zeros allowed. Outputs in the padding are 0. The final state is
            that after each sequence's last step, and the reverse direction starts there.
        reset : bool array shaped as ``x`` without its last axis, optional
            True where a step begins a new segment: neither state nor gradient crosses that boundary.
        steps : int, optional
            Number of steps where ``x`` is None.
        mask : bool array shaped as ``x`` without its last axis, optional
            Steps with False are skipped, as in Keras: the state stays what it was, and ``y`` repeats that of the step
            which the direction took before, or is 0 where there is none. A reset there acts at the next step that is
            taken. The steps that are taken have the bits of a Ragged of them alone.
        return_layers : bool
            Whether the outputs of every layer are returned too.

        Returns
        -------
        y : array [T, B, D*output], laid out as ``x``; Ragged for a Ragged
            Hidden states of the last layer, forward direction first; [T, B, output] where ``merge`` joins them.
        state : as the argument
            After each sequence's last step; of a direction that starts there, after the first one.
        layers : list of arrays as ``y``
            With ``return_layers``: what each layer handed on, ``y`` last.

        Raises
        ------
        ValueError, TypeError
            The message names the argument, what was expected and what came.
        MemoryError
            There is no memory for the outputs.
        """
        if type(x) is _ndarray and not options:
            return self._network.infer(self._weights, x, state, None, None)
        return self._call(x, state, **options)

    def _train(
        self,
        x: ArrayLike | Ragged | None,
        state: State,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        steps: int | None = None,
        mask: ArrayLike | None = None,
        return_layers: bool = False,
        checkpoint: int | str | None = None,
    ) -> tuple[Any, ...]:
        every = _checkpoint(checkpoint)
        return self._forward(x, state, lengths, reset, steps, True, every, mask, return_layers)

    @passes_on(_train)
    def forward(
        self, x: ArrayLike | Ragged | None, state: State = None, **options: Unpack[ForwardOptions]
    ) -> tuple[Any, ...]:
        """Run the layer for training: a call that also returns the tape which :meth:`backward` needs.

        The layer itself does not change. Any number of tapes can be alive at once, made by any number of threads.
        A tape refers to ``x``, the initial state, ``y`` (which is read-only) and the parameters: change none of
        them before its backward. If the parameters were changed by an optimiser, ``load_state_dict``, an assignment
        or another function of this package, backward says so. Numbers that are written into the arrays
        (``layer.flat[...] = 0``, ``x[0] = 1``) are not noticed, and the gradient is wrong. Dropout between layers is
        drawn from the layer's ``rng``.

        Parameters
        ----------
        x, state, lengths, reset, steps, mask, return_layers
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
        layers
            With ``return_layers``, as from a call; before dropout.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> lstm = fastrnn.LSTM(3, 4)
        >>> y, (h_n, c_n), tape = lstm.forward(np.ones((5, 2, 3), np.float32))
        >>> lstm.backward(tape, dy=np.ones_like(y)).x.shape
        (5, 2, 3)
        """
        chosen = self._chosen
        draws = self.dropout or (chosen is not None and chosen.draws)
        if type(x) is _ndarray and not options and not draws:
            return self._network.forward(self._weights, x, state, None, None, None, False, True, 0, None, 1.0)
        return self._train(x, state, **options)

    def _forward(
        self,
        x: Any,
        state: State,
        lengths: ArrayLike | None,
        reset: ArrayLike | None,
        steps: int | None,
        keep: bool,
        checkpoint: int,
        mask: ArrayLike | None = None,
        layers: bool = False,
    ) -> tuple[Any, ...]:
        if mask is not None:
            expect(steps is None, "steps", "None with a mask", steps)
            return masked_forward(self, x, state, mask, lengths, reset, keep, checkpoint, layers)
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
        if keep and self._draws:
            masks, scale = self._draw, 1.0 / (1.0 - self.dropout)
        run = self._network.forward_layers if layers else self._network.forward
        out = run(self._weights, values, state, counts, reset, steps, ragged, keep, checkpoint, masks, scale)
        if not ragged:
            return out
        n: Any = counts
        y = Ragged._of(out[0], n)
        tape = (RaggedTape(out[2], n),) if keep else ()
        return (
            y,
            out[1],
            *tape,
            *([*(Ragged._of(a, n) for a in hidden[:-1]), y] for hidden in out[2 + keep :]),
        )

    @property
    def _draws(self) -> bool:
        """Whether a training pass draws anything."""
        chosen = self._chosen
        return bool(self.dropout and self.num_layers > 1) or (chosen is not None and chosen.draws)

    def _draw(self, positions: int, rows: int) -> tuple[Any, ...]:
        """Draw the masks of dropout, [L - 1, positions, D * output], and what cells need, for both passes."""
        directions, output = 1 + self.bidirectional, self.proj_size or self.hidden_size
        masks, drawn = None, (None,) * 4
        if self.dropout and self.num_layers > 1:
            shape = (self.num_layers - 1, positions, self._output_width)
            masks = self.rng.random(shape, np.float32) >= self.dropout
        if self._chosen is not None and self._chosen.draws:
            drawn = self._chosen.draw(
                self.rng, self.num_layers * directions, positions, rows, self.hidden_size, output, self.dtype
            )
        return masks, *drawn

    def _backward(
        self,
        tape: Any,
        dy: Any,
        dstate: State,
        dy_last: Any = None,
        need_dx: bool = True,
        dlayers: Any = None,
    ) -> Gradients:
        if dlayers is not None:
            dy, dlayers = self._split_dlayers(dy, dy_last, dlayers)
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
            if dlayers is not None:
                dlayers = [d.values if isinstance(d, Ragged) else d for d in dlayers]
        elif not isinstance(tape, _core.Tape):
            if type(tape) is MaskedTape:
                return masked_backward(self, tape, dy, dstate, dy_last, need_dx, dlayers)
            raise TypeError(f"tape: expected a tape of forward, got {type(tape).__name__}")
        no_dstate = dstate is None or (isinstance(dstate, (tuple, list)) and all(d is None for d in dstate))
        if dy is None and dy_last is None and no_dstate and dlayers is None:
            raise ValueError("dy: expected a gradient in dy, dy_last or dstate, got none in any of them")
        weights = tape.weights
        if weights is not self._arrays and type(weights) is tuple and weights[0] is self._arrays[0]:
            raise ValueError(
                "tape: expected the parameters to be those of its forward, got others: they were changed since by "
                f"{self._change}. Call backward before you change them, or forward again"
            )
        if dlayers is None:
            dx, dstate0, flat = self._network.backward(tape, dy, dstate, need_dx, dy_last)
        else:
            dx, dstate0, flat = self._network.backward_layers(tape, dy, dstate, need_dx, dy_last, dlayers)
        if ragged and dx is not None:
            dx = Ragged._of(dx, lengths)
        return Gradients(dx, dstate0, self.shapes, flat)

    @passes_on(_backward)
    def backward(
        self,
        tape: Any,
        dy: ArrayLike | Ragged | None = None,
        dstate: State = None,
        **options: Unpack[BackwardOptions],
    ) -> Gradients:
        """Return the gradients of a loss with respect to input, initial state and parameters (BPTT).

        At least one of ``dy``, ``dy_last``, ``dstate`` and ``dlayers`` is needed.

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
        dlayers : list of arrays as the layers of ``return_layers``, optional
            dL/d(outputs) of every layer, any of which may be None. That of the last layer is ``dy``, so at most one of
            the two is given.

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
        return self._backward(tape, dy, dstate, **options) if options else self._backward(tape, dy, dstate)

    def _split_dlayers(self, dy: Any, dy_last: Any, dlayers: Any) -> tuple[Any, Any]:
        """Return dL/dy, and the gradients of the layers below the last or None where there are none."""
        listed = isinstance(dlayers, (list, tuple)) and len(dlayers) == self.num_layers
        got = f"{len(dlayers)} entries" if isinstance(dlayers, (list, tuple)) else type(dlayers).__name__
        expect(listed, "dlayers", f"a list of {self.num_layers}, one for each layer", got)
        *below, top = dlayers
        if top is not None:
            given = "dy" if dy is not None else "dy_last" if dy_last is not None else ""
            expect(not given, "dlayers", f"None for the last layer where {given} is given", "an array")
            dy = top
        return dy, below if any(d is not None for d in below) else None

    def trace(
        self,
        x: ArrayLike | Ragged,
        state: State = None,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Return states, gates and pre-activations of every step, of every layer and direction.

        They are computed by the equations of `fastrnn.reference` in float64 and rounded to the layer's dtype. So they
        are for looking at, and much slower than a call; h equals that of a call up to rounding. Dropout is left out.

        Parameters
        ----------
        x, state, lengths, reset
            As in a call. ``x`` is given.

        Returns
        -------
        dict of str to array [T, B, .], laid out as ``x``; to Ragged for a Ragged
            The names end as those of the parameters do: "h_l0", "h_l0_reverse". An LSTM has the gates i, f, g, o and
            the states c and h, a GRU the gates r, z, n and h, an RNN h. "a_i" and so on are the pre-activations (an
            RNN's is "a"). All are 0 beyond the length of a sequence.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> inside = fastrnn.LSTM(3, 4, num_layers=2).trace(np.ones((5, 2, 3), np.float32))
        >>> inside["f_l1"].shape
        (5, 2, 4)
        >>> list(fastrnn.GRU(3, 4).trace(np.ones((5, 3), np.float32)))
        ['r_l0', 'z_l0', 'n_l0', 'a_r_l0', 'a_z_l0', 'a_n_l0', 'h_l0']
        """
        return trace(self, x, state, lengths, reset)

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

    def _gate_rows(self, name: str) -> int:
        return 0 if name.startswith(("weight_hr", "h_0", "c_0")) else self.hidden_size

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
        if self.reverse:
            raise ValueError("stream: expected a layer that reads forward, got one with reverse=True")
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
            ("reverse", self.reverse, False),
            ("merge", self.merge, "concat"),
            ("learned_state", self.learned_state, False),
        ]
        chosen = self._chosen.described() if self._chosen else []
        return [f"{name}={value!r}" for name, value, default in named if value != default] + chosen

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
