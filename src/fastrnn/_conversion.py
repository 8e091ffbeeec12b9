"""What the readers of other libraries' files share: the order of gates, options by name, layers from arrays."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn._recurrent import Recurrent
from fastrnn.layers import GRU, LSTM, RNN

Array = NDArray[Any]

CELLS: dict[str, type[Recurrent]] = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

# Where another library keeps the gates that torch.nn has in the order i, f, g, o (LSTM) and r, z, n (GRU).
ONNX_ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}  # LSTM i, o, f, c; GRU z, r, h
KERAS_ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 1, 2, 3)}  # LSTM i, f, c, o; GRU z, r, h

# What every cell computes if nothing else is said.
ACTIVATIONS = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}


def reordered(rows: Array, order: Sequence[int]) -> Array:
    """Return the blocks of rows in another order: row block k of the result is block ``order[k]`` of ``rows``."""
    blocks = rows.reshape(len(order), -1, *rows.shape[1:])
    return np.ascontiguousarray(blocks[list(order)]).reshape(rows.shape)


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """Return the order that undoes another one."""
    return tuple(int(k) for k in np.argsort(order))


@dataclass(frozen=True)
class Weights:
    """The weights of one direction of one layer, gates in the order of torch.nn.

    ``peepholes`` are those of the gates i, f and o: [3, H].
    """

    weight_ih: Array  # [gates * H, I]
    weight_hh: Array  # [gates * H, H]
    bias_ih: Array | None = None  # [gates * H]
    bias_hh: Array | None = None
    peepholes: Array | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """Features of x and of h."""
        return self.weight_ih.shape[1], self.weight_hh.shape[1]


def build(
    where: str,
    cell: str,
    levels: Sequence[Sequence[Weights]],
    state: Mapping[str, Array] | None = None,
    **options: Any,
) -> Recurrent:
    """Return a layer with these weights.

    Parameters
    ----------
    where : str
        Names the part of the file, for messages.
    cell : {"RNN", "LSTM", "GRU"}
    levels : list of lists of Weights
        A list for each layer, with one entry for each direction. Their shapes must have been checked.
    state : dict of "h_0" and "c_0" to arrays [L * D, H], optional
        Learned initial states.
    options
        Of the layer's class. Those that are None are not passed.

    Raises
    ------
    ValueError
        The layer does not have an option, or refuses its value; or a level does not fit the one below.
    """
    first = levels[0][0]
    directions = len(levels[0])
    options = {name: value for name, value in options.items() if value is not None}
    options["bias"] = first.bias_ih is not None
    if directions == 2:
        options["bidirectional"] = True
    if len(levels) > 1:
        options["num_layers"] = len(levels)
    if first.peepholes is not None:
        options["peepholes"] = True
    if state is not None:
        options["learned_state"] = True
    if first.weight_ih.dtype == np.float64:
        options["dtype"] = np.float64
    params: dict[str, Array] = dict(state or {})
    for level, pair in enumerate(levels):
        for suffix, weights in zip(("", "_reverse"), pair, strict=False):
            params |= _named(f"_l{level}{suffix}", weights)
    layer = make(where, cell, *first.sizes, **options)
    if state is not None:
        params |= {name: params[name].reshape(layer.shapes[name]) for name in state}
    try:
        layer.load_state_dict(params)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return layer


def make(where: str, cell: str, input_size: int, hidden_size: int, **options: Any) -> Recurrent:
    """Return a layer with these options, or refuse by name the one that it does not have or take."""
    known = inspect.signature(CELLS[cell]).parameters
    for name, value in options.items():
        expect(name in known, f"{where}: {name}", f"an {cell} without it", repr(value))
    try:
        return CELLS[cell](input_size, hidden_size, rng=0, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _named(end: str, weights: Weights) -> dict[str, Array]:
    """Return the weights of a direction by the names of the layer's parameters."""
    arrays = {"weight_ih": weights.weight_ih, "weight_hh": weights.weight_hh}
    if weights.bias_ih is not None:
        assert weights.bias_hh is not None
        arrays |= {"bias_ih": weights.bias_ih, "bias_hh": weights.bias_hh}
    if weights.peepholes is not None:
        arrays |= dict(zip(("weight_ci", "weight_cf", "weight_co"), weights.peepholes, strict=True))
    return {name + end: array for name, array in arrays.items()}


def option(layer: Recurrent, name: str, default: Any = None) -> Any:
    """Return an option of a layer, which the layer itself or the options of its cells hold."""
    given: Mapping[str, Any] = getattr(getattr(layer, "_chosen", None), "given", {})
    return given.get(name, getattr(layer, name, default))


def functions_of(layer: Recurrent, cell: str) -> tuple[tuple[Any, ...], ...] | None:
    """Return the activations of each direction in the order of `ACTIVATIONS`; None where gates have different ones."""
    directions = 1 + layer.bidirectional
    chosen = getattr(layer, "_chosen", None)
    if chosen is None:
        last = getattr(layer, "nonlinearity", ACTIVATIONS[cell][-1])
        return ((*ACTIVATIONS[cell][:-1], last),) * directions
    found = []
    for each in chosen.functions:  # of every gate, and of the output of an LSTM
        gates = [each[k] for k in ((0, 1, 3) if cell == "LSTM" else (0, 1) if cell == "GRU" else ())]
        if len(set(gates)) > 1:
            return None
        found.append((*gates[:1], *((each[2], each[4]) if cell == "LSTM" else each[-1:])))
    return tuple(found)


def activations(cell: str, functions: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return the options that say a layer's activations.

    Parameters
    ----------
    functions : list of lists
        For each direction its functions: a name, or (name, alpha) or (name, alpha, beta).
    """
    default = ACTIVATIONS[cell]
    each = [tuple(f) for f in functions]
    if all(f == default for f in each):
        return {}
    if cell == "RNN" and all(f == ("relu",) for f in each):
        return {"nonlinearity": "relu"}
    same = all(f == each[0] for f in each)
    return {"activations": each[0] if same else tuple(each)}
