"""One step of each general cell in plain NumPy: the cells with the options that a layer may have.

The letters are those of `fastrnn.reference.cells`, and

=========  ==================================================================================================
f, g, y    the activations of gates, candidate and output (`activations`); f' is the slope of f
p          peepholes: ``weight_ci``, ``weight_cf``, ``weight_co`` ``[H]``
k_h, k_c   zoneout: 1 where the old value stays, else 0; at inference the probability of that
m          recurrent dropout: the factors of h_{t-1} in the recurrent product
e          noise, added to the pre-activation
h^, c^     the state before zoneout
=========  ==================================================================================================

Every pre-activation is clipped to [-clip, clip]; beyond the bound its slope is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn._cell_options import CellOptions, Function
from fastrnn.reference.activations import activate
from fastrnn.reference.cells import CELLS, Array, Params, State, product, product_backward

__all__ = ["Given", "general"]


class Given(NamedTuple):
    """What a step is given beside input, state and parameters."""

    k_h: Any = 0.0
    k_c: Any = 0.0
    m: Any = 1.0
    e: Any = 0.0


INFERENCE = Given()  # where nothing is drawn


class General:
    """A cell with options: one step, its backward, and the number of gates and of state arrays."""

    def __init__(self, kind: str, options: CellOptions, functions: Sequence[Function]) -> None:
        self.gates, self.states = CELLS[kind].gates, CELLS[kind].states
        self.o, self.functions = options, functions

    def act(self, gate: int, a: Array) -> tuple[Array, Array]:
        """Return the activation of a gate's pre-activation, and its slope."""
        return activate(self.functions[gate], a, self.o.clip)


# Elman:   h^ = (1 - leak) h_{t-1} + leak f(W x + b_i + R (m h_{t-1}) + b_h + e)


class Elman(General):
    """The Elman network."""

    def forward(self, x: Array, state: State, p: Params, given: Given = INFERENCE) -> tuple[State, Any]:
        """Do one step."""
        (h_prev,) = state
        f, slope = self.act(0, product(x, p, "ih") + product(h_prev * given.m, p, "hh") + given.e)
        h = (1 - self.o.leak) * h_prev + self.o.leak * f
        return (given.k_h * h_prev + (1 - given.k_h) * h,), (x, h_prev, slope, given)

    def backward(self, dstate: State, saved: Any, p: Params, g: dict[str, Array]) -> tuple[Array, State]:
        """Run BPTT through one step."""
        x, h_prev, slope, given = saved
        dh = (1 - given.k_h) * dstate[0]
        da = self.o.leak * dh * slope
        dh_prev = given.k_h * dstate[0] + (1 - self.o.leak) * dh
        dx = product_backward(da, x, p, g, "ih")
        return dx, (dh_prev + given.m * product_backward(da, h_prev * given.m, p, g, "hh"),)


# LSTM:    i = f(a_i + p_i c_{t-1})    f = f(a_f + p_f c_{t-1})    g = g(a_g)    (coupled: f = 1 - i)
#          c^ = f c_{t-1} + i g        o = f(a_o + p_o c^)         m_t = o y(c^)
#          c_t = k_c c_{t-1} + (1 - k_c) c^        h_t = k_h h_{t-1} + (1 - k_h) m_t, or P m_t
# (Krueger et al. 2017 have c^ in h_t too.)


class Lstm(General):
    """The LSTM."""

    def forward(self, x: Array, state: State, p: Params, given: Given = INFERENCE) -> tuple[State, Any]:
        """Do one step."""
        h_prev, c_prev = state
        a_i, a_f, a_g, a_o = np.split(product(x, p, "ih") + product(h_prev * given.m, p, "hh"), 4, axis=1)
        if self.o.peepholes:
            a_i, a_f = a_i + p["weight_ci"] * c_prev, a_f + p["weight_cf"] * c_prev
        i, slope_i = self.act(0, a_i)
        f, slope_f = (1 - i, np.zeros_like(i)) if self.o.input_forget else self.act(1, a_f)
        g, slope_g = self.act(2, a_g)
        c = f * c_prev + i * g
        o, slope_o = self.act(3, a_o + p["weight_co"] * c if self.o.peepholes else a_o)
        y, slope_y = activate(self.functions[4], c)
        m = o * y
        h = product(m, p, "hr") if "weight_hr" in p else given.k_h * h_prev + (1 - given.k_h) * m
        kept = (x, h_prev, c_prev, i, f, g, c, o, y, m, (slope_i, slope_f, slope_g, slope_o, slope_y), given)
        return (h, given.k_c * c_prev + (1 - given.k_c) * c), kept

    def backward(self, dstate: State, saved: Any, p: Params, grads: dict[str, Array]) -> tuple[Array, State]:
        """Run BPTT through one step."""
        x, h_prev, c_prev, i, f, g, c, o, y, m, slopes, given = saved
        slope_i, slope_f, slope_g, slope_o, slope_y = slopes
        dh, dc = dstate
        dh_prev = 0.0
        if "weight_hr" in p:
            dm = product_backward(dh, m, p, grads, "hr")
        else:
            dm, dh_prev = (1 - given.k_h) * dh, given.k_h * dh
        da_o = dm * y * slope_o
        dc_prev = given.k_c * dc
        dc = (1 - given.k_c) * dc + dm * o * slope_y
        if self.o.peepholes:
            dc = dc + da_o * p["weight_co"]
        da_i = dc * (g - c_prev if self.o.input_forget else g) * slope_i
        da_f = dc * c_prev * slope_f
        dc_prev = dc_prev + dc * f
        if self.o.peepholes:
            dc_prev = dc_prev + da_i * p["weight_ci"] + da_f * p["weight_cf"]
            grads["weight_ci"] += (da_i * c_prev).sum(0)
            grads["weight_cf"] += (da_f * c_prev).sum(0)
            grads["weight_co"] += (da_o * c).sum(0)
        da = np.concatenate([da_i, da_f, dc * i * slope_g, da_o], axis=1)
        dx = product_backward(da, x, p, grads, "ih")
        return dx, (dh_prev + given.m * product_backward(da, h_prev * given.m, p, grads, "hh"), dc_prev)


# GRU:     as in cells.py with f and g; the recurrent products read m h_{t-1}, and h^ = (1 - z) n + z h_{t-1}.


class Gru(General):
    """The GRU, reset applied after the recurrent product."""

    def forward(self, x: Array, state: State, p: Params, given: Given = INFERENCE) -> tuple[State, Any]:
        """Do one step."""
        (h_prev,) = state
        x_r, x_z, x_n = np.split(product(x, p, "ih"), 3, axis=1)
        u_r, u_z, u = np.split(product(h_prev * given.m, p, "hh"), 3, axis=1)
        r, slope_r = self.act(0, x_r + u_r)
        z, slope_z = self.act(1, x_z + u_z)
        n, slope_n = self.act(2, x_n + r * u)
        h = (1 - z) * n + z * h_prev
        kept = (x, h_prev, r, z, n, u, (slope_r, slope_z, slope_n), given)
        return (given.k_h * h_prev + (1 - given.k_h) * h,), kept

    def backward(self, dstate: State, saved: Any, p: Params, g: dict[str, Array]) -> tuple[Array, State]:
        """Run BPTT through one step."""
        x, h_prev, r, z, n, u, (slope_r, slope_z, slope_n), given = saved
        dh = (1 - given.k_h) * dstate[0]
        da_n = dh * (1 - z) * slope_n
        da_z = dh * (h_prev - n) * slope_z
        da_r = da_n * u * slope_r
        dx = product_backward(np.concatenate([da_r, da_z, da_n], axis=1), x, p, g, "ih")
        du = np.concatenate([da_r, da_z, da_n * r], axis=1)
        dh_prev = given.m * product_backward(du, h_prev * given.m, p, g, "hh")
        return dx, (given.k_h * dstate[0] + dh * z + dh_prev,)


class GruBefore(General):
    """The GRU, reset applied before the recurrent product."""

    def forward(self, x: Array, state: State, p: Params, given: Given = INFERENCE) -> tuple[State, Any]:
        """Do one step."""
        (h_prev,) = state
        size, read = h_prev.shape[1], h_prev * given.m
        x_r, x_z, x_n = np.split(product(x, p, "ih"), 3, axis=1)
        u_r, u_z = np.split(product(read, p, "hh", slice(2 * size)), 2, axis=1)
        r, slope_r = self.act(0, x_r + u_r)
        z, slope_z = self.act(1, x_z + u_z)
        n, slope_n = self.act(2, x_n + product(r * read, p, "hh", slice(2 * size, None)))
        h = (1 - z) * n + z * h_prev
        kept = (x, h_prev, r, z, n, (slope_r, slope_z, slope_n), given)
        return (given.k_h * h_prev + (1 - given.k_h) * h,), kept

    def backward(self, dstate: State, saved: Any, p: Params, g: dict[str, Array]) -> tuple[Array, State]:
        """Run BPTT through one step."""
        x, h_prev, r, z, n, (slope_r, slope_z, slope_n), given = saved
        size, read = h_prev.shape[1], h_prev * given.m
        dh = (1 - given.k_h) * dstate[0]
        da_n = dh * (1 - z) * slope_n
        da_z = dh * (h_prev - n) * slope_z
        v = product_backward(da_n, r * read, p, g, "hh", slice(2 * size, None))
        da_r = v * read * slope_r
        dx = product_backward(np.concatenate([da_r, da_z, da_n], axis=1), x, p, g, "ih")
        dread = v * r + product_backward(
            np.concatenate([da_r, da_z], axis=1), read, p, g, "hh", slice(2 * size)
        )
        return dx, (given.k_h * dstate[0] + dh * z + given.m * dread,)


_KINDS = {"rnn_tanh": Elman, "rnn_relu": Elman, "lstm": Lstm, "gru": Gru, "gru_before": GruBefore}


def general(kind: str, options: CellOptions) -> list[General]:
    """Return the cell of a kind with these options, for each direction."""
    return [_KINDS[kind](kind, options, functions) for functions in options.functions]
