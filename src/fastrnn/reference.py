"""The layers in plain NumPy: the equations to read, and the results that the core is tested against.

Nothing here is fast. The letters are those of ``src/cpp/kernels/cells.hpp``:

========  =================================================================================
x, h, c   input, hidden state and cell state of one step, ``[B, I]``, ``[B, H]``, ``[B, H]``
W, R, P   ``weight_ih`` ``[G H, I]``, ``weight_hh`` ``[G H, H]``, ``weight_hr`` ``[P, H]``
b_i, b_h  ``bias_ih``, ``bias_hh`` ``[G H]``, if there are biases
a         pre-activation of a gate: input part + recurrent part + biases
da        dL/da, and so on for every other letter
⊙, sigma  Hadamard product; sigma(a) = 1 / (1 + e^-a)
========  =================================================================================

A cell is a pair of functions. ``cell(x, state, p) -> (state, saved)`` does one step, where ``state`` is ``(h,)`` or
``(h, c)`` and ``p`` the parameters of one layer and direction. ``cell_backward(dstate, saved, p, g) -> (dx, dstate)``
takes dL/d(new state), adds dL/dp to ``g`` and returns dL/dx and dL/d(old state). `forward` and `backward` run them
over layers, directions and time. All arrays are time-major; for ``batch_first``, transpose before and after.

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

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["CELLS", "Tape", "backward", "forward"]

Array = npt.NDArray[Any]
State = tuple[Array, ...]
Params = Mapping[str, Array]


def sigmoid(a: Array) -> Array:
    """Return sigma(a) = 1 / (1 + e^-a), without overflow.

    >>> sigmoid(np.array([-1e4, 0.0, 1e4]))
    array([0. , 0.5, 1. ])
    """
    e = np.exp(-np.abs(a))
    out: Array = np.where(a >= 0, np.ones_like(e), e) / (1 + e)
    return out


def product(v: Array, p: Params, name: str, rows: slice = slice(None)) -> Array:
    """Return M v + b, where M is ``weight_<name>`` and b is ``bias_<name>`` if there is one, or some rows of them.

    >>> product(np.ones((1, 2)), {"weight_ih": np.ones((3, 2)), "bias_ih": np.arange(3)}, "ih")
    array([[2., 3., 4.]])
    """
    out: Array = v @ p["weight_" + name][rows].T
    return out + p["bias_" + name][rows] if "bias_" + name in p else out


def product_backward(
    da: Array, v: Array, p: Params, g: dict[str, Array], name: str, rows: slice = slice(None)
) -> Array:
    """Run `product` backward: add da v^T to dM and da to db, and return dv = M^T da.

    >>> g = {"weight_ih": np.zeros((3, 2))}
    >>> product_backward(np.ones((1, 3)), np.ones((1, 2)), {"weight_ih": np.ones((3, 2))}, g, "ih")
    array([[3., 3.]])
    """
    g["weight_" + name][rows] += da.T @ v
    if "bias_" + name in p:
        g["bias_" + name][rows] += da.sum(axis=0)
    dv: Array = da @ p["weight_" + name][rows]
    return dv


# Elman 1990.   a = W x + b_i + R h_{t-1} + b_h
#   h_t = tanh(a)        da = dh ⊙ (1 - h_t^2)


def rnn_tanh(x: Array, state: State, p: Params) -> tuple[State, State]:
    """Do one step of the Elman network."""
    (h_prev,) = state
    h = np.tanh(product(x, p, "ih") + product(h_prev, p, "hh"))
    return (h,), (x, h_prev, h)


def rnn_tanh_backward(dstate: State, saved: State, p: Params, g: dict[str, Array]) -> tuple[Array, State]:
    """Run BPTT through one step of `rnn_tanh`."""
    x, h_prev, h = saved
    da = dstate[0] * (1 - h * h)
    return product_backward(da, x, p, g, "ih"), (product_backward(da, h_prev, p, g, "hh"),)


#   h_t = max(0, a)      da = dh where h_t > 0 (NaN stays NaN)


def rnn_relu(x: Array, state: State, p: Params) -> tuple[State, State]:
    """Do one step of the Elman network with a rectifier (Le, Jaitly and Hinton 2015)."""
    (h_prev,) = state
    h = np.maximum(product(x, p, "ih") + product(h_prev, p, "hh"), 0)
    return (h,), (x, h_prev, h)


def rnn_relu_backward(dstate: State, saved: State, p: Params, g: dict[str, Array]) -> tuple[Array, State]:
    """Run BPTT through one step of `rnn_relu`."""
    x, h_prev, h = saved
    da = np.where(h <= 0, 0, dstate[0])
    return product_backward(da, x, p, g, "ih"), (product_backward(da, h_prev, p, g, "hh"),)


# LSTM (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000), gates i, f, g, o, each with its
# a = W x + b_i + R h_{t-1} + b_h:
#   i = sigma(a_i)  f = sigma(a_f)  g = tanh(a_g)  o = sigma(a_o)
#   c_t = f ⊙ c_{t-1} + i ⊙ g       m_t = o ⊙ tanh(c_t)       h_t = m_t, or P m_t (Sak et al. 2014)
#   dm = dh, or P^T dh
#   do = dm ⊙ tanh(c_t)    dc = dc_t + dm ⊙ o ⊙ (1 - tanh(c_t)^2)
#   di = dc ⊙ g    df = dc ⊙ c_{t-1}    dg = dc ⊙ i    dc_{t-1} = dc ⊙ f
#   da = di ⊙ i ⊙ (1 - i), and so for f and o;    da_g = dg ⊙ (1 - g^2)


def lstm(x: Array, state: State, p: Params) -> tuple[State, State]:
    """Do one step of the LSTM, with projection if ``weight_hr`` is there."""
    h_prev, c_prev = state
    a_i, a_f, a_g, a_o = np.split(product(x, p, "ih") + product(h_prev, p, "hh"), 4, axis=1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c = f * c_prev + i * g
    m = o * np.tanh(c)
    h = product(m, p, "hr") if "weight_hr" in p else m
    return (h, c), (x, h_prev, c_prev, i, f, g, o, c)


def lstm_backward(dstate: State, saved: State, p: Params, grads: dict[str, Array]) -> tuple[Array, State]:
    """Run BPTT through one step of `lstm`."""
    x, h_prev, c_prev, i, f, g, o, c = saved
    dh, dc = dstate
    tanh_c = np.tanh(c)
    dm = product_backward(dh, o * tanh_c, p, grads, "hr") if "weight_hr" in p else dh
    do = dm * tanh_c
    dc = dc + dm * o * (1 - tanh_c * tanh_c)
    di, df, dg = dc * g, dc * c_prev, dc * i
    da = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)], axis=1)
    dx = product_backward(da, x, p, grads, "ih")
    return dx, (product_backward(da, h_prev, p, grads, "hh"), dc * f)


# GRU (Cho et al. 2014), gates r, z, n, reset applied after the recurrent product, as PyTorch and cuDNN have it:
#   r = sigma(W_r x + b_ir + R_r h_{t-1} + b_hr)      z = sigma(W_z x + b_iz + R_z h_{t-1} + b_hz)
#   u = R_n h_{t-1} + b_hn                            n = tanh(W_n x + b_in + r ⊙ u)
#   h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}
#   da_n = dh ⊙ (1 - z) ⊙ (1 - n^2)     da_z = dh ⊙ (h_{t-1} - n) ⊙ z ⊙ (1 - z)
#   da_r = da_n ⊙ u ⊙ r ⊙ (1 - r)       du = da_n ⊙ r
#   dh_{t-1} = dh ⊙ z + R^T (da_r, da_z, du)          dx = W^T (da_r, da_z, da_n)


def gru(x: Array, state: State, p: Params) -> tuple[State, State]:
    """Do one step of the GRU, reset applied after the recurrent product."""
    (h_prev,) = state
    x_r, x_z, x_n = np.split(product(x, p, "ih"), 3, axis=1)
    u_r, u_z, u = np.split(product(h_prev, p, "hh"), 3, axis=1)
    r, z = sigmoid(x_r + u_r), sigmoid(x_z + u_z)
    n = np.tanh(x_n + r * u)
    h = (1 - z) * n + z * h_prev
    return (h,), (x, h_prev, r, z, n, u)


def gru_backward(dstate: State, saved: State, p: Params, g: dict[str, Array]) -> tuple[Array, State]:
    """Run BPTT through one step of `gru`."""
    x, h_prev, r, z, n, u = saved
    (dh,) = dstate
    da_n = dh * (1 - z) * (1 - n * n)
    da_z = dh * (h_prev - n) * z * (1 - z)
    da_r = da_n * u * r * (1 - r)
    du = da_n * r
    dx = product_backward(np.concatenate([da_r, da_z, da_n], axis=1), x, p, g, "ih")
    dh_prev = product_backward(np.concatenate([da_r, da_z, du], axis=1), h_prev, p, g, "hh")
    return dx, (dh * z + dh_prev,)


# GRU, reset applied before the recurrent product, as in the first version of the paper; r, z and h_t as above:
#   n = tanh(W_n x + b_in + R_n (r ⊙ h_{t-1}) + b_hn)
#   da_n and da_z as above    v = R_n^T da_n    da_r = v ⊙ h_{t-1} ⊙ r ⊙ (1 - r)
#   dh_{t-1} = dh ⊙ z + v ⊙ r + R_rz^T (da_r, da_z)   dx = W^T (da_r, da_z, da_n)


def gru_before(x: Array, state: State, p: Params) -> tuple[State, State]:
    """Do one step of the GRU, reset applied before the recurrent product."""
    (h_prev,) = state
    size = h_prev.shape[1]
    x_r, x_z, x_n = np.split(product(x, p, "ih"), 3, axis=1)
    u_r, u_z = np.split(product(h_prev, p, "hh", slice(2 * size)), 2, axis=1)
    r, z = sigmoid(x_r + u_r), sigmoid(x_z + u_z)
    n = np.tanh(x_n + product(r * h_prev, p, "hh", slice(2 * size, None)))
    h = (1 - z) * n + z * h_prev
    return (h,), (x, h_prev, r, z, n)


def gru_before_backward(dstate: State, saved: State, p: Params, g: dict[str, Array]) -> tuple[Array, State]:
    """Run BPTT through one step of `gru_before`."""
    x, h_prev, r, z, n = saved
    (dh,) = dstate
    size = h_prev.shape[1]
    da_n = dh * (1 - z) * (1 - n * n)
    da_z = dh * (h_prev - n) * z * (1 - z)
    v = product_backward(da_n, r * h_prev, p, g, "hh", slice(2 * size, None))
    da_r = v * h_prev * r * (1 - r)
    dx = product_backward(np.concatenate([da_r, da_z, da_n], axis=1), x, p, g, "ih")
    dh_prev = product_backward(np.concatenate([da_r, da_z], axis=1), h_prev, p, g, "hh", slice(2 * size))
    return dx, (dh * z + v * r + dh_prev,)


class Cell(NamedTuple):
    """One step, its backward, and the number of gates and of state arrays."""

    forward: Callable[[Array, State, Params], tuple[State, State]]
    backward: Callable[[State, State, Params, dict[str, Array]], tuple[Array, State]]
    gates: int
    states: int


CELLS = {
    "rnn_tanh": Cell(rnn_tanh, rnn_tanh_backward, 1, 1),
    "rnn_relu": Cell(rnn_relu, rnn_relu_backward, 1, 1),
    "lstm": Cell(lstm, lstm_backward, 4, 2),
    "gru": Cell(gru, gru_backward, 3, 1),
    "gru_before": Cell(gru_before, gru_before_backward, 3, 1),
}


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
            h, end, made = run(cell, y, start, select(params, suffix), lengths, segments, direction == 1)
            outputs.append(h)
            last.append(end)
            passes.append(made)
        y = np.concatenate(outputs, axis=2)
    final = tuple(np.stack(s) for s in zip(*last, strict=True))
    tape = Tape(kind, dict(params), masks, first, (steps, batch), passes)
    return y, final if cell.states == 2 else final[0], tape


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
