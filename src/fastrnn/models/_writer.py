"""What Seq2Seq and Captioner share: a decoder that writes symbols from a state it is handed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.losses import log_softmax, softmax_cross_entropy
from fastrnn.models._base import Factory, Model, Run, encode, pad, vocabulary

Array = NDArray[Any]

UNKNOWN, START, END = 0, 1, 2
LENGTH_PENALTY = 0.6  # beams compare log p / length^0.6 (Wu et al. 2016); without it short ones win


@dataclass(eq=False, kw_only=True)
class Writer(Model):
    """Embedding, recurrent layers, optional attention, linear layer over the symbols to write."""

    embedding_size: int = 64
    min_count: int = 1
    label_smoothing: float = 0.0

    def _target_config(self, y: Sequence[Any]) -> dict[str, Any]:
        symbols = vocabulary(y, (None, None, None), self.min_count)
        return {"target": symbols, "text": isinstance(y[0], str), "longest": max(len(row) for row in y)}

    def _targets(self, y: Sequence[Any], config: dict[str, Any]) -> list[Array]:
        return [encode(row, config["target"]) for row in y]

    def _build_writer(self, make: Factory) -> dict[str, Any]:
        return {
            "target": make.embedding(self.config_["target"], self.embedding_size),
            "drop_target": make.dropout(),
            "decoder": make.recurrent(self.embedding_size),
            "drop_out": make.dropout(),
            "head": make.linear(self.hidden_size, len(self.config_["target"])),
        }

    def _attend(self, run: Run, h: Array, memory: Any) -> Array:
        """Let the hidden states [T, B, H] look at what was read."""
        return h

    def _attend_back(self, run: Run, dh: Array) -> tuple[Array, Any]:
        return dh, None

    def _decode(self, run: Run, x: Array, state: Any, memory: Any, **kwargs: Any) -> tuple[Array, Any]:
        """Give the logits [T, B, V] after the symbols x [T, B], and the state."""
        h, state = run("decoder", run("drop_target", run("target", x)), state, **kwargs)
        return run("head", run("drop_out", self._attend(run, h, memory))), state

    def _write(self, run: Run, rows: Sequence[Array], state: Any, memory: Any) -> tuple[float, int, Any, Any]:
        """Give the loss of writing `rows`, of how many symbols, and the gradients to state and memory."""
        y, lengths = pad([np.append(row, END) for row in rows])
        x = np.concatenate([np.full((1, len(rows)), START), y[:-1]])
        weights = np.arange(len(y))[:, None] < lengths
        z, _ = self._decode(run, x, state, memory, lengths=lengths)
        smoothing = self.label_smoothing if run.train else 0.0
        loss, dz = softmax_cross_entropy(z, y, weights, label_smoothing=smoothing)
        if not run.train:
            return loss, int(lengths.sum()), None, None
        dh, dmemory = self._attend_back(run, run.back("drop_out", run.back("head", dz).x).x)
        g = run.back("decoder", dh)
        run.back("target", run.back("drop_target", g.x).x)
        return loss, int(lengths.sum()), g.state, dmemory

    def _search(self, state: Any, memory: Any, n: int, beam: int, max_length: int | None) -> list[Any]:
        """Write `n` rows from their states: beam search, greedy where `beam` is 1."""
        if beam < 1 or (max_length is not None and max_length < 0):
            raise ValueError(f"beam, max_length: expected at least 1 and 0, got {beam}, {max_length}")
        symbols = self.config_["target"]
        run, first = Run(self.pieces_, train=False), np.arange(n)[:, None]
        state, memory = (
            take(state, np.repeat(np.arange(n), beam)),
            take(memory, np.repeat(np.arange(n), beam)),
        )
        written = np.zeros((n, beam, 0), np.intp)
        scores = np.where(np.arange(beam) == 0, 0.0, -np.inf).repeat(n).reshape(beam, n).T
        ended, last = np.zeros((n, beam), bool), np.full((1, n * beam), START)
        for _ in range(self.config_["longest"] if max_length is None else max_length):
            z, state = self._decode(run, last, state, memory)
            log_p = log_softmax(z[0].astype(np.float64)).reshape(n, beam, -1)
            log_p[..., [UNKNOWN, START]] = -np.inf
            log_p[ended] = -np.inf
            log_p[ended, END] = 0
            total = (scores[..., None] + log_p).reshape(n, -1)
            best = np.argsort(-total, axis=1, kind="stable")[:, :beam]
            parent, symbol = np.divmod(best, len(symbols))
            scores = total[first, best]
            written = np.concatenate([written[first, parent], symbol[..., None]], axis=2)
            ended = ended[first, parent] | (symbol == END)
            state, last = take(state, (first * beam + parent).reshape(-1)), symbol.reshape(1, -1)
            if ended.all():
                break
        lengths = (written != END).sum(axis=2) + 1
        chosen = written[np.arange(n), np.argmax(scores / lengths**LENGTH_PENALTY, axis=1)]
        rows = [[symbols[i] for i in row if i != END] for row in chosen]
        return ["".join(row) for row in rows] if self.config_["text"] else rows


def take(state: Any, rows: Array) -> Any:
    """Give the rows of a state [L, B, H], of a tuple of them, or of lengths [B]."""
    if isinstance(state, tuple):
        return tuple(take(s, rows) for s in state)
    return None if state is None else np.take(state, rows, axis=min(1, state.ndim - 1))


def same(a: Any, b: Any) -> bool:
    """Say whether two rows of symbols are the same."""
    return list(a) == list(b)
