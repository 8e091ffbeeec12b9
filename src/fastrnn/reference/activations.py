"""The activations of general cells in plain NumPy, with their slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ACTIVATIONS", "activate"]

Array = npt.NDArray[Any]
Activation = Callable[[Array, float, float], tuple[Array, Array]]


def _sigmoid(a: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    e = np.exp(-np.abs(a))
    y = np.where(a >= 0, np.ones_like(e), e) / (1 + e)
    return y, y * (1 - y)


def _tanh(a: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    y = np.tanh(a)
    return y, 1 - y * y


def _scaled_tanh(a: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    y = np.tanh(beta * a)
    return alpha * y, alpha * beta * (1 - y * y)


def _hard_sigmoid(a: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    line = alpha * a + beta
    return np.clip(line, 0, 1), alpha * ((line > 0) & (line < 1))


def _elu(a: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    low = alpha * np.expm1(np.minimum(a, 0))
    return np.where(a < 0, low, a), np.where(a < 0, low + alpha, 1)


# name: y and dy/da of a, alpha and beta
ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": lambda a, alpha, beta: (np.maximum(a, 0), 1.0 * ~(a <= 0)),
    "linear": lambda a, alpha, beta: (a, np.ones_like(a)),
    "affine": lambda a, alpha, beta: (alpha * a + beta, np.full_like(a, alpha)),
    "leaky_relu": lambda a, alpha, beta: (np.where(a < 0, alpha * a, a), np.where(a < 0, alpha, 1)),
    "thresholded_relu": lambda a, alpha, beta: (np.where(a < alpha, 0, a), 1.0 * ~(a < alpha)),
    "scaled_tanh": _scaled_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "elu": _elu,
    "softsign": lambda a, alpha, beta: (a / (1 + np.abs(a)), 1 / (1 + np.abs(a)) ** 2),
    "softplus": lambda a, alpha, beta: (np.logaddexp(0, a), _sigmoid(a, 0, 0)[0]),
}


def activate(function: tuple[str, float, float], a: Array, clip: float | None = None) -> tuple[Array, Array]:
    """Return f(a) and f'(a), where f is a name with alpha and beta; a is clipped first.

    >>> activate(("hard_sigmoid", 0.2, 0.5), np.array([-9.0, 0.0, 1.0]))
    (array([0. , 0.5, 0.7]), array([0. , 0.2, 0.2]))
    >>> activate(("linear", 0, 0), np.array([-9.0, 0.5]), clip=2)
    (array([-2. ,  0.5]), array([0., 1.]))
    """
    name, alpha, beta = function
    limited = a if clip is None else np.clip(a, -clip, clip)
    y, slope = ACTIVATIONS[name](limited, alpha, beta)
    if clip is not None:
        slope = np.where(np.abs(a) > clip, 0, slope)
    return y.astype(a.dtype), slope.astype(a.dtype)
