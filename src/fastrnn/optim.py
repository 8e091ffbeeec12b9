"""Optimisers, learning-rate schedules and gradient clipping, in place on flat buffers.

An optimiser is built from what it updates, a list of layers and pieces (or of their flat arrays), and stepped
with a list of their gradients in the same order:

    optimiser = Adam([embedding, lstm, head], lr=cosine(1e-3, steps=1000))
    norm = optimiser.step([g_embedding, g_lstm, g_head], clip_norm=1.0)

`lr` is a float or a schedule: any function of the number of steps taken so far. Schedules keep no state, and
``state_dict`` holds the rest, so a resumed run goes on bitwise as it would have.

Every 64 steps, moments that have decayed to next to nothing become 0: arithmetic on them would be slow. With u
the spacing of the parameters' dtype at 1, that changes the denominators of Adam and RMSprop by a few u of `eps`
(with eps=0 not at all) and their steps by a few u of `lr`; in SGD it changes a velocity by less than 1e-29
(float32) or 1e-177 (float64).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn._core as _core
from fastrnn._arrays import expect, expect_writeable, number
from fastrnn.io import copy_all, matching

Array = NDArray[Any]
Schedule = Callable[[Any], float]
Rate = float | Schedule
Items = Sequence[Any]

# Moments of parameters that get no gradient any more (rare words) decay into the subnormal numbers, where
# arithmetic is many times slower, and stay there. Every FLUSH_EVERY steps what is far above those but below
# any effect becomes 0.
FLUSH_EVERY = 64

__all__ = ["SGD", "Adam", "AdamW", "RMSprop", "clip_grad_norm", "clip_grad_value"]
__all__ += ["cosine", "exponential", "linear", "step_decay"]


class _Optimiser:
    """Parameters, learning rate, number of steps, and the buffers that `_update` keeps between steps."""

    buffers: tuple[str, ...] = ()
    eps = 0.0

    def __init__(self, params: Items, lr: Rate, weight_decay: float) -> None:
        self._params = _flats("params", params)
        self.lr = lr if callable(lr) else _at_least_zero("lr", lr)
        self.weight_decay = _at_least_zero("weight_decay", weight_decay)
        self.steps = 0
        self._state = {
            f"{k}.{i}": np.zeros(p.shape, _core_dtype(p))
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
            The update is that of gradients whose Euclidean norm, all together, is at most this
            (Pascanu et al. 2013): the same as :func:`clip_grad_norm` before the step, without its pass.

        Returns
        -------
        norm : float or None
            The norm before clipping, where ``clip_norm`` is given. Where that is NaN or infinite, nothing is
            updated.

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
        clip = -1.0 if clip_norm is None else float(_positive("clip_norm", clip_norm))
        norm = self._call_core(gradients, clip, lr)
        if clip_norm is not None and not math.isfinite(norm):
            return norm
        self.steps += 1
        if self.steps % FLUSH_EVERY == 0:
            for i, p in enumerate(self._params):
                for k in self.buffers:
                    s = self._state[f"{k}.{i}"]
                    s[np.abs(s) < self._negligible(k, p.dtype)] = 0
        return None if clip_norm is None else norm

    def _call_core(self, gradients: list[Array], clip: float, lr: float) -> float:
        """Let the core take step number ``steps`` + 1; return the norm of the gradients if there is a `clip`."""
        name, options = self._options(self.steps + 1, lr)
        dtypes = {_core_dtype(p) for p in self._params}
        norm = 0.0
        if len(dtypes) > 1 and clip >= 0:  # the norm is of all, the core takes one dtype at a time
            norm = _norm(gradients)
            if not math.isfinite(norm):
                return norm
            scale = clip / norm if norm > clip else 1.0
            gradients, clip = [g * g.dtype.type(scale) for g in gradients], -1.0
        for dtype in dtypes:
            places = [i for i, p in enumerate(self._params) if _core_dtype(p) == dtype]
            params = [np.require(self._params[i], dtype, ["C", "A", "W"]) for i in places]
            grads = [np.ascontiguousarray(gradients[i], dtype) for i in places]
            buffers: list[list[Array | None]] = [
                [self._state[f"{k}.{i}"] for i in places] for k in self.buffers
            ]
            buffers += [[None] * len(places)] * (2 - len(buffers))
            a, b = buffers
            norm = _core.optimiser_step(name, params, grads, a, b, clip, **options) or norm
            for i, numbers in zip(places, params, strict=True):
                if numbers is not self._params[i]:  # a copy: of another dtype, or not contiguous
                    self._params[i][...] = numbers
        return norm

    def _negligible(self, buffer: str, dtype: np.dtype[Any]) -> float:
        """Give the size below which a number in a buffer has no effect beyond rounding."""
        eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
        if buffer == "v":
            return (eps * self.eps) ** 2  # its root is lost beside self.eps
        least = math.sqrt(eps * tiny)  # of all roots of a v that is not 0; what m is divided by is no less
        return eps * min(least, self.eps or least)

    def _options(self, step: int, lr: float) -> tuple[str, dict[str, Any]]:
        """Return the core's name of the optimiser and what step number `step` takes."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """Give a copy of what a resumed run needs besides parameters and arguments, as arrays."""
        return {"steps": np.array(self.steps), **{name: array.copy() for name, array in self._state.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; missing, unexpected and misshapen entries are named in one ValueError."""
        arrays = {"steps": np.array(self.steps), **self._state}
        given = matching(arrays, state, "optimiser state")
        expect(given["steps"] >= 0, "optimiser state: steps", "at least 0", given["steps"])
        copy_all(arrays, given)
        self.steps = int(given["steps"])


class SGD(_Optimiser):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` (no dampening).

    v = momentum * v + g;  p -= lr * v, or with `nesterov` p -= lr * (g + momentum * v).

    Examples
    --------
    >>> p = np.ones(2)
    >>> SGD([p], lr=0.5).step([np.ones(2)])
    >>> p
    array([0.5, 0.5])
    """

    def __init__(
        self,
        params: Items,
        lr: Rate = 0.1,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum = _fraction("momentum", momentum)
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
    decoupled = False

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
        self.betas = (_fraction("betas[0]", betas[0]), _fraction("betas[1]", betas[1]))
        self.eps = _at_least_zero("eps", eps)
        super().__init__(params, lr, weight_decay)

    def _options(self, step: int, lr: float) -> tuple[str, dict[str, Any]]:
        # The two corrections are moved into lr and eps, which saves two divisions a parameter.
        correction = math.sqrt(1 - self.betas[1] ** step)
        decay = {"keep": 1 - lr * self.weight_decay} if self.decoupled else {"decay": self.weight_decay}
        return "adam", decay | {
            "first": 1 - self.betas[0],
            "second": 1 - self.betas[1],
            "eps": self.eps * correction,
            "rate": lr * correction / (1 - self.betas[0] ** step),
        }


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): first p *= 1 - lr * weight_decay.

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
        self.alpha = _fraction("alpha", alpha)
        self.eps = _at_least_zero("eps", eps)
        self.momentum = _fraction("momentum", momentum)
        self.buffers = ("v", "velocity") if momentum else ("v",)
        super().__init__(params, lr, weight_decay)

    def _options(self, step: int, lr: float) -> tuple[str, dict[str, Any]]:
        moments = {"first": self.momentum, "second": 1 - self.alpha, "eps": self.eps}
        return "rmsprop", moments | {"decay": self.weight_decay, "rate": lr}


def cosine(peak: float, steps: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Rise linearly to `peak` over `warmup` steps, then follow half a cosine down to `floor` at `steps`.

    Loshchilov and Hutter 2017.

    Examples
    --------
    >>> [cosine(1.0, 4)(t) for t in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """

    return _falling(lambda done: (1 + math.cos(math.pi * done)) / 2, peak, steps, warmup, floor)


def linear(peak: float, steps: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Rise linearly to `peak` over `warmup` steps, then fall linearly to `floor` at `steps`.

    Examples
    --------
    >>> [linear(1.0, 4)(t) for t in (0, 1, 4)]
    [1.0, 0.75, 0.0]
    """

    return _falling(lambda done: 1 - done, peak, steps, warmup, floor)


def exponential(lr: float, decay: float, *, every: int = 1) -> Schedule:
    """Multiply by `decay` over each `every` steps, smoothly.

    Examples
    --------
    >>> exponential(1.0, 0.25, every=2)(1)
    0.5
    """
    lr, decay, every = _at_least_zero("lr", lr), _at_least_zero("decay", decay), _positive("every", every)
    return lambda step: lr * decay ** (step / every)


def step_decay(lr: float, decay: float, *, every: int) -> Schedule:
    """Multiply by `decay` after each `every` steps, at once.

    Examples
    --------
    >>> [step_decay(1.0, 0.5, every=2)(t) for t in range(4)]
    [1.0, 1.0, 0.5, 0.5]
    """
    lr, decay, every = _at_least_zero("lr", lr), _at_least_zero("decay", decay), _positive("every", every)
    return lambda step: lr * decay ** (step // every)


def clip_grad_norm(grads: Items, max_norm: float) -> float:
    """Scale all gradients together so that their Euclidean norm is at most `max_norm`; give the norm before.

    A norm that is NaN or infinite is given back with the gradients unchanged. Pascanu et al. 2013.

    Parameters
    ----------
    grads : list of flat arrays, or of what has one in ``.flat``; changed in place
    max_norm : float, more than 0

    Examples
    --------
    >>> g = np.array([3.0, 4.0])
    >>> clip_grad_norm([g], 1.0), g
    (5.0, array([0.6, 0.8]))
    """
    max_norm, flats = _positive("max_norm", max_norm), _writeable_flats("grads", grads)
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
    max_value = _positive("max_value", max_value)
    for g in _writeable_flats("grads", grads):
        np.maximum(np.minimum(g, max_value, out=g), -max_value, out=g)


def _falling(shape: Schedule, peak: float, steps: int, warmup: int, floor: float) -> Schedule:
    """Rise linearly over `warmup` steps, then follow `shape`, from 1 at 0 to 0 at 1, down to `floor`."""
    peak, floor = _at_least_zero("peak", peak), _at_least_zero("floor", floor)
    _at_least_zero("steps", steps)
    _at_least_zero("warmup", warmup)

    def schedule(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return floor + (peak - floor) * shape(min(1.0, (step - warmup) / max(1, steps - warmup)))

    return schedule


def _norm(flats: list[Array]) -> float:
    """Return the Euclidean norm of all arrays together, summed in float64 in one order."""
    with np.errstate(over="ignore"):  # an infinite norm is the answer then
        squares = [_core.squared_norm([np.ascontiguousarray(flat, _core_dtype(flat))]) for flat in flats]
    return math.sqrt(sum(squares))


def _core_dtype(array: Array) -> np.dtype[Any]:
    """Return the dtype in which the core works on an array of floats."""
    return np.dtype(np.float64 if array.dtype.itemsize > 4 else np.float32)


def _flats(name: str, items: Items) -> list[Array]:
    listed = isinstance(items, Sequence) and not hasattr(items, "flat")
    expect(listed, name, "a list of flat arrays or of layers", type(items).__name__, TypeError)
    flats = [item if isinstance(item, np.ndarray) else getattr(item, "flat", None) for item in items]
    for flat in flats:
        if not isinstance(flat, np.ndarray) or flat.ndim != 1 or flat.dtype.kind != "f":
            got = f"{flat.dtype} {flat.shape}" if isinstance(flat, np.ndarray) else type(flat).__name__
            raise TypeError(f"{name}: expected one-dimensional arrays of floats, got {got}")
    return flats  # type: ignore[return-value]


def _writeable_flats(name: str, items: Items) -> list[Array]:
    flats = _flats(name, items)
    expect_writeable(name, {f"index {i}": flat for i, flat in enumerate(flats)})
    return flats


def _at_least_zero(name: str, value: float) -> float:
    expect(0 <= number(name, value) < math.inf, name, "a number of at least 0", value)
    return float(value)


def _positive(name: str, value: float) -> Any:
    expect(number(name, value) > 0, name, "more than 0", value)
    return value


def _fraction(name: str, value: float) -> float:
    expect(0 <= number(name, value) < 1, name, f"0 <= {name} < 1", value)
    return float(value)
