"""The layers in plain NumPy: the equations to read, and the results that the core is tested against.

Nothing here is fast. The equations of one step are in `fastrnn.reference.cells`; `forward` and `backward` run them over
layers, directions and time. All arrays are time-major; for ``batch_first``, transpose before and after.

Examples
--------
>>> import numpy as np
>>> params = {"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.ones((1, 1))}
>>> y, h_n, tape = forward("rnn_relu", np.ones((3, 1, 1)), None, params)
>>> y.ravel()
array([1., 2., 3.])
>>> dx, dh_0, dparams = backward(tape, None, np.ones((1, 1, 1)))
>>> dx.ravel(), dparams["weight_hh_l0"]
(array([1., 1., 1.]), array([[3.]]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn.reference.cells import CELLS, Array, Cell, Params, State
from fastrnn.reference.low_precision import INT8_CELLS, quantize, quantized_parameters, round_to_bfloat16

__all__ = ["CELLS", "Tape", "backward", "forward", "infer", "quantize", "round_to_bfloat16"]


class Tape(NamedTuple):
    """What `backward` needs of a call of `forward`."""

    kind: str
    params: dict[str, Array]
    masks: Sequence[Array] | None
    state: State  # initial, each [L D, B, .]
    shape: tuple[int, int]  # T, B
    passes: list[Any]  # one list of steps for each layer and direction

    def __repr__(self) -> str:
        steps, batch = self.shape
        return f"Tape({self.kind!r}, T={steps}, B={batch}, passes={len(self.passes)})"


def suffixes(params: Params) -> list[list[str]]:
    """Return the endings of the parameter names: a list for each layer, with an ending for each direction.

    >>> suffixes({"weight_ih_l0": 0, "weight_ih_l0_reverse": 0})
    [['_l0', '_l0_reverse']]
    """
    ends: list[list[str]] = []
    while f"weight_ih_l{len(ends)}" in params:
        layer = f"_l{len(ends)}"
        ends.append([layer + end for end in ("", "_reverse") if "weight_ih" + layer + end in params])
    return ends


def select(params: Params, suffix: str) -> dict[str, Array]:
    """Return the parameters whose names have one ending, and take it off their names.

    >>> select({"bias_hh_l0": 1, "bias_hh_l1": 2}, "_l1")
    {'bias_hh': 2}
    """
    return {key[: -len(suffix)]: params[key] for key in params if key.endswith(suffix)}


def run(
    cell: Cell, x: Array, state: State, p: Params, lengths: Array, reset: Array, reverse: bool
) -> tuple[Array, State, list[Any]]:
    """Run one layer in one direction; return outputs ``[T, B, H]``, final state, and the steps in the order of running.

    A step computes only the sequences that have not ended, so the padding is never read. ``reset`` at t cuts between
    t - 1 and t, in either direction.
    """
    steps, batch = x.shape[:2]
    y = np.zeros((steps, batch, state[0].shape[1]), x.dtype)
    state = tuple(s.copy() for s in state)
    made: list[Any] = []
    for t in reversed(range(steps)) if reverse else range(steps):
        rows = np.flatnonzero(t < lengths)
        boundary = t + 1 if reverse else t
        cut = (boundary < lengths[rows]) & reset[boundary, rows]
        before = tuple(np.where(cut[:, None], 0, s[rows]).astype(x.dtype) for s in state)
        after, saved = cell.forward(x[t, rows], before, p)
        for s, new in zip(state, after, strict=True):
            s[rows] = new
        y[t, rows] = after[0]
        made.append((t, rows, cut, saved))
    return y, state, made


def run_backward(
    cell: Cell, dy: Array, dstate: State, p: Params, g: dict[str, Array], inputs: int, made: list[Any]
) -> tuple[Array, State]:
    """Run `run` backward: the same steps in the opposite order."""
    dx = np.zeros((*dy.shape[:2], inputs), dy.dtype)
    dstate = tuple(d.copy() for d in dstate)
    for t, rows, cut, saved in reversed(made):
        dh, *rest = (d[rows] for d in dstate)
        dx[t, rows], dbefore = cell.backward((dh + dy[t, rows], *rest), saved, p, g)
        for d, new in zip(dstate, dbefore, strict=True):
            d[rows] = np.where(cut[:, None], 0, new)
    return dx, dstate


def forward(
    kind: str,
    x: Array | None,
    state: Any,
    params: Params,
    *,
    steps: int | None = None,
    lengths: Any = None,
    reset: Any = None,
    masks: Sequence[Array] | None = None,
) -> tuple[Array, Any, Tape]:
    """Run a stack of recurrent layers over a batch of sequences.

    Parameters
    ----------
    kind : {"rnn_tanh", "rnn_relu", "lstm", "gru", "gru_before"}
        The cell.
    x : array [T, B, I] or None
        Input; None is the same as ``steps`` inputs of zeros.
    state : array [L*D, B, H], or for the LSTM a pair (h_0 [L*D, B, H or P], c_0 [L*D, B, H]), or None for zeros
        Initial state of every layer and direction.
    params : dict
        Parameters with the names and shapes of ``torch.nn``. The names tell the number of layers and directions, and
        whether there are biases and a projection. The results have the dtype of the parameters.
    steps : int, optional
        T, where ``x`` is None.
    lengths : int array [B], optional
        Valid steps of each sequence. Outputs beyond them are 0, and the reverse direction starts at the last of them.
    reset : bool array [T, B], optional
        True where a step begins a new segment: neither state nor gradient crosses that boundary.
    masks : list of L - 1 arrays [T, B, D*H], optional
        Factors between one layer and the next (dropout masks, scaling included).

    Returns
    -------
    y : array [T, B, D*H] (D*P with projection)
        Hidden states of the last layer.
    state : as the argument
        State of each layer and direction after each sequence's last step.
    tape : Tape
        For `backward`.

    Examples
    --------
    >>> params = {"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.ones((1, 1))}
    >>> forward("rnn_relu", np.ones((3, 2, 1)), None, params, lengths=[3, 1])[0][:, :, 0].T
    array([[1., 2., 3.],
           [1., 0., 0.]])
    """
    y, last, first, shape, passes = _run_layers(
        CELLS[kind], dict, x, state, params, steps, lengths, reset, masks
    )
    return y, last, Tape(kind, dict(params), masks, first, shape, passes)


def infer(
    kind: str,
    x: Array | None,
    state: Any,
    params: Params,
    *,
    weights: str = "float32",
    steps: int | None = None,
    lengths: Any = None,
    reset: Any = None,
) -> tuple[Array, Any]:
    """Run inference with weights of the type that a layer is frozen with; see `fastrnn.reference.low_precision`.

    Parameters
    ----------
    kind, x, state, params, steps, lengths, reset
        As in `forward`.
    weights : {"float32", "bfloat16", "int8"}
        Types other than "float32" expect parameters of float32.

    Returns
    -------
    y, state
        As from `forward`.

    Examples
    --------
    >>> params = {"weight_ih_l0": np.float32([[1.001]]), "weight_hh_l0": np.float32([[0.5]])}
    >>> infer("rnn_relu", np.ones((2, 1, 1), np.float32), None, params, weights="bfloat16")[0].ravel()
    array([1. , 1.5], dtype=float32)
    """
    if weights not in ("float32", "bfloat16", "int8"):
        raise ValueError(f"weights: expected 'float32', 'bfloat16' or 'int8', got {weights!r}")
    small = weights == "int8"
    if weights == "bfloat16":
        params = {
            name: round_to_bfloat16(value) if name.startswith("weight") else value
            for name, value in params.items()
        }
    cell, prepare = (INT8_CELLS[kind], quantized_parameters) if small else (CELLS[kind], dict)
    return _run_layers(cell, prepare, x, state, params, steps, lengths, reset, None)[:2]


def _run_layers(
    cell: Cell,
    prepare: Any,
    x: Array | None,
    state: Any,
    params: Params,
    steps: int | None,
    lengths: Any,
    reset: Any,
    masks: Sequence[Array] | None,
) -> tuple[Array, Any, State, tuple[int, int], list[Any]]:
    """Run all layers, with what ``prepare`` makes of the parameters of one layer and direction."""
    ends, dtype = suffixes(params), params["weight_ih_l0"].dtype
    if x is None:
        if steps is None:
            raise TypeError("steps: expected an int when x is None, got None")
        h_0 = state[0] if cell.states == 2 and state is not None else state
        rows = len(lengths) if lengths is not None else 1 if h_0 is None else h_0.shape[1]
        x = np.zeros((steps, rows, params["weight_ih_l0"].shape[1]))
    steps, batch = x.shape[:2]
    hidden = params["weight_hh_l0"].shape[0] // cell.gates
    widths = (params["weight_hh_l0"].shape[1], hidden)[: cell.states]
    if state is None:
        first: State = tuple(np.zeros((len(ends) * len(ends[0]), batch, w), dtype) for w in widths)
    else:
        first = tuple(np.asarray(s, dtype) for s in (state if cell.states == 2 else (state,)))
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    # one more step than there are, because the reverse direction looks at the one after the last
    segments = np.zeros((steps + 1, batch), bool)
    if reset is not None:
        segments[:steps] = reset

    y = np.asarray(x, dtype)
    last: list[State] = []
    passes: list[Any] = []
    for layer, directions in enumerate(ends):
        if layer and masks is not None:
            y = y * masks[layer - 1]
        outputs = []
        for direction, suffix in enumerate(directions):
            start = tuple(s[len(last)] for s in first)
            p = prepare(select(params, suffix))
            h, end, made = run(cell, y, start, p, lengths, segments, direction == 1)
            outputs.append(h)
            last.append(end)
            passes.append(made)
        y = np.concatenate(outputs, axis=2)
    final = tuple(np.stack(s) for s in zip(*last, strict=True))
    return y, final if cell.states == 2 else final[0], first, (steps, batch), passes


def backward(tape: Tape, dy: Array | None = None, dstate: Any = None) -> tuple[Array, Any, dict[str, Array]]:
    """Return the gradients of everything that `forward` took, by backpropagation through time.

    Parameters
    ----------
    tape : Tape
        From `forward`.
    dy : array [T, B, D*H], optional
        dL/dy; None for zeros. Its padding is not read.
    dstate : as the state of `forward`, optional
        dL/d(last state); None for zeros.

    Returns
    -------
    dx : array [T, B, I]
        dL/dx, zero in the padding.
    dstate : as the state of `forward`
        dL/d(initial state).
    dparams : dict
        dL/dparams, with the names of the parameters.

    Examples
    --------
    >>> params = {"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.ones((1, 1))}
    >>> y, h_n, tape = forward("rnn_relu", np.ones((3, 1, 1)), None, params, reset=[[False], [True], [False]])
    >>> dx, dh_0, dparams = backward(tape, dy=np.array([0.0, 0.0, 1.0]).reshape(3, 1, 1))
    >>> dx.ravel()
    array([0., 1., 1.])
    """
    cell, params, ends = CELLS[tape.kind], tape.params, suffixes(tape.params)
    dtype, directions = params["weight_ih_l0"].dtype, len(ends[0])
    width = tape.state[0].shape[2]
    if dstate is None:
        dlast: State = tuple(np.zeros_like(s) for s in tape.state)
    else:
        dlast = tuple(np.asarray(s, dtype) for s in (dstate if cell.states == 2 else (dstate,)))
    dout = np.zeros((*tape.shape, directions * width), dtype) if dy is None else np.asarray(dy, dtype)

    dparams = {key: np.zeros_like(value) for key, value in params.items()}
    dfirst = tuple(np.zeros_like(s) for s in tape.state)
    for layer in reversed(range(len(ends))):
        inputs = params["weight_ih" + ends[layer][0]].shape[1]
        dx = np.zeros((*tape.shape, inputs), dtype)
        for direction, suffix in enumerate(ends[layer]):
            k = layer * directions + direction
            dx_one, dstart = run_backward(
                cell,
                dout[:, :, direction * width : (direction + 1) * width],
                tuple(d[k] for d in dlast),
                select(params, suffix),
                select(dparams, suffix),  # the arrays themselves, which product_backward adds to
                inputs,
                tape.passes[k],
            )
            dx += dx_one
            for d, value in zip(dfirst, dstart, strict=True):
                d[k] = value
        dout = dx * tape.masks[layer - 1] if layer and tape.masks is not None else dx
    return dout, dfirst if cell.states == 2 else dfirst[0], dparams
