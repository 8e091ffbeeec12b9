"""Timing of several engines that take turns: what one of them leaves running must not slow the next."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from workload import Arrays

BLOCKS = 9
SLOW = 50  # an engine this many times slower than the fastest is sampled once: its figure needs no precision


@dataclass
class Prepared:
    """One engine ready for one case.

    `run` is the timed call and nothing else; `read` turns its result into named arrays in PyTorch's layout;
    `context` is entered around every turn (thread counts, inference modes); `keep` is what `run` needs alive.
    `other`: it does something else than the case, so no engine is slow beside it.
    """

    run: Callable[[], Any]
    read: Callable[[Any], Arrays]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    keep: Any = None
    other: bool = False

    def outputs(self) -> Arrays:
        """Run once and return the outputs."""
        with self.context():
            return self.read(self.run())


@dataclass
class Timing:
    """Seconds a call of one engine: the samples of all rounds, each over `calls` calls."""

    calls: int
    samples: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)


def settle(limit: float = 0.3) -> float:
    """Sleep until this process stops using the CPU (spinning thread pools go to sleep); return the wait.

    ONNX Runtime, OpenMP and Eigen spin after a call, each for its own time. Forbidding it would cost them
    latency; measuring the process's CPU time over short sleeps waits exactly as long as needed.
    """
    start = time.perf_counter()
    while time.perf_counter() - start < limit:
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(0.012)  # the CPU time of other threads advances by scheduler ticks of up to 10 ms
        if time.process_time() - cpu < 0.1 * (time.perf_counter() - wall):
            break
    return time.perf_counter() - start


def sample(run: Callable[[], Any], calls: int) -> float:
    """Seconds a call over `calls` calls: the median of the means of up to `BLOCKS` blocks.

    A block that the operating system interrupted is outvoted by the others.
    """
    blocks = min(BLOCKS, calls)
    means = []
    for number in range(blocks):
        count = calls * (number + 1) // blocks - calls * number // blocks
        start = time.perf_counter()
        for _ in range(count):
            run()
        means.append((time.perf_counter() - start) / count)
    return statistics.median(means)


def turn(prepared: Prepared, calls: int) -> float:
    """One engine's turn: wait for quiet, warm caches and threads up, then one sample."""
    settle()
    with prepared.context():
        if calls > 1:  # a single call is long enough to make its own warm-up negligible
            sample(prepared.run, 1 + calls // 8)
        return sample(prepared.run, calls)


def calibrate(prepared: Prepared, min_seconds: float) -> int:
    """Return how many calls take about `min_seconds`, found by timing more and more of them."""
    settle()
    calls = 1
    with prepared.context():
        prepared.run()
        while True:
            seconds = sample(prepared.run, calls)
            if seconds * calls >= min_seconds / 4:
                return max(1, math.ceil(min_seconds / seconds))
            calls *= 4


def is_slow(timing: Timing, timings: dict[str, Timing], min_seconds: float) -> bool:
    """Whether one sample of this engine is enough: far behind the fastest, and long."""
    return timing.seconds > max(SLOW * min(t.seconds for t in timings.values()), min_seconds)


def measure(
    engines: dict[str, Prepared],
    rounds: int,
    min_seconds: float,
    progress: Callable[[str], None] = lambda name: None,
    budget: float = math.inf,
) -> dict[str, Timing]:
    """Time every engine in `rounds` rounds; in each the engines take turns, starting one further on.

    Beyond `budget` seconds three rounds must do: long calls vary less. `progress` is told the engine before
    each turn. Returns a `Timing` for every engine.
    """
    gc.collect()
    gc.disable()  # a collection with all frameworks loaded takes longer than most samples
    try:
        timings: dict[str, Timing] = {}
        for name, prepared in engines.items():
            progress(name)
            timings[name] = Timing(calibrate(prepared, min_seconds))
        order = list(engines)
        rivals = {name: timings[name] for name in order if not engines[name].other}
        start = time.perf_counter()
        for number in range(rounds):
            if number >= 3 and time.perf_counter() - start > budget:
                break
            shift = number % len(order)
            for name in order[shift:] + order[:shift]:
                if number and name in rivals and is_slow(timings[name], rivals, min_seconds):
                    continue
                progress(name)
                timings[name].samples.append(turn(engines[name], timings[name].calls))
        return timings
    finally:
        gc.enable()
