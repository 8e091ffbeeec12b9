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

__all__ = ["CELLS", "Tape", "backward", "forward"]


class Tape(NamedTuple):
    """What `backward` needs of a call of `forward`."""

    kind: str
    params: dict[str, Array]
    masks: Sequence[Array] | None
    state: State  # initial, each [L D, B, .]
    shape: tuple[int, int]  # T, B
    passes: list[Any]  # one list of steps for each layer and direction
    outputs: list[list[Array]]  # of each layer, by direction
    merge: str
    learned: bool  # whether the initial state was that of the parameters

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


def at_taken_steps(reset: Array, mask: Array) -> Array:
    """Return the flags of ``reset`` [T, B] moved from steps that ``mask`` skips to the next ones that are taken.

    >>> at_taken_steps(np.array([[True], [False], [True]]), np.array([[False], [True], [False]])).ravel()
    array([False,  True, False])
    """
    moved, pending = np.zeros_like(reset), np.zeros(reset.shape[1], bool)
    for t, taken in enumerate(mask):
        pending = pending | reset[t]
        moved[t] = pending & taken
        pending = pending & ~taken
    return moved


def run(
    cell: Cell, x: Array, state: State, p: Params, lengths: Array, reset: Array, mask: Array, reverse: bool
) -> tuple[Array, State, list[Any]]:
    """Run one layer in one direction; return outputs ``[T, B, H]``, final state, and the steps in the order of running.

    A step computes only the sequences that have not ended, so the padding is never read. ``reset`` at t cuts between
    the step t and the one taken before it in time, in either direction. Where ``mask`` is false, the sequence skips the
    step: its state stays, and its output is that of the step before, or 0.
    """
    steps, batch = x.shape[:2]
    y = np.zeros((steps, batch, state[0].shape[1]), x.dtype)
    state = tuple(s.copy() for s in state)
    output, boundary = (
        np.zeros(y.shape[1:], x.dtype),
        np.zeros(batch, bool),
    )  # of the last step that was taken
    made: list[Any] = []
    for t in reversed(range(steps)) if reverse else range(steps):
        inside = np.flatnonzero(t < lengths)
        rows = inside[mask[t, inside]]
        cut = boundary[rows] if reverse else reset[t, rows]
        boundary[rows] = reset[t, rows]
        before = tuple(np.where(cut[:, None], 0, s[rows]).astype(x.dtype) for s in state)
        after, saved = cell.forward(x[t, rows], before, p)
        for s, new in zip(state, after, strict=True):
            s[rows] = new
        output[rows] = after[0]
        y[t, inside] = output[inside]
        made.append((t, rows, inside, cut, saved))
    return y, state, made


def run_backward(
    cell: Cell, dy: Array, dstate: State, p: Params, g: dict[str, Array], inputs: int, made: list[Any]
) -> tuple[Array, State]:
    """Run `run` backward: the same steps in the opposite order."""
    dx = np.zeros((*dy.shape[:2], inputs), dy.dtype)
    dstate = tuple(d.copy() for d in dstate)
    doutput = np.zeros(dy.shape[1:], dy.dtype)
    for t, rows, inside, cut, saved in reversed(made):
        doutput[inside] += dy[t, inside]
        dh, *rest = (d[rows] for d in dstate)
        dx[t, rows], dbefore = cell.backward((dh + doutput[rows], *rest), saved, p, g)
        doutput[rows] = 0
        for d, new in zip(dstate, dbefore, strict=True):
            d[rows] = np.where(cut[:, None], 0, new)
    return dx, dstate


def join(outputs: list[Array], merge: str) -> Array:
    """Return what a layer hands on, from the outputs of its directions.

    >>> join([np.array([[[1.0]]]), np.array([[[3.0]]])], "ave")
    array([[[2.]]])
    """
    if merge == "concat":
        return np.concatenate(outputs, axis=2)
    a, b = outputs
    joined: Array = a * b if merge == "mul" else a + b if merge == "sum" else (a + b) * a.dtype.type(0.5)
    return joined


def join_backward(dy: Array, outputs: list[Array], merge: str) -> list[Array]:
    """Return the gradients of the outputs of the directions, from that of what `join` returned."""
    if merge == "concat":
        return np.split(dy, len(outputs), axis=2)
    if merge == "mul":
        return [dy * outputs[1], dy * outputs[0]]
    return [dy * dy.dtype.type(0.5 if merge == "ave" else 1)] * 2


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
    mask: Any = None,
    reverse: bool = False,
    merge: str = "concat",
) -> tuple[Array, Any, Tape]:
    """Run a stack of recurrent layers over a batch of sequences.

    Parameters
    ----------
    kind : {"rnn_tanh", "rnn_relu", "lstm", "gru", "gru_before"}
        The cell.
    x : array [T, B, I] or None
        Input; None is the same as ``steps`` inputs of zeros.
    state : array [L*D, B, H], or for the LSTM a pair (h_0 [L*D, B, H or P], c_0 [L*D, B, H]), or None
        Initial state of every layer and direction. None: the parameters ``h_0`` (and ``c_0``) [L*D, .], which are the
        same for every sequence, or zeros where there are none.
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
    mask : bool array [T, B], optional
        False where a step is skipped: the state stays, and the output is that of the last step that the direction took,
        or 0. A reset there acts at the next step that is taken.
    reverse : bool
        Whether the only direction starts at the last step of each sequence.
    merge : {"concat", "sum", "mul", "ave"}
        What each layer hands on: the outputs of both directions side by side, or their sum, product or mean.

    Returns
    -------
    y : array [T, B, D*H] (D*P with projection; H or P where directions are merged)
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
    cell, ends, dtype = CELLS[kind], suffixes(params), params["weight_ih_l0"].dtype
    if x is None:
        if steps is None:
            raise TypeError("steps: expected an int when x is None, got None")
        h_0 = state[0] if cell.states == 2 and state is not None else state
        rows = len(lengths) if lengths is not None else 1 if h_0 is None else h_0.shape[1]
        x = np.zeros((steps, rows, params["weight_ih_l0"].shape[1]))
    steps, batch = x.shape[:2]
    hidden = params["weight_hh_l0"].shape[0] // cell.gates
    widths = (params["weight_hh_l0"].shape[1], hidden)[: cell.states]
    learned = state is None and "h_0" in params
    if state is None:
        names = ("h_0", "c_0") if learned else (None, None)
        zeros = [np.zeros((len(ends) * len(ends[0]), w), dtype) for w in widths]
        start = [zero if name is None else params[name] for zero, name in zip(zeros, names, strict=False)]
        first: State = tuple(np.repeat(s[:, None], batch, axis=1) for s in start)
    else:
        first = tuple(np.asarray(s, dtype) for s in (state if cell.states == 2 else (state,)))
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    taken = np.ones((steps, batch), bool) if mask is None else np.asarray(mask)
    segments = np.zeros((steps, batch), bool) if reset is None else np.asarray(reset, bool)
    segments = at_taken_steps(segments, taken)

    y = np.asarray(x, dtype)
    last: list[State] = []
    passes: list[Any] = []
    layers: list[list[Array]] = []
    for layer, directions in enumerate(ends):
        if layer and masks is not None:
            y = y * masks[layer - 1]
        outputs = []
        for direction, suffix in enumerate(directions):
            before = tuple(s[len(last)] for s in first)
            back, p = reverse or direction == 1, select(params, suffix)
            h, end, made = run(cell, y, before, p, lengths, segments, taken, back)
            outputs.append(h)
            last.append(end)
            passes.append(made)
        layers.append(outputs)
        y = join(outputs, merge)
    final = tuple(np.stack(s) for s in zip(*last, strict=True))
    tape = Tape(kind, dict(params), masks, first, (steps, batch), passes, layers, merge, learned)
    return y, final if cell.states == 2 else final[0], tape


def backward(
    tape: Tape, dy: Array | None = None, dstate: Any = None, dlayers: Sequence[Array] | None = None
) -> tuple[Array, Any, dict[str, Array]]:
    """Return the gradients of everything that `forward` took, by backpropagation through time.

    Parameters
    ----------
    tape : Tape
        From `forward`.
    dy : array as y, optional
        dL/dy; None for zeros. Its padding is not read.
    dstate : as the state of `forward`, optional
        dL/d(last state); None for zeros.
    dlayers : list of L - 1 arrays as y, optional
        dL/d(outputs) of the layers below the last.

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
    if dstate is None:
        dlast: State = tuple(np.zeros_like(s) for s in tape.state)
    else:
        dlast = tuple(np.asarray(s, dtype) for s in (dstate if cell.states == 2 else (dstate,)))
    dout = np.zeros_like(join(tape.outputs[-1], tape.merge)) if dy is None else np.asarray(dy, dtype)

    dparams = {key: np.zeros_like(value) for key, value in params.items()}
    dfirst = tuple(np.zeros_like(s) for s in tape.state)
    for layer in reversed(range(len(ends))):
        inputs = params["weight_ih" + ends[layer][0]].shape[1]
        dx = np.zeros((*tape.shape, inputs), dtype)
        if dlayers is not None and layer + 1 < len(ends):
            dout = dout + dlayers[layer]
        douts = join_backward(dout, tape.outputs[layer], tape.merge)
        for direction, suffix in enumerate(ends[layer]):
            k = layer * directions + direction
            dx_one, dstart = run_backward(
                cell,
                douts[direction],
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
    for name, d in zip(("h_0", "c_0"), dfirst, strict=False):
        if tape.learned:
            dparams[name] += d.sum(axis=1)
    return dout, dfirst if cell.states == 2 else dfirst[0], dparams
