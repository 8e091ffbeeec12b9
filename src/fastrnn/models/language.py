"""LanguageModel: the next token of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _size, expect, number
from fastrnn.losses import log_softmax
from fastrnn.models._base import Model
from fastrnn.models._data import encode, vocabulary
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import (
    CHARACTERS,
    MIXED,
    all_tokens,
    expect_kind,
    expect_no_target,
    kind_of,
    tokens,
)
from fastrnn.models._run import Run
from fastrnn.models._stream import ModelStream

Array = NDArray[Any]
Text = str | Sequence[Any]


@dataclass(eq=False, kw_only=True)
class LanguageModel(Model):
    """Next token of one text: a str, which is a sequence of characters, or a list or array of tokens (str or int).

    Embedding, recurrent layers and a linear layer, trained by truncated BPTT with carried state (Mikolov et al.
    2010).

    Parameters
    ----------
    texts : bool
        whether `X` is a list of texts instead of one. Then the state begins anew with each of them, and their first
        tokens are not predicted. `predict` and `generate` read one text in any case.
    steps : int
        number of steps that BPTT reaches back. The text is read at `batch_size` places at a time.
    embedding_size : int
    min_count : int
        rarer tokens are treated as one unknown token, None, which is never generated.
    **hyperparameters
        of every model: see `Model`.

    Examples
    --------
    >>> model = LanguageModel(hidden_size=16, epochs=5, batch_size=4, lr=0.02, verbose=False)
    >>> model = model.fit("abcd" * 200)
    >>> model.generate(8, "ab", temperature=0)
    'cdabcdab'
    """

    texts: bool = False
    steps: int = 64
    embedding_size: int = 64
    min_count: int = 1

    def perplexity(self, X: Text) -> float:
        """Return exp(mean nats of a token) of the text `X`, read as one stream; its first token is not counted."""
        return float(np.exp(-self.score(X)))

    def bits_per_token(self, X: Text) -> float:
        """Return the mean bits of a token of the text `X`: the logarithm of `perplexity` to base 2.

        For a model of characters these are bits per character.
        """
        return -self.score(X) / math.log(2)

    def score(self, X: Text, y: None = None) -> float:
        """Return the mean log-likelihood of a token of `X` in nats; the first one is not counted."""
        self._check_fitted()
        expect_no_target(y)
        return -self._mean_loss(self._prepare(X, None, self.config_))

    def predict_proba(self, X: Text) -> Array:
        """Return the probability of every token of ``config_["vocabulary"]`` after the text `X`."""
        return np.exp(log_softmax(self._read(self._indices(X))[0]))

    def predict(self, X: Text) -> Any:
        """Return the most probable token after the text `X`."""
        logits, _ = self._read(self._indices(X))
        return self.config_["vocabulary"][1 + int(np.argmax(logits[1:]))]

    def generate(
        self,
        length: int,
        prompt: Text | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> Any:
        """Return `length` tokens that continue `prompt`: a str where the training text was one, else a list.

        Parameters
        ----------
        length : int
        prompt : text
            by default a line break if that is a token, else the most frequent token.
        temperature : float
            0 always takes the most probable token.
        top_k : int
            the draw is among this many of the most probable tokens; by default among all.
        top_p : float, optional
            the draw is among the fewest most probable tokens that have this probability together (Holtzman et al.
            2020), of those that `top_k` leaves.
        stop : str or token, or list of them, optional
            where one of them is written, the text ends before it. For a model of characters, a str of any length.
        rng : numpy Generator or seed, optional
            by default every call draws another text.
        """
        out = list(
            self.iter_generate(
                length, prompt, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop, rng=rng
            )
        )
        return "".join(out) if self.config_["text"] else out

    def iter_generate(
        self,
        length: int,
        prompt: Text | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator over the tokens that `generate` returns for the same arguments.

        Each token comes as soon as it is drawn, or as soon as it is known not to begin one of `stop`.

        Examples
        --------
        >>> model = LanguageModel(hidden_size=16, epochs=5, batch_size=4, lr=0.02, verbose=False)
        >>> for token in model.fit("abcd" * 200).iter_generate(3, "ab", temperature=0):
        ...     print(token)
        c
        d
        a
        """
        self._check_fitted()
        known = self.config_["vocabulary"]
        length, top_k = _size("length", length, 0), None if top_k is None else _size("top_k", top_k)
        if top_p is not None:
            expect(0 < number("top_p", top_p) <= 1, "top_p", "0 < top_p <= 1", top_p)
        expect(number("temperature", temperature) >= 0, "temperature", "at least 0", temperature)
        rng = np.random.default_rng(rng)
        if prompt is None or (hasattr(prompt, "__len__") and not len(prompt)):
            first = encode(["\n" if "\n" in known.places else known[1]], known)
        else:
            first = self._indices(prompt, "prompt")
        return self._drawn(length, first, temperature, top_k, top_p, self._stops(stop), rng)

    def _drawn(
        self,
        length: int,
        first: Array,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        stops: list[list[Any]],
        rng: np.random.Generator,
    ) -> Iterator[Any]:
        """Yield up to `length` tokens that continue `first`."""
        known, out, held = self.config_["vocabulary"], [], 0
        logits, state = self._read(first)
        for n in range(length):
            scores = logits[1:].astype(np.float64)
            if temperature == 0:
                choice = 1 + int(np.argmax(scores))
            else:
                p = np.exp(log_softmax(_likely(scores, top_k) / temperature))
                choice = 1 + int(rng.choice(len(p), p=p if top_p is None else _nucleus(p, top_p)))
            out.append(known[choice])
            ended = next((s for s in stops if out[-len(s) :] == s), None)
            if ended is not None:
                yield from out[held : len(out) - len(ended)]
                return
            sure = len(out) - max((_begun(out, s) for s in stops), default=0)
            if sure > held:
                yield from out[held:sure]
                held = sure
            if n + 1 < length:
                logits, state = self._read(np.array([choice]), state)
        yield from out[held:]

    def stream(self, batch_size: int | None = None) -> ModelStream:
        """Return a stream: its ``step`` takes the next token of a text, and returns `predict_proba` of the text so far.

        Parameters
        ----------
        batch_size : int, optional
            number of texts that go side by side; then ``step`` takes and returns one for each. By default one alone.
        """
        self._check_fitted()

        def read(steps: list[Any]) -> Array:
            one = self.config_["text"]
            ids = [self._indices(s if one and isinstance(s, str) else [s], "x") for s in steps]
            for i in ids:
                expect(len(i) == 1, "x", "one token of each text", len(i))
            return np.concatenate(ids)

        return ModelStream(self, batch_size, read, lambda outputs: np.exp(log_softmax(outputs[0])))

    def _indices(self, text: Text, name: str = "X") -> Array:
        self._check_fitted()
        text = self._text(text, name, self.config_.get("kind"))
        expect(len(text) != 0, name, "at least 1 token", "0")
        return encode(text, self.config_["vocabulary"])

    def _stops(self, stop: Any) -> list[list[Any]]:
        """Return what ends a generated text, as lists of tokens."""
        if stop is None:
            return []
        stops: list[Any] = [stop] if isinstance(stop, (str, int, np.integer)) else tokens("stop", stop)
        expect(all(s != "" for s in stops), "stop", "str that are not empty", repr(""))
        if self.config_["text"]:
            odd = [type(s).__name__ for s in stops if not isinstance(s, str)]
            expect(not odd, "stop", "str", ", ".join(odd), TypeError)
            return [list(s) for s in stops]
        return [[s] for s in stops]

    def _all_texts(self, X: Any, kind: str | None = None) -> list[Any]:
        """Return one text or a list of them as a list."""
        if self._made.texts:
            return all_tokens("X", X, kind)[0]
        nested = isinstance(X, (list, tuple)) and any(isinstance(t, (list, tuple)) or np.ndim(t) for t in X)
        expect(not nested, "X", "one text", "several: LanguageModel(texts=True) reads them", TypeError)
        return [self._text(X, kind=kind)]

    def _text(self, text: Text, name: str = "X", kind: str | None = None) -> Any:
        """Return a text as a str or a list of str and int, of the kind that fit saw."""
        text = tokens(name, text)
        expect_kind(name, text, kind)
        return text

    def _read(self, x: Array, state: Any = None) -> tuple[Array, Any]:
        """Return the logits [V] after the tokens x [T], and the state."""
        h, state = self.modules_["rnn"](self.modules_["embedding"](x[:, None]), state)
        return self.modules_["head"](h[-1, 0]), state

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        expect_no_target(y)
        texts = self._all_texts(X)
        kinds = {kind_of(text) for text in texts if len(text)}
        kind = kinds.pop() if len(kinds) == 1 else MIXED
        found = vocabulary(texts, min_count=self.min_count)
        return {"vocabulary": found, "text": kind == CHARACTERS, "kind": kind}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], extra: Any = None) -> Any:
        texts = self._all_texts(X, config["kind"])
        longest = max(map(len, texts), default=0)
        expect(longest >= 2, "X", "at least 2 tokens", longest)
        ids = np.concatenate([encode(text, config["vocabulary"]) for text in texts])
        begins = np.zeros(len(ids), bool)
        begins[np.cumsum([0, *map(len, texts)][:-1])[[len(text) > 0 for text in texts]]] = True
        return ids, begins

    def _hold_out(self, X: Any, y: Any, extra: Any, fraction: float) -> tuple[Any, Any]:
        expect_no_target(y)
        if self._made.texts:
            return super()._hold_out(X, y, extra, fraction)
        text = self._text(X)
        count = max(2, round(fraction * len(text)))
        expect(len(text) - count >= 2, "validation", "2 tokens to train on", f"a fraction of {fraction}")
        return (text[:-count], None, None), text[-count:]

    def _build(self, make: Factory) -> dict[str, Any]:
        known, _ = self.config_["vocabulary"], self.config_["text"]
        wanted = f"a token that is there at least {self.min_count} times (min_count)"
        expect(len(known) > 1, "X", wanted, "none")
        return make.stack(known, self.embedding_size, len(known))

    def _plan(self, data: Any, rng: np.random.Generator | None) -> list[Any]:
        # For training the text is cut into streams that are read side by side; for evaluation it is one stream. The
        # state is carried from chunk to chunk, so the order is fixed.
        made, (ids, begins) = self._made, data
        streams = 1 if rng is None else max(1, min(made.batch_size, (len(ids) - 1) // made.steps))
        length = (len(ids) - 1) // streams
        stop = streams * length
        x, reset = (a[:stop].reshape(streams, length).T for a in data)
        y, first = (a[1 : stop + 1].reshape(streams, length).T for a in data)
        steps, carried = 1000 if rng is None else made.steps, [None]
        many = begins[1:].any()  # the state begins anew, and what begins is not predicted
        chunks = [slice(t, t + steps) for t in range(0, length, steps)]
        return [(carried, x[c], y[c], (reset[c], ~first[c]) if many else None) for c in chunks]

    def _step(self, run: Run, data: Any, batch: Any) -> tuple[float, int]:
        carried, x, y, several = batch
        count, options, resets = y.size, {}, {}
        if several is not None:
            count = int(several[1].sum())
            resets = {"reset": several[0]}
            options = {"weights": several[1] / max(count, 1), "reduction": "sum"}
        h, carried[0] = run("rnn", run("drop_in", run("embedding", x)), carried[0], **resets)
        loss, dh = run.loss("head", run("drop_out", h), y, **options)
        if run.train:
            run.back(dh, "drop_out", "rnn", "drop_in", "embedding")
        return loss, count


def _begun(out: list[Any], stop: list[Any]) -> int:
    """Return how many of the last tokens are the first ones of `stop`, which is not complete."""
    most = min(len(out), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if out[-n:] == stop[:n]), 0)


def _likely(scores: Array, top_k: int | None) -> Array:
    """Return the scores, -inf but for the `top_k` greatest."""
    if top_k is None or top_k >= len(scores):
        return scores
    return np.where(scores < np.partition(scores, -top_k)[-top_k], -np.inf, scores)


def _nucleus(p: Array, top_p: float) -> Array:
    """Return probabilities, 0 but for the fewest greatest ones whose sum is at least `top_p`."""
    order = np.argsort(-p, kind="stable")
    kept = order[: 1 + int(np.searchsorted(np.cumsum(p[order]), top_p * (1 - 1e-12)))]
    out = np.zeros_like(p)
    out[kept] = p[kept] / p[kept].sum()
    return out
