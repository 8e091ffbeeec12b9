"""What the hyperparameters of a model may be, and a check that they are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from fastrnn import init, optim
from fastrnn._arrays import expect
from fastrnn.models._embedding import WANTED, is_embedding

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
OPTIMISERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}
SCHEDULES: dict[str, Any] = {"constant": lambda lr, _: lr, "cosine": optim.cosine, "linear": optim.linear}
INITS: dict[str, Any] = {"identity": init.identity, "forget_bias": init.forget_bias}
INITS |= {"orthogonal": init.orthogonal, "xavier": init.xavier}
DRAWN = ("orthogonal", "xavier")  # those of INITS that take a generator

CHOICES: dict[str, Iterable[str]] = {"cell": CELLS, "optimizer": OPTIMISERS, "schedule": SCHEDULES}
CHOICES |= {"inputs": ("auto", "tokens", "numbers"), "scaling": ("series", "fit", "window")}
CHOICES |= {"loss": ("gaussian", "quantile", "mae", "mse"), "missing": ("error", "mask")}
CHOICES |= {"init": INITS, "dtype": ("float32", "float64")}
CHOICES |= {"pooling": ("last", "max", "mean", "attention")}
BELOW_ONE, ABOVE_ZERO = ("dropout", "label_smoothing", "word_dropout"), ("clip",)


def check_hyperparameters(model: Any) -> None:
    """Raise unless every field of the dataclass `model` has a value that its name and type allow."""
    for f in fields(model):
        value, kind = getattr(model, f.name), str(f.type)
        fits: Any
        if value is None and "None" in kind:
            continue
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if f.name == "class_weight":
            fits, expected = _are_class_weights(value), "None, 'balanced' or a dict of finite numbers >= 0"
        elif f.name == "quantiles":
            fits, expected = _are_quantiles(value), "numbers between 0 and 1 in ascending order, with 0.5"
        elif f.name in ("target", "known"):
            columns = value if isinstance(value, list) and value else [value]
            fits = all(isinstance(c, (int, str)) and not isinstance(c, bool) for c in columns)
            expected = "None, a column (str or int) or a list of them"
        elif f.name == "embedding":
            fits, expected = value is None or is_embedding(value), f"None, {WANTED}"
        elif f.name in CHOICES:
            fits, expected = value in list(CHOICES[f.name]), f"one of {list(CHOICES[f.name])}"
        elif kind.startswith("int"):
            least = 0 if f.name == "random_state" else 1
            fits = isinstance(value, (int, np.integer)) and number and least <= value < 2**63
            expected = f"an integer of at least {least}"
        elif kind.startswith("float"):
            limit = 1 if f.name in BELOW_ONE else math.inf
            above = number and (value > 0 if f.name in ABOVE_ZERO else value >= 0)
            fits, start = above and value < limit, "0 <" if f.name in ABOVE_ZERO else "0 <="
            expected = f"{start} {f.name} < {limit}"
        else:
            fits, expected = value in (True, False), "True or False"
        expect(fits, f.name, expected, repr(value))


def _are_class_weights(value: Any) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str) and value == "balanced"
    weights = value.values()
    number = all(isinstance(w, (int, float, np.number)) and not isinstance(w, bool) for w in weights)
    return number and all(0 <= w < math.inf for w in weights)


def _are_quantiles(value: Any) -> bool:
    if not isinstance(value, (tuple, list)) or not all(isinstance(q, float) for q in value):
        return False
    return 0.5 in value and all(a < b for a, b in zip((0, *value), (*value, 1), strict=True))
