"""What the models of whole sequences share: inputs of tokens or numbers, recurrent layers, a final state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import Ragged
from fastrnn._arrays import expect
from fastrnn.models._base import Callbacks, Checkpoint, Model
from fastrnn.models._data import encode, expect_width, scale_of, scaled, vocabulary
from fastrnn.models._embedding import extended, fill, read
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import (
    CHARACTERS,
    NUMBERS,
    array_of,
    check_names,
    common_names,
    items,
    names_of,
    sequences_of,
)
from fastrnn.models._pooling import pool, pool_back
from fastrnn.models._run import Run
from fastrnn.models._stream import ModelStream

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class SequenceModel(Model):
    """An embedding if the sequences are of tokens, then recurrent layers and a linear layer."""

    inputs: str = "auto"
    bidirectional: bool = True
    embedding_size: int = 64
    embedding: Any = None
    min_count: int = 1
    word_dropout: float = 0.0
    bucketing: bool = False
    n_estimators: int = 1
    _each_step: ClassVar[bool] = False  # whether there is a target at each step, or one for a sequence

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: ArrayLike | None = None,
        validation: Any = None,
        metrics: Any = (),
        callbacks: Callbacks = (),
        resume: Checkpoint = None,
    ) -> Self:
        """Train on `X` and `y`, which the class describes; return the model.

        Parameters
        ----------
        sample_weight : array [n], optional
            how much each sequence counts in training; finite and not negative.
        validation, metrics, callbacks, resume
            as in `Model.fit`.
        """
        return self._fit(X, y, sample_weight, validation, metrics, callbacks, resume)

    def _input_config(self, X: Any) -> dict[str, Any]:
        """Learn what the sequences are: their kind, and vocabulary or scale."""
        sequences, kind = sequences_of(X, self.inputs)
        expect(sequences, "X", "at least 1 sequence", "0 sample(s)")
        config: dict[str, Any] = {"kind": kind}
        if kind == NUMBERS:
            config |= scale_of(sequences)
            expect(self.embedding is None, "embedding", "None, since X has numbers", "vectors of tokens")
        else:
            config |= {"n_features": 1, "vocabulary": vocabulary(sequences, min_count=self.min_count)}
            if self.embedding is not None:
                given = read(self.embedding, kind)
                config["vocabulary"] = extended(config["vocabulary"], given)
                config["embedding_size"] = given.vectors.shape[1]
        shape: tuple[int, ...] = getattr(X, "shape", ())
        config["n_features_in"] = shape[1] if len(shape) == 2 else config["n_features"]
        names = _names(X)
        return config if names is None else config | {"feature_names": names}

    def _inputs(self, X: Any, config: dict[str, Any]) -> list[Array]:
        """Return every sequence as an array: scaled floats [T, D], or indices [T] of tokens."""
        check_names(type(self).__name__, _names(X), config.get("feature_names"))
        kind = config.get("kind", NUMBERS if "mean" in config else "mixed")
        sequences, _ = sequences_of(X, self._made.inputs, kind)
        expect(sequences, "X", "at least 1 sequence", "0")
        if "vocabulary" in config:
            return [encode(s, config["vocabulary"]) for s in sequences]
        for s in sequences:
            expect_width(s, config["n_features"], type(self).__name__)
        dtype = self._made.dtype
        return [scaled(s, config["mean"], config["scale"], dtype) for s in sequences]

    def _build_stack(self, make: Factory, outputs: int) -> dict[str, Any]:
        config, tokens = self.config_, self.config_.get("vocabulary")
        size = config.get("embedding_size", self.embedding_size)
        width = len(config["mean"]) if tokens is None else size
        modules = make.stack(tokens, width, outputs, bidirectional=self.bidirectional)
        if self._pooling == "attention":
            directions = 1 + self.bidirectional
            modules["pool"] = make.linear(directions * self.hidden_size, self.hidden_size, "tanh")
            modules["pool_score"] = make.linear(self.hidden_size, 1)
        if self.embedding is not None:
            fill(modules, config["vocabulary"], read(self.embedding, config["kind"]))
        return modules

    @property
    def _pooling(self) -> str:
        return getattr(self._made, "pooling", "last")

    def _forward(self, run: Run, inputs: Sequence[Array]) -> Array:
        """Return the input of the linear layer, one vector for each target of a batch."""
        x, lengths = np.concatenate(inputs), list(map(len, inputs))
        if run.train and self.word_dropout:
            x = x.copy()
            x[self._rng.random(len(x)) < self.word_dropout] = 0  # the unknown token, or the mean of numbers
        x = run("embedding", x) if "embedding" in run.modules else x
        y, state = run("rnn", Ragged(run("drop_in", x), lengths))
        if self._each_step:
            last = y.values
        elif self._pooling != "last":
            last = pool(run, self._pooling, y.values, np.array(lengths))
        else:
            h = state[0] if isinstance(state, tuple) else state  # [L * D, B, H]
            last = np.concatenate(list(h[-1 - self._made.bidirectional :]), axis=1)
        return run("drop_out", last)  # type: ignore[no-any-return]

    def _back(self, run: Run, dlast: Array, inputs: Sequence[Array]) -> None:
        """Run everything before the linear layer backward."""
        dlast = run.back(dlast, "drop_out").x
        embedded = "embedding" in run.modules
        if self._each_step or self._pooling != "last":
            dlast = dlast if self._each_step else pool_back(run, dlast)
            g = run.back(Ragged(dlast, list(map(len, inputs))), "rnn", need_dx=embedded)
        else:
            g = run.back(None, "rnn", state=self._state_gradient(dlast), need_dx=embedded)
        if embedded:
            run.back(g.x.values, "drop_in", "embedding")
        else:
            run.skip("drop_in")

    def _state_gradient(self, dlast: Array) -> Any:
        """Return the gradient of the final state, from that of the last layer's h with its directions joined."""
        directions = 1 + self._made.bidirectional
        dh = np.zeros((self._made.num_layers * directions, len(dlast), self._made.hidden_size), dlast.dtype)
        dh[-directions:] = np.split(dlast, directions, axis=1)
        return (dh, None) if self._made.cell == "lstm" else dh

    def stream(self, batch_size: int | None = None) -> ModelStream:
        """Return a stream: what the model says of sequences that come step by step, after each step.

        Its ``step`` takes a token or numbers [D], and returns what the model would say of the steps so far: a
        classifier the probabilities [classes], a tagger those of the step, a regressor the values. The model must not
        be bidirectional.

        Parameters
        ----------
        batch_size : int, optional
            number of sequences that go side by side; then ``step`` takes and returns one for each. By default one
            alone.
        """
        self._check_fitted()
        got = "True: it reads what is to come"
        expect(not self._made.bidirectional, "bidirectional", "False, for a stream", got)
        return ModelStream(self, batch_size, self._read_step, self._said, self._pooling)

    def _read_step(self, steps: list[Any]) -> Array:
        """Return one step of each sequence as indices [B] or scaled floats [B, D]."""
        config = self.config_
        if "vocabulary" in config:
            one = config["kind"] == CHARACTERS
            given: list[Any] = [s if isinstance(s, str) and one else [s] for s in steps]
        else:
            given = [np.asarray(s)[None] for s in steps]
        sequences, _ = sequences_of(given, self._made.inputs, config["kind"])
        for s in sequences:
            expect(len(s) == 1, "x", "one step of each sequence", len(s))
        if "vocabulary" in config:
            return np.concatenate([encode(s, config["vocabulary"]) for s in sequences])
        for s in sequences:
            expect_width(s, config["n_features"], type(self).__name__)
        mean, scale = config["mean"], config["scale"]
        return np.concatenate([scaled(s, mean, scale, self._made.dtype) for s in sequences])

    def _said(self, outputs: list[Array]) -> Array:
        """Return what the model says, from the outputs [n, O] of each network."""
        raise NotImplementedError

    def _outputs(self, X: Any) -> tuple[list[Array], list[int]]:
        """Return each network's outputs, one for each target, and the numbers of targets of the sequences."""
        self._check_fitted()
        inputs = self._inputs(X, self.config_)
        batches = [[inputs[i] for i in batch] for batch in self._plan((inputs,), None)]
        runs = [Run(modules, train=False) for modules in self._networks()]
        outputs = [[run("head", self._forward(run, batch)) for batch in batches] for run in runs]
        return list(map(np.concatenate, outputs)), self._counts(inputs)

    def __sklearn_clone__(self) -> Self:
        # A LanguageModel among the parameters stays what it has learned.
        return type(self)(**self.get_params())

    def _counts(self, inputs: Sequence[Array]) -> list[int]:
        """Return the number of targets of each sequence."""
        return [len(x) if self._each_step else 1 for x in inputs]

    def _sample_weights(self, sample_weight: Any, counts: list[int]) -> list[Array] | None:
        """Return the weight of each target, an array for each sequence; they are 1 on average over sequences."""
        if sample_weight is None:
            return None
        w = array_of("sample_weight", sample_weight, "numbers [n]")
        expect(w.dtype.kind in "fiub", "sample_weight", "numbers", w.dtype, TypeError)
        expect(w.shape == (len(counts),), "sample_weight", f"shape ({len(counts)},)", w.shape)
        w = w.astype(np.float64)
        sound = np.isfinite(w).all() and (w >= 0).all()
        expect(sound, "sample_weight", "finite numbers of at least 0", "others")
        expect(w.sum() > 0, "sample_weight", "a number above 0", "all weights are zero")
        return [np.full(n, weight) for n, weight in zip(counts, w / w.mean(), strict=True)]


def _names(X: Any) -> list[str] | None:
    own = names_of(X)
    if own is not None or hasattr(X, "__array__") or isinstance(X, str) or not hasattr(X, "__len__"):
        return own
    return common_names(items("X", X))
