"""The options of cells: what a layer is given, checked, and what the core is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from fastrnn._arrays import _probability, at_least_zero, expect, number, some

# Activations by name, with the alpha and beta that they have where none are given: those of ONNX. Those that take
# fewer numbers have fewer here.
FUNCTIONS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "relu": (),
    "linear": (),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}

# Which entry of `activations` each gate takes, in the order of the gates; the LSTM's output is the last one. A list of
# its own length is taken as it is.
_SHORT = {"rnn": (0,), "lstm": (0, 0, 1, 0, 2), "gru": (0, 0, 1)}
_MEANING = {
    "rnn": "1 entry",
    "lstm": "3 entries (gates, candidate, output) or 5 (i, f, g, o, output)",
    "gru": "2 entries (gates, candidate) or 3 (r, z, n)",
}
DEFAULT = {"rnn": ("tanh",), "lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}

Function = tuple[str, float, float]


def function(argument: str, entry: Any) -> Function:
    """Return name, alpha and beta of an activation.

    >>> function("activations", "identity"), function("activations", ("leaky_relu", 0.1))
    (('linear', 0.0, 0.0), ('leaky_relu', 0.1, 0.0))
    """
    names = f"one of {some(FUNCTIONS, most=20)}, or one of them with numbers"
    expect(
        _is_entry(entry), argument, names, repr(entry), ValueError if isinstance(entry, str) else TypeError
    )
    name, *numbers = (entry,) if isinstance(entry, str) else entry
    name = "linear" if name == "identity" else name
    expect(name in FUNCTIONS, argument, names, repr(name))
    defaults = FUNCTIONS[name]
    wanted = f"at most {len(defaults)} numbers for {name}" if defaults else f"no numbers for {name}"
    expect(len(numbers) <= len(defaults), argument, wanted, f"{len(numbers)}")
    for value in numbers:
        expect(-1e30 < number(argument, value) < 1e30, argument, "finite numbers", value)
    alpha, beta = (*(float(n) for n in numbers), *defaults[len(numbers) :], 0.0, 0.0)[:2]
    return name, alpha, beta


def _is_entry(value: Any) -> bool:
    """Whether a value is a name, or a name with numbers; a tuple of names is none."""
    if isinstance(value, str):
        return True
    return (
        isinstance(value, (tuple, list))
        and bool(value)
        and isinstance(value[0], str)
        and all(isinstance(n, Real) for n in value[1:])
    )


def functions_of(kind: str, given: Any, directions: int) -> tuple[tuple[Function, ...], ...]:
    """Return the activations of every gate (and the LSTM's output), for each direction.

    >>> functions_of("gru", ("hard_sigmoid", "linear"), 1)
    ((('hard_sigmoid', 0.2, 0.5), ('hard_sigmoid', 0.2, 0.5), ('linear', 0.0, 0.0)),)
    """
    wanted = f"{_MEANING[kind]}, or such a tuple for each direction"
    expect(isinstance(given, (tuple, list)), "activations", wanted, repr(given), TypeError)
    each: Sequence[Any] = [given] * directions if all(map(_is_entry, given)) else given
    # ("tanh", "relu") of an RNN is an entry for each direction; so is (("tanh",), ("relu",))
    if kind == "rnn" and len(given) == 2 and each is not given:
        each = [(entry,) for entry in given]
    expect(len(each) == directions, "activations", wanted, repr(given))
    made = []
    for own in each:
        fits = isinstance(own, (tuple, list)) and all(map(_is_entry, own))
        places = _SHORT[kind]
        fits = fits and len(own) in (max(places) + 1, len(places))
        expect(fits, "activations", wanted, repr(given))
        entries = [function("activations", entry) for entry in own]
        made.append(tuple(entries if len(own) == len(places) else (entries[i] for i in places)))
    return tuple(made)


def _flag(name: str, value: Any) -> bool:
    expect(isinstance(value, bool) or value in (0, 1), name, "True or False", repr(value), TypeError)
    return bool(value)


class CellOptions:
    """The options of a layer's cells, checked.

    Parameters
    ----------
    cell : str
        The core's name of the plain cell.
    directions, proj_size : int
    given : mapping
        Keyword options of the layers, those that are not their defaults among them. Options that the kind lacks are
        not there.
    """

    def __init__(self, cell: str, directions: int, proj_size: int, given: Mapping[str, Any]) -> None:
        self.kind = kind = cell.partition("_")[0]
        self.given = dict(given)
        chosen = given.get("activations")
        self.functions = functions_of(kind, DEFAULT[kind] if chosen is None else chosen, directions)
        self.peepholes = _flag("peepholes", given.get("peepholes", False))
        self.input_forget = _flag("input_forget", given.get("input_forget", False))
        clip = given.get("clip")
        self.clip = None if clip is None else float(number("clip", clip))
        zoneout = given.get("zoneout", 0.0)
        pair = kind == "lstm" and isinstance(zoneout, (tuple, list)) and len(zoneout) == 2
        self.zoneout_h, self.zoneout_c = (
            _probability("zoneout", p) for p in (zoneout if pair else (zoneout,) * 2)
        )
        self.zoneout_c *= kind == "lstm"
        expect(
            not proj_size or not self.zoneout_h,
            "zoneout",
            "(0, p) with proj_size, which h is projected to",
            zoneout,
        )
        self.recurrent_dropout = _probability("recurrent_dropout", given.get("recurrent_dropout", 0.0))
        self.leak = float(number("leak", given.get("leak", 1.0)))
        expect(0 < self.leak <= 1, "leak", "more than 0 and at most 1", self.leak)
        self.noise = at_least_zero("noise", given.get("noise", 0.0))
        # whether a training pass draws something for the cells; a short call reads it, so it is worked out once
        drawn = self.zoneout_h or self.zoneout_c or self.recurrent_dropout or self.noise
        self.draws = bool(drawn)
        expect(self.clip is None or 0 < self.clip < 1e30, "clip", "None or a positive number", clip)

    def draw(
        self,
        rng: np.random.Generator,
        n: int,
        positions: int,
        rows: int,
        hidden: int,
        output: int,
        dtype: Any,
    ) -> tuple[Any, Any, Any, Any]:
        """Draw what a training pass of n layers and directions needs, as the core takes it.

        Returns
        -------
        zoned_h, zoned_c : array [n, positions, hidden] or None
            1 where zoneout keeps the old value of h or of c, else 0.
        noise : array [n, positions, hidden] or None
            Added to pre-activations.
        dropped : array [n, rows, output] or None
            Factors of recurrent dropout, for each sequence.
        """
        steps, drop = (n, positions, hidden), self.recurrent_dropout
        # 16 bits are drawn faster than a float, so probabilities are rounded to a multiple of 2^-16
        zoned = [
            (rng.integers(0, 1 << 16, steps, np.uint16) < round(p * (1 << 16))).astype(dtype) if p else None
            for p in (self.zoneout_h, self.zoneout_c)
        ]
        noise = self.noise and rng.standard_normal(steps, np.float32).astype(dtype) * dtype.type(self.noise)
        dropped = drop and (rng.random((n, rows, output), np.float32) >= drop) / dtype.type(1 - drop)
        return *zoned, *(a if isinstance(a, np.ndarray) else None for a in (noise, dropped))  # type: ignore[return-value]

    def plain(self) -> str:
        """Return the activation of the plain cell which these options describe, "" for one with others."""
        if self.peepholes or self.input_forget or self.clip is not None or self.draws or self.leak != 1:
            return ""
        known: list[Any] = list(DEFAULT[self.kind])
        for names in [known, *([["relu"]] if self.kind == "rnn" else [])]:
            if self.functions == functions_of(self.kind, names, len(self.functions)):
                return str(names[-1])
        return ""

    def described(self) -> list[str]:
        """Return the options that are not their defaults, as a call would have them."""
        defaults = {"activations": (None, DEFAULT[self.kind]), "clip": (None,), "leak": (1,)}
        return [f"{k}={v!r}" for k, v in self.given.items() if v not in defaults.get(k, (False, 0))]

    def alone(self, direction: int) -> dict[str, Any]:
        """Return the keyword options of a layer that has one of these directions."""
        own = tuple((f[0], *f[1 : 1 + len(FUNCTIONS[f[0]])]) for f in self.functions[direction])
        return self.given | {"activations": own}

    def core(self) -> dict[str, Any] | None:
        """Return the options as the core takes them; None for a plain cell."""
        if self.plain():
            return None
        options: dict[str, Any] = {"activations": self.functions, "clip": self.clip or 0.0}
        options["zoneout_h"] = self.zoneout_h
        if self.kind == "lstm":
            options |= {
                "peepholes": self.peepholes,
                "input_forget": self.input_forget,
                "zoneout_c": self.zoneout_c,
            }
        return options | ({"leak": self.leak} if self.kind == "rnn" else {})
