"""Seq2Seq: from a sequence of tokens to another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn.models._data import each, encode, pad, vocabulary
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import all_tokens
from fastrnn.models._run import Run
from fastrnn.models._writer import Writer
from fastrnn.nn import DotAttention

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
    embedding_size : int
    min_count : int
        rarer tokens are treated as one unknown token, which is never written.
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

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
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
        both = np.concatenate([run("attention", h, *memory), h], axis=2)
        return run("mix", both)  # type: ignore[no-any-return]

    def _attend_back(self, run: Run, dh: Array) -> tuple[Array, Any]:
        if not self._made.attention:
            return dh, None
        dcontext, dh = np.split(run.back(dh, "mix").x, 2, axis=2)
        dquery, dmemory = run.back(dcontext, "attention").x
        return dh + dquery, dmemory
