"""What options of cells cost: the time of a layer with an option beside that of the plain layer, in turns.

    python benchmarks/cells.py
    python benchmarks/cells.py --hidden 256 --batch 64 --rounds 30

A number is the median, over the rounds, of the ratio of the two times in one round. Times are of the calling thread,
with one thread a call, so other processes disturb them little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastrnn

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "LSTM": {
        "peepholes": {"peepholes": True},
        "input_forget": {"input_forget": True},
        "clip": {"clip": 3.0},
        "hard_sigmoid gates": {"activations": ("hard_sigmoid", "tanh", "tanh")},
        "linear candidate": {"activations": ("sigmoid", "linear", "tanh")},
        "softplus gates": {"activations": ("softplus", "tanh", "tanh")},
        "zoneout": {"zoneout": 0.1},
        "recurrent_dropout": {"recurrent_dropout": 0.2},
    },
    "GRU": {
        "clip": {"clip": 3.0},
        "hard_sigmoid gates": {"activations": ("hard_sigmoid", "tanh")},
        "linear candidate": {"activations": ("sigmoid", "linear")},
        "zoneout": {"zoneout": 0.1},
        "recurrent_dropout": {"recurrent_dropout": 0.2},
    },
    "RNN": {
        "clip": {"clip": 3.0},
        "sigmoid": {"nonlinearity": "sigmoid"},
        "leaky_relu": {"nonlinearity": "leaky_relu"},
        "leak": {"leak": 0.2},
        "leak, noise": {"leak": 0.2, "noise": 0.1},
    },
}


def work_of(layer: Any, x: np.ndarray, train: bool) -> Callable[[], None]:
    """Return a call, or a forward and a backward pass."""
    if not train:
        layer.freeze()
        return lambda: layer(x)
    dy = np.ones((*x.shape[:2], layer.hidden_size), x.dtype)

    def step() -> None:
        _, _, tape = layer.forward(x)
        layer.backward(tape, dy, need_dx=False)

    return step


def cost(kind: str, options: dict[str, Any], sizes: argparse.Namespace, batch: int, train: bool) -> float:
    """Return by what factor the options make a layer slower."""
    x = np.random.default_rng(0).standard_normal((sizes.steps, batch, sizes.inputs), np.float32)
    make = getattr(fastrnn, kind)
    works = [work_of(make(sizes.inputs, sizes.hidden, rng=0, **o), x, train) for o in ({}, options)]
    repeats = 1
    for work in works:
        work()
    begin = time.thread_time()
    works[0]()
    repeats = max(1, int(0.01 / max(time.thread_time() - begin, 1e-6)))
    ratios = []
    for _ in range(sizes.rounds):
        times = []
        for work in works:
            begin = time.thread_time()
            for _ in range(repeats):
                work()
            times.append(time.thread_time() - begin)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=15)
    sizes = parser.parse_args()
    fastrnn.set_num_threads(1)
    columns = [(batch, train) for batch in sizes.batch for train in (False, True)]
    print(
        "| cell | option | " + " | ".join(f"B = {b}, {'train' if t else 'infer'}" for b, t in columns) + " |"
    )
    print("|---|---|" + "---|" * len(columns))
    for kind, options in OPTIONS.items():
        for name, chosen in options.items():
            costs = " | ".join(f"{cost(kind, chosen, sizes, batch, train):.2f}" for batch, train in columns)
            print(f"| {kind} | {name} | {costs} |", flush=True)


if __name__ == "__main__":
    main()
