"""LanguageModel: the next symbol of a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.losses import log_softmax, softmax_cross_entropy
from fastrnn.models._base import Callback, Factory, Model, Run, encode, vocabulary

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]
Text = str | Sequence[Any]


@dataclass(eq=False, kw_only=True)
class LanguageModel(Model):
    """Next symbol of one long text: a str (its characters), or a list of words (str) or of symbols (int).

    Embedding, recurrent layers, linear layer; truncated BPTT with carried state (Mikolov et al. 2010).

    Parameters
    ----------
    steps : int
        how far BPTT reaches back. `batch_size` streams through the text are read at a time.
    embedding_size : int
    min_count : int
        rarer symbols are treated as one unknown symbol, None, which is never generated.
    **hyperparameters
        of every model: see `Model`.

    Examples
    --------
    >>> model = LanguageModel(hidden_size=16, epochs=5, batch_size=4, lr=0.02, verbose=False)
    >>> model = model.fit("abcd" * 200)
    >>> model.generate(8, "ab")
    'cdabcdab'
    """

    steps: int = 64
    embedding_size: int = 64
    min_count: int = 1

    def fit(
        self,
        X: Text,
        y: None = None,
        *,
        validation: Text | None = None,
        callbacks: Iterable[Callback] = (),
        resume: Any = None,
    ) -> Self:
        """Train on the text `X`; `validation` is another text, the rest as of `Model`."""
        symbols = vocabulary([X], min_count=self.min_count)
        if len(X) < 2:
            raise ValueError(f"X: expected at least 2 symbols, got {len(X)}")
        config = {"vocabulary": symbols, "text": isinstance(X, str)}
        held_out = None if validation is None else encode(validation, symbols)
        return self._fit(encode(X, symbols), config, held_out, callbacks, resume)

    def perplexity(self, X: Text) -> float:
        """Give exp(mean nats a symbol) of the text `X`, read as one stream from its second symbol on."""
        return float(np.exp(-self.score(X)))

    def score(self, X: Text, y: None = None) -> float:
        """Give the mean log-likelihood, in nats a symbol."""
        self._check_fitted()
        if len(X) < 2:
            raise ValueError(f"X: expected at least 2 symbols, got {len(X)}")
        return -self._mean_loss(encode(X, self.config_["vocabulary"]))

    def predict_proba(self, X: Text) -> Array:
        """Give the probability of every symbol of ``config_["vocabulary"]`` after the text `X`."""
        return np.exp(log_softmax(self._read(X)[0]))

    def predict(self, X: Text) -> Any:
        """Give the most probable symbol after the text `X`."""
        return self.config_["vocabulary"][1 + int(np.argmax(self._read(X)[0][1:]))]

    def generate(
        self,
        length: int,
        prompt: Text | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        rng: np.random.Generator | int | None = 0,
    ) -> Any:
        """Go on from `prompt` for `length` symbols: a str where the training text was one, else a list.

        Parameters
        ----------
        prompt : text
            by default a line break if there is one among the symbols, else the most frequent one.
        temperature : float
            0 always takes the most probable symbol.
        top_k : int
            draw only from so many most probable symbols.
        """
        self._check_fitted()
        symbols = self.config_["vocabulary"]
        if not temperature >= 0:
            raise ValueError(f"temperature: expected at least 0, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {top_k}")
        rng = np.random.default_rng(rng)
        if not prompt:
            prompt = ["\n" if "\n" in symbols else symbols[1]]
        logits, state = self._read(prompt)
        out = []
        for _ in range(length):
            scores = logits[1:].astype(np.float64)
            if temperature == 0:
                choice = int(np.argmax(scores))
            else:
                if top_k is not None and top_k < len(scores):
                    scores[scores < np.partition(scores, -top_k)[-top_k]] = -np.inf
                choice = int(rng.choice(len(scores), p=np.exp(log_softmax(scores / temperature))))
            out.append(symbols[1 + choice])
            logits, state = self._read([out[-1]], state)
        return "".join(out) if self.config_["text"] else out

    def _read(self, text: Text, state: Any = None) -> tuple[Array, Any]:
        """Give the logits [V] after the text, and the state."""
        self._check_fitted()
        if len(text) == 0:
            raise ValueError("X: expected at least 1 symbol, got 0")
        x = encode(text, self.config_["vocabulary"])[:, None]
        h, state = self.pieces_["rnn"](self.pieces_["embedding"](x), state)
        return self.pieces_["head"](h[-1, 0]), state

    def _build(self, make: Factory) -> dict[str, Any]:
        symbols = self.config_["vocabulary"]
        return {
            "embedding": make.embedding(symbols, self.embedding_size),
            "drop_in": make.dropout(),
            "rnn": make.recurrent(self.embedding_size),
            "drop_out": make.dropout(),
            "head": make.linear(self.hidden_size, len(symbols)),
        }

    def _plan(self, data: Array, rng: np.random.Generator | None) -> list[Any]:
        # In training the text is cut into streams side by side, in evaluation it is one stream. The state is
        # carried from chunk to chunk, so the order is fixed.
        lanes = 1 if rng is None else max(1, min(self.batch_size, (len(data) - 1) // self.steps))
        length = (len(data) - 1) // lanes
        x = data[: lanes * length].reshape(lanes, length).T
        y = data[1 : lanes * length + 1].reshape(lanes, length).T
        steps, carried = 1000 if rng is None else self.steps, [None]
        return [(carried, x[t : t + steps], y[t : t + steps]) for t in range(0, length, steps)]

    def _step(self, run: Run, data: Array, batch: Any) -> tuple[float, int]:
        carried, x, y = batch
        h, carried[0] = run("rnn", run("drop_in", run("embedding", x)), carried[0])
        loss, dz = softmax_cross_entropy(run("head", run("drop_out", h)), y)
        if run.train:
            dh = run.back("drop_out", run.back("head", dz).x).x
            run.back("embedding", run.back("drop_in", run.back("rnn", dh).x).x)
        return loss, y.size
