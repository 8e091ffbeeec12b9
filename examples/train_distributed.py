"""Train on one or more processes, with weights of the same bits.

    python examples/train_distributed.py
    torchrun --nproc-per-node 2 examples/train_distributed.py
    mpirun -n 2 python examples/train_distributed.py

The task is the adding problem (Hochreiter & Schmidhuber 1997): a sequence of numbers, two of which are marked; what is
their sum? Each batch is cut into 8 shards. The processes divide them, and add the gradients in a fixed order. The hash
of the weights at the end does not depend on how many processes there were. The baseline guesses the mean.

With --checkpoint FILE one process writes weights and optimiser now and then, and a later run goes on from there, with
any number of processes.
"""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from _common import BASELINE, MODEL, figure, package, parser, report

import fastrnn
from fastrnn import io, losses, optim
from fastrnn.parallel import Exchange, MPIExchange, TorchExchange, fixed_order

STEPS, BATCH, SHARDS, LENGTH, HIDDEN = 600, 64, 8, 50, 48
EVERY = 50  # steps between checkpoints
TIMEOUT = 60  # seconds after which processes end that wait for one that has died


def exchange() -> Exchange:
    """Return the exchange of the program that has started this process."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        distributed = package("torch", "pip install 'fastrnn[torch]'").distributed
        distributed.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT))
        return TorchExchange()
    if {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"} & set(os.environ):
        package("mpi4py", "pip install 'fastrnn[mpi]'")
        return MPIExchange()
    return Exchange()


def examples(seeds: Any) -> tuple[Any, Any]:
    """Return sequences [T, B, 2] and their sums [B, 1], a seed for each."""
    x, sums = np.zeros((LENGTH, len(seeds), 2), np.float32), np.zeros((len(seeds), 1), np.float32)
    for b, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        x[:, b, 0] = rng.random(LENGTH)
        marked = [rng.integers(LENGTH // 2), rng.integers(LENGTH // 2, LENGTH)]
        x[marked, b, 1] = 1
        sums[b] = x[marked, b, 0].sum()
    return x, sums


class Model:
    """A GRU whose last output a linear layer reads, and its optimiser."""

    def __init__(self, seed: int, steps: int) -> None:
        rng = np.random.default_rng(seed)
        self.gru, self.head = fastrnn.GRU(2, HIDDEN, rng=rng), fastrnn.Linear(HIDDEN, 1, rng=rng)
        self.adam = optim.Adam([self.gru, self.head], lr=optim.cosine(4e-3, steps))

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"gru": self.gru, "head": self.head, "adam": self.adam}

    def gradients(self, seeds: Any) -> tuple[float, list[Any]]:
        """Return loss and gradients of the examples with these seeds."""
        x, sums = examples(seeds)
        y, _, tape = self.gru.forward(x)
        predicted, kept = self.head.forward(y[-1])
        loss, d = losses.mse(predicted, sums)
        dhead = self.head.backward(kept, d)
        return loss, [self.gru.backward(tape, dy_last=dhead.x, need_dx=False), dhead]

    def hash(self) -> str:
        """Return a hash of all weights."""
        return hashlib.sha256(self.gru.flat.tobytes() + self.head.flat.tobytes()).hexdigest()[:16]


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--checkpoint", type=Path, metavar="FILE", help="a file ending in .npz or .safetensors")
    options = made.parse_args()
    others = exchange()
    steps = 40 if options.quick else STEPS
    model, curve = Model(options.seed, steps), []
    if options.checkpoint and options.checkpoint.exists():
        io.restore(options.checkpoint, model.parts)
    for step in range(model.adam.steps, steps):
        seeds = options.seed + BATCH * step + np.arange(BATCH)
        loss, grads = fixed_order(
            model.gradients, seeds, SHARDS, others, seed=(options.seed, step, model.hash())
        )
        model.adam.step(grads, clip_norm=1.0)
        curve.append(loss)
        if options.checkpoint and others.rank == 0 and ((step + 1) % EVERY == 0 or step + 1 == steps):
            io.save(options.checkpoint, model.parts)
    if others.rank:
        return
    print(f"{others.size} processes; weights {model.hash()}")
    x, sums = examples(10**9 + np.arange(1000))
    error = float(np.square(model.head(model.gru(x)[0][-1]) - sums).mean())
    with figure(options.out / "train_distributed.png") as f:
        axes = f.subplots()
        axes.semilogy(curve, color=MODEL, label="GRU, 8 shards a batch")
        axes.axhline(float(sums.var()), color=BASELINE, label="guessing the mean")
        axes.set(xlabel="step", ylabel="squared error", title="Adding problem, 50 steps")
        axes.legend()
    rows = [("squared error, 1,000 new sequences", error, float(sums.var()), "guessing the mean")]
    report("train_distributed", rows, options.out / "train_distributed.png")


if __name__ == "__main__":
    main()
