"""Optimisers, learning-rate schedules and gradient clipping, in place on flat buffers.

An optimiser is built from a list of layers and modules, or of their flat arrays, and updates them in place. Each
step takes a list of their gradients in the same order:

    optimiser = Adam([embedding, lstm, head], lr=cosine(1e-3, steps=1000))
    norm = optimiser.step([g_embedding, g_lstm, g_head], clip_norm=1.0)

`lr` is a float or a schedule, that is any function of the number of steps taken so far. Schedules keep no state.
``state_dict`` holds everything else, so a resumed run computes the same bits as an uninterrupted one.

Every 64 steps, moments that have decayed to almost nothing are set to 0, because arithmetic on such small numbers is
slow. The effect is below rounding. With u the spacing of the parameters' dtype at 1, it changes the denominators of
Adam and RMSprop by a few u of `eps` (with eps=0 not at all) and their steps by a few u of `lr`. In SGD it changes a
velocity by less than 1e-29 (float32) or 1e-177 (float64).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn._core as _core
from fastrnn._arrays import (
    at_least_zero,
    core_dtype,
    expect,
    expect_writeable,
    fraction,
    number,
    positive,
    readable,
)
from fastrnn._schedules import Schedule, cosine, exponential, linear, step_decay
from fastrnn.gradients import note_change
from fastrnn.io import copy_all, matching

Array = NDArray[Any]
Rate = float | Callable[[Any], float]
Items = Sequence[Any]

# Moments of parameters that get no gradient any more, such as the vectors of rare words, decay until they are
# subnormal numbers, on which arithmetic is slow. Every FLUSH_EVERY steps they are set to 0 before they get there, but
# when they are too small to have an effect.
FLUSH_EVERY = 64

__all__ = ["SGD", "Adam", "AdamW", "RMSprop", "Schedule", "clip_grad_norm", "clip_grad_value"]
__all__ += ["cosine", "exponential", "linear", "step_decay"]


class _Optimiser:
    """What the optimisers share: parameters, learning rate, number of steps, and buffers such as moments."""

    buffers: tuple[str, ...] = ()  # names of the arrays that are kept for each parameter
    arguments: tuple[str, ...] = ()  # those that repr shows
    eps = 0.0

    def __init__(self, params: Items, lr: Rate, weight_decay: float) -> None:
        self._params = _flats("params", params)
        self.lr = lr if callable(lr) else at_least_zero("lr", lr)
        self.weight_decay = at_least_zero("weight_decay", weight_decay)
        self.steps = 0
        self._state = {
            f"{k}.{i}": np.zeros(p.shape, core_dtype(p))
            for k in self.buffers
            for i, p in enumerate(self._params)
        }

    def step(self, grads: Items, *, clip_norm: float | None = None) -> float | None:
        """Update every parameter, in one pass over memory.

        Parameters
        ----------
        grads : list
            The gradients of what the optimiser was built from, in the same order. They stay unchanged.
        clip_norm : float, optional
            The gradients are scaled down together until their Euclidean norm is at most this (Pascanu et al. 2013).
            The result is that of :func:`clip_grad_norm` before the step, with less work.

        Returns
        -------
        norm : float or None
            The norm before clipping, if ``clip_norm`` is given. If the norm is NaN or infinite, nothing is updated.

        Examples
        --------
        >>> p = np.zeros(2, np.float32)
        >>> SGD([p], lr=1.0).step([np.array([3.0, 4.0], np.float32)], clip_norm=1.0)
        5.0
        >>> p
        array([-0.6, -0.8], dtype=float32)
        """
        gradients = _flats("grads", grads)
        if [g.shape for g in gradients] != [p.shape for p in self._params]:
            expected = [p.size for p in self._params]
            raise ValueError(
                f"grads: expected flat arrays of sizes {expected}, got {[g.shape for g in gradients]}"
            )
        expect_writeable("params", {f"index {i}": p for i, p in enumerate(self._params)})
        lr = self.lr(self.steps) if callable(self.lr) else self.lr
        expect(math.isfinite(number("lr", lr)), "lr", "a finite number", lr)
        clip = -1.0 if clip_norm is None else float(positive("clip_norm", clip_norm))
        norm = self._call_core(gradients, clip, lr)
        if clip_norm is not None and not math.isfinite(norm):
            return norm
        for p in self._params:
            note_change(p, "an optimiser's step")
        self.steps += 1
        if self.steps % FLUSH_EVERY == 0:
            for i, p in enumerate(self._params):
                for k in self.buffers:
                    s = self._state[f"{k}.{i}"]
                    s[np.abs(s) < self._negligible(k, p.dtype)] = 0
        return None if clip_norm is None else norm

    def _call_core(self, gradients: list[Array], clip: float, lr: float) -> float:
        """Let the core take step number ``steps`` + 1; return the norm of the gradients if `clip` is not negative."""
        name, options = self._options(self.steps + 1, lr)
        dtypes = {core_dtype(p) for p in self._params}
        norm = 0.0
        if len(dtypes) > 1 and clip >= 0:  # the core takes one dtype at a time, but the norm is that of all
            norm = _norm(gradients)
            if not math.isfinite(norm):
                return norm
            scale = clip / norm if norm > clip else 1.0
            gradients, clip = [g * g.dtype.type(scale) for g in gradients], -1.0
        for dtype in dtypes:
            places = [i for i, p in enumerate(self._params) if core_dtype(p) == dtype]
            params = [np.require(self._params[i], dtype, ["C", "A", "W"]) for i in places]
            grads = [np.ascontiguousarray(gradients[i], dtype) for i in places]
            buffers: list[list[Array | None]] = [
                [self._state[f"{k}.{i}"] for i in places] for k in self.buffers
            ]
            buffers += [[None] * len(places)] * (2 - len(buffers))
            a, b = buffers
            norm = _core.optimiser_step(name, params, grads, a, b, clip, **options) or norm
            for i, numbers in zip(places, params, strict=True):
                if numbers is not self._params[i]:  # the core worked on a copy
                    self._params[i][...] = numbers
        return norm

    def _negligible(self, buffer: str, dtype: np.dtype[Any]) -> float:
        """Return the size below which a number in a buffer has no effect beyond rounding."""
        eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
        if buffer == "v":
            return (eps * self.eps) ** 2  # the root of v is lost when self.eps is added to it
        least = math.sqrt(
            eps * tiny
        )  # the smallest root of a v that is not 0, and so the least that m is divided by
        return eps * min(least, self.eps or least)

    def _options(self, step: int, lr: float) -> tuple[str, dict[str, Any]]:
        """Return the core's name of the optimiser and its arguments for step number `step`."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the arrays that a resumed run needs besides parameters and arguments."""
        return {"steps": np.array(self.steps), **{name: array.copy() for name, array in self._state.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, which `state_dict` returned.

        Raises
        ------
        ValueError
            Entries are missing, unexpected or of another shape. The message names all of them, and nothing is changed.
        """
        arrays = {"steps": np.array(self.steps), **self._state}
        given = matching(arrays, state, "optimiser state")
        expect(given["steps"] >= 0, "optimiser state: steps", "at least 0", given["steps"])
        copy_all(arrays, given)
        self.steps = int(given["steps"])

    def __repr__(self) -> str:
        sizes = [p.size for p in self._params]
        arguments = [f"{name}={getattr(self, name)!r}" for name in ("lr", *self.arguments, "weight_decay")]
        return f"{type(self).__name__}(sizes={sizes}, {', '.join(arguments)})"


class SGD(_Optimiser):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` without dampening.

    v = momentum * v + g;  p -= lr * v, or with `nesterov` p -= lr * (g + momentum * v).

    Examples
    --------
    >>> p = np.ones(2)
    >>> SGD([p], lr=0.5).step([np.ones(2)])
    >>> p
    array([0.5, 0.5])
    """

    arguments = ("momentum", "nesterov")

    def __init__(
        self,
        params: Items,
        lr: Rate = 0.1,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum = fraction("momentum", momentum)
        self.nesterov = nesterov
        self.buffers = ("velocity",) if momentum else ()
        super().__init__(params, lr, weight_decay)

    def _options(self, step: int, lr: float) -> tuple[str, dict[str, Any]]:
        nesterov = bool(self.nesterov)
        return "sgd", {"decay": self.weight_decay, "first": self.momentum, "rate": lr, "nesterov": nesterov}


class Adam(_Optimiser):
    """Adam (Kingma and Ba 2015), as ``torch.optim.Adam``; `weight_decay` adds to the gradient.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).

    Examples
    --------
    >>> p = np.ones(2)
    >>> Adam([p], lr=0.5).step([np.array([3.0, -3.0])])
    >>> p.round(6)
    array([0.5, 1.5])
    """

    buffers = ("m", "v")
    arguments = ("betas", "eps")
    decoupled = False  # whether weight decay leaves the gradient alone

    def __init__(
        self,
        params: Items,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        pair = isinstance(betas, (tuple, list, np.ndarray))
        expect(pair, "betas", "a pair of numbers", type(betas).__name__, TypeError)
        expect(len(betas) == 2, "betas", "a pair of numbers", betas)
        self.betas = (fraction("betas[0]", betas[0]), fraction("betas[1]", betas[1]))
        self.eps = at_least_zero("eps", eps)
        super().__init__(params, lr, weight_decay)

    def _options(self, step: int, lr: float) -> tuple[str, dict[str, Any]]:
        # The corrections of m and v are moved into lr and eps, so that they are computed once and not for each number.
        correction = math.sqrt(1 - self.betas[1] ** step)
        decay = {"keep": 1 - lr * self.weight_decay} if self.decoupled else {"decay": self.weight_decay}
        return "adam", decay | {
            "first": 1 - self.betas[0],
            "second": 1 - self.betas[1],
            "eps": self.eps * correction,
            "rate": lr * correction / (1 - self.betas[0] ** step),
        }


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): first ``p *= 1 - lr * weight_decay``.

    Examples
    --------
    >>> p = np.ones(1)
    >>> AdamW([p], lr=0.1, weight_decay=1.0).step([np.zeros(1)])
    >>> p
    array([0.9])
    """

    decoupled = True

    def __init__(
        self,
        params: Items,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class RMSprop(_Optimiser):
    """RMSprop (Tieleman and Hinton 2012), as ``torch.optim.RMSprop``.

    v = alpha v + (1 - alpha) g^2;  b = momentum b + g / (sqrt(v) + eps);  p -= lr * b.

    Examples
    --------
    >>> p = np.ones(1)
    >>> RMSprop([p], lr=0.1, alpha=0.75).step([np.ones(1)])
    >>> p.round(6)
    array([0.8])
    """

    arguments = ("alpha", "eps", "momentum")

    def __init__(
        self,
        params: Items,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.alpha = fraction("alpha", alpha)
        self.eps = at_least_zero("eps", eps)
        self.momentum = fraction("momentum", momentum)
        self.buffers = ("v", "velocity") if momentum else ("v",)
        super().__init__(params, lr, weight_decay)

    def _options(self, step: int, lr: float) -> tuple[str, dict[str, Any]]:
        moments = {"first": self.momentum, "second": 1 - self.alpha, "eps": self.eps}
        return "rmsprop", moments | {"decay": self.weight_decay, "rate": lr}


def clip_grad_norm(grads: Items, max_norm: float) -> float:
    """Scale all gradients together so that their Euclidean norm is at most `max_norm` (Pascanu et al. 2013).

    Parameters
    ----------
    grads : list of flat arrays, or of objects that have one in ``.flat``
        Changed in place, unless the norm is NaN or infinite.
    max_norm : float, more than 0

    Returns
    -------
    norm : float
        The norm before scaling.

    Examples
    --------
    >>> g = np.array([3.0, 4.0])
    >>> clip_grad_norm([g], 1.0), g
    (5.0, array([0.6, 0.8]))
    """
    max_norm, flats = positive("max_norm", max_norm), _writeable_flats("grads", grads)
    norm = _norm(flats)
    if max_norm < norm < math.inf:
        for g in flats:
            g *= max_norm / norm
    return norm


def clip_grad_value(grads: Items, max_value: float) -> None:
    """Clip every element of the gradients to [-max_value, max_value], in place.

    Examples
    --------
    >>> g = np.array([3.0, -4.0, 0.5])
    >>> clip_grad_value([g], 1.0); g
    array([ 1. , -1. ,  0.5])
    """
    max_value = positive("max_value", max_value)
    for g in _writeable_flats("grads", grads):
        np.maximum(np.minimum(g, max_value, out=g), -max_value, out=g)


def _norm(flats: list[Array]) -> float:
    """Return the Euclidean norm of all arrays together, summed in float64 in one order."""
    with np.errstate(over="ignore"):  # the norm may be infinite
        squares = [_core.squared_norm([np.ascontiguousarray(flat, core_dtype(flat))]) for flat in flats]
    return math.sqrt(sum(squares))


def _flats(name: str, items: Items) -> list[Array]:
    listed = isinstance(items, Sequence) and not hasattr(items, "flat")
    expect(listed, name, "a list of flat arrays or of layers", type(items).__name__, TypeError)
    flats: list[Any] = []
    for i, item in enumerate(items):
        if hasattr(item, "flats"):  # a chain of modules, or its gradients
            flats += item.flats
            continue
        flat = item if isinstance(item, np.ndarray) else getattr(item, "flat", None)
        wanted = "a layer, its gradients or a flat array of floats"
        expect(isinstance(flat, np.ndarray), f"{name}[{i}]", wanted, type(item).__name__, TypeError)
        if isinstance(flat, np.ma.MaskedArray):
            readable(f"{name}[{i}]", flat, wanted)
        flats.append(flat)
    for flat in flats:
        if flat.ndim != 1 or flat.dtype.kind != "f":
            got = f"{flat.dtype} {flat.shape}"
            raise TypeError(f"{name}: expected one-dimensional arrays of floats, got {got}")
    return flats


def _writeable_flats(name: str, items: Items) -> list[Array]:
    flats = _flats(name, items)
    expect_writeable(name, {f"index {i}": flat for i, flat in enumerate(flats)})
    return flats
