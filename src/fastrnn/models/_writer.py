"""What Seq2Seq and Captioner share: a decoder that writes tokens, beginning from a given state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _size, expect
from fastrnn.losses import log_softmax
from fastrnn.models._base import Model
from fastrnn.models._data import encode, pad, take, vocabulary
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import CHARACTERS, all_tokens, items
from fastrnn.models._run import Run

Array = NDArray[Any]

UNKNOWN, START, END = 0, 1, 2
LENGTH_PENALTY = (
    0.6  # beams compare log p / length^0.6 (Wu et al. 2016); by log p alone, short ones would win
)


@dataclass(eq=False, kw_only=True)
class Writer(Model):
    """Embedding, recurrent layers, optional attention, and a linear layer over the tokens to write."""

    embedding_size: int = 64
    min_count: int = 1
    label_smoothing: float = 0.0

    def predict(self, X: Any, *, beam: int = 1, max_length: int | None = None) -> list[Any]:
        """Write a sequence for each of `X`, by beam search if `beam` is more than 1.

        Parameters
        ----------
        X
            as in `fit`.
        beam : int
            number of candidates that are kept at each step; 1 is greedy search.
        max_length : int, optional
            tokens of the longest output; by default those of the longest sequence seen in fit.

        Returns
        -------
        list of str, or of lists of tokens
            as `y` was in fit.
        """
        self._check_fitted()
        beam = _size("beam", beam)
        max_length = self.config_["longest"] if max_length is None else _size("max_length", max_length, 0)
        sources = self._sources(X, self.config_)
        run, out = Run(self.modules_, train=False), []
        for batch in self._plan((sources,), None):
            state, memory = self._read(run, [sources[i] for i in batch])
            out += self._search(state, memory, len(batch), beam, max_length)
        return out

    def score(self, X: Any, y: Sequence[Any]) -> float:
        """Return the share of sequences that are written without any mistake."""
        written = self.predict(X)
        targets = self._targets(X, y, self.config_)
        return float(np.mean([list(a) == list(b) for a, b in zip(written, targets, strict=True)]))

    # -- what Seq2Seq and Captioner define --------------------------------------------------------------

    def _sources(self, X: Any, config: dict[str, Any]) -> Any:
        """Check `X`, and return it as a sequence or array with one element for each sequence to write."""
        raise NotImplementedError

    def _read(self, run: Run, sources: Sequence[Array]) -> tuple[Any, Any]:
        """Return the decoder's first state, and a memory to attend to or None."""
        raise NotImplementedError

    def _read_back(self, run: Run, dstate: Any, dmemory: Any) -> None:
        """Run `_read` backward."""
        raise NotImplementedError

    def _attend(self, run: Run, h: Array, memory: Any) -> Array:
        """Return the hidden states [T, B, H] after attention to the memory, if there is any."""
        return h

    def _attend_back(self, run: Run, dh: Array) -> tuple[Array, Any]:
        return dh, None

    # -- what they share --------------------------------------------------------------------------------

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        _expect_pairs(X, y)
        return self._configure_target(y)

    def _configure_target(self, y: Any, name: str = "y") -> dict[str, Any]:
        targets, kind = all_tokens(name, y)
        expect(targets, name, "at least 1 sequence", "0")
        known = vocabulary(targets, (None, None, None), self.min_count)
        longest = max(map(len, targets))
        return {"target": known, "text": kind == CHARACTERS, "longest": longest, "kind": kind}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], sample_weight: Any = None) -> Any:
        targets = self._targets(X, y, config)
        return self._sources(X, config), [encode(target, config["target"]) for target in targets]

    def _targets(self, X: Any, y: Any, config: dict[str, Any]) -> list[Any]:
        """Check that there is one of `y` for each of `X`, of the kind that fit saw, and return them."""
        _expect_pairs(X, y)
        return all_tokens("y", y, config.get("kind"))[0]

    def _build_writer(self, make: Factory) -> dict[str, Any]:
        tokens, *_ = [self.config_[key] for key in ("target", "text", "longest")]
        return {
            "target": make.embedding(tokens, self.embedding_size),
            "drop_target": make.dropout(),
            "decoder": make.recurrent(self.embedding_size),
            "drop_out": make.dropout(),
            "head": make.linear(self.hidden_size, len(tokens)),
        }

    def _decode(self, run: Run, x: Array, state: Any, memory: Any) -> tuple[Array, Any]:
        """Return the logits [T, B, V] after the tokens x [T, B], and the state."""
        h, state = self._hidden(run, x, state, memory)
        return run("head", h), state

    def _hidden(self, run: Run, x: Array, state: Any, memory: Any, **kwargs: Any) -> tuple[Array, Any]:
        """Return what goes into the head [T, B, H] after the tokens x [T, B], and the state."""
        h, state = run("decoder", run("drop_target", run("target", x)), state, **kwargs)
        return run("drop_out", self._attend(run, h, memory)), state

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        sources, targets = ([part[i] for i in batch] for part in data)
        state, memory = self._read(run, sources)
        y, lengths = pad([np.append(target, END) for target in targets])
        x = np.concatenate([np.full((1, len(targets)), START), y[:-1]])
        weights = np.arange(len(y))[:, None] < lengths
        h, _ = self._hidden(run, x, state, memory, lengths=lengths)
        loss, dh = run.loss("head", h, y, weights, label_smoothing=self.label_smoothing)
        if run.train:
            dh, dmemory = self._attend_back(run, run.back(dh, "drop_out").x)
            dstate = run.back(dh, "decoder").state
            run.back(run.grads["decoder"].x, "drop_target", "target")
            self._read_back(run, dstate, dmemory)
        return loss, int(lengths.sum())

    def _search(self, state: Any, memory: Any, n: int, beam: int, max_length: int) -> list[Any]:
        """Write `n` sequences from their states by beam search, which is greedy if `beam` is 1."""
        tokens = self.config_["target"]
        run, first = Run(self.modules_, train=False), np.arange(n)[:, None]
        state, memory = take((state, memory), np.repeat(np.arange(n), beam))
        written = np.zeros((n, beam, 0), np.intp)
        scores = np.where(np.arange(beam) == 0, 0.0, -np.inf).repeat(n).reshape(beam, n).T
        ended, last = np.zeros((n, beam), bool), np.full((1, n * beam), START)
        for _ in range(max_length):
            z, state = self._decode(run, last, state, memory)
            log_p = log_softmax(z[0].astype(np.float64)).reshape(n, beam, -1)
            log_p[..., [UNKNOWN, START]] = -np.inf
            log_p[ended] = -np.inf
            log_p[ended, END] = 0
            total = (scores[..., None] + log_p).reshape(n, -1)
            best = np.argsort(-total, axis=1, kind="stable")[:, :beam]
            parent, token = np.divmod(best, len(tokens))
            scores = total[first, best]
            written = np.concatenate([written[first, parent], token[..., None]], axis=2)
            ended = ended[first, parent] | (token == END)
            state, last = take(state, (first * beam + parent).reshape(-1)), token.reshape(1, -1)
            if ended.all():
                break
        lengths = (written != END).sum(axis=2) + 1
        chosen = written[np.arange(n), np.argmax(scores / lengths**LENGTH_PENALTY, axis=1)]
        sequences = [[tokens[i] for i in indices if i != END] for indices in chosen]
        return ["".join(s) for s in sequences] if self.config_["text"] else sequences


def _expect_pairs(X: Any, y: Any) -> None:
    """Raise unless there is one of `y` for each of `X`, and at least one."""
    wanted = "an array or a list of sequences"
    sizes = (0, 0) if y is None else (len(items("X", X, wanted)), len(items("y", y, wanted)))
    got = "None" if y is None else f"{sizes[0]} and {sizes[1]}"
    fits = y is not None and sizes[0] == sizes[1] > 0
    expect(fits, "y", "a sequence for each of X and at least one", got)
