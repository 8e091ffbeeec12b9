"""Metrics that fit measures on the validation data after each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn._arrays import expect


def scorers(metrics: Any) -> dict[str, Any]:
    """Return functions (model, X, y) by name, of what `fit` takes as `metrics`."""
    if isinstance(metrics, str) or callable(metrics):
        metrics = [metrics]
    wanted = "str and functions (model, X, y)"
    listed = isinstance(metrics, (list, tuple, Mapping))
    expect(listed, "metrics", f"a list or dict of {wanted}", type(metrics).__name__, TypeError)
    if isinstance(metrics, Mapping):
        pairs = list(metrics.items())
    else:
        pairs = [(m if isinstance(m, str) else getattr(m, "__name__", type(m).__name__), m) for m in metrics]
    found: dict[str, Any] = {}
    for name, metric in pairs:
        expect(isinstance(name, str), "metrics", "names that are str", repr(name), TypeError)
        expect(name not in found, "metrics", "every name once: a dict gives other ones", repr(name))
        fits = isinstance(metric, str) or callable(metric)
        expect(fits, "metrics", wanted, type(metric).__name__, TypeError)
        found[name] = _scorer(metric) if isinstance(metric, str) else metric
    return found


def measured(metrics: Mapping[str, Any], model: Any, X: Any, y: Any) -> dict[str, float]:
    """Return the metrics of a model on data, by their names in the log."""
    results = {}
    for name, metric in metrics.items():
        value = metric(model, X, y)
        number = isinstance(value, (int, float, np.number)) or getattr(value, "shape", None) == ()
        expect(number, "metrics", f"a number from {name!r}", type(value).__name__, TypeError)
        results[f"val_{name}"] = float(value)
    return results


def _scorer(name: str) -> Any:
    """Return the model's own score, or a scorer of scikit-learn."""
    if name == "score":
        return lambda model, X, y: model.score(X) if y is None else model.score(X, y)
    try:
        from sklearn.metrics import get_scorer
    except ImportError as error:
        text = f"metrics={name!r} needs scikit-learn: pip install scikit-learn"
        raise ImportError(text) from error
    try:
        scorer = get_scorer(name)
    except ValueError as error:
        wanted = "'score' or the name of a scorer of scikit-learn (sklearn.metrics.get_scorer_names())"
        raise ValueError(f"metrics: expected {wanted}, got {name!r}") from error

    def score(model: Any, X: Any, y: Any) -> Any:
        expect(y is not None, "metrics", "functions for a model without y", repr(name))
        steps = hasattr(model, "_flat")  # labels of steps, in one row for scikit-learn
        return scorer(*model._flat(X, y)) if steps else scorer(model, X, y)

    return score
