"""The programs: sizes, data and initial weights, the same for every engine.

Data are random, because no time depends on it. Tokens come in the form that a data set has after encoding; how a batch
is laid out (padded or not) is the engine's own matter and done before the time starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Batch = dict[str, Array]

GATES = {"lstm": 4, "gru": 3}
CLIP, LR = 1.0, 1e-3  # of every program that trains
N_BATCHES = 4  # different ones, taken in turn: the caches hold no more than a user's would
CHUNK = 256  # sequences of a batch of `predict`
FRAMES = 100  # steps of the loop of `vad` that count as one step of the program


@dataclass(frozen=True)
class Program:
    """One program. V tokens, E features a step, H units, T steps, B sequences a batch, O outputs."""

    name: str
    task: str
    cell: str
    E: int
    H: int
    T: int
    B: int
    O: int
    V: int = 0
    least_T: int = 0  # lengths are uniform on least_T..T; 0: all are T
    bidirectional: bool = False
    unit: str = "tokens"

    @property
    def trains(self) -> bool:
        """Whether a step updates parameters."""
        return self.task not in ("vad", "predict")

    @property
    def width(self) -> int:
        """Features of an output of the recurrent layer."""
        return self.H * (2 if self.bidirectional else 1)

    @property
    def sizes(self) -> str:
        """The sizes as text."""
        lengths = f"{self.least_T} to {self.T}" if self.least_T else str(self.T)
        names = {"V": self.V, "E": self.E, "H": self.H, "T": lengths, "B": self.B}
        return ", ".join(f"{name} {value}" for name, value in names.items() if value)


PROGRAMS = (
    Program("word LM, LSTM", "language", "lstm", E=100, H=200, T=35, B=20, O=5000, V=5000),
    Program("word LM, large LSTM", "language", "lstm", E=200, H=256, T=35, B=32, O=20000, V=20000),
    Program("char LM, LSTM", "language", "lstm", E=64, H=256, T=64, B=32, O=96, V=96),
    Program("char LM, GRU", "language", "gru", E=64, H=256, T=64, B=32, O=96, V=96),
    Program("tagger, LSTM", "tagger", "lstm", 64, 64, 40, 32, 17, V=8000, least_T=5, bidirectional=True),
    Program("tagger, GRU", "tagger", "gru", 64, 64, 40, 32, 17, V=8000, least_T=5, bidirectional=True),
    Program("small LM, GRU", "language", "gru", E=16, H=32, T=50, B=16, O=50, V=50),
    Program("classifier", "classifier", "lstm", 64, 64, 100, 32, 5, V=8000, least_T=10, bidirectional=True),
    Program("forecaster", "forecaster", "lstm", E=8, H=64, T=96, B=32, O=24, unit="steps"),
    Program("Seq2Seq, attention", "translation", "gru", E=128, H=128, T=25, B=32, O=8000, V=8000),
    Program("RL with resets", "policy", "lstm", E=32, H=64, T=128, B=16, O=6, unit="steps"),
    Program("VAD stream", "vad", "lstm", E=64, H=128, T=FRAMES, B=1, O=1, unit="frames"),
    Program("predict 10,000", "predict", "lstm", 64, 64, 60, 10000, 5, V=8000, least_T=5, bidirectional=True),
)
QUICK_PREDICT = 1000  # sequences of `predict` in a quick run


def program(name: str) -> Program:
    """Return the program of that name."""
    return next(found for found in PROGRAMS if found.name == name)


def batches(p: Program, quick: bool = False) -> list[Batch]:
    """Return the batches of `p`: tokens [T, B] or [total] with lengths [B], features [T, B, E], targets."""
    rng = np.random.default_rng(1)
    made: Any = {
        "language": _language,
        "tagger": _ragged,
        "classifier": _ragged,
        "predict": _ragged,
        "forecaster": _windows,
        "translation": _translation,
        "policy": _rollout,
        "vad": _frames,
    }[p.task]
    B = QUICK_PREDICT if quick and p.task == "predict" else p.B
    return [made(p, B, rng) for _ in range(1 if p.task == "predict" else N_BATCHES)]


def units(p: Program, batch: Batch) -> int:
    """Return how many tokens, steps or frames a batch has."""
    if "lengths" in batch:
        return int(batch["lengths"].sum())
    return p.T * p.B


def _language(p: Program, B: int, rng: np.random.Generator) -> Batch:
    text = rng.integers(p.V, size=(p.T + 1, B))
    return {"tokens": text[:-1].copy(), "targets": text[1:].copy()}


def _ragged(p: Program, B: int, rng: np.random.Generator) -> Batch:
    lengths = rng.integers(p.least_T, p.T + 1, B)
    total = int(lengths.sum())
    targets = rng.integers(p.O, size=total if p.task == "tagger" else B)
    return {"tokens": rng.integers(p.V, size=total), "lengths": lengths, "targets": targets}


def _windows(p: Program, B: int, rng: np.random.Generator) -> Batch:
    return {"x": _normal(rng, p.T, B, p.E), "targets": _normal(rng, B, p.O)}


def _translation(p: Program, B: int, rng: np.random.Generator) -> Batch:
    source, target = rng.integers(p.V, size=(p.T, B)), rng.integers(p.V, size=(p.T + 1, B))
    return {"source": source, "tokens": target[:-1].copy(), "targets": target[1:].copy()}


def _rollout(p: Program, B: int, rng: np.random.Generator) -> Batch:
    return {
        "x": _normal(rng, p.T, B, p.E),
        "reset": rng.random((p.T, B)) < 0.02,  # an episode begins
        "targets": rng.integers(p.O, size=(p.T, B)),  # the actions taken
        "advantages": _normal(rng, p.T, B),
        "returns": _normal(rng, p.T, B, 1),
    }


def _frames(p: Program, B: int, rng: np.random.Generator) -> Batch:
    return {"x": _normal(rng, p.T, B, p.E)}


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, np.float32)


# ------------------------------------------------------------------------------------------ weights


def weights(p: Program) -> dict[str, dict[str, Array]]:
    """Return the initial parameters of each module of `p`, named as in PyTorch."""
    rng = np.random.default_rng(0)
    return {name: dict(_initial(rng, shapes)) for name, shapes in _shapes(p).items()}


def _initial(rng: np.random.Generator, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Array]]:
    fan = shapes["weight_hh_l0"][1] if "weight_hh_l0" in shapes else shapes["weight"][1]
    bound = 1 / math.sqrt(fan)
    for name, shape in shapes.items():
        yield name, rng.uniform(-bound, bound, shape).astype(np.float32)


def _shapes(p: Program) -> dict[str, dict[str, tuple[int, ...]]]:
    modules = {"rnn": _recurrent(p, p.E), "linear": _linear(p.width, p.O)}
    if p.V:
        modules["embedding"] = {"weight": (p.V, p.E)}
    if p.task == "policy":
        modules["value"] = _linear(p.width, 1)
    if p.task == "translation":
        modules["source"] = {"weight": (p.V, p.E)}
        modules["encoder"] = _recurrent(p, p.E)
        modules["mix"] = _linear(2 * p.H, p.H)
    return modules


def _linear(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {"weight": (outputs, inputs), "bias": (outputs,)}


def _recurrent(p: Program, inputs: int) -> dict[str, tuple[int, ...]]:
    rows = GATES[p.cell] * p.H
    shapes: dict[str, tuple[int, ...]] = {}
    for suffix in ("l0", "l0_reverse")[: 2 if p.bidirectional else 1]:
        shapes |= {f"weight_ih_{suffix}": (rows, inputs), f"weight_hh_{suffix}": (rows, p.H)}
        shapes |= {f"bias_ih_{suffix}": (rows,), f"bias_hh_{suffix}": (rows,)}
    return shapes
