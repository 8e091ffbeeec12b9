"""Mixtures: a call of fastrnn in company, against the sum of the parts measured apart in the same round.

- a call and a product, in turn in one thread; NumPy's product and PyTorch's, each with default settings
- two Python threads that each call, against as many calls of one thread
- a call while another process multiplies: the time of both at once, against that of one after the other
- a call while another process keeps one core busy, against the call with one thread fewer and nobody beside it
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers import Worker, WorkerError, receive_all

SIZES = ("char LM", "word LM", "one sequence")
ALONE, BESIDE = 1.15, 1.3  # the most that a mixture may take, in one process and beside another one


@dataclass(frozen=True)
class Settings:
    """`rounds` rounds in which every part runs for `seconds`."""

    rounds: int = 5
    seconds: float = 0.3
    sizes: tuple[str, ...] = SIZES


Parts = tuple[float, float]  # seconds together, and the sum of the parts


def in_turn(worker: Worker, seconds: float) -> Parts:
    """A call and a product in turn."""
    apart = [worker.ask("time", part=part, seconds=seconds)["seconds"] for part in ("call", "product")]
    return worker.ask("time", part="both", seconds=seconds)["seconds"], sum(apart)


def two_threads(worker: Worker, seconds: float) -> Parts:
    """Two Python threads that each call; seconds a call."""
    alone = worker.ask("time", part="call", seconds=seconds)["seconds"]
    return worker.ask("time", part="call", seconds=seconds, callers=2)["seconds"], alone


def two_processes(worker: Worker, neighbour: Worker, seconds: float) -> Parts:
    """Calls here while a neighbour multiplies, about as long."""
    jobs = []
    for process, part in ((worker, "call"), (neighbour, "product")):
        once = process.ask("time", part=part, seconds=seconds)["seconds"]
        times = max(1, round(seconds / once))
        jobs.append((process, part, times, process.ask("work", part=part, times=times)["seconds"]))
    for process, part, times, _ in jobs:
        process.send("work", part=part, times=times)
    together = max(answer["seconds"] for answer in receive_all([process for process, *_ in jobs]))
    return together, sum(alone for *_, alone in jobs)


def busy_neighbour(worker: Worker, neighbour: Worker, seconds: float) -> Parts:
    """A call while a neighbour keeps one core busy."""
    fewer = worker.ask("time", part="call", seconds=seconds, fewer=1)["seconds"]
    neighbour.send("spin", seconds=seconds + 0.1)
    worker.send("time", part="call", seconds=seconds)
    beside, _ = receive_all([worker, neighbour])
    return beside["seconds"], fewer


def run(settings: Settings, show: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Measure all mixtures of all sizes; `show` is told every line. Returns the rows."""
    show(HEAD)
    rows: list[dict[str, Any]] = []
    workers = {name: Worker("callers.company", name) for name in ("numpy", "torch")}
    neighbour = Worker("callers.company", "numpy")
    numpy, torch = workers.values()
    mixtures: list[tuple[str, float, list[Worker], Callable[[], Parts]]] = [
        ("call, NumPy's y @ W", ALONE, [numpy], lambda: in_turn(numpy, settings.seconds)),
        ("call, torch.matmul", ALONE, [torch], lambda: in_turn(torch, settings.seconds)),
        ("two threads that call", ALONE, [numpy], lambda: two_threads(numpy, settings.seconds)),
        (
            "another process: y @ W",
            BESIDE,
            [numpy, neighbour],
            lambda: two_processes(numpy, neighbour, settings.seconds),
        ),
        (
            "another process: one busy core",
            BESIDE,
            [numpy, neighbour],
            lambda: busy_neighbour(numpy, neighbour, settings.seconds),
        ),
    ]
    if len(os.sched_getaffinity(0)) < 2:
        mixtures.pop()  # nobody could have a core less
    try:
        for size in settings.sizes:
            for name, most, used, measure in mixtures:
                row: dict[str, Any] = {"size": size, "mixture": name, "most": most}
                try:
                    for worker in used:
                        worker.ask("open", size=size)
                    samples = [measure() for _ in range(settings.rounds)]
                except WorkerError as error:
                    row["failed"] = str(error)
                else:
                    row["together"], row["parts"] = (statistics.median(s) for s in zip(*samples, strict=True))
                    row["ratio"] = statistics.median(together / parts for together, parts in samples)
                    row["samples"] = samples
                rows.append(row)
                show(text(row))
    finally:
        for worker in (*workers.values(), neighbour):
            worker.close()
    return rows


HEAD = (
    f"{'mixture':31} {'size':13} {'together':>10} {'parts':>10} {'ratio':>6} {'at most':>8}\n"
    f"{'':31} {'':13} {'ms':>10} {'ms':>10}"
)


def text(row: dict[str, Any]) -> str:
    """One line of the table."""
    start = f"{row['mixture']:31} {row['size']:13}"
    if "failed" in row:
        return f"{start} {row['failed']}"
    together, parts = (f"{row[key] * 1e3:.3g}" for key in ("together", "parts"))
    return f"{start} {together:>10} {parts:>10} {row['ratio']:>6.2f} {row['most']:>8}"
