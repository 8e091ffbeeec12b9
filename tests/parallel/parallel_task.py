"""A small training whose weights are compared between numbers of processes; also run as a program, by several.

    python parallel_task.py torch RANK SIZE FILE    over torch.distributed, in groups of 1 to SIZE processes
    mpirun -n 2 python parallel_task.py mpi         over mpi4py

Each process prints a line for each result: a name and the hash of its weights.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np

import fastrnn
from fastrnn import losses, optim
from fastrnn.parallel import Exchange, MPIExchange, TorchExchange, fixed_order

STEPS, BATCH = 5, 24


class Task:
    """A bidirectional GRU and a linear layer that learn to sum their inputs."""

    def __init__(self) -> None:
        self.gru = fastrnn.GRU(3, 8, bidirectional=True, rng=0)
        self.head = fastrnn.Linear(16, 1, rng=1)
        self.adam = optim.Adam([self.gru, self.head], lr=0.01)

    def gradients(self, shard: Any) -> tuple[float, list[Any]]:
        """Loss and gradients of the examples whose numbers are in `shard`."""
        x = np.stack([np.random.default_rng(i).standard_normal((7, 3)) for i in shard], 1).astype(np.float32)
        y, _, tape = self.gru.forward(x)
        out, kept = self.head.forward(y[-1])
        loss, dout = losses.mse(out, x.sum((0, 2))[:, None])
        dhead = self.head.backward(kept, dout)
        return loss, [self.gru.backward(tape, dy_last=dhead.x, need_dx=False), dhead]

    def train(self, exchange: Exchange, shards: int = 8) -> str:
        """Train; return the hash of losses and weights."""
        found = hashlib.sha256()
        for step in range(STEPS):
            batch = np.random.default_rng([9, step]).permutation(100)[:BATCH]
            loss, grads = fixed_order(self.gradients, batch, shards, exchange, seed=9)
            self.adam.step(grads, clip_norm=1.0)
            found.update(np.float64(loss).tobytes())
        for module in (self.gru, self.head):
            found.update(module.flat.tobytes())
        return found.hexdigest()


def refusals(exchange: Exchange) -> list[str]:
    """What every process says where they disagree, where shards do not divide the batch, where one fails."""
    rank, task = exchange.rank, Task()

    def failing(shard: Any) -> Any:
        if rank == 1:
            raise KeyError("no such file")
        return task.gradients(shard)

    calls: list[Any] = [
        lambda: fixed_order(task.gradients, np.arange(24), 8, exchange, seed=rank),
        lambda: fixed_order(task.gradients, np.arange(24 + 8 * rank), 8, exchange),
        lambda: fixed_order(task.gradients, np.arange(24), 8 if rank else 4, exchange),
        lambda: fixed_order(lambda s: (0.0, [np.ones(3 + rank)]), np.arange(24), 8, exchange),
        lambda: fixed_order(task.gradients, np.arange(23), 8, exchange),
        lambda: fixed_order(task.gradients, np.arange(24), exchange.size - 1, exchange),
        lambda: fixed_order(failing, np.arange(24), 8, exchange),
    ]
    found = []
    for call in calls:
        try:
            call()
            found.append("no error")
        except (ValueError, KeyError) as error:
            found.append(f"{type(error).__name__} {error}")
    return found


def over_torch(rank: int, size: int, file: str) -> None:
    """Train in groups of the first 1, 2, ... processes."""
    import torch.distributed as distributed

    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    for count in range(1, size + 1):
        group = distributed.new_group(list(range(count)))
        if rank < count:
            exchange = TorchExchange(group)
            assert (exchange.rank, exchange.size) == (rank, count)
            for shards in (4, 6, 8):
                print(f"{count} {shards} {Task().train(exchange, shards)}", flush=True)
    for line in refusals(TorchExchange()):
        print(f"refused {line}", flush=True)
    assert TorchExchange(distributed.new_group(list(range(size)))).gather(np.ones((2, 3))).shape == (
        size,
        2,
        3,
    )
    distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1] == "torch":
        over_torch(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        mpi = MPIExchange()
        for number in (4, 6, 8):
            print(f"{mpi.size} {number} {Task().train(mpi, number)}", flush=True)
