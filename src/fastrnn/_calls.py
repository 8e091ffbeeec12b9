"""Calls of a recurrent layer: inference, the training pass and its way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

import fastrnn._core as _core
from fastrnn._arrays import _size, expect
from fastrnn._cell_options import CellOptions
from fastrnn._final_hidden import State
from fastrnn._frozen import Frozen
from fastrnn._masks import MaskedTape, masked_backward, masked_forward
from fastrnn._signatures import BackwardOptions, CallOptions, ForwardOptions, passes_on
from fastrnn._tapes import RaggedTape
from fastrnn.gradients import Gradients
from fastrnn.ragged import Ragged

if TYPE_CHECKING:
    from typing_extensions import Unpack

# A global of this module: a short call notices a look-up in another module.
_ndarray = np.ndarray


class Calls(Frozen):
    """What runs a recurrent layer forward and back."""

    input_size: int
    num_layers: int
    proj_size: int
    batch_first: bool
    bidirectional: bool
    dropout: float
    rng: np.random.Generator
    # layers that were pickled before there were these options have none of them
    reverse = False
    merge = "concat"
    learned_state = False
    _chosen: CellOptions | None = None  # the options of the cells

    @property
    def _output_width(self) -> int:
        """Numbers of a step of y."""
        raise NotImplementedError

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
            return self._infer(self._weights, x, state, reset, steps)
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
            return self._infer(self._weights, x, state, None, None)
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


def _checkpoint(value: int | str | None) -> int:
    """Return the steps between checkpoints; 0 is for none, -1 for the core's choice, about sqrt(T)."""
    if isinstance(value, str) and value != "auto":
        raise ValueError(f'checkpoint: expected None, "auto" or a number of steps, got {value!r}')
    return 0 if value is None else -1 if isinstance(value, str) else _size("checkpoint", value)
