"""IBM model 1: which token of a source each token of a target comes from, by expectation maximisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def ibm1(sources: Sequence[Array], targets: Sequence[Array], rounds: int = 5) -> list[Array]:
    """Return for each pair the probabilities [T, S] that a target's token comes from each token of the source.

    Sources and targets are indices of tokens. Rows add up to at most 1: what is left is the probability that the
    token comes from none. Brown et al. 1993.
    """
    n_source = np.array([len(s) + 1 for s in sources], np.intp)  # token 0 of each source is none
    n_target = np.array([len(t) for t in targets], np.intp)
    if not n_target.sum():
        return [np.zeros((0, len(s)), np.float32) for s in sources]
    widths = np.repeat(n_source, n_target)  # of each row, which is a token of a target
    rows = [np.tile(np.append(0, s + 1), len(t)) for s, t in zip(sources, targets, strict=True)]
    source = np.concatenate(rows).astype(np.int64)
    target = np.repeat(np.concatenate([np.asarray(t, np.int64) for t in targets]), widths)
    known, pair = np.unique(source * (target.max() + 1) + target, return_inverse=True)
    owner = known // (target.max() + 1)
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    table = np.ones(len(known))
    p = table
    for _ in range(rounds + 1):
        p = table[pair]
        p /= np.repeat(np.add.reduceat(p, starts), widths)
        counts = np.bincount(pair, p, len(known))
        table = counts / np.bincount(owner, counts)[owner]
    ends = np.cumsum(n_source * n_target)
    cut = np.split(p.astype(np.float32), ends[:-1])
    return [part.reshape(t, s)[:, 1:] for part, t, s in zip(cut, n_target, n_source, strict=True)]
