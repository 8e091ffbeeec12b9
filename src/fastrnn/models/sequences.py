"""SequenceClassifier and SequenceTagger: one label for a sequence, or one at each of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import Ragged
from fastrnn.losses import log_softmax, softmax_cross_entropy
from fastrnn.models._base import Callback, Factory, Model, Run, encode, vocabulary

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class _Labelled(Model):
    """Sequences in, through an embedding if they are symbols, to recurrent layers and a linear layer."""

    bidirectional: bool = True
    embedding_size: int = 64
    min_count: int = 1
    label_smoothing: float = 0.0

    def _inputs(self, X: Any, config: dict[str, Any]) -> list[Array]:
        """Give every sequence as an array: scaled floats [T, D], or indices [T] of symbols."""
        rows, symbols = _rows(X)
        width = config["n_features"]
        if "vocabulary" in config:
            if not symbols:
                raise ValueError("X: expected sequences of symbols (str), as in fit, got numbers")
            return [encode(row, config["vocabulary"]) for row in rows]
        if symbols or any(row.shape[1] != width for row in rows):
            got = "symbols" if symbols else {row.shape for row in rows if row.shape[1] != width}
            raise ValueError(f"X: expected sequences of shape [T, {width}], as in fit, got {got}")
        mean, scale = np.array(config["mean"]), np.array(config["scale"])
        return [((row - mean) / scale).astype(self.dtype) for row in rows]

    def _configure(self, X: Any) -> dict[str, Any]:
        rows, symbols = _rows(X)
        if len(rows) == 0:
            raise ValueError("X: expected at least 1 sequence, got 0 sample(s)")
        if symbols:
            return {"n_features": 1, "vocabulary": vocabulary(rows, min_count=self.min_count)}
        if len({row.shape[1] for row in rows}) > 1:
            raise ValueError("X: expected sequences [T, D] of one D, got " + str({r.shape[1] for r in rows}))
        steps = np.concatenate(rows)
        if steps.size == 0:
            raise ValueError(
                f"X: expected at least one step with a feature, got 0 feature(s) (shape={np.shape(X)})"
            )
        scale = steps.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        return {"n_features": steps.shape[1], "mean": steps.mean(axis=0).tolist(), "scale": scale.tolist()}

    def _build(self, make: Factory) -> dict[str, Any]:
        symbols, pieces = self.config_.get("vocabulary"), {}
        if symbols is not None:
            pieces["embedding"] = make.embedding(symbols, self.embedding_size)
        width = self.config_["n_features"] if symbols is None else self.embedding_size
        directions = 1 + self.bidirectional
        return pieces | {
            "drop_in": make.dropout(),
            "rnn": make.recurrent(width, bidirectional=self.bidirectional),
            "drop_out": make.dropout(),
            "head": make.linear(directions * self.hidden_size, len(self.config_["classes"])),
        }

    def _recurrent(self, run: Run, rows: Sequence[Array]) -> tuple[Ragged, Any]:
        """Give the hidden states of the sequences, and the last ones."""
        x = np.concatenate(rows)
        x = run("embedding", x) if "embedding" in self.pieces_ else x
        y, state = run("rnn", Ragged(run("drop_in", x), [len(row) for row in rows]))
        return y, state

    def _back(self, run: Run, dy: Any, dstate: Any) -> None:
        dx = run.back("drop_in", run.back("rnn", dy, dstate).x.values).x
        if "embedding" in self.pieces_:
            run.back("embedding", dx)

    def _logits(self, X: Any) -> list[Array]:
        """Give what the head says of every sequence, a batch at a time."""
        self._check_fitted()
        rows, run = self._inputs(X, self.config_), Run(self.pieces_, train=False)
        return [self._head(run, [rows[i] for i in batch]) for batch in self._plan((rows,), None)]

    def _head(self, run: Run, rows: Sequence[Array]) -> Array:
        raise NotImplementedError

    @property
    def classes_(self) -> Array:
        """Labels in the order of the probabilities."""
        self._check_fitted()
        return np.array(self.config_["classes"])


class SequenceClassifier(_Labelled):
    """One label for each sequence (many to one).

    `X` is a list of sequences of any length: arrays [T, D] or [T], strings, or lists of words; or an array
    [n, T, D]; or [n, T], every row a sequence of numbers. Numbers are standardised. The last hidden states
    (of both directions) go through a linear layer to a softmax.

    Parameters
    ----------
    bidirectional : bool
    embedding_size : int
        for sequences of symbols.
    min_count : int
        rarer symbols are treated as one unknown symbol.
    label_smoothing : float
    **hyperparameters
        of every model: see `Model`.

    Examples
    --------
    >>> model = SequenceClassifier(hidden_size=16, epochs=20, lr=0.02, verbose=False)
    >>> model = model.fit(["abba", "aab", "ccd", "dcdd"] * 8, [0, 0, 1, 1] * 8)
    >>> model.predict(["ab", "cd"])
    array([0, 1])
    """

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        callbacks: Iterable[Callback] = (),
        resume: Any = None,
    ) -> Self:
        """Train on sequences `X` and their labels `y`; `validation` is another pair, the rest as of `Model`."""
        labels = _labels("y", y)
        classes = np.unique(labels)
        config = self._configure(X) | {"classes": classes.tolist()}
        if len(classes) < 2:
            raise ValueError(f"y: expected at least two classes, got {len(classes)} class")

        def encoded(X: Any, labels: Array) -> tuple[list[Array], Array]:
            rows = self._inputs(X, config)
            if len(rows) != len(labels):
                raise ValueError(f"y: expected {len(rows)} labels, one for each sequence, got {len(labels)}")
            return rows, _indices(labels, classes)

        # an array [n, T] has T features for scikit-learn; np.ndim would refuse a list of unequal sequences
        self.n_features_in_ = X.shape[1] if getattr(X, "ndim", 0) == 2 else config["n_features"]
        held_out = (
            None if validation is None else encoded(validation[0], _labels("validation", validation[1]))
        )
        return self._fit(encoded(X, labels), config, held_out, callbacks, resume)

    def predict_proba(self, X: Any) -> Array:
        """Give the probability of every class, [n, classes]."""
        logits = np.concatenate(self._logits(X)).astype(np.float64)
        return np.exp(log_softmax(logits))

    def predict(self, X: Any) -> Array:
        """Give the most probable label of each sequence."""
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])

    def score(self, X: Any, y: Any) -> float:
        """Give the accuracy."""
        return float(np.mean(self.predict(X) == np.asarray(y)))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.target_tags.required = "classifier", True
        tags.classifier_tags = ClassifierTags(poor_score=False)
        return tags

    def _head(self, run: Run, rows: Sequence[Array]) -> Array:
        _, state = self._recurrent(run, rows)
        h = state[0] if isinstance(state, tuple) else state  # [L * D, B, H]
        directions = 1 + self.bidirectional
        last = h[-directions:].transpose(1, 0, 2).reshape(len(rows), -1)
        return run("head", run("drop_out", last))  # type: ignore[no-any-return]

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        rows, labels = data
        z = self._head(run, [rows[i] for i in batch])
        loss, dz = softmax_cross_entropy(z, labels[batch], label_smoothing=self.label_smoothing * run.train)
        if run.train:
            dlast = run.back("drop_out", run.back("head", dz).x).x
            directions = 1 + self.bidirectional
            dh = np.zeros((self.num_layers * directions, len(batch), self.hidden_size), dlast.dtype)
            dh[-directions:] = dlast.reshape(len(batch), directions, -1).transpose(1, 0, 2)
            self._back(run, None, (dh, None) if self.cell == "lstm" else dh)
        return loss, len(batch)


class SequenceTagger(_Labelled):
    """A label at each step of each sequence.

    `X` and hyperparameters as of `SequenceClassifier`; `y` has a list of labels, one a step, for each sequence.

    Examples
    --------
    >>> model = SequenceTagger(hidden_size=16, epochs=20, lr=0.02, verbose=False)
    >>> model = model.fit(["abba", "aab"] * 8, [[1, 2, 2, 1], [1, 1, 2]] * 8)
    >>> model.predict(["ba"])
    [array([2, 1])]
    """

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        callbacks: Iterable[Callback] = (),
        resume: Any = None,
    ) -> Self:
        """Train on sequences `X` and their labels `y`; `validation` is another pair, the rest as of `Model`."""
        labels = [_labels("y", row) for row in y]
        if not any(row.size for row in labels):
            raise ValueError("y: expected at least one label, got none")
        classes = np.unique(np.concatenate([row for row in labels if row.size]))
        config = self._configure(X) | {"classes": classes.tolist()}

        def encoded(X: Any, labels: list[Array]) -> tuple[list[Array], list[Array]]:
            rows = self._inputs(X, config)
            lengths = [len(row) for row in rows]
            if lengths != [len(row) for row in labels]:
                raise ValueError("y: expected a list with one label for each step of each sequence of X")
            return rows, [_indices(row, classes) if row.size else np.zeros(0, np.intp) for row in labels]

        held_out = (
            None if validation is None else encoded(validation[0], [_labels("y", r) for r in validation[1]])
        )
        return self._fit(encoded(X, labels), config, held_out, callbacks, resume)

    def predict_proba(self, X: Any) -> list[Array]:
        """Give for each sequence the probability of every class at each step, [T, classes]."""
        p = np.exp(log_softmax(np.concatenate(self._logits(X)).astype(np.float64)))
        return np.split(p, np.cumsum([len(row) for row in X])[:-1])

    def predict(self, X: Any) -> list[Array]:
        """Give for each sequence the most probable label at each step."""
        return [self.classes_[np.argmax(p, axis=1)] for p in self.predict_proba(X)]

    def score(self, X: Any, y: Any) -> float:
        """Give the accuracy over all steps."""
        return float(
            np.mean(np.concatenate(self.predict(X)) == np.concatenate([np.asarray(row) for row in y]))
        )

    def _head(self, run: Run, rows: Sequence[Array]) -> Array:
        return run("head", run("drop_out", self._recurrent(run, rows)[0].values))  # type: ignore[no-any-return]

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        rows, labels = data
        z = self._head(run, [rows[i] for i in batch])
        right = np.concatenate([labels[i] for i in batch])
        loss, dz = softmax_cross_entropy(z, right, label_smoothing=self.label_smoothing * run.train)
        if run.train:
            self._back(run, run.back("drop_out", run.back("head", dz).x).x, None)
        return loss, len(right)


def _rows(X: Any) -> tuple[list[Any], bool]:
    """Give the sequences, numbers as float64 [T, D], and whether they are symbols."""
    if hasattr(X, "toarray"):
        raise TypeError("X: expected a dense array or a list of sequences, got a sparse matrix")
    if isinstance(X, str) or not hasattr(X, "__len__"):
        raise TypeError(f"X: expected an array or a list of sequences, got {type(X).__name__}")
    rows = list(np.asarray(X)) if hasattr(X, "__array__") else list(X)
    if any(
        isinstance(row, str) or (isinstance(row, (list, tuple)) and any(isinstance(s, str) for s in row))
        for row in rows
    ):
        return rows, True
    arrays = []
    for i, row in enumerate(rows):
        array = np.asarray(row)
        if array.dtype.kind == "O":
            try:
                array = array.astype(np.float64)
            except TypeError as error:
                raise TypeError(f"X[{i}]: argument must be a string or a real number: {error}") from error
        if array.dtype.kind == "c":
            raise ValueError(f"X[{i}]: Complex data not supported")
        if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
            raise ValueError(
                f"X[{i}]: expected numbers [T] or [T, D], got {array.dtype} {array.shape}. Reshape your data: every"
                " row of X is a sequence"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"X[{i}]: expected finite numbers, Input X contains NaN or infinity")
        arrays.append(array.reshape(len(array), -1).astype(np.float64))
    return arrays, False


def _labels(name: str, y: Any) -> Array:
    if y is None:
        raise ValueError(f"{name}: requires y to be passed, but the target y is None")
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{name}: expected one label each, shape [n], got {labels.shape}")
    if labels.dtype.kind == "O" and labels.size and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{name}: Input y contains NaN or infinity")
    if labels.size and (
        labels.dtype.kind not in "iubUf" or (labels.dtype.kind == "f" and (labels % 1).any())
    ):
        raise ValueError(f"{name}: Unknown label type: expected int, bool or str labels, got {labels.dtype}")
    return labels


def _indices(labels: Array, classes: Array) -> Array:
    index = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    if (classes[index] != labels).any():
        raise ValueError(f"validation: label {labels[classes[index] != labels][0]!r} is not among those of y")
    return index
