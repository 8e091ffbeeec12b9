"""Losses with their gradients: ``loss, gradient = mse(prediction, target)``.

The loss is a float, summed in float64. The gradient has the dtype of the prediction. ``weights`` say how much each
element counts; they are finite and not negative. The reduction "mean" divides by their sum. An element with weight 0
has no effect on the loss or the gradients, even if it is NaN or its target is invalid. For padded batches,
``fastrnn.length_mask(lengths)`` makes weights of lengths.

A :class:`fastrnn.Ragged` may take the place of the first argument; the others are then Ragged of the same lengths too,
or their values, and the gradient is a Ragged. Integers and weights [total] may also be [total, 1].
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastrnn._core as _core
from fastrnn._arrays import (
    at_least_zero,
    core_dtype,
    expect,
    floats,
    indices,
    number,
    positive,
    readable,
    within,
)
from fastrnn.gradients import Gradients
from fastrnn.nn import Linear
from fastrnn.ragged import Ragged

Array = NDArray[Any]
Weights = ArrayLike | None
Reduction = Literal["mean", "sum"]

__all__ = ["gaussian_nll", "huber", "linear_softmax_cross_entropy", "log_softmax", "mse"]
__all__ += ["softmax_cross_entropy"]


def softmax_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    weights: Weights = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> tuple[float, Any]:
    """Return the cross-entropy of softmax(logits) in nats, and its gradient with respect to the logits.

    Parameters
    ----------
    logits : float [..., C]
    targets : int [...]
        the right class, 0 <= target < C where the weight is not 0.
    weights : float [...], optional
    label_smoothing : float
        the target distribution is (1 - s) * one-hot + s / C (Szegedy et al. 2016), as
        ``torch.nn.CrossEntropyLoss``.
    ignore_index : int, optional
        targets of this value count as if their weight were 0.
    reduction : "mean" or "sum"

    Examples
    --------
    >>> loss, gradient = softmax_cross_entropy(np.zeros((1, 2)), [0])
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[-0.5, 0.5]])
    """
    (logits, targets, weights), lengths = _values(logits=logits, targets=targets, weights=weights)
    z = _logits(logits)
    weights = _without(ignore_index, targets, weights)
    right, w, scale, smooth = _classes(z.shape, z.shape[-1], targets, weights, label_smoothing, reduction)
    matrix = z.reshape(-1, z.shape[-1]).astype(core_dtype(z), copy=False)
    loss, gradient = _core.softmax_cross_entropy(matrix, right, w, scale, label_smoothing=smooth)
    assert gradient is not None
    return loss, _like(lengths, gradient.astype(z.dtype, copy=False).reshape(z.shape))


def linear_softmax_cross_entropy(
    linear: Linear,
    x: ArrayLike,
    targets: ArrayLike,
    weights: Weights = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    gradient: bool = True,
    need_dx: bool = True,
) -> tuple[float, Gradients | None]:
    """Return the cross-entropy of softmax(linear(x)) in nats, and the gradients of ``x`` and of the linear layer.

    This is the linear layer, :func:`softmax_cross_entropy` and the layer's backward pass in one. It takes less
    memory, because only a few steps' logits are held at a time.

    Parameters
    ----------
    linear : Linear
        The layer that maps hidden states to one logit for each of C classes.
    x : float [..., in_features]
        Usually the hidden states of a recurrent layer. Cast to the layer's dtype.
    targets : int [...]
        The right class, 0 <= target < C where the weight is not 0.
    weights : float [...], optional
        How much each target counts; finite and not negative.
    label_smoothing : float
        The target distribution is (1 - s) * one-hot + s / C (Szegedy et al. 2016).
    z_loss : float
        Adds ``z_loss * log(sum(exp(z))) ** 2`` for logits z, which keeps them from drifting (Chowdhery et al. 2022).
    ignore_index : int, optional
        Targets of this value count as if their weight were 0.
    reduction : "mean" or "sum"
        The mean is over the targets whose weight is not 0.
    gradient : bool
        Whether gradients are computed; without them it takes less time.
    need_dx : bool
        Whether the gradient of ``x`` is among them.

    Returns
    -------
    loss : float
    gradients : Gradients or None
        ``.x`` shaped as ``x``, ``.params`` and ``.flat`` of the linear layer.

    Raises
    ------
    ValueError, TypeError
        The message names the argument, what was expected and what came.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> head = fastrnn.Linear(4, 3, rng=0)
    >>> loss, g = linear_softmax_cross_entropy(head, np.zeros((5, 2, 4), np.float32), np.zeros((5, 2), int))
    >>> g.x.shape, list(g.params)
    ((5, 2, 4), ['weight', 'bias'])
    """
    expect(isinstance(linear, Linear), "linear", "a Linear", type(linear).__name__, TypeError)
    (x, targets, weights), lengths = _values(x=x, targets=targets, weights=weights)
    x = linear._float("x", x, linear.in_features)
    classes = linear.out_features
    weights = _without(ignore_index, targets, weights)
    right, w, scale, smooth = _classes(x.shape, classes, targets, weights, label_smoothing, reduction)
    loss, dx, flat = _core.linear_cross_entropy(
        x.reshape(-1, linear.in_features), linear.params["weight"], linear.params.get("bias"), right, w, scale,
        label_smoothing=smooth, z_loss=at_least_zero("z_loss", z_loss), gradients=gradient,
        need_dx=need_dx,
    )  # fmt: skip
    if flat is None:
        return loss, None
    dx = None if dx is None else _like(lengths, dx.reshape(x.shape))
    return loss, Gradients(x=dx, state=None, shapes=linear.shapes, flat=flat)


def mse(
    prediction: ArrayLike, target: ArrayLike, weights: Weights = None, *, reduction: Reduction = "mean"
) -> tuple[float, Any]:
    """Return the squared error and its gradient with respect to the prediction.

    Parameters
    ----------
    prediction, target : float, one shape
    weights : float of that shape, or without its last axis (per step), optional
    reduction : "mean" (over elements) or "sum"

    Examples
    --------
    >>> mse([1.0, 2.0], [1.0, 4.0])
    (2.0, array([ 0., -2.]))
    """
    (prediction, target, weights), lengths = _values(prediction=prediction, target=target, weights=weights)
    error, w, scale = _errors(prediction, target, weights, reduction)
    return _reduce(np.square(error), w, scale), _like(lengths, _scaled(2 * error, w, scale, error.dtype))


def huber(
    prediction: ArrayLike,
    target: ArrayLike,
    weights: Weights = None,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
) -> tuple[float, Any]:
    """Return the Huber loss and its gradient: e^2 / 2 where ``|e| <= delta``, else ``delta * (|e| - delta / 2)``.

    Arguments as of `mse`. Huber 1964; ``torch.nn.HuberLoss``.

    Examples
    --------
    >>> huber([0.5, 3.0], [0.0, 0.0])
    (1.3125, array([0.25, 0.5 ]))
    """
    delta = positive("delta", delta)
    (prediction, target, weights), lengths = _values(prediction=prediction, target=target, weights=weights)
    error, w, scale = _errors(prediction, target, weights, reduction)
    inside = np.clip(error, -delta, delta)
    loss = _reduce(inside * (error - inside / 2), w, scale)
    return loss, _like(lengths, _scaled(inside, w, scale, error.dtype))


def gaussian_nll(
    mean: ArrayLike,
    log_variance: ArrayLike,
    target: ArrayLike,
    weights: Weights = None,
    *,
    reduction: Reduction = "mean",
) -> tuple[float, tuple[Any, Any]]:
    """Return the negative log-likelihood of N(mean, exp(log_variance)), and its gradients with respect to both.

    (log(2 pi) + log_variance + (target - mean)^2 / exp(log_variance)) / 2. Nix and Weigend 1994.

    Parameters
    ----------
    mean, log_variance, target : float, one shape
        each gradient has the dtype of its own argument.
    weights, reduction : as of `mse`

    Examples
    --------
    >>> loss, (dmean, dlog_variance) = gaussian_nll([0.0], [0.0], [1.0])
    >>> round(loss, 4), dmean.tolist(), dlog_variance.tolist()
    (1.4189, [-1.0], [0.0])
    """
    named = {"mean": mean, "log_variance": log_variance, "target": target, "weights": weights}
    (mean, log_variance, target, weights), lengths = _values(**named)
    error, w, scale = _errors(mean, target, weights, reduction, "mean")
    log_var = floats("log_variance", log_variance)
    expect(log_var.shape == error.shape, "log_variance", f"shape {error.shape}", log_var.shape)
    if w is not None:
        log_var = np.where(w == 0, 0, log_var)
    scaled = error * np.exp(-log_var)
    squared = error * scaled
    loss = _reduce((np.log(2 * np.pi) + log_var + squared) / 2, w, scale)
    dmean = _scaled(scaled, w, scale, error.dtype)
    dlog_variance = _scaled((1 - squared) / 2, w, scale, log_var.dtype)
    return loss, (_like(lengths, dmean), _like(lengths, dlog_variance))


@overload
def log_softmax(logits: Ragged) -> Ragged: ...
@overload
def log_softmax(logits: ArrayLike) -> Array: ...
def log_softmax(logits: Any) -> Any:
    """Return log(softmax(logits)) over the last axis, in the dtype of `logits`.

    Examples
    --------
    >>> np.exp(log_softmax([0.0, 0.0]))
    array([0.5, 0.5])
    """
    (logits,), lengths = _values(logits=logits)
    z: Array = _logits(logits)
    z = z - np.max(z, axis=-1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return _like(lengths, z)


def _values(**named: Any) -> tuple[list[Any], NDArray[np.int64] | None]:
    """Return the arguments of a loss as arrays, and the lengths where the first one is a Ragged."""
    first = next(iter(named))
    if not isinstance(named[first], Ragged):
        for name, value in named.items():
            array = not isinstance(value, Ragged)
            expect(array, name, f"an array, as {first} is one", "a Ragged", TypeError)
        return list(named.values()), None
    lengths, width = named[first].lengths, named[first].values.shape[1:]
    arrays = []
    for name, value in named.items():
        if isinstance(value, Ragged):
            fits = np.array_equal(value.lengths, lengths)
            expect(fits, name, f"sequences of the lengths of {first}", "other lengths")
            value = value.values
            column = value.shape[1:] == (1,) and (width != (1,) or name == "targets")
            value = value[:, 0] if column else value  # one number a step
        arrays.append(value)
    return arrays, lengths.copy()


def _like(lengths: NDArray[np.int64] | None, array: Array) -> Any:
    """Return a gradient as the first argument of the loss was: an array, or a Ragged."""
    return array if lengths is None else Ragged._of(array, lengths)


def _without(ignore_index: int | None, targets: Any, weights: Any) -> Any:
    """Return the weights, with 0 for targets that are `ignore_index`."""
    if ignore_index is None:
        return weights
    whole = isinstance(ignore_index, (int, np.integer)) and not isinstance(ignore_index, bool)
    expect(whole, "ignore_index", "an integer", type(ignore_index).__name__, TypeError)
    ids = indices("targets", targets)
    kept = (ids != ignore_index).astype(np.float64)
    if weights is None:
        return kept
    given = readable("weights", weights, "real numbers")
    expect(given.shape == ids.shape, "weights", f"shape {ids.shape}", given.shape)
    return np.where(kept, given, 0)


def _logits(logits: ArrayLike) -> Array:
    z = floats("logits", logits)
    expect(z.ndim != 0 and z.shape[-1] != 0, "logits", "shape [..., C] with C >= 1", z.shape)
    return z


def _classes(
    shape: tuple[int, ...],
    classes: int,
    targets: ArrayLike,
    weights: Weights,
    label_smoothing: float,
    reduction: str,
) -> tuple[Array, Array | None, float, float]:
    """Return what the core takes: flat targets, flat weights or None, the weight of each target, the smoothing.

    For a mean, the weights add up to 1.
    """
    right = indices("targets", targets)
    expect(right.shape == shape[:-1], "targets", f"shape {shape[:-1]}", right.shape)
    smooth = number("label_smoothing", label_smoothing)
    expect(0 <= smooth <= 1, "label_smoothing", "0 <= s <= 1", smooth)
    w, scale = _weights(weights, right.shape, right.shape, reduction)
    if w is None:
        within("targets", right, classes)
    else:
        within("targets", right[w != 0], classes)
        w = np.ascontiguousarray(w * scale).reshape(-1)
    return np.ascontiguousarray(right, np.int64).reshape(-1), w, scale, float(smooth)


def _weights(
    weights: Weights, shape: tuple[int, ...], steps: tuple[int, ...], reduction: str
) -> tuple[Array | None, float]:
    """Return the weights, of `shape` or of `steps`, as float64 of `shape`, and the factor of the reduction."""
    expect(reduction in ("mean", "sum"), "reduction", "'mean' or 'sum'", repr(reduction))
    if weights is None:
        total, w = float(np.prod(shape)), None
    else:
        w = readable("weights", weights, "real numbers")
        expect(w.dtype.kind in "fiub", "weights", "real numbers", w.dtype, TypeError)
        wanted = f"shape {shape}" if steps == shape else f"shape {shape} or {steps}"
        expect(w.shape in (shape, steps), "weights", wanted, w.shape)
        least, most = w.min(initial=0), w.max(initial=0)
        wanted = "no negative weight, NaN or infinity"
        expect(least >= 0 and most < np.inf, "weights", wanted, most if least >= 0 else least)
        w = np.broadcast_to((w if w.shape == shape else w[..., None]).astype(np.float64), shape)
        total = float(w.sum())
    return w, 1.0 if reduction == "sum" else 1 / total if total else 0.0


def _errors(
    prediction: ArrayLike, target: ArrayLike, weights: Weights, reduction: str, name: str = "prediction"
) -> tuple[Array, Array | None, float]:
    """Return prediction - target, 0 where the weight is 0, with the weights and the factor of the reduction."""
    y, t = floats(name, prediction), readable("target", target, "real numbers")
    expect(t.dtype.kind in "fiub", "target", "real numbers", t.dtype, TypeError)
    expect(t.shape == y.shape, "target", f"shape {y.shape}", t.shape)
    w, scale = _weights(weights, y.shape, y.shape[:-1], reduction)
    with np.errstate(invalid="ignore"):  # what has weight 0 may be anything
        error = (y - t).astype(y.dtype, copy=False)
    return (error if w is None else np.where(w == 0, 0, error).astype(y.dtype, copy=False)), w, scale


def _reduce(loss: Array, w: Array | None, scale: float) -> float:
    loss = loss.astype(np.float64, copy=False)
    return float(loss.sum() if w is None else (loss * w).sum()) * scale


def _scaled(gradient: Array, w: Array | None, scale: float, dtype: np.dtype[Any]) -> Array:
    return np.asarray(gradient * (scale if w is None else w * scale), dtype)
