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
from fastrnn.models._base import Model
from fastrnn.models._data import encode, scale_of, scaled, vocabulary
from fastrnn.models._factory import Factory
from fastrnn.models._run import Run

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class _Labelled(Model):
    """An embedding if the sequences are of tokens, then recurrent layers and a linear layer."""

    bidirectional: bool = True
    embedding_size: int = 64
    min_count: int = 1
    label_smoothing: float = 0.0
    _each_step: ClassVar[bool] = False

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        sequences, are_tokens = _sequences(X)
        expect(sequences, "X", "at least 1 sequence", "0 sample(s)")
        classes = np.unique(np.concatenate(self._labels(y))).tolist()
        expect(len(classes) >= 2, "y", "at least two classes", f"{len(classes)} class")
        config: dict[str, Any] = {"n_features": 1} if are_tokens else scale_of(sequences)
        if are_tokens:
            config["vocabulary"] = vocabulary(sequences, min_count=self.min_count)
        shape: tuple[int, ...] = getattr(X, "shape", ())
        self.n_features_in_ = shape[1] if len(shape) == 2 else config["n_features"]  # of scikit-learn
        return {"classes": classes, **config}

    def _prepare(self, X: Any, y: Any, config: dict[str, Any]) -> tuple[list[Array], list[Array]]:
        inputs = self._inputs(X, config)
        labels = self._matched(y, self._counts(inputs))
        index = {label: i for i, label in enumerate(config["classes"])}
        unknown = [label for part in labels for label in part.tolist() if label not in index]
        expect(not unknown, "y", f"labels among {config['classes']}", unknown[:1])
        return inputs, [np.array([index[label] for label in part.tolist()], np.intp) for part in labels]

    def _inputs(self, X: Any, config: dict[str, Any]) -> list[Array]:
        """Return every sequence as an array: scaled floats [T, D], or indices [T] of tokens."""
        sequences, are_tokens = _sequences(X)
        expect(sequences, "X", "at least 1 sequence", "0")
        if "vocabulary" in config:
            fits = are_tokens or not any(map(len, sequences))
            expect(fits, "X", "sequences of tokens, as in fit", "numbers")
            return [encode(s, config["vocabulary"]) for s in sequences]
        expect(not are_tokens, "X", "sequences of numbers, as in fit", "tokens")
        return [scaled(s, config, self.dtype) for s in sequences]

    def _build(self, make: Factory) -> dict[str, Any]:
        tokens, outputs = self.config_.get("vocabulary"), len(self.config_["classes"])
        width = len(self.config_["mean"]) if tokens is None else self.embedding_size
        return make.stack(tokens, width, outputs, bidirectional=self.bidirectional)

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        inputs, labels = ([part[i] for i in batch] for part in data)
        right = np.concatenate(labels)
        loss, dlast = run.loss(
            "head", self._forward(run, inputs), right, label_smoothing=self.label_smoothing
        )
        if run.train:
            dlast = run.back(dlast, "drop_out").x
            dy, dstate = (dlast, None) if self._each_step else (None, self._state_gradient(dlast))
            dx = run.back(dy, "rnn", state=dstate).x.values
            run.back(dx, "drop_in", *["embedding"] * ("embedding" in self.modules_))
        return loss, len(right)

    def _forward(self, run: Run, inputs: Sequence[Array]) -> Array:
        """Return the input of the linear layer, one vector for each label of a batch."""
        x = np.concatenate(inputs)
        x = run("embedding", x) if "embedding" in self.modules_ else x
        y, state = run("rnn", Ragged(run("drop_in", x), list(map(len, inputs))))
        if self._each_step:
            last = y.values
        else:
            h = state[0] if isinstance(state, tuple) else state  # [L * D, B, H]
            last = np.concatenate(list(h[-1 - self.bidirectional :]), axis=1)
        return run("drop_out", last)  # type: ignore[no-any-return]

    def _state_gradient(self, dlast: Array) -> Any:
        """Return the gradient of the final state, from that of the last layer's h with its directions joined."""
        directions = 1 + self.bidirectional
        dh = np.zeros((self.num_layers * directions, len(dlast), self.hidden_size), dlast.dtype)
        dh[-directions:] = np.split(dlast, directions, axis=1)
        return (dh, None) if self.cell == "lstm" else dh

    def _probabilities(self, X: Any) -> list[Array]:
        """Return the probability of every class, an array for each sequence."""
        self._check_fitted()
        inputs, run = self._inputs(X, self.config_), Run(self.modules_, train=False)
        batches = ([inputs[i] for i in batch] for batch in self._plan((inputs,), None))
        z = [run("head", self._forward(run, batch)) for batch in batches]
        p = np.exp(log_softmax(np.concatenate(z).astype(np.float64)))
        return np.split(p, np.cumsum(self._counts(inputs))[:-1])

    def _labels(self, y: Any) -> list[Array]:
        """Check labels, and return those of each sequence."""
        if not self._each_step:
            return list(_labels(y)[:, None])
        given = y if hasattr(y, "__len__") else [y]
        odd = sorted({type(part).__name__ for part in given if not hasattr(part, "__len__")})
        expect(not odd, "y", "a list of labels for each sequence", ", ".join(odd), TypeError)
        expect(any(map(len, y)), "y", "a list of labels for each sequence", "no label")
        labels = [_labels(part) for part in y]
        kind = np.concatenate([part for part in labels if part.size]).dtype
        return [part.astype(kind) for part in labels]

    def _matched(self, y: Any, counts: list[int]) -> list[Array]:
        """Return the labels of each sequence, of which there must be `counts`."""
        labels = self._labels(y)
        each = "step of each sequence" if self._each_step else "sequence"
        wanted = f"one label for each {each}, and {len(counts)} sequences"
        given, got = list(map(len, labels)), str(len(labels))
        if len(given) == len(counts) and given != counts:
            i = next(i for i, n in enumerate(counts) if given[i] != n)
            got = f"{given[i]} labels for the {counts[i]} steps of X[{i}]"
        expect(given == counts, "y", wanted, got)
        return labels

    def _counts(self, inputs: Sequence[Array]) -> list[int]:
        """Return the number of labels of each sequence."""
        return [len(x) if self._each_step else 1 for x in inputs]

    @property
    def classes_(self) -> Array:
        """Labels in the order of the probabilities."""
        self._check_fitted()
        return np.array(self.config_["classes"])


class SequenceClassifier(_Labelled):
    """One label for each sequence (many to one).

    `X` is a list of sequences of any length: arrays [T, D] or [T] of numbers, strings, whose characters are the
    tokens, or lists of tokens (str). Or it is an array [n, T, D] or [n, T] of n sequences of numbers. `y` has one
    label (int, bool or str) for each sequence. Numbers are standardised. The final hidden states, of both directions
    if there are two, go through a linear layer to a softmax.

    Parameters
    ----------
    bidirectional : bool
    embedding_size : int
        for sequences of tokens.
    min_count : int
        rarer tokens are treated as one unknown token.
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
        """Return the probability of every class, [n, classes]."""
        return np.concatenate(self._probabilities(X))

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each sequence."""
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy: the share of labels that are right."""
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

    `X` and the hyperparameters are those of `SequenceClassifier`. `y` has a list of labels for each sequence, one for
    each step.

    Examples
    --------
    >>> model = SequenceTagger(hidden_size=16, epochs=20, lr=0.02, verbose=False)
    >>> model = model.fit(["abba", "aab"] * 8, [[1, 2, 2, 1], [1, 1, 2]] * 8)
    >>> model.predict(["ba"])
    [array([2, 1])]
    """

    _each_step = True

    def predict_proba(self, X: Any) -> list[Array]:
        """Return for each sequence the probability of every class at each step, [T, classes]."""
        return self._probabilities(X)

    def predict(self, X: Any) -> list[Array]:
        """Return for each sequence the most probable label at each step."""
        return [self.classes_[np.argmax(p, axis=1)] for p in self.predict_proba(X)]

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy over all steps: the share of labels that are right."""
        predicted = self.predict(X)
        right = np.concatenate(self._matched(y, list(map(len, predicted))))
        return float(np.mean(np.concatenate(predicted) == right))


def _sequences(X: Any) -> tuple[list[Any], bool]:
    """Return the sequences, numbers as float64 [T, D], and whether they are of tokens."""
    X = np.asarray(X) if hasattr(X, "__array__") else X
    fits = hasattr(X, "__len__") and not isinstance(X, str) and not hasattr(X, "toarray")
    got = f"{type(X).__name__}, maybe sparse"
    expect(fits, "X", "an array or a list of sequences", got, TypeError)
    sequences = list(X)
    if any(map(_of_tokens, sequences)):
        return sequences, True
    return [numbers(f"X[{i}]", s) for i, s in enumerate(sequences)], False


def _of_tokens(sequence: Any) -> bool:
    if isinstance(sequence, str):
        return True
    return hasattr(sequence, "__len__") and len(sequence) > 0 and isinstance(sequence[0], str)


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
