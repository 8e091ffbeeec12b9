"""Seq2Seq: from a sequence of tokens to another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import at_least_zero, expect
from fastrnn.models._alignment import ibm1
from fastrnn.models._base import Callbacks, Checkpoint
from fastrnn.models._data import each, encode, pad, vocabulary
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import all_tokens, array_of, items
from fastrnn.models._run import Run
from fastrnn.models._training import Task
from fastrnn.models._writer import LENGTH_PENALTY, Search, Writer
from fastrnn.nn import DotAttention

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class Seq2Seq(Writer):
    """From sequences of tokens to others; a str is a sequence of characters, a list of str one of words.

    Encoder and decoder (Sutskever et al. 2014), with attention as in Luong et al. 2015. `X` and `y` are lists of
    sequences of any length: str, or lists or arrays of tokens (str or int). The final state of the encoder is the
    initial state of the decoder.

    Parameters
    ----------
    bidirectional : bool
        whether the encoder reads in both directions, each with half of `hidden_size`, which must be even.
    attention : bool
        whether the decoder attends to the encoder's states at each step.
    guided_attention : float
        how strongly attention is pulled to alignments of source and target in training (Chen et al. 2016); 1 is a good
        value for translation of tens of thousands of sentences, which do not suffice to find them. By default not.
    guided_epochs : float
        the share of the epochs in which it is, from the first one on.
    embedding_size : int
    min_count : int
        rarer tokens are treated as one unknown token, which `predict` writes only to copy it from the source.
    label_smoothing : float
    bucketing : bool
        whether the sequences of a batch are of like length, so that less of it is padding.
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
    guided_attention: float = 0.0
    guided_epochs: float = 0.6
    _extra = "alignments"

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        alignments: Any = None,
        validation: Any = None,
        metrics: Any = (),
        callbacks: Callbacks = (),
        resume: Checkpoint = None,
    ) -> Self:
        """Train on sequences `X` and `y`; return the model.

        Parameters
        ----------
        alignments : list of arrays [tokens of y, tokens of X], optional
            for `guided_attention`: how much each token of the target comes from each one of the source. Rows add up
            to at most 1; a row of zeros guides nothing. By default those of `fastrnn.text.align`.
        validation, metrics, callbacks, resume
            as in `Model.fit`.
        """
        return self._fit(X, y, alignments, validation, metrics, callbacks, resume)

    def predict(
        self,
        X: Any,
        *,
        beam: int = 1,
        max_length: int | None = None,
        length_penalty: float = LENGTH_PENALTY,
        coverage_penalty: float = 0.0,
        copy_unknown: bool = False,
        return_scores: bool = False,
        return_attention: bool = False,
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
        length_penalty, coverage_penalty : float
            candidates are compared by log p / n ** length_penalty + coverage_penalty * c, for n tokens with their
            end. c is the sum over the source's tokens of log(min(a, 1)), where a is how much attention a token has got
            in all (Wu et al. 2016): candidates that leave out a part of the source lose.
        copy_unknown : bool
            whether an unknown token may be written; in its place stands the token of the source at which attention
            looked (Luong et al. 2015). By default none is written.
        return_scores, return_attention : bool
            whether to return the scores by which candidates are compared, and where attention looked.

        Returns
        -------
        written : list of str, or of lists of tokens
            as `y` was in fit.
        scores : array [n], if asked for
        attention : list of arrays [T + 1, S], if asked for
            for each token that was written, and for the end if it was, how much each token of the source counted.
        """
        needed = (coverage_penalty != 0, copy_unknown, return_attention)
        self._check_fitted()
        names = ("coverage_penalty", "copy_unknown", "return_attention")
        at_least_zero("coverage_penalty", coverage_penalty)
        for name, need in zip(names, needed, strict=True):
            expect(self._made.attention or not need, name, "attention=True to go with it", "False")
        search = Search(length_penalty, coverage_penalty, copy_unknown, any(needed))
        found = self._write(X, beam, max_length, search)
        results: list[Any] = [[w.tokens for w in found]]
        results += [np.array([w.score for w in found])] if return_scores else []
        results += [[w.looks for w in found]] if return_attention else []
        return results[0] if len(results) == 1 else tuple(results)

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], extra: Any = None) -> Any:
        sources, targets = super()._prepare(X, y, config)
        if extra is None:
            return sources, targets
        given = items("alignments", extra, "a list of arrays")
        expect(self.guided_attention, "guided_attention", "above 0 to go with alignments", 0)
        shapes = [(len(t), len(s)) for s, t in zip(sources, targets, strict=True)]
        expect(len(given) == len(shapes), "alignments", f"one for each of {len(shapes)} pairs", len(given))
        arrays = []
        for i, (part, shape) in enumerate(zip(given, shapes, strict=True)):
            name = f"alignments[{i}]"
            array = array_of(name, part, "numbers").reshape(shape) if 0 in shape else array_of(name, part)
            fits = array.shape == shape and array.dtype.kind in "fiub"
            expect(fits, name, f"numbers of shape {shape}", f"{array.dtype} of shape {array.shape}")
            sound = (array >= 0).all() and (array.sum(axis=1) <= 1 + 1e-3).all()
            expect(sound, name, "rows of numbers >= 0 that add up to at most 1", "others")
            arrays.append(array.astype(np.float32))
        return sources, targets, arrays

    def _train_all(self, config: dict[str, Any], task: Task) -> None:
        if self.guided_attention and len(task.data) == 2:
            task = replace(task, data=(*task.data, ibm1(*task.data)))
        super()._train_all(config, task)

    def _guide(self, run: Run, extra: list[Any], count: int) -> None:
        if not extra or len(self.history_) >= self.guided_epochs * self.epochs:
            return
        query, memory, *_ = run.tapes["attention"]
        run.guide = np.zeros((query.shape[1], len(query), len(memory)), query.dtype)
        for b, alignment in enumerate(extra[0]):
            run.guide[b, : alignment.shape[0], : alignment.shape[1]] = alignment
        p = run.tapes["attention"][-1]
        # The gradient, in the scores, of the cross-entropy of attention with the alignment (Chen et al. 2016).
        run.guide = (p * run.guide.sum(axis=2, keepdims=True) - run.guide) * (self.guided_attention / count)

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        guided = self.attention or not self.guided_attention
        expect(guided, "guided_attention", "attention=True to go with it", "False")
        config = super()._configure(X, y)
        sources, kind = all_tokens("X", X)
        return {**config, "source": vocabulary(sources, min_count=self.min_count), "source_kind": kind}

    def _sources(self, X: Any, config: dict[str, Any]) -> list[Array]:
        sources, _ = all_tokens("X", X, config.get("source_kind"))
        return [encode(source, config["source"]) for source in sources]

    def _build(self, make: Factory) -> dict[str, Any]:
        hidden, odd = divmod(self.hidden_size, 1 + self.bidirectional)
        expect(not odd, "hidden_size", "an even one with bidirectional=True", 2 * hidden + 1)
        modules = {
            "source": make.embedding(self.config_["source"], self.embedding_size),
            "drop_in": make.dropout(),
            "encoder": make.recurrent(self.embedding_size, hidden=hidden, bidirectional=self.bidirectional),
            **self._build_writer(make),
        }
        if self.attention:
            mix = make.linear(2 * self.hidden_size, self.hidden_size, "tanh")
            modules |= {"attention": DotAttention(), "mix": mix}
        return modules

    def _read(self, run: Run, sources: Sequence[Array]) -> tuple[Any, Any]:
        x, lengths = pad(sources)
        y, state = run("encoder", run("drop_in", run("source", x)), lengths=lengths)
        return each(self._join, state), (y, lengths)

    def _read_back(self, run: Run, dstate: Any, dmemory: Any) -> None:
        dx = run.back(dmemory, "encoder", state=each(self._split, dstate)).x
        run.back(dx, "drop_in", "source")

    def _join(self, state: Array) -> Array:
        """Join the two directions of a state: from [2 L, B, H / 2] to [L, B, H]."""
        layers = self._made.num_layers
        s = state.reshape(layers, -1, *state.shape[1:])
        return np.ascontiguousarray(s.transpose(0, 2, 1, 3).reshape(layers, state.shape[1], -1))

    def _split(self, state: Array) -> Array:
        """Undo `_join`."""
        s = state.reshape(*state.shape[:2], 1 + self._made.bidirectional, -1).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(s.reshape(-1, *s.shape[2:]))

    def _attend(self, run: Run, h: Array, memory: Any) -> Array:
        if not self._made.attention:
            return h
        if run.train:
            context = run("attention", h, *memory)
        else:
            context, (*_, run.looks) = run.modules["attention"].forward(h, *memory)
        both = np.concatenate([context, h], axis=2)
        return run("mix", both)  # type: ignore[no-any-return]

    def _attend_back(self, run: Run, dh: Array) -> tuple[Array, Any]:
        if not self._made.attention:
            return dh, None
        dcontext, dh = np.split(run.back(dh, "mix").x, 2, axis=2)
        query, memory, *_ = run.tapes["attention"]
        dquery, dmemory = run.back(dcontext, "attention").x
        if run.guide is not None:
            dscores = run.guide.astype(query.dtype, copy=False)
            dquery = dquery + (dscores @ memory.transpose(1, 0, 2)).transpose(1, 0, 2)
            dmemory = dmemory + (dscores.transpose(0, 2, 1) @ query.transpose(1, 0, 2)).transpose(1, 0, 2)
        return dh + dquery, dmemory
