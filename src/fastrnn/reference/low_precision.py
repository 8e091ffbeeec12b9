"""Inference with weights of 8 or 16 bits in plain NumPy: how the core rounds, number by number.

bfloat16 weights are rounded to nearest even, and all else is as in float32. With int8 weights, every product with a
matrix M is computed with integers:

========  =================================================================================
s_w       scale of one row of M: its largest magnitude / 127, rounded up to 17 bits
q_w       the row / s_w, rounded to nearest even: integers from -127 to 127
s_v, q_v  the same of the vector v (x_t, h_t, ...) of one sequence at one step
M v       float(q_w · q_v) * (s_v * s_w), with an exact integer sum
========  =================================================================================

A row or a vector whose magnitudes are all below 2^-100 becomes zeros with scale 1. If it contains NaN or infinity, its
scale is NaN. The scales have few bits so that q * s is exact in float32: rounding it again changes nothing.

A pre-activation is (bias + input part) + recurrent part, where bias is b_i + b_h, every operation in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastrnn.reference.cells import Array, Cell, State, sigmoid

__all__ = ["INT8_CELLS", "dequantize", "quantize", "quantized_parameters", "round_to_bfloat16"]


def round_to_bfloat16(a: Array) -> Array:
    """Return float32 numbers rounded to those of bfloat16, to nearest even; NaN stays NaN.

    >>> round_to_bfloat16(np.array([1.0, 1.001, 1.01], np.float32)).tolist()
    [1.0, 1.0, 1.0078125]
    """
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)
    nan = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x400000)
    out: Array = np.where(np.isnan(a), nan, rounded).view(np.float32)
    return out


def quantize(a: Array) -> tuple[Array, Array]:
    """Return integers of the shape of ``a``, and a scale for every row along its last axis.

    >>> q, scale = quantize(np.array([[254.0, -100.0, 1.0], [0.0, 0.0, 0.0]], np.float32))
    >>> q.tolist(), scale.tolist()
    ([[127, -50, 0], [0, 0, 0]], [2.0, 1.0])
    """
    a = np.asarray(a, np.float32)
    largest = np.abs(a).max(axis=-1, initial=0.0).astype(np.float32)
    bits = (largest / np.float32(127)).view(np.uint32)
    scale = ((bits + np.uint32(0x7F)) & ~np.uint32(0x7F)).view(np.float32)
    scale = np.where(largest < 2.0**-100, np.float32(1), scale)
    scale = np.where(np.isfinite(largest), scale, np.float32(np.nan))
    with np.errstate(invalid="ignore"):
        scaled = a * (np.float32(1) / scale)[..., None]
    return np.where(np.isnan(scaled), 0, np.rint(scaled)).astype(np.int8), scale


def dequantize(q: Array, scale: Array) -> Array:
    """Return q * scale, which is exact for what `quantize` returns.

    >>> dequantize(*quantize(np.array([[254.0, -100.0, 1.0]], np.float32))).tolist()
    [[254.0, -100.0, 0.0]]
    """
    out: Array = q.astype(np.float32) * scale[..., None]
    return out


def quantized_parameters(p: Mapping[str, Array]) -> dict[str, Any]:
    """Return what the cells below take: a pair of integers and scales for each matrix, and the biases as they are.

    >>> quantized_parameters({"weight_hr": np.ones((1, 2), np.float32)})["weight_hr"][0]
    array([[127, 127]], dtype=int8)
    """
    return {name: quantize(value) if name.startswith("weight") else value for name, value in p.items()}


def add_product(start: Array, v: Array, m: tuple[Array, Array], rows: slice = slice(None)) -> Array:
    """Return start + M v, where M is quantized and v is about to be.

    >>> add_product(np.zeros((1, 1), np.float32), np.ones((1, 2), np.float32), quantize(np.ones((1, 2), np.float32)))
    array([[2.0000587]], dtype=float32)
    """
    q, scale = quantize(v)
    sums = q.astype(np.int64) @ m[0][rows].astype(np.int64).T
    out: Array = start + sums.astype(np.float32) * (scale[:, None] * m[1][rows])
    return out


def _bias(p: Mapping[str, Any], names: tuple[str, ...], gates: slice = slice(None)) -> Array:
    """Return the sum of some biases, or zeros where the network has none."""
    rows = p["weight_ih"][0].shape[0]
    total = np.zeros(rows, np.float32)[gates]
    for name in names:
        total = total + p[name][gates] if name in p else total
    return total


_BOTH = ("bias_ih", "bias_hh")


def _rnn(activation: Callable[[Array], Array]) -> Callable[..., tuple[State, State]]:
    def step(x: Array, state: State, p: Mapping[str, Any]) -> tuple[State, State]:
        a = add_product(_bias(p, _BOTH), x, p["weight_ih"])
        return (activation(add_product(a, state[0], p["weight_hh"])),), ()

    return step


def _lstm(x: Array, state: State, p: Mapping[str, Any]) -> tuple[State, State]:
    h_prev, c_prev = state
    a = add_product(add_product(_bias(p, _BOTH), x, p["weight_ih"]), h_prev, p["weight_hh"])
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    c = sigmoid(a_f) * c_prev + sigmoid(a_i) * np.tanh(a_g)
    m = sigmoid(a_o) * np.tanh(c)
    return (add_product(np.float32(0), m, p["weight_hr"]) if "weight_hr" in p else m, c), ()  # type: ignore[arg-type]


def _gru(x: Array, state: State, p: Mapping[str, Any]) -> tuple[State, State]:
    (h_prev,) = state
    size = h_prev.shape[1]
    gates, candidate = slice(2 * size), slice(2 * size, None)
    a = add_product(_bias(p, _BOTH, gates), x, p["weight_ih"], gates)
    a = add_product(a, h_prev, p["weight_hh"], gates)
    x_n = add_product(_bias(p, ("bias_ih",), candidate), x, p["weight_ih"], candidate)
    u = add_product(_bias(p, ("bias_hh",), candidate), h_prev, p["weight_hh"], candidate)
    r, z = sigmoid(a[:, :size]), sigmoid(a[:, size:])
    n = np.tanh(x_n + r * u)
    return ((1 - z) * n + z * h_prev,), ()


def _gru_before(x: Array, state: State, p: Mapping[str, Any]) -> tuple[State, State]:
    (h_prev,) = state
    size = h_prev.shape[1]
    gates, candidate = slice(2 * size), slice(2 * size, None)
    a = add_product(_bias(p, _BOTH), x, p["weight_ih"])
    a_rz = add_product(a[:, gates], h_prev, p["weight_hh"], gates)
    r, z = sigmoid(a_rz[:, :size]), sigmoid(a_rz[:, size:])
    n = np.tanh(add_product(a[:, candidate], r * h_prev, p["weight_hh"], candidate))
    return ((1 - z) * n + z * h_prev,), ()


def _no_backward(*_: Any) -> Any:
    raise ValueError("backward: expected weights of float32, got int8, which have no backward pass")


def _relu(a: Array) -> Array:
    out: Array = np.maximum(a, 0)
    return out


INT8_CELLS = {
    "rnn_tanh": Cell(_rnn(np.tanh), _no_backward, 1, 1),
    "rnn_relu": Cell(_rnn(_relu), _no_backward, 1, 1),
    "lstm": Cell(_lstm, _no_backward, 4, 2),
    "gru": Cell(_gru, _no_backward, 3, 1),
    "gru_before": Cell(_gru_before, _no_backward, 3, 1),
}
