"""What Seq2Seq and Captioner share: a decoder that writes tokens, beginning from a given state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _size, at_least_zero, expect
from fastrnn.losses import log_softmax
from fastrnn.models._base import Model
from fastrnn.models._data import encode, pad, take, vocabulary
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import CHARACTERS, all_tokens, items, tokens
from fastrnn.models._run import Run

Array = NDArray[Any]

UNKNOWN, START, END = 0, 1, 2
LENGTH_PENALTY = (
    0.6  # beams compare log p / length^0.6 (Wu et al. 2016); by log p alone, short ones would win
)


@dataclass(frozen=True)
class Search:
    """How candidates are compared, and what is kept of them."""

    length_penalty: float = LENGTH_PENALTY
    coverage_penalty: float = 0.0
    copy_unknown: bool = False
    looks: bool = False  # whether where attention looked is kept


class Written(NamedTuple):
    """What is written for a sequence."""

    tokens: Any
    score: float
    looks: Any  # [T + 1, S], for each token and the end, or None


@dataclass(eq=False, kw_only=True)
class Writer(Model):
    """Embedding, recurrent layers, optional attention, and a linear layer over the tokens to write."""

    embedding_size: int = 64
    min_count: int = 1
    label_smoothing: float = 0.0
    bucketing: bool = False

    def predict(
        self,
        X: Any,
        *,
        beam: int = 1,
        max_length: int | None = None,
        length_penalty: float = LENGTH_PENALTY,
        return_scores: bool = False,
    ) -> Any:
        """Write a sequence for each of `X`, by beam search if `beam` is more than 1.

        Parameters
        ----------
        X
            as in `fit`.
        beam : int
            number of candidates that are kept at each step; 1 is greedy search.
        max_length : int, optional
            tokens of the longest output; by default those of the longest sequence seen in fit.
        length_penalty : float
            candidates are compared by log p / n ** length_penalty for n tokens, their end included (Wu et al. 2016).
            With 0, short ones win.
        return_scores : bool
            whether to return these scores too.

        Returns
        -------
        written : list of str, or of lists of tokens
            as `y` was in fit.
        scores : array [n], if asked for
        """
        found = self._write(X, beam, max_length, Search(length_penalty))
        written = [w.tokens for w in found]
        return (written, np.array([w.score for w in found])) if return_scores else written

    def _write(self, X: Any, beam: int, max_length: int | None, search: Search) -> list[Written]:
        """Return what is written for each of `X`."""
        self._check_fitted()
        beam = _size("beam", beam)
        at_least_zero("length_penalty", search.length_penalty)
        max_length = self.config_["longest"] if max_length is None else _size("max_length", max_length, 0)
        sources = self._sources(X, self.config_)
        originals = [tokens("X", s) for s in items("X", X)] if search.copy_unknown else []
        run, out = Run(self.modules_, train=False), [Written([], 0.0, None)] * len(sources)
        # A batch takes as long as its longest sequence, so like ones go together.
        order = np.argsort([len(source) for source in sources], kind="stable")
        for batch in (order[i] for i in self._plan((sources,), None)):
            state, memory = self._read(run, [sources[i] for i in batch])
            found = self._search(state, memory, len(batch), beam, max_length, search)
            for i, (ids, score, looks) in zip(batch, found, strict=True):
                looks = None if looks is None else looks[:, : len(sources[i])]
                out[i] = Written(self._spelled(ids, looks, originals[i : i + 1]), score, looks)
        return out

    def _spelled(self, ids: Array, looks: Any, original: list[Any]) -> Any:
        """Return a written sequence as `y` was in fit; unknown tokens are copied from where attention looked."""
        known = self.config_["target"]
        written = [known[i] for i in ids.tolist()]
        if original and looks is not None and looks.shape[1]:
            source = list(original[0])
            for t in np.flatnonzero(ids == UNKNOWN):
                written[t] = source[int(looks[t].argmax())]
        written = [token for token in written if token is not None]
        return "".join(map(str, written)) if self.config_["text"] else written

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

    def _lengths(self, data: Any) -> list[Any]:
        return [(len(target), len(source)) for source, target in zip(*data[:2], strict=True)]

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], extra: Any = None) -> Any:
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
        sources, targets, *extra = ([part[i] for i in batch] for part in data)
        state, memory = self._read(run, sources)
        y, lengths = pad([np.append(target, END) for target in targets])
        x = np.concatenate([np.full((1, len(targets)), START), y[:-1]])
        weights = np.arange(len(y))[:, None] < lengths
        h, _ = self._hidden(run, x, state, memory, lengths=lengths)
        loss, dh = run.loss("head", h, y, weights, label_smoothing=self.label_smoothing)
        if run.train:
            self._guide(run, extra, int(lengths.sum()))
            dh, dmemory = self._attend_back(run, run.back(dh, "drop_out").x)
            dstate = run.back(dh, "decoder").state
            run.back(run.grads["decoder"].x, "drop_target", "target")
            self._read_back(run, dstate, dmemory)
        return loss, int(lengths.sum())

    def _guide(self, run: Run, extra: list[Any], count: int) -> None:
        """Say where attention should look in a batch of `count` targets."""

    def _search(
        self, state: Any, memory: Any, n: int, beam: int, max_length: int, search: Search
    ) -> list[tuple[Array, float, Any]]:
        """Write `n` sequences from their states by beam search, which is greedy if `beam` is 1.

        Return for each the indices of its tokens without the end, its score, and where attention looked, [T + 1, S].
        """
        tokens = self.config_["target"]
        run, first = Run(self.modules_, train=False), np.arange(n)[:, None]
        never = [START] if search.copy_unknown else [UNKNOWN, START]
        looks: Any = None
        state, memory = take((state, memory), np.repeat(np.arange(n), beam))
        written = np.zeros((n, beam, 0), np.intp)
        scores = np.where(np.arange(beam) == 0, 0.0, -np.inf).repeat(n).reshape(beam, n).T
        ended, last = np.zeros((n, beam), bool), np.full((1, n * beam), START)
        for _ in range(max_length):
            z, state = self._decode(run, last, state, memory)
            log_p = log_softmax(z[0].astype(np.float64)).reshape(n, beam, -1)
            log_p[..., never] = -np.inf
            log_p[ended] = -np.inf
            log_p[ended, END] = 0
            total = (scores[..., None] + log_p).reshape(n, -1)
            best = np.argsort(-total, axis=1, kind="stable")[:, :beam]
            parent, token = np.divmod(best, len(tokens))
            scores = total[first, best]
            if search.looks:
                seen = run.looks[:, 0].reshape(n, beam, 1, -1)
                looks = seen if looks is None else np.concatenate([looks, seen], axis=2)
                looks = looks[first, parent]
            written = np.concatenate([written[first, parent], token[..., None]], axis=2)
            ended = ended[first, parent] | (token == END)
            state, last = take(state, (first * beam + parent).reshape(-1)), token.reshape(1, -1)
            if ended.all():
                break
        lengths = (written != END).sum(axis=2) + 1
        scores = scores / lengths**search.length_penalty
        if search.coverage_penalty and looks is not None:
            scores = scores + search.coverage_penalty * _coverage(looks, lengths, memory[1].reshape(n, beam))
        best = np.argmax(scores, axis=1)
        out = []
        for i, b in enumerate(best):
            ids, length = written[i, b], int(lengths[i, b])
            out.append((ids[ids != END], float(scores[i, b]), looks[i, b, :length] if search.looks else None))
        return out


def _coverage(looks: Array, lengths: Array, sources: Array) -> Array:
    """Return the sum over a source's tokens of log(min(sum of attention, 1)) (Wu et al. 2016), [n, beam].

    `looks` [n, beam, T, S] count for the tokens that were written, of which there are `lengths`.
    """
    counted = np.arange(looks.shape[2]) < lengths[..., None]
    sums = np.minimum((looks * counted[..., None]).sum(axis=2, dtype=np.float64), 1)
    there = np.arange(looks.shape[3]) < sources[..., None]
    return np.where(there, np.log(np.maximum(sums, 1e-9)), 0).sum(axis=2)  # type: ignore[no-any-return]


def _expect_pairs(X: Any, y: Any) -> None:
    """Raise unless there is one of `y` for each of `X`, and at least one."""
    wanted = "an array or a list of sequences"
    sizes = (0, 0) if y is None else (len(items("X", X, wanted)), len(items("y", y, wanted)))
    got = "None" if y is None else f"{sizes[0]} and {sizes[1]}"
    fits = y is not None and sizes[0] == sizes[1] > 0
    expect(fits, "y", "a sequence for each of X and at least one", got)
