"""The parts of a training step around the recurrent layer, beside the limits of the machine.

Two kinds of rows:

- `losses.linear_softmax_cross_entropy` with all gradients: its three products are 6 N H V operations. The limit is a
  loop of multiply-adds on as many threads, measured in turn with it.
- `optim.Adam` with clipping: it reads the gradient for the norm, then parameters, gradient and both moments, and
  writes all but the gradient, which is 32 bytes for a parameter in float32. The limit is a copy of as many bytes by as
  many threads, measured in turn with it.

Peak memory of the former is that of a process of its own, above what it has after its imports, over the memory of
weights, gradients and both moments. That process makes the inputs too.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOSSES = ((700, 200, 5000), (1120, 256, 10000), (1120, 256, 20000))  # N positions, H hidden units, V classes
PARAMETERS = (1 << 20, 8 << 20, 32 << 20)
QUICK = (((64, 32, 500),), (1 << 16,))
BYTES_OF_ADAM = 32


@dataclass
class Settings:
    """How long the suite measures."""

    rounds: int = 9
    quick: bool = False


def in_turns(work: Callable[[], Any], limit: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Return the median seconds of `work`, and the median of `limit`, which says its own seconds."""
    work()
    limit()
    seconds, limits = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
        limits.append(limit())
    return statistics.median(seconds), statistics.median(limits)


def loss_step(n: int, h: int, v: int) -> Callable[[], Any]:
    """Return a call of the fused cross-entropy of random hidden states and targets."""
    import numpy as np

    from fastrnn import Linear, losses

    rng = np.random.default_rng(0)
    linear = Linear(h, v, rng=rng)
    x = rng.standard_normal((n, h), np.float32)
    targets = rng.integers(0, v, n)
    return lambda: losses.linear_softmax_cross_entropy(linear, x, targets)


def adam_step(n: int) -> Callable[[], Any]:
    """Return a step of Adam with clipping on n parameters."""
    import numpy as np

    from fastrnn import Linear, optim

    rng = np.random.default_rng(0)
    linear = Linear(1024, n // 1024, bias=False, rng=rng)
    adam = optim.Adam([linear], lr=1e-6)
    gradient = rng.standard_normal(linear.flat.size, np.float32)
    return lambda: adam.step([gradient], clip_norm=1.0)


def fma_seconds(flops: float, threads: int) -> float:
    """Seconds that a loop of multiply-adds takes for so many operations on so many threads."""
    import fastrnn

    rounds = 200_000
    start = time.perf_counter()
    done = fastrnn._core.run_fma(False, threads, rounds)
    return flops * (time.perf_counter() - start) / done


def copy_seconds(size: float, threads: int) -> float:
    """Seconds in which so many threads copy arrays beyond the caches; size: bytes read and written."""
    import numpy as np

    n = 8 << 20
    pairs = [(np.ones(n, np.float32), np.zeros(n, np.float32)) for _ in range(threads)]
    runners = [threading.Thread(target=np.copyto, args=(to, source)) for source, to in pairs]
    start = time.perf_counter()
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    return size * (time.perf_counter() - start) / (threads * n * 8)


def peak_resident() -> int:
    """Largest resident size of this process in bytes. (What getrusage says may be its parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def peak_memory(n: int, h: int, v: int) -> float:
    """Return the memory of a training step over that of weights, gradients and moments, in this process."""
    import numpy as np

    from fastrnn import Linear, losses, optim

    before = peak_resident()
    rng = np.random.default_rng(0)
    linear = Linear(h, v, rng=rng)
    adam = optim.Adam([linear])
    x = rng.standard_normal((n, h), np.float32)
    for _ in range(3):
        _, gradients = losses.linear_softmax_cross_entropy(linear, x, rng.integers(0, v, n))
        adam.step([gradients])
        del gradients  # else it lives on during the next step
    return (peak_resident() - before) / (4 * linear.flat.nbytes)


def run(settings: Settings) -> list[dict[str, Any]]:
    """Measure all rows on one thread and on the default number of threads, and print them."""
    import fastrnn

    shapes, parameters = QUICK if settings.quick else (LOSSES, PARAMETERS)
    counts = sorted({1, fastrnn.get_num_threads()})
    rows = []
    for threads in counts:
        fastrnn.set_num_threads(threads)
        for n, h, v in shapes:
            flops = 6.0 * n * h * v
            seconds, limit = in_turns(
                loss_step(n, h, v), lambda f=flops, t=threads: fma_seconds(f, t), settings.rounds
            )
            rows.append({"part": f"cross-entropy N {n} H {h} V {v}", "threads": threads, "ms": seconds * 1e3})
            rows[-1] |= {"rate": flops / seconds / 1e9, "unit": "GFLOP/s", "of limit": limit / seconds}
        for count in parameters:
            size = float(count * BYTES_OF_ADAM)
            seconds, limit = in_turns(
                adam_step(count), lambda s=size, t=threads: copy_seconds(s, t), settings.rounds
            )
            rows.append(
                {"part": f"Adam, {count >> 10} Ki parameters", "threads": threads, "ms": seconds * 1e3}
            )
            rows[-1] |= {"rate": size / seconds / 1e9, "unit": "GB/s", "of limit": limit / seconds}
    fastrnn.set_num_threads(counts[-1])
    for n, h, v in shapes:
        command = [sys.executable, __file__, str(n), str(h), str(v)]
        ratio = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rows.append({"part": f"peak memory, N {n} H {h} V {v}", "times weights, gradients, moments": ratio})
    for row in rows:
        shown = (
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
        )
        print(", ".join(shown))
    return rows


if __name__ == "__main__":
    print(json.dumps(peak_memory(*map(int, sys.argv[1:]))))
