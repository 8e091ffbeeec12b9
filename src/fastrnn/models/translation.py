"""Seq2Seq: a sequence of symbols in, another one out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import Gradients
from fastrnn.models._base import Callback, Factory, Run, encode, pad, vocabulary
from fastrnn.models._writer import Writer, same

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]


class DotAttention:
    """Mean of the memory weighted by softmax(memory . query), at each step (Luong et al. 2015, "dot").

    ``forward(query [T, B, H], memory [S, B, H], lengths [B])`` gives the context [T, B, H] and the tape;
    ``backward(tape, dcontext).x`` is (dquery, dmemory).
    """

    params: dict[str, Array] = {}  # noqa: RUF012  has none

    def __init__(self) -> None:
        self.flat = np.zeros(0, np.float32)

    def state_dict(self) -> dict[str, Array]:
        """Give no parameters, as pieces that have some give theirs."""
        return {}

    def __call__(self, query: Array, memory: Array, lengths: Array) -> Array:
        """Give the context."""
        return self.forward(query, memory, lengths)[0]

    def forward(self, query: Array, memory: Array, lengths: Array) -> tuple[Array, Any]:
        """Give the context and the tape."""
        q, m = query.transpose(1, 0, 2), memory.transpose(1, 0, 2)
        scores = q @ m.transpose(0, 2, 1)  # [B, T, S]
        scores = np.where(np.arange(len(memory)) < lengths[:, None, None], scores, -np.inf)
        p = np.exp(scores - np.maximum(scores.max(axis=2, keepdims=True, initial=-np.inf), -1e30))
        p /= np.maximum(p.sum(axis=2, keepdims=True), 1e-30)  # of an empty row nothing is taken
        return (p @ m).transpose(1, 0, 2), (q, m, p)

    def backward(self, tape: Any, dcontext: Array) -> Gradients:
        """Give the gradients to query and memory."""
        q, m, p = tape
        d = dcontext.transpose(1, 0, 2)
        dp = d @ m.transpose(0, 2, 1)
        ds = p * (dp - (dp * p).sum(axis=2, keepdims=True))
        dm = p.transpose(0, 2, 1) @ d + ds.transpose(0, 2, 1) @ q
        return Gradients(((ds @ m).transpose(1, 0, 2), dm.transpose(1, 0, 2)), None, {}, self.flat.copy())


@dataclass(eq=False, kw_only=True)
class Seq2Seq(Writer):
    """Encoder and decoder (Sutskever et al. 2014), with attention as in Luong et al. 2015.

    `X` and `y` are lists of sequences of any length: strings, or lists of words (str) or symbols (int).
    The last states of the encoder are the first ones of the decoder.

    Parameters
    ----------
    bidirectional : bool
        the encoder reads in both directions, with half of `hidden_size` (even) for each.
    attention : bool
        the decoder looks at the encoder's states at each step.
    embedding_size : int
    min_count : int
        rarer symbols are treated as one unknown symbol, which is never written.
    label_smoothing : float
    **hyperparameters
        of every model: see `Model`.

    Examples
    --------
    >>> pairs = [("abc", "cba"), ("cab", "bac"), ("bca", "acb"), ("acb", "bca")]
    >>> model = Seq2Seq(hidden_size=32, epochs=60, lr=0.02, verbose=False).fit(*zip(*pairs))
    >>> model.predict(["cab"])
    ['bac']
    """

    bidirectional: bool = True
    attention: bool = True

    def fit(
        self,
        X: Sequence[Any],
        y: Sequence[Any],
        *,
        validation: tuple[Sequence[Any], Sequence[Any]] | None = None,
        callbacks: Iterable[Callback] = (),
        resume: Any = None,
    ) -> Self:
        """Train on pairs; `validation` is another (X, y), the rest as of `Model`."""
        if len(X) == 0 or len(X) != len(y):
            raise ValueError(
                f"y: expected one sequence for each of X and at least one, got {len(X)} and {len(y)}"
            )
        if self.bidirectional and self.hidden_size % 2:
            raise ValueError(
                f"hidden_size: expected an even one with bidirectional=True, got {self.hidden_size}"
            )
        config = {"source": vocabulary(X, min_count=self.min_count), **self._target_config(y)}

        def encoded(X: Sequence[Any], y: Sequence[Any]) -> Any:
            return [encode(row, config["source"]) for row in X], self._targets(y, config)

        return self._fit(encoded(X, y), config, validation and encoded(*validation), callbacks, resume)

    def predict(self, X: Sequence[Any], *, beam: int = 1, max_length: int | None = None) -> list[Any]:
        """Write a sequence for each of `X`, by beam search where `beam` is more than 1.

        `max_length` is by default that of the longest target seen in fit.
        """
        self._check_fitted()
        out: list[Any] = []
        for start in range(0, len(X), self.batch_size):
            rows = [encode(row, self.config_["source"]) for row in X[start : start + self.batch_size]]
            state, memory = self._encode(Run(self.pieces_, train=False), rows)
            out += self._search(state, memory, len(rows), beam, max_length)
        return out

    def score(self, X: Sequence[Any], y: Sequence[Any]) -> float:
        """Give the share of targets written without any mistake."""
        return float(np.mean([same(a, b) for a, b in zip(self.predict(X), y, strict=True)]))

    def _build(self, make: Factory) -> dict[str, Any]:
        pieces = {
            "source": make.embedding(self.config_["source"], self.embedding_size),
            "drop_in": make.dropout(),
            "encoder": make.recurrent(
                self.embedding_size,
                hidden=self.hidden_size // (1 + self.bidirectional),
                bidirectional=self.bidirectional,
            ),
            **self._build_writer(make),
        }
        if self.attention:
            pieces["attention"] = DotAttention()
            pieces["mix"] = make.linear(2 * self.hidden_size, self.hidden_size)
        return pieces

    def _encode(self, run: Run, rows: Sequence[Array]) -> tuple[Any, Any]:
        x, lengths = pad(rows)
        y, state = run("encoder", run("drop_in", run("source", x)), lengths=lengths)
        return self._join(state), (y, lengths)

    def _join(self, state: Any) -> Any:
        """Put the two directions of a state side by side: [2 L, B, H / 2] to [L, B, H]."""
        if isinstance(state, tuple):
            return tuple(self._join(s) for s in state)
        s = state.reshape(self.num_layers, -1, *state.shape[1:])
        return np.ascontiguousarray(s.transpose(0, 2, 1, 3).reshape(self.num_layers, state.shape[1], -1))

    def _split(self, state: Any) -> Any:
        """Undo `_join`."""
        if isinstance(state, tuple):
            return tuple(self._split(s) for s in state)
        s = state.reshape(*state.shape[:2], 1 + self.bidirectional, -1).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(s.reshape(-1, *s.shape[2:]))

    def _attend(self, run: Run, h: Array, memory: Any) -> Array:
        if not self.attention:
            return h
        context = run("attention", h, *memory)
        mixed: Array = np.tanh(run("mix", np.concatenate([context, h], axis=2)))
        self._mixed = mixed
        return mixed

    def _attend_back(self, run: Run, dh: Array) -> tuple[Array, Any]:
        if not self.attention:
            return dh, None
        both = run.back("mix", dh * (1 - np.square(self._mixed))).x
        dquery, dmemory = run.back("attention", both[..., : self.hidden_size]).x
        return both[..., self.hidden_size :] + dquery, dmemory

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        sources, targets = data
        state, memory = self._encode(run, [sources[i] for i in batch])
        loss, count, dstate, dmemory = self._write(run, [targets[i] for i in batch], state, memory)
        if run.train:
            dx = run.back("encoder", dmemory, self._split(dstate)).x
            run.back("source", run.back("drop_in", dx).x)
        return loss, count
