"""The base class of RNN, LSTM and GRU: their sizes, options and parameters, and their network in the core."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

import fastrnn._core as _core
from fastrnn._arrays import _float_dtype, _probability, _size, expect
from fastrnn._calls import Calls
from fastrnn._cell_options import CellOptions
from fastrnn._final_hidden import FinalHidden, State
from fastrnn._parameters import GATES, Array, parameter_shapes
from fastrnn._stream import Stream
from fastrnn._trace import trace
from fastrnn.ragged import Ragged

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_LAYERS = 10_000  # far beyond any use; every layer has named arrays of its own, so more would only hang


def warn_needless_dropout(dropout: float, num_layers: int, stacklevel: int) -> None:
    """Warn where dropout has no effect, as PyTorch does."""
    if dropout and num_layers == 1:
        warnings.warn(
            f"dropout: expected num_layers of at least 2 with dropout={dropout}, got 1: it acts between layers",
            stacklevel=stacklevel,
        )


MERGES = ("concat", "sum", "mul", "ave")


class Recurrent(FinalHidden, Calls):
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
        self._infer = self._network.infer  # bound once: a short call notices the making of a method
        self._arrays = self._weights = arrays

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
