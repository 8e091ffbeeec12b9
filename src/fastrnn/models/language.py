"""LanguageModel: the next symbol of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _size, expect, number
from fastrnn.losses import log_softmax
from fastrnn.models._base import Factory, Model, Run, encode, sized, vocabulary

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

    def perplexity(self, X: Text) -> float:
        """Give exp(mean nats a symbol) of the text `X`, read as one stream from its second symbol on."""
        return float(np.exp(-self.score(X)))

    def score(self, X: Text, y: None = None) -> float:
        """Give the mean log-likelihood, in nats a symbol."""
        self._check_fitted()
        return -self._mean_loss(self._prepare(X, None, self.config_))

    def predict_proba(self, X: Text) -> Array:
        """Give the probability of every symbol of ``config_["vocabulary"]`` after the text `X`."""
        return np.exp(log_softmax(self._read(self._indices(X))[0]))

    def predict(self, X: Text) -> Any:
        """Give the most probable symbol after the text `X`."""
        logits, _ = self._read(self._indices(X))
        return self.config_["vocabulary"][1 + int(np.argmax(logits[1:]))]

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
        length : int
        prompt : text
            by default a line break if there is one among the symbols, else the most frequent one.
        temperature : float
            0 always takes the most probable symbol.
        top_k : int
            draw only from so many most probable symbols.
        rng : numpy Generator or seed
        """
        self._check_fitted()
        symbols = self.config_["vocabulary"]
        length, top_k = _size("length", length, 0), None if top_k is None else _size("top_k", top_k)
        expect(number("temperature", temperature) >= 0, "temperature", "at least 0", temperature)
        rng = np.random.default_rng(rng)
        if not prompt:
            prompt = ["\n" if "\n" in symbols else symbols[1]]
        (logits, state), out = self._read(self._indices(prompt, "prompt")), []
        for _ in range(length):
            scores = logits[1:].astype(np.float64)
            if temperature == 0:
                choice = 1 + int(np.argmax(scores))
            else:
                if top_k is not None and top_k < len(scores):
                    scores[scores < np.partition(scores, -top_k)[-top_k]] = -np.inf
                choice = 1 + int(rng.choice(len(scores), p=np.exp(log_softmax(scores / temperature))))
            out.append(symbols[choice])
            logits, state = self._read(np.array([choice]), state)
        return "".join(out) if self.config_["text"] else out

    def _indices(self, text: Text, name: str = "X") -> Array:
        self._check_fitted()
        expect(len(sized(name, text)) != 0, name, "at least 1 symbol", "0")
        return encode(text, self.config_["vocabulary"], name)

    def _read(self, x: Array, state: Any = None) -> tuple[Array, Any]:
        """Give the logits [V] after the symbols x [T], and the state."""
        h, state = self.pieces_["rnn"](self.pieces_["embedding"](x[:, None]), state)
        return self.pieces_["head"](h[-1, 0]), state

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        symbols = vocabulary([sized("X", X)], min_count=self.min_count)
        return {"vocabulary": symbols, "text": isinstance(X, str)}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any]) -> Array:
        expect(len(sized("X", X)) >= 2, "X", "at least 2 symbols", len(X))
        return encode(X, config["vocabulary"])

    def _build(self, make: Factory) -> dict[str, Any]:
        symbols, _ = self.config_["vocabulary"], self.config_["text"]
        wanted = f"a symbol that is there at least {self.min_count} times (min_count)"
        expect(len(symbols) > 1, "X", wanted, "none")
        return make.stack(symbols, self.embedding_size, len(symbols))

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
        loss, dh = run.loss("head", run("drop_out", h), y)
        if run.train:
            run.back(dh, "drop_out", "rnn", "drop_in", "embedding")
        return loss, y.size
