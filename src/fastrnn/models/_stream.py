"""Whole models that run step by step: what they say after each step of sequences that are not over yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import _size, expect

Array = NDArray[Any]


class ModelStream:
    """A model's running state, one step at a time; made by ``model.stream()``.

    Examples
    --------
    >>> from fastrnn.models import SequenceClassifier
    >>> model = SequenceClassifier(bidirectional=False, hidden_size=16, epochs=20, lr=0.02, verbose=False)
    >>> stream = model.fit(["abba", "aab", "ccd", "dcdd"] * 8, [0, 0, 1, 1] * 8).stream()
    >>> stream
    ModelStream(SequenceClassifier)
    >>> [int(stream.step(character).argmax()) for character in "ab"]
    [0, 0]
    """

    def __init__(
        self,
        model: Any,
        batch_size: int | None,
        read: Callable[..., Array],
        answer: Callable[[list[Array]], Array],
        pooling: str = "last",
    ) -> None:
        self.batch_size = None if batch_size is None else _size("batch_size", batch_size)
        self._name, self._read, self._answer = type(model).__name__, read, answer
        n = self.batch_size or 1
        self._networks = [_Network(modules, n, pooling) for modules in model._networks()]

    def step(self, x: Any, **more: Any) -> Any:
        """Read one step of every sequence, and return what the model says after it.

        Parameters
        ----------
        x
            a token, or numbers [D]; with a ``batch_size``, a list of them, one for each sequence.

        Returns
        -------
        array
            as the class's ``stream`` says; with a ``batch_size``, one for each sequence.
        """
        steps = [x] if self.batch_size is None else list(x)
        n = self.batch_size or 1
        expect(len(steps) == n, "x", f"a step for each of {n} sequences", len(steps))
        inputs = self._read(steps, **more)
        said = self._answer([network.step(inputs) for network in self._networks])
        return said[0] if self.batch_size is None else said

    def reset(self, sequences: ArrayLike | None = None) -> None:
        """Begin anew: all sequences, or those whose indices or mask [B] are given."""
        for network in self._networks:
            network.reset(sequences)

    def __repr__(self) -> str:
        size = "" if self.batch_size is None else f", batch_size={self.batch_size}"
        return f"ModelStream({self._name}{size})"


class _Network:
    """One network of a model, and what it has pooled so far."""

    def __init__(self, modules: dict[str, Any], n: int, pooling: str) -> None:
        self.modules, self.pooling = modules, pooling
        self.layer = modules["rnn"].stream(n)
        self.count = np.zeros((n, 1), np.int64)
        self.sum: Any = None  # of the hidden states, or their maximum; for attention, weighted
        self.weight: Any = None  # the sum of the weights, and the greatest score that they were taken at
        self.top: Any = None

    def step(self, x: Array) -> Array:
        """Return the outputs [B, O] after one more step [B] or [B, D]."""
        if "embedding" in self.modules:
            x = self.modules["embedding"](x)
        h = self.layer.step(x)
        return self.modules["head"](self._pooled(h))  # type: ignore[no-any-return]

    def reset(self, sequences: ArrayLike | None) -> None:
        """Forget sequences."""
        self.layer.reset(sequences)
        self.count[slice(None) if sequences is None else np.asarray(sequences)] = 0

    def _pooled(self, h: Array) -> Any:
        first = self.count == 0
        self.count += 1
        if self.pooling == "last":
            return h
        if self.sum is None:
            self.sum = np.zeros_like(h)
            self.weight = self.top = np.zeros((len(h), 1), h.dtype)
        if self.pooling == "max":
            self.sum = np.where(first, h, np.maximum(self.sum, h))
            return self.sum
        if self.pooling == "mean":
            self.sum = np.where(first, h, self.sum + h)
            return (self.sum / self.count).astype(h.dtype, copy=False)
        score = self.modules["pool_score"](self.modules["pool"](h))
        top = np.where(first, score, np.maximum(self.top, score))
        old, new = np.where(first, 0, np.exp(np.minimum(self.top - top, 0))), np.exp(score - top)
        self.sum, self.weight, self.top = self.sum * old + h * new, self.weight * old + new, top
        return (self.sum / self.weight).astype(h.dtype, copy=False)
