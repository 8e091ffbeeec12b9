"""SequenceClassifier and SequenceTagger: one label for a sequence, or one at each of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastrnn import Ragged
from fastrnn._arrays import expect, numbers
from fastrnn.losses import log_softmax
from fastrnn.models._base import Factory, Model, Run, encode, scale_of, scaled, vocabulary

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class _Labelled(Model):
    """Sequences in, through an embedding if they are symbols, to recurrent layers and a linear layer."""

    bidirectional: bool = True
    embedding_size: int = 64
    min_count: int = 1
    label_smoothing: float = 0.0
    _each_step: ClassVar[bool] = False

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        rows, symbols = _rows(X)
        expect(rows, "X", "at least 1 sequence", "0 sample(s)")
        classes = np.unique(np.concatenate(self._labels(y))).tolist()
        expect(len(classes) >= 2, "y", "at least two classes", f"{len(classes)} class")
        config: dict[str, Any] = {"n_features": 1} if symbols else scale_of(rows)
        if symbols:
            config["vocabulary"] = vocabulary(rows, min_count=self.min_count)
        shape: tuple[int, ...] = getattr(X, "shape", ())
        self.n_features_in_ = shape[1] if len(shape) == 2 else config["n_features"]  # of scikit-learn
        return {"classes": classes, **config}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any]) -> tuple[list[Array], list[Array]]:
        rows = self._inputs(X, config)
        labels = self._matched(y, self._counts(rows))
        index = {label: i for i, label in enumerate(config["classes"])}
        unknown = [label for row in labels for label in row.tolist() if label not in index]
        expect(not unknown, "y", f"labels among {config['classes']}", unknown[:1])
        return rows, [np.array([index[label] for label in row.tolist()], np.intp) for row in labels]

    def _inputs(self, X: Any, config: dict[str, Any]) -> list[Array]:
        """Give every sequence as an array: scaled floats [T, D], or indices [T] of symbols."""
        rows, symbols = _rows(X)
        expect(rows, "X", "at least 1 sequence", "0")
        if "vocabulary" in config:
            expect(symbols or not any(map(len, rows)), "X", "sequences of symbols, as in fit", "numbers")
            return [encode(row, config["vocabulary"]) for row in rows]
        expect(not symbols, "X", "sequences of numbers, as in fit", "symbols")
        return [scaled(row, config, self.dtype) for row in rows]

    def _build(self, make: Factory) -> dict[str, Any]:
        symbols, outputs = self.config_.get("vocabulary"), len(self.config_["classes"])
        width = len(self.config_["mean"]) if symbols is None else self.embedding_size
        return make.stack(symbols, width, outputs, bidirectional=self.bidirectional)

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        rows, labels = ([part[i] for i in batch] for part in data)
        right = np.concatenate(labels)
        loss, dlast = run.loss("head", self._forward(run, rows), right, label_smoothing=self.label_smoothing)
        if run.train:
            dlast = run.back(dlast, "drop_out").x
            dy, dstate = (dlast, None) if self._each_step else (None, self._state_gradient(dlast))
            dx = run.back(dy, "rnn", state=dstate).x.values
            run.back(dx, "drop_in", *["embedding"] * ("embedding" in self.pieces_))
        return loss, len(right)

    def _forward(self, run: Run, rows: Sequence[Array]) -> Array:
        """Return what goes into the head, one row for each label of a batch."""
        x = np.concatenate(rows)
        x = run("embedding", x) if "embedding" in self.pieces_ else x
        y, state = run("rnn", Ragged(run("drop_in", x), [len(row) for row in rows]))
        if self._each_step:
            last = y.values
        else:
            h = state[0] if isinstance(state, tuple) else state  # [L * D, B, H]
            last = np.concatenate(list(h[-1 - self.bidirectional :]), axis=1)
        return run("drop_out", last)  # type: ignore[no-any-return]

    def _state_gradient(self, dlast: Array) -> Any:
        """Give the gradient of the final state from that of the last layer's h, directions side by side."""
        directions = 1 + self.bidirectional
        dh = np.zeros((self.num_layers * directions, len(dlast), self.hidden_size), dlast.dtype)
        dh[-directions:] = np.split(dlast, directions, axis=1)
        return (dh, None) if self.cell == "lstm" else dh

    def _probabilities(self, X: Any) -> list[Array]:
        """Give the probability of every class, an array for each sequence."""
        self._check_fitted()
        rows, run = self._inputs(X, self.config_), Run(self.pieces_, train=False)
        batches = ([rows[i] for i in batch] for batch in self._plan((rows,), None))
        z = [run("head", self._forward(run, batch)) for batch in batches]
        p = np.exp(log_softmax(np.concatenate(z).astype(np.float64)))
        return np.split(p, np.cumsum(self._counts(rows))[:-1])

    def _labels(self, y: Any) -> list[Array]:
        """Check labels, and give those of each sequence."""
        if not self._each_step:
            return list(_labels(y)[:, None])
        rows = y if hasattr(y, "__len__") else [y]
        odd = sorted({type(row).__name__ for row in rows if not hasattr(row, "__len__")})
        expect(not odd, "y", "a list of labels for each sequence", ", ".join(odd), TypeError)
        expect(any(map(len, y)), "y", "a list of labels for each sequence", "no label")
        labels = [_labels(row) for row in y]
        kind = np.concatenate([row for row in labels if row.size]).dtype
        return [row.astype(kind) for row in labels]

    def _matched(self, y: Any, counts: list[int]) -> list[Array]:
        """Give the labels of each sequence, of which there must be `counts`."""
        labels = self._labels(y)
        each = "step of each sequence" if self._each_step else "sequence"
        wanted = f"one label for each {each}, and {len(counts)} sequences"
        given, got = list(map(len, labels)), str(len(labels))
        if len(given) == len(counts) and given != counts:
            i = next(i for i, n in enumerate(counts) if given[i] != n)
            got = f"{given[i]} labels for the {counts[i]} steps of X[{i}]"
        expect(given == counts, "y", wanted, got)
        return labels

    def _counts(self, rows: Sequence[Array]) -> list[int]:
        """Give the number of labels of each sequence."""
        return [len(row) if self._each_step else 1 for row in rows]

    @property
    def classes_(self) -> Array:
        """Labels in the order of the probabilities."""
        self._check_fitted()
        return np.array(self.config_["classes"])


class SequenceClassifier(_Labelled):
    """One label for each sequence (many to one).

    `X` is a list of sequences of any length: arrays [T, D] or [T], strings, or lists of words; or an array
    [n, T, D]; or [n, T], every row a sequence of numbers. `y` is one label (int, bool or str) for each. Numbers
    are standardised. The last hidden states (of both directions) go through a linear layer to a softmax.

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

    def predict_proba(self, X: Any) -> Array:
        """Give the probability of every class, [n, classes]."""
        return np.concatenate(self._probabilities(X))

    def predict(self, X: Any) -> Array:
        """Give the most probable label of each sequence."""
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])

    def score(self, X: Any, y: Any) -> float:
        """Give the accuracy."""
        predicted = self.predict(X)
        return float(np.mean(predicted == np.concatenate(self._matched(y, [1] * len(predicted)))))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.target_tags.required = "classifier", True
        tags.classifier_tags = ClassifierTags(poor_score=False)
        return tags


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

    _each_step = True

    def predict_proba(self, X: Any) -> list[Array]:
        """Give for each sequence the probability of every class at each step, [T, classes]."""
        return self._probabilities(X)

    def predict(self, X: Any) -> list[Array]:
        """Give for each sequence the most probable label at each step."""
        return [self.classes_[np.argmax(p, axis=1)] for p in self.predict_proba(X)]

    def score(self, X: Any, y: Any) -> float:
        """Give the accuracy over all steps."""
        predicted = self.predict(X)
        right = np.concatenate(self._matched(y, list(map(len, predicted))))
        return float(np.mean(np.concatenate(predicted) == right))


def _rows(X: Any) -> tuple[list[Any], bool]:
    """Give the sequences, numbers as float64 [T, D], and whether they are symbols."""
    X = np.asarray(X) if hasattr(X, "__array__") else X
    rowed = hasattr(X, "__len__") and not isinstance(X, str) and not hasattr(X, "toarray")
    got = f"{type(X).__name__}, maybe sparse"
    expect(rowed, "X", "an array or a list of sequences", got, TypeError)
    rows = list(X)
    if any(map(_is_symbols, rows)):
        return rows, True
    return [numbers(f"X[{i}]", row) for i, row in enumerate(rows)], False


def _is_symbols(row: Any) -> bool:
    return isinstance(row, str) or (hasattr(row, "__len__") and len(row) > 0 and isinstance(row[0], str))


def _labels(y: Any) -> Array:
    if y is None:
        raise ValueError("y: requires y to be passed, but the target y is None")
    labels = np.asarray(y)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    expect(labels.ndim == 1, "y", "one label each, shape [n]", labels.shape)
    if labels.dtype.kind == "O" and labels.size and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("y: Input y contains NaN or infinity")
    whole = labels.dtype.kind in "iubU" or (labels.dtype.kind == "f" and not (labels % 1).any())
    expect(not labels.size or whole, "y: Unknown label type", "int, bool or str labels", labels.dtype)
    return labels
