"""SequenceClassifier and SequenceTagger: one label for a sequence, or one at each of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import expect
from fastrnn.losses import log_softmax
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import array_of, few, items
from fastrnn.models._run import Run
from fastrnn.models._sequence_model import SequenceModel

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class _Labelled(SequenceModel):
    """Labels, and a softmax over the classes."""

    label_smoothing: float = 0.0
    class_weight: str | dict[Any, float] | None = None

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        config = self._input_config(X)
        labels = np.concatenate(self._labels(y))
        classes, counts = np.unique(labels, return_counts=True)
        got = f"{len(classes)} class{'es' * (len(classes) != 1)}"
        expect(len(classes) >= 2, "y", "at least two classes", got)
        config["classes"] = classes.tolist()
        weight = self.class_weight
        if weight == "balanced":
            config["class_weights"] = (len(labels) / (len(classes) * counts)).tolist()
        elif isinstance(weight, Mapping):
            odd = [label for label in weight if label not in config["classes"]]
            expect(not odd, "class_weight", f"labels among {few(config['classes'])}", few(odd))
            config["class_weights"] = [float(weight.get(label, 1.0)) for label in config["classes"]]
        return config

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], extra: Any = None) -> Any:
        inputs = self._inputs(X, config)
        labels = self._matched(y, self._counts(inputs))
        index = {label: i for i, label in enumerate(config["classes"])}
        unknown = [label for part in labels for label in part.tolist() if label not in index]
        expect(not unknown, "y", f"labels among {few(config['classes'])}", few(unknown[:1]))
        right = [np.array([index[label] for label in part.tolist()], np.intp) for part in labels]
        weights = self._sample_weights(extra, self._counts(inputs))
        return (inputs, right) if weights is None else (inputs, right, weights)

    def _choose_held_out(self, y: Any, order: Array, count: int) -> Array:
        # Every class stays in the part for training, or its labels in the other part would be unknown.
        labels = [set(part.tolist()) for part in self._labels(y)]
        left: dict[Any, int] = {}
        for label in (label for part in labels for label in part):
            left[label] = left.get(label, 0) + 1
        held: list[int] = []
        for i in order.tolist():
            if len(held) < count and all(left[label] > 1 for label in labels[i]):
                held.append(i)
                for label in labels[i]:
                    left[label] -= 1
        expect(held, "validation", "a class of which one sequence can be held out", "one sequence each")
        return np.sort(np.array(held, np.intp))

    def _build(self, make: Factory) -> dict[str, Any]:
        return self._build_stack(make, len(self.config_["classes"]))

    def _step(self, run: Run, data: Any, batch: Array) -> tuple[float, int]:
        inputs, labels, *weights = ([part[i] for i in batch] for part in data)
        right = np.concatenate(labels)
        if not len(right):  # a batch of taggers' sequences without steps
            right, options = np.zeros(0, np.intp), {"reduction": "sum"}
        else:
            options = self._loss_options(right, weights) if run.train else {}
        x = self._forward(run, inputs)
        loss, dlast = run.loss("head", x, right, label_smoothing=self.label_smoothing, **options)
        if run.train:
            self._back(run, dlast, inputs)
        return loss, len(right)

    def _loss_options(self, right: Array, weights: list[list[Array]]) -> dict[str, Any]:
        """Return arguments of the loss where labels have weights: a sum of w / n over n of them."""
        by_class = self.config_.get("class_weights")
        if not weights and by_class is None:
            return {}
        w = np.concatenate(weights[0]) if weights else np.ones(len(right))
        w = w if by_class is None else w * np.array(by_class)[right]
        return {"weights": w / len(right), "reduction": "sum"}

    def _probabilities(self, X: Any) -> list[Array]:
        """Return the probability of every class, an array for each sequence."""
        outputs, counts = self._outputs(X)
        return np.split(self._said(outputs), np.cumsum(counts)[:-1])

    def _said(self, outputs: list[Array]) -> Array:
        """Return the probabilities [n, classes]: the mean over the networks."""
        return np.asarray(np.mean([np.exp(log_softmax(z.astype(np.float64))) for z in outputs], axis=0))

    def _labels(self, y: Any) -> list[Array]:
        """Check labels, and return those of each sequence."""
        if not self._each_step:
            return list(_labels("y", y)[:, None])
        wanted = "a list of labels for each sequence"
        if y is None:
            raise ValueError("y: requires y to be passed, but the target y is None")
        given = items("y", y, wanted)
        odd = sorted({type(part).__name__ for part in given if isinstance(part, str) or np.ndim(part) == 0})
        expect(not odd, "y", wanted, ", ".join(odd), TypeError)
        expect(any(map(len, given)), "y", wanted, "no label")
        labels = [_labels(f"y[{i}]", part) for i, part in enumerate(given)]
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

    @property
    def classes_(self) -> Array:
        """Labels in the order of the probabilities."""
        self._check_fitted()
        return np.array(self.config_["classes"])


@dataclass(eq=False, kw_only=True)
class SequenceClassifier(_Labelled):
    """One label for each sequence (many to one); a str is a sequence of characters, a list of str one of words.

    `X` is a list of sequences of any length: arrays [T, D] or [T] of numbers, or sequences of tokens. Or it is an
    array [n, T, D] or [n, T] of n sequences. `y` has one label (int, bool or str) for each sequence. Numbers are
    standardised. The hidden states, of both directions if there are two, become one vector by `pooling`, which goes
    through a linear layer to a softmax. `predict` takes the kind of sequences that `fit` has seen.

    Parameters
    ----------
    inputs : "auto", "tokens" or "numbers"
        what the sequences hold. With "auto", str are tokens and floats are numbers. Integers may be either, so they
        need "tokens" or "numbers".
    bidirectional : bool
    pooling : "last", "max", "mean" or "attention"
        the final hidden states, or the maximum or mean over the steps, or a mean whose weights are learned (Yang et
        al. 2016).
    embedding_size : int
        for sequences of tokens; the width of `embedding` where that is given.
    embedding : dict of vectors by token, pair (vectors [V, E], tokens), or fitted LanguageModel, optional
        the vectors with which tokens begin, such as those of `fastrnn.text.word_vectors`; training goes on from them.
        Tokens that have one are known, even if the training data do not have them. With a LanguageModel the recurrent
        layers begin as its own; of two directions, the forward one. A file keeps the weights, but not this parameter.
    min_count : int
        rarer tokens are treated as one unknown token.
    word_dropout : float
        probability with which a token is read as the unknown one in training, or a step of numbers as their mean.
    bucketing : bool
        whether the sequences of a batch are of like length, so that none waits for a longer one.
    n_estimators : int
        number of networks, each with a seed of its own. `predict` takes the mean of their probabilities.
    label_smoothing : float
    class_weight : None, "balanced" or dict
        how much the labels of each class count in training: the same, in inverse proportion to their number, or what
        the dict says (1 for a class that it does not have).
    **hyperparameters
        of every model: see `Model`.

    Attributes
    ----------
    classes_ : array
        labels in the order of the probabilities.
    n_features_in_ : int
        number of columns of an `X` [n, T], else the number of features of a step; 1 for tokens.
    feature_names_in_ : array of str
        names of the columns, where `X` was a DataFrame or a list of them.
    config_, modules_, history_
        see `Model`.

    Examples
    --------
    >>> model = SequenceClassifier(hidden_size=16, epochs=20, lr=0.02, verbose=False)
    >>> model = model.fit(["abba", "aab", "ccd", "dcdd"] * 8, [0, 0, 1, 1] * 8)
    >>> model.predict(["ab", "cd"])
    array([0, 1])
    """

    pooling: str = "last"

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of every class, [n, classes]."""
        return np.concatenate(self._probabilities(X))

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each sequence."""
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy: the share of labels that are right."""
        predicted = self.predict(X)
        right = predicted == np.concatenate(self._matched(y, [1] * len(predicted)))
        weights = self._sample_weights(sample_weight, [1] * len(predicted))
        return float(
            np.mean(right) if weights is None else np.average(right, weights=np.concatenate(weights))
        )

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.target_tags.required = "classifier", True
        tags.classifier_tags = ClassifierTags(poor_score=False)
        return tags


@dataclass(eq=False, kw_only=True)
class SequenceTagger(_Labelled):
    """A label at each step of each sequence; a str is a sequence of characters, a list of str one of words.

    `X` and the hyperparameters are those of `SequenceClassifier`, but for `pooling`. `y` has a list of labels for each
    sequence, one for each step.

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
        probabilities, classes = self._probabilities(X), self.classes_
        return [classes[np.argmax(p, axis=1)] for p in probabilities]

    def _flat(self, X: Any, y: Any) -> tuple[Any, Any, Any]:
        """Return what a scorer of scikit-learn takes: labels of steps in one row."""
        return _Steps(self), X, np.concatenate(self._labels(y))

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy over all steps: the share of labels that are right."""
        predicted = self.predict(X)
        right = np.concatenate(self._matched(y, list(map(len, predicted))))
        return float(np.mean(np.concatenate(predicted) == right))


class _Steps:
    """A tagger as a classifier of steps, for the scorers of scikit-learn."""

    _estimator_type = "classifier"

    def __init__(self, tagger: SequenceTagger) -> None:
        self.tagger, self.classes_ = tagger, tagger.classes_

    def predict(self, X: Any) -> Array:
        return np.concatenate(self.tagger.predict(X))

    def predict_proba(self, X: Any) -> Array:
        return np.concatenate(self.tagger.predict_proba(X))

    def fit(self, X: Any, y: Any) -> Any:
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        return SequenceClassifier().__sklearn_tags__()


def _labels(name: str, y: Any) -> Array:
    if y is None:
        raise ValueError("y: requires y to be passed, but the target y is None")
    expect(not isinstance(y, (str, bytes)), name, "a list of labels", f"one {type(y).__name__}", TypeError)
    labels = array_of(name, y, "a list of labels")
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    expect(labels.ndim == 1, name, "one label each, shape [n]", f"shape {labels.shape}")
    if labels.dtype.kind == "O" and labels.size and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.dtype.kind == "T":
        labels = labels.astype(str)
    if labels.dtype.kind == "U" and isinstance(y, (list, tuple)):  # NumPy turns numbers beside str into str
        expect(not _numbers_among(y), name, "labels of one kind", "str and numbers", TypeError)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{name}: Input y contains NaN or infinity")
    whole = labels.dtype.kind in "iubU" or (labels.dtype.kind == "f" and not (labels % 1).any())
    expect(not labels.size or whole, f"{name}: Unknown label type", "int, bool or str labels", labels.dtype)
    return labels


def _numbers_among(y: Any) -> bool:
    return any(isinstance(label, (int, float, np.number, np.bool_)) for label in y)
