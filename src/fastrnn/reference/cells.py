"""One step of each cell in plain NumPy, forward and backward: the equations.

The letters are those of ``src/cpp/kernels/cells.hpp``:

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
takes dL/d(new state), adds dL/dp to ``g`` and returns dL/dx and dL/d(old state).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["CELLS", "Cell"]

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
