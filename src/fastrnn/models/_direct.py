"""Forecasts of a whole horizon at once: one network reads the past, another one what is known of the steps to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.models._data import mean_and_scale
from fastrnn.models._factory import Factory
from fastrnn.models._outputs import output_of
from fastrnn.models._run import Run
from fastrnn.models._series import Columns, Series

Array = NDArray[Any]
Batch = list[tuple[int, int]]


class Direct:
    """A horizon (an encoder and a decoder that reads no forecast). `made` has the hyperparameters of the model."""

    def __init__(self, made: Any, columns: Columns) -> None:
        self.made, self.columns, self.output = made, columns, output_of(made)
        self.season = getattr(made, "season", None)

    def build(self, make: Factory) -> dict[str, Any]:
        """Make the modules of a network."""
        c = self.columns
        rnn = make.recurrent(c.width + len(c.marked))
        seasonal = len(c.forecast) if self.season else 0
        decoder = make.recurrent(1 + len(c.known) + seasonal)
        head = make.linear(make.model.hidden_size, self.output.size * len(c.forecast))
        head.flat *= 0.1  # begin near "no change, variance 1"
        return {"rnn": rnn, "decoder": decoder, "drop_out": make.dropout(), "head": head}

    def plan(self, data: Sequence[Series], rng: np.random.Generator | None) -> list[Batch]:
        """Return batches of windows (series, number of steps before the horizon)."""
        made, windows = self.made, []
        for i, series in enumerate(data):
            last = len(series) - made.horizon
            least = max(1, min(series.first, last))
            if made.stride is not None:  # counted from the end, after which predict goes on
                windows += [(i, t) for t in range(last, least - 1, -made.stride)][::-1]
                continue
            room = min(made.horizon, max(last - least + 1, 1))
            start = least + (0 if rng is None else int(rng.integers(room)))
            windows += [(i, t) for t in range(start, last + 1, made.horizon)]
        if rng is not None:
            windows = [windows[i] for i in rng.permutation(len(windows))]
        size = made.batch_size
        return [windows[i : i + size] for i in range(0, len(windows), size)]

    def step(self, run: Run, data: Sequence[Series], batch: Batch) -> tuple[float, int]:
        """Do one batch; return the mean loss and the number of targets."""
        c, horizon = self.columns, self.made.horizon
        pasts = [data[i].x[max(0, t - self.made.steps) : t] for i, t in batch]
        coming = np.stack([data[i].x[t : t + horizon] for i, t in batch], axis=1)
        pasts, (mean, scale) = self._windows(pasts)
        target = (coming[..., c.forecast] - mean) / scale
        weights = np.ones(target.shape, bool)
        for b, (i, t) in enumerate(batch):
            seen = data[i].seen
            if seen is not None:
                weights[:, b] = seen[t : t + horizon, c.forecast]
        raw, base = self._forward(run, pasts, coming[..., c.known])
        loss, draw = self.output.loss(raw, np.broadcast_to(base, target.shape), target, weights)
        if run.train:
            dstate = run.back(run.back(draw, "head", "drop_out").x, "decoder", need_dx=False).state
            run.back(None, "rnn", state=dstate, need_dx=False)
        return loss, round(weights.sum() / len(c.forecast))

    def forecast(
        self, run: Run, pasts: list[Array], future: Array | None, horizon: int, level: float | None
    ) -> tuple[Array, ...]:
        """Return forecasts [horizon, B, K], and their bounds if there is a level."""
        known = np.zeros((horizon, len(pasts), 0)) if future is None else future
        pasts, (mean, scale) = self._windows(pasts)
        raw, base = self._forward(run, pasts, known)
        found = (self.output.point(raw, base),)
        found += () if level is None else self.output.bounds(raw, base, level)
        return tuple(np.float64(values) * scale + mean for values in found)

    def _windows(self, pasts: list[Array]) -> tuple[list[Array], tuple[Array, Array]]:
        """Return windows, whose targets are standardised by themselves if they are to be, and their scales [B, K]."""
        places, n, dtype = self.columns.forecast, len(pasts), pasts[0].dtype
        if getattr(self.made, "scaling", "fit") != "window":
            shape = (n, len(places))
            return pasts, (np.zeros(shape, dtype), np.ones(shape, dtype))
        pairs = [mean_and_scale(past[:, places].astype(np.float64)) for past in pasts]
        mean, scale = (np.array(part, dtype) for part in zip(*pairs, strict=True))
        windows = [past.copy() for past in pasts]
        for b, window in enumerate(windows):
            window[:, places] = (window[:, places] - mean[b]) / scale[b]
        return windows, (mean, scale)

    def _forward(self, run: Run, pasts: list[Array], known: Array) -> tuple[Array, Array]:
        """Return the head's outputs [horizon, B, size * K], and the last values [1, B, K], to which they are added."""
        n, lengths = len(pasts), np.array([len(past) for past in pasts])
        x = np.zeros((lengths.max(), n, pasts[0].shape[1]), pasts[0].dtype)
        for b, past in enumerate(pasts):
            x[: len(past), b] = past
        base = x[lengths - 1, np.arange(n)][None, :, self.columns.forecast]
        _, state = run("rnn", x, None, lengths=lengths)
        ahead = np.arange(1, len(known) + 1, dtype=x.dtype) / self.made.horizon
        ahead = np.broadcast_to(ahead[:, None, None], (len(known), n, 1))
        inputs = [ahead, known.astype(x.dtype)]
        if self.season:  # the values one season before, or those of the season before that, which are known
            places = lengths - self.season + np.arange(len(known))[:, None] % self.season
            inputs += [x[np.maximum(places, 0), np.arange(n)][..., self.columns.forecast]]
        h, _ = run("decoder", np.concatenate(inputs, axis=2), state)
        return run("head", run("drop_out", h)), base
