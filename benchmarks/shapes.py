"""The benchmark cases: published shapes, grouped into suites, and their work in FLOP.

Every shape names its source in the comment above it, but for those of `drawn`, which nobody chose. A case is one
shape of one cell in one mode and dtype.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

KINDS = ("rnn", "lstm", "gru")
MODES = ("infer", "train")
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
ITEMSIZE = {"float32": 4, "float64": 8}


@dataclass(frozen=True)
class Case:
    """One benchmark case: T steps, B rows, I inputs, H hidden units."""

    suite: str
    kind: str
    mode: str
    T: int
    B: int
    I: int
    H: int
    layers: int = 1
    bidirectional: bool = False
    dtype: str = "float32"
    published_T: int | None = None  # set when T was cut to fit --max-seconds or --max-gb

    @property
    def directions(self) -> int:
        """1, or 2 when bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def gates(self) -> int:
        """Gate count G of the cell: 1 (Elman), 4 (LSTM), 3 (GRU)."""
        return GATES[self.kind]

    def input_size(self, layer: int) -> int:
        """Width of what a layer reads: I for the first, directions * H above it."""
        return self.I if layer == 0 else self.directions * self.H

    @property
    def step_flops(self) -> int:
        """Multiply-adds of one time step of all rows, counted as two operations each."""
        units = 2 * self.B * self.gates * self.H * self.directions
        products = sum(units * (self.input_size(layer) + self.H) for layer in range(self.layers))
        return products * (3 if self.mode == "train" else 1)

    @property
    def flops(self) -> int:
        """2 B G H (T I + (T - 1) H) per layer and direction, three times that for a training step.

        No state is given, so h_0 is zero, and so are the recurrent products of the first step.
        """
        spared = 2 * self.B * self.gates * self.H * self.H * self.directions * self.layers
        return self.T * self.step_flops - spared * (3 if self.mode == "train" else 1)

    @property
    def stream_bytes(self) -> int:
        """Bytes of one step that any implementation moves: x and y, in training also dx and dy."""
        moved = self.I + self.directions * self.H
        return ITEMSIZE[self.dtype] * self.B * moved * (2 if self.mode == "train" else 1)

    @property
    def step_bytes(self) -> int:
        """Bytes one step keeps in a typical implementation: also gates, their gradients, cell state."""
        width = self.layers * self.directions * self.H
        kept = self.layers * self.gates + (self.layers * (self.gates + 4) if self.mode == "train" else 0)
        return self.stream_bytes + ITEMSIZE[self.dtype] * self.B * width * kept

    @property
    def label(self) -> str:
        """Short name of the shape, with what departs from one forward float32 layer."""
        text = f"{self.kind} B{self.B} T{self.T} I{self.I} H{self.H}"
        if self.layers > 1:
            text += f" L{self.layers}"
        if self.bidirectional:
            text += " bi"
        if self.dtype != "float32":
            text += f" {self.dtype}"
        return text

    def fields(self) -> dict[str, Any]:
        """Return the case as plain JSON values."""
        return asdict(self)


# B, T, I, H of PEERS' comparison: one step, small nets, the sizes of papers, one big net
RESEARCH = (
    (1, 1, 64, 64),
    (1, 100, 16, 16),
    (1, 100, 64, 64),
    (32, 50, 32, 32),
    (64, 100, 64, 64),
    (128, 100, 128, 128),
    (64, 100, 256, 256),
    (1, 50, 512, 512),
    (32, 50, 512, 512),
    (64, 25, 1024, 1024),
)

# the layer sizes RTNeural times, as whole calls of 1000 steps, and a single step from Python
TINY = (
    (1, 1000, 8, 8),
    (1, 1000, 16, 16),
    (1, 1000, 32, 32),
    (1, 1000, 64, 64),
    (1, 1, 16, 16),
    (1, 1, 64, 64),
    (1, 1, 128, 128),
    (4, 10, 32, 32),
)

# sample-by-sample audio models: one input, 8 to 64 units, 0.1 s at 48 kHz; and 24 units over 480 steps
AUDIO = (
    (1, 4800, 1, 8),
    (1, 4800, 1, 16),
    (1, 4800, 1, 20),
    (1, 4800, 1, 40),
    (1, 4800, 1, 64),
    (16, 480, 1, 24),
)

# sizes that fit no vector and no register tile
ODD = (
    (7, 50, 31, 31),
    (33, 50, 31, 79),
    (7, 50, 79, 79),
    (33, 50, 79, 79),
    (7, 50, 100, 100),
    (33, 50, 100, 100),
    (1, 100, 13, 79),
    (3, 100, 5, 7),
)

# DeepBench rnn_problems.h, I = H. training set: (H, batch sizes, T). GRU lists repeat an H at T 187..1500;
# a step costs the same at any T, so the shortest stands for all of them and 1024 keeps T = 1500.
DEEPBENCH_TRAINING: dict[str, Sequence[tuple[int, Sequence[int], int]]] = {
    "rnn": ((1760, (16, 32, 64, 128), 50), (2048, (16, 32, 64, 128), 50), (2560, (16, 32, 64, 128), 50)),
    "lstm": (
        (256, (16, 32, 64), 150),
        (512, (16, 32, 64, 128), 25),
        (1024, (16, 32, 64, 128), 25),
        (1536, (8, 16, 32), 50),
        (2048, (16, 32, 64, 128), 25),
        (4096, (16, 32, 64, 128), 25),
    ),
    "gru": (
        (512, (32,), 1),
        (1024, (32, 64), 1500),
        (1536, (32,), 187),
        (2048, (32,), 187),
        (2560, (32,), 187),
        (2816, (32,), 187),
    ),
}
# server set (B 1, 2, 4) and device set (B 1), inference only
DEEPBENCH_INFERENCE: dict[str, Sequence[tuple[int, Sequence[int], int]]] = {
    "rnn": ((32, (1,), 672), (64, (1,), 96)),
    "lstm": (
        (256, (1, 2, 4), 150),
        (512, (1, 2, 4), 25),
        (1024, (1, 2, 4), 25),
        (1536, (1, 2, 4), 50),
        (2048, (1, 2, 4), 25),
    ),
    "gru": (
        (512, (1, 2, 4), 1),
        (1024, (1, 2, 4), 1500),
        (1536, (1, 2, 4), 187),
        (2048, (1, 2, 4), 187),
        (2560, (1, 2, 4), 187),
        (2816, (1, 2, 4), 187),
    ),
}

# benchdnn's GNMT encoder (first layer bidirectional, others not): B 1, 64, 128, ends and middle of T 10..101
GNMT_BIDIRECTIONAL = tuple((b, t, 256, 256) for b in (1, 64, 128) for t in (10, 50, 101))
GNMT_FORWARD = tuple((b, t, 512, 512) for b in (1, 64, 128) for t in (10, 50, 101))
# benchdnn's cases taken from DeepSpeech 2, PyTorch and PaddlePaddle users; DeepSpeech 2 is vanilla and GRU
DEEPSPEECH2 = ((1, 50, 1760, 1760), (1, 200, 1760, 1760), (32, 50, 1760, 1760), (128, 50, 1760, 1760))
FRAMEWORKS = ((1, 50, 500, 500), (64, 50, 500, 500), (1, 629, 128, 128), (128, 629, 128, 128))

# Layers of models that people run, in the form in which they run them: frames of a stream, whole recordings, batches of
# training. (B, T, I, H), layers, whether bidirectional.
REAL: dict[tuple[str, str], Sequence[tuple[tuple[int, int, int, int], int, bool]]] = {
    ("lstm", "infer"): (
        ((1, 1, 128, 128), 1, False),  # silero-vad 5: a chunk of 32 ms
        ((1, 1875, 128, 128), 1, False),  # a minute of it
        ((1, 4800, 1, 24), 1, False),  # Neural Amp Modeler: 0.1 s of samples, standard and light
        ((1, 4800, 1, 16), 1, False),
        ((8, 1, 64, 256), 1, False),  # sb3-contrib's RecurrentPPO: a step of 8 environments
        ((8, 1, 64, 64), 1, False),
    ),
    ("lstm", "train"): (
        ((8, 128, 64, 256), 1, False),  # its batch: 128 steps of each environment
        ((8, 128, 64, 64), 1, False),
        ((16, 512, 1, 24), 1, False),  # Neural Amp Modeler
    ),
    ("gru", "infer"): (
        ((1, 1, 256, 256), 1, False),  # DeepFilterNet 3: a frame of 10 ms, and 10 s
        ((1, 1000, 256, 256), 1, False),
        ((1, 1, 384, 384), 1, False),  # RNNoise 0.2: the same
        ((1, 1000, 384, 384), 1, False),
        ((1, 10000, 10, 128), 2, True),  # medaka: a stretch of a genome
    ),
    ("gru", "train"): (
        ((32, 200, 384, 384), 1, False),  # RNNoise, its sequences cut in ten
        ((10, 1000, 10, 128), 2, True),  # medaka, its stretches cut in ten
    ),
    # Yang et al. 2019: 20 cognitive tasks, 85 inputs, 256 units
    ("rnn", "infer"): (((1, 1, 85, 256), 1, False), ((64, 100, 85, 256), 1, False)),
    ("rnn", "train"): (((64, 100, 85, 256), 1, False),),
}

# under a minute with every peer: each regime once (single step, sequence, batch, odd sizes)
QUICK = ((1, 1, 64, 64), (1, 100, 64, 64), (33, 20, 31, 79), (32, 10, 256, 256))

# what is drawn, evenly on a log scale: least and most rows, steps, inputs and units; and the work of the largest
DRAWN = ((1, 128), (1, 300), (1, 1000), (5, 1100))
DRAWN_CASES = 20  # of a cell and mode
DRAWN_FLOPS = 4e9

SUITES = (
    "tiny",
    "research",
    "deepbench",
    "gnmt",
    "audio",
    "odd",
    "drawn",
    "real",
    "ragged",
    "stream",
    "long",
    "scaling",
    "lowp",
)
SHAPE_SUITES = SUITES[:8]  # plain dense layers: fastrnn beside every peer, on the roofline


def _deepbench(kind: str, mode: str) -> list[tuple[int, int, int, int]]:
    groups = list(DEEPBENCH_TRAINING[kind])
    if mode == "infer":
        groups += DEEPBENCH_INFERENCE[kind]
    return [(batch, steps, size, size) for size, batches, steps in groups for batch in batches]


def _drawn(kind: str, mode: str, dtype: str, seed: int) -> list[Case]:
    """Cases at random: rows, steps, inputs and units; inputs as many as units in every third, one row likewise.

    Some have two layers, some two directions. Python draws the same from a seed everywhere.
    """
    draw = random.Random(f"{seed} {kind} {mode}")
    cases: list[Case] = []
    while len(cases) < DRAWN_CASES:
        rows, steps, inputs, hidden = (round(math.exp(draw.uniform(*map(math.log, ends)))) for ends in DRAWN)
        alone, square, deep, both = (draw.random() < share for share in (1 / 3, 1 / 3, 1 / 4, 1 / 5))
        case = Case(
            "drawn",
            kind,
            mode,
            steps,
            1 if alone else rows,
            hidden if square else inputs,
            hidden,
            layers=2 if deep else 1,
            bidirectional=both,
            dtype=dtype,
        )
        if case.flops <= DRAWN_FLOPS:
            cases.append(case)
    return cases


def suite_cases(suite: str, kind: str, mode: str, dtype: str = "float32", seed: int = 0) -> list[Case]:
    """Return the cases of one dense suite for one cell, mode and dtype; `seed` is that of `drawn`.

    Raises ValueError for a name that is not in `SHAPE_SUITES` (or "quick").
    """
    plain = {"tiny": TINY, "research": RESEARCH, "audio": AUDIO, "odd": ODD, "quick": QUICK}

    def case(shape: tuple[int, int, int, int], **extra: Any) -> Case:
        batch, steps, inputs, hidden = shape
        return Case(suite, kind, mode, steps, batch, inputs, hidden, dtype=dtype, **extra)

    if suite in plain:
        return [case(shape) for shape in plain[suite]]
    if suite == "drawn":
        return _drawn(kind, mode, dtype, seed)
    if suite == "real":
        return [case(shape, layers=layers, bidirectional=both) for shape, layers, both in REAL[kind, mode]]
    if suite == "deepbench":
        return [case(shape) for shape in _deepbench(kind, mode)]
    if suite == "gnmt":
        if kind != "lstm":
            return [case(shape) for shape in DEEPSPEECH2]
        bidirectional = [case(shape, bidirectional=True) for shape in GNMT_BIDIRECTIONAL]
        return bidirectional + [case(shape) for shape in GNMT_FORWARD + FRAMEWORKS]
    raise ValueError(f"suite: expected one of {', '.join(SHAPE_SUITES)}, quick, got {suite!r}")


def cap(case: Case, seconds: float, gflops: float, bytes_limit: float) -> Case:
    """Cut T so that a call at `gflops` takes at most `seconds` and its arrays at most `bytes_limit` bytes.

    A step costs the same at any T of this size, so the figures per FLOP stay those of the published shape.
    """
    by_time = int(seconds * gflops * 1e9 / case.step_flops)
    by_memory = int(bytes_limit / case.step_bytes)
    steps = max(1, min(case.T, by_time, by_memory))
    return case if steps == case.T else replace(case, T=steps, published_T=case.T)


def unique(cases: Iterable[Case]) -> list[Case]:
    """Drop repetitions (cut shapes may coincide, suites may share a shape), keeping the first."""
    seen: dict[Case, Case] = {}
    for case in cases:
        seen.setdefault(replace(case, suite="", published_T=None), case)
    return list(seen.values())
