"""Pooling over time: one vector for each sequence from the hidden states of all its steps, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.losses import log_softmax
from fastrnn.models._run import Run

Array = NDArray[Any]


def pool(run: Run, kind: str, values: Array, lengths: Array) -> Array:
    """Return [B, H] from hidden states [total, H]: maximum, mean, or a mean weighted by attention; 0 without steps.

    Attention is that of Yang et al. 2016: softmax over the steps of v . tanh(W h + b).
    """
    parts, out = _parts(lengths), np.zeros((len(lengths), values.shape[1]), values.dtype)
    kept: list[Any] = [None] * len(parts)
    scores = run("pool_score", run("pool", values))[:, 0] if kind == "attention" else None
    for b, part in enumerate(parts):
        h = values[part]
        if not len(h):
            continue
        if scores is not None:
            p = np.exp(log_softmax(scores[part]))
            out[b] = (p[:, None] * h).sum(axis=0)
            kept[b] = p
        elif kind == "max":
            kept[b] = h.argmax(axis=0)
            out[b] = np.take_along_axis(h, kept[b][None], axis=0)[0]
        else:
            out[b] = h.mean(axis=0)
    if run.train:
        run.tapes["pooled"] = (kind, values, parts, out, kept)
    return out


def pool_back(run: Run, dout: Array) -> Array:
    """Return the gradient of the hidden states [total, H] from that of the pooled vectors [B, H]."""
    kind, values, parts, out, kept = run.tapes.pop("pooled")
    dvalues, dscores = np.zeros_like(values), np.zeros((len(values), 1), values.dtype)
    for b, part in enumerate(parts):
        n = part.stop - part.start
        if not n:
            continue
        if kind == "attention":
            p = kept[b][:, None]
            dvalues[part] = p * dout[b]
            dscores[part] = p * ((values[part] - out[b]) * dout[b]).sum(axis=1, keepdims=True)
        elif kind == "max":
            np.put_along_axis(dvalues[part], kept[b][None], dout[b][None], axis=0)
        else:
            dvalues[part] = dout[b] / n
    if kind == "attention":
        dvalues = dvalues + run.back(dscores, "pool_score", "pool").x
    return np.asarray(dvalues)


def _parts(lengths: Array) -> list[slice]:
    ends = np.cumsum(lengths).tolist()
    return [slice(end - n, end) for end, n in zip(ends, np.asarray(lengths).tolist(), strict=True)]
