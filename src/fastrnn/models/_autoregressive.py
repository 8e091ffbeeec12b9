"""Forecasts step by step: the network forecasts the next values, and reads them to go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.models._data import take
from fastrnn.models._factory import Factory
from fastrnn.models._outputs import output_of
from fastrnn.models._run import Run
from fastrnn.models._series import Columns, Series

Array = NDArray[Any]
Batch = list[tuple[int, int, int]]


class Autoregressive:
    """One step ahead (Salinas et al. 2020). `made` has the hyperparameters of the model."""

    def __init__(self, made: Any, columns: Columns) -> None:
        self.made, self.columns, self.output = made, columns, output_of(made)

    def build(self, make: Factory) -> dict[str, Any]:
        """Make the modules of a network."""
        c = self.columns
        rnn = make.recurrent(c.width + len(c.marked) + len(c.known))
        head = make.linear(make.model.hidden_size, self.output.size * len(c.forecast))
        head.flat *= 0.1  # begin near "no change, variance 1"
        return {"rnn": rnn, "drop_out": make.dropout(), "head": head}

    def plan(self, data: Sequence[Series], rng: np.random.Generator | None) -> list[Batch]:
        """Return batches of windows (series, start, stop)."""
        # Windows follow each other from a random start, so that each epoch cuts the series at other places.
        windows, steps, size = [], self.made.steps, self.made.batch_size
        for i, series in enumerate(data):
            last = len(series) - 1
            start = 0 if rng is None else int(rng.integers(min(steps, max(len(series) - steps, 1))))
            windows += [(i, t, min(t + steps, last)) for t in range(start, last, steps)]
        if rng is not None:
            windows = [windows[i] for i in rng.permutation(len(windows))]
        return [windows[i : i + size] for i in range(0, len(windows), size)]

    def step(self, run: Run, data: Sequence[Series], batch: Batch) -> tuple[float, int]:
        """Do one batch; return the mean loss and the number of targets."""
        c = self.columns
        lengths = np.array([stop - start for _, start, stop in batch])
        x = np.zeros((lengths.max() + 1, len(batch), data[0].x.shape[1]), data[0].x.dtype)
        weights = np.arange(len(x) - 1)[:, None] < lengths
        if any(data[i].seen is not None for i, _, _ in batch):
            weights = np.repeat(weights[..., None], len(c.forecast), axis=2)
        for b, (i, start, stop) in enumerate(batch):
            x[: lengths[b] + 1, b] = data[i].x[start : stop + 1]
            seen = data[i].seen
            if seen is not None:
                weights[: lengths[b], b] = seen[start + 1 : stop + 1, c.forecast]
        raw, _ = self._forward(run, self._with_known(x[:-1], x[1:, :, c.known]), None, lengths=lengths)
        loss, draw = self.output.loss(raw, x[:-1, :, c.forecast], x[1:, :, c.forecast], weights)
        if run.train:
            run.back(draw, "head", "drop_out", "rnn", need_dx=False)
        return loss, int(weights.sum()) if weights.ndim == 2 else round(weights.sum() / len(c.forecast))

    def one_ahead(self, run: Run, x: Array) -> Array:
        """Return the forecasts [T - 1, K] of all steps of a series [T, D + marks] from those before each."""
        c = self.columns
        inputs = self._with_known(x[:-1, None], x[1:, None, c.known])
        raw, _ = self._forward(run, inputs, None)
        return np.asarray(self.output.point(raw, x[:-1, None, c.forecast])[:, 0])

    def forecast(
        self, run: Run, pasts: list[Array], future: Array | None, horizon: int, samples: int, rng: Any
    ) -> Array:
        """Return [horizon, B, samples, D]: futures that are drawn, or one that is the forecast where `rng` is None.

        `future` [horizon, B, C] has covariates: those that are known, or all, of a model to which none is known.
        """
        c, n = self.columns, len(pasts)
        lengths = np.array([len(p) for p in pasts])
        x = np.zeros((lengths.max(), n, pasts[0].shape[1]), pasts[0].dtype)
        for b, past in enumerate(pasts):
            x[: len(past), b] = past
        given = c.known or c.covariates
        following = np.zeros((*x.shape[:2], len(c.known)), x.dtype)
        if c.known:
            assert future is not None
            following[:-1] = x[1:, :, c.known]
            following[lengths - 1, np.arange(n)] = future[0]
        last = x[lengths - 1, np.arange(n)][None]
        h, state = run("rnn", self._with_known(x, following), None, lengths=lengths)
        h = h[lengths - 1, np.arange(n)][None]
        out: list[Array] = []
        for k in range(horizon):
            raw = run("head", run("drop_out", h))
            if rng is None:
                values = self.output.point(raw, last[..., c.forecast])
            else:
                if not out:  # all samples share the history, which is read once
                    places = np.repeat(np.arange(n), samples)
                    raw, last, state = take((raw, last, state), places)
                    future = None if future is None else future[:, places]
                mean, log_var = self.output.split(raw, last[..., c.forecast])
                noise = rng.standard_normal((1, samples, mean.shape[-1]))  # every sequence meets the same
                values = mean + np.exp(log_var / 2) * np.tile(noise, (1, n, 1))
            last = np.zeros_like(last)
            last[..., c.forecast] = values
            if future is not None:
                last[..., given] = future[k]
            out.append(last[0])
            if k + 1 < horizon:
                known = last[..., :0] if not c.known else future[k + 1][None]  # type: ignore[index]
                h, state = run("rnn", self._with_known(last, known), state)
        return np.array(out).reshape(horizon, n, -1, x.shape[2])[..., : c.width].astype(np.float64)

    def _with_known(self, x: Array, following: Array) -> Array:
        """Return what the network reads: a step, and what is known of the next one."""
        return x if not self.columns.known else np.concatenate([x, following], axis=-1)

    def _forward(self, run: Run, x: Array, state: Any, **kwargs: Any) -> tuple[Array, Any]:
        """Return the head's outputs after each step of `x` [T, B, I], and the state."""
        h, state = run("rnn", x, state, **kwargs)
        return run("head", run("drop_out", h)), state
