"""Captioner: features in, a sentence out, and the gradient back to the features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.models._base import Callback, Factory, Run
from fastrnn.models._writer import Writer, same

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class Captioner(Writer):
    """A decoder whose first state is made from features (Vinyals et al. 2015).

    h_0 (and c_0 of an LSTM) = tanh(linear(features)). With `fit` the features are given; to train the network
    that makes them too, hand it what `partial_fit` gives back.

    Parameters
    ----------
    embedding_size : int
    min_count : int
        rarer symbols are treated as one unknown symbol, which is never written.
    label_smoothing : float
    **hyperparameters
        of every model: see `Model`.

    Examples
    --------
    >>> features, captions = np.eye(3), ["a cat".split(), "a dog".split(), "two dogs".split()]
    >>> model = Captioner(hidden_size=16, epochs=60, lr=0.02, verbose=False).fit(features, captions)
    >>> model.predict(features[:1])
    [['a', 'cat']]
    """

    def fit(
        self,
        X: ArrayLike,
        y: Sequence[Any],
        *,
        validation: tuple[ArrayLike, Sequence[Any]] | None = None,
        callbacks: Iterable[Callback] = (),
        resume: Any = None,
    ) -> Self:
        """Train on features `X` [n, F] and captions `y` (lists of words, or strings for their characters)."""
        config = self._configure(X, y)

        def encoded(X: ArrayLike, y: Sequence[Any]) -> Any:
            return self._features(X, config, len(y)), self._targets(y, config)

        return self._fit(encoded(X, y), config, validation and encoded(*validation), callbacks, resume)

    def partial_fit(
        self, X: ArrayLike, y: Sequence[Any], *, captions: Sequence[Any] | None = None
    ) -> tuple[float, Array]:
        """Do one step on one batch: gives the loss and its gradient with respect to the features, [n, F].

        The first call starts the model; its vocabulary is that of `captions`, by default of `y`.
        """
        if not hasattr(self, "pieces_"):
            self._check_params()
            self._start(self._configure(X, y if captions is None else captions))
        if not hasattr(self, "_steps"):
            self._steps = self._optimiser(steps=0)
        run = Run(self.pieces_, train=True)
        data = (self._features(X, self.config_, len(y)), self._targets(y, self.config_))
        loss, _ = self._step(run, data, np.arange(len(y)))
        self._update(run, self._steps)
        return loss, run.grads["project"].x

    def predict(self, X: ArrayLike, *, beam: int = 1, max_length: int | None = None) -> list[Any]:
        """Write a caption for each row of `X` [n, F], by beam search where `beam` is more than 1.

        `max_length` is by default that of the longest caption seen in fit.
        """
        self._check_fitted()
        state = self._state(Run(self.pieces_, train=False), self._features(X, self.config_))[0]
        return self._search(state, None, len(np.asarray(X)), beam, max_length)

    def score(self, X: ArrayLike, y: Sequence[Any]) -> float:
        """Give the share of captions written without any mistake."""
        return float(np.mean([same(a, b) for a, b in zip(self.predict(X), y, strict=True)]))

    def _configure(self, X: ArrayLike, y: Sequence[Any]) -> dict[str, Any]:
        if np.ndim(X) != 2 or len(y) == 0:
            raise ValueError(
                f"X: expected features [n, F] and captions for them, got {np.shape(X)} and {len(y)}"
            )
        return {"n_features": np.shape(X)[1], **self._target_config(y)}

    def _features(self, X: ArrayLike, config: dict[str, Any], n: int | None = None) -> Array:
        x = np.asarray(X)
        expected = (len(x) if n is None else n, config["n_features"])
        if x.dtype.kind not in "fiu" or x.shape != expected:
            raise ValueError(f"X: expected numbers of shape {expected}, got {x.dtype} {x.shape}")
        return x.astype(self.dtype, copy=False)

    def _build(self, make: Factory) -> dict[str, Any]:
        size = (1 + (self.cell == "lstm")) * self.num_layers * self.hidden_size
        return {"project": make.linear(self.config_["n_features"], size), **self._build_writer(make)}

    def _state(self, run: Run, features: Array) -> tuple[Any, Array]:
        """Give the decoder's first state, and it as one array [n, parts * L * H]."""
        joined = np.tanh(run("project", features))
        parts = joined.reshape(len(joined), -1, self.num_layers, self.hidden_size).transpose(1, 2, 0, 3)
        parts = np.ascontiguousarray(parts)
        return (tuple(parts) if self.cell == "lstm" else parts[0]), joined

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        features, targets = data
        state, joined = self._state(run, features[batch])
        loss, count, dstate, _ = self._write(run, [targets[i] for i in batch], state, None)
        if run.train:
            parts = np.stack(dstate if isinstance(dstate, tuple) else (dstate,))
            dparts = parts.transpose(2, 0, 1, 3).reshape(joined.shape)
            run.back("project", dparts * (1 - np.square(joined)))
        return loss, count
