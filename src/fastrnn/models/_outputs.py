"""What a forecast says of each value: a distribution, quantiles or a number; with its loss and its gradient."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn.losses import gaussian_nll, mse

Array = NDArray[Any]

# Log-variances of standardised values are BOUND * tanh(raw / BOUND): no variance can vanish or explode.
BOUND = 10.0
MEDIAN = 0.5


class Gaussian:
    """Mean and log-variance; negative log-likelihood (Nix and Weigend 1994)."""

    size = 2

    def split(self, raw: Array, base: Array) -> tuple[Array, Array]:
        """Return mean and log-variance [..., K] from the network's outputs [..., 2 K]."""
        width = base.shape[-1]
        return base + raw[..., :width], BOUND * np.tanh(raw[..., width:] / BOUND)

    def loss(self, raw: Array, base: Array, target: Array, weights: Array) -> tuple[float, Array]:
        """Return the mean loss and the gradient of `raw`."""
        mean, log_var = self.split(raw, base)
        loss, (dmean, dlog_var) = gaussian_nll(mean, log_var, target, weights)
        draw = dlog_var * (1 - np.square(log_var / BOUND))
        return loss, np.concatenate([dmean, draw], axis=-1)

    def point(self, raw: Array, base: Array) -> Array:
        """Return the forecast [..., K]."""
        return self.split(raw, base)[0]

    def bounds(self, raw: Array, base: Array, level: float) -> tuple[Array, Array]:
        """Return lower and upper bounds [..., K]."""
        mean, log_var = self.split(raw, base)
        width = NormalDist().inv_cdf((1 + level) / 2) * np.exp(log_var / 2)
        return mean - width, mean + width


class Point:
    """One number; squared or absolute error."""

    size = 1

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def loss(self, raw: Array, base: Array, target: Array, weights: Array) -> tuple[float, Array]:
        """Return the mean loss and the gradient of `raw`."""
        if self.kind == "mse":
            loss, gradient = mse(base + raw, target, weights)
            return loss, gradient
        loss, gradient = _pinball(base + raw, target, weights, MEDIAN)
        return 2 * loss, 2 * gradient

    def point(self, raw: Array, base: Array) -> Array:
        """Return the forecast [..., K]."""
        return base + raw

    def bounds(self, raw: Array, base: Array, level: float) -> tuple[Array, Array]:
        """Raise: there are none."""
        raise ValueError(f"loss: expected 'gaussian' or 'quantile' for intervals, got {self.kind!r}")


class Quantiles:
    """Some quantiles; the pinball loss (Koenker and Bassett 1978)."""

    def __init__(self, levels: tuple[float, ...]) -> None:
        self.levels, self.size = levels, len(levels)

    def loss(self, raw: Array, base: Array, target: Array, weights: Array) -> tuple[float, Array]:
        """Return the mean loss and the gradient of `raw`."""
        parts = np.split(raw, self.size, axis=-1)
        pairs = [_pinball(base + r, target, weights, q) for r, q in zip(parts, self.levels, strict=True)]
        loss = sum(loss for loss, _ in pairs) / self.size
        return loss, np.concatenate([gradient for _, gradient in pairs], axis=-1) / raw.dtype.type(self.size)

    def point(self, raw: Array, base: Array) -> Array:
        """Return the median [..., K]."""
        return np.asarray(self._sorted(raw, base)[self.levels.index(MEDIAN)])

    def bounds(self, raw: Array, base: Array, level: float) -> tuple[Array, Array]:
        """Return lower and upper bounds [..., K], between two quantiles by linear interpolation."""
        values, least = self._sorted(raw, base), (1 - level) / 2
        edge = max(self.levels[0], 1 - self.levels[-1])
        inside = least >= edge - 1e-12
        expect(inside, "level", f"at most {1 - 2 * edge:g}, since quantiles are {self.levels}", level)
        return self._at(values, least), self._at(values, 1 - least)

    def _at(self, values: Array, q: float) -> Array:
        i = int(np.clip(np.searchsorted(self.levels, q) - 1, 0, self.size - 2))
        share = (q - self.levels[i]) / (self.levels[i + 1] - self.levels[i])
        return np.asarray(values[i] + np.clip(share, 0, 1) * (values[i + 1] - values[i]))

    def _sorted(self, raw: Array, base: Array) -> Array:
        """Return the quantiles [Q, ..., K] in their order: nothing keeps those of a network from crossing."""
        return np.sort(np.stack(np.split(raw, self.size, axis=-1)) + base, axis=0)


def output_of(model: Any) -> Any:
    """Return the kind of output that a model's `loss` asks for."""
    kind = getattr(model, "loss", "gaussian")
    if kind == "gaussian":
        return Gaussian()
    return Quantiles(tuple(model.quantiles)) if kind == "quantile" else Point(kind)


def _pinball(prediction: Array, target: Array, weights: Array, level: float) -> tuple[float, Array]:
    """Return the mean of max(q e, (q - 1) e) for errors e = target - prediction, and its gradient."""
    w = np.broadcast_to(weights if weights.ndim == target.ndim else weights[..., None], target.shape)
    share = w / max(float(w.sum()), 1.0)
    error = np.where(w > 0, target - prediction, 0)
    loss = float((share * np.maximum(level * error, (level - 1) * error)).sum(dtype=np.float64))
    return loss, (share * np.where(error > 0, -level, np.where(error < 0, 1 - level, 0))).astype(
        prediction.dtype
    )
