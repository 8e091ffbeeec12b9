"""One engine's process of the suite of programs: it builds a program and runs steps of it on request."""

from __future__ import annotations

import importlib
import itertools
import time
from pathlib import Path
from typing import Any

from peak_memory import peak_bytes, status_bytes
from timing import settle

from programs import tasks

CHECKED = 3  # losses of the first steps that engines are compared by


class Server:
    """`engine` is "fastrnn" or "torch"; `threads` a number, or "default" to set nothing."""

    def __init__(self, engine: str, threads: str) -> None:
        self.engine = importlib.import_module("programs.own" if engine == "fastrnn" else f"programs.{engine}")
        if threads != "default":
            self.engine.set_num_threads(int(threads))

    def open(self, program: str, quick: bool) -> dict[str, Any]:
        """Build a program and take its first steps."""
        reset_peak()
        base = status_bytes("VmRSS") or 0
        found = tasks.program(program)
        data = tasks.batches(found, quick)
        self.model: Any = self.engine.TASKS[found.task](found)
        self.batches = itertools.cycle([self.model.prepare(batch) for batch in data])
        losses = [self.model.step(next(self.batches)) for _ in range(CHECKED)]
        settle()
        units = sum(tasks.units(found, batch) for batch in data) / len(data)
        return {
            "losses": losses,
            "units": units,
            "threads": self.engine.get_num_threads(),
            "version": self.engine.version(),
            "base_bytes": base,
        }

    def run(self, steps: int) -> dict[str, Any]:
        """Run `steps` steps; returns the seconds of one."""
        if steps > 1:
            self.model.step(next(self.batches))  # threads and caches are cold after the wait
        start = time.perf_counter()
        for _ in range(steps):
            self.model.step(next(self.batches))
        seconds = (time.perf_counter() - start) / steps
        settle()
        return {"seconds": seconds}

    def finish(self) -> dict[str, Any]:
        """Forget the program; returns the largest resident size while it ran."""
        peak = peak_bytes()
        del self.model, self.batches
        return {"peak_bytes": peak}


def reset_peak() -> None:
    """Let VmHWM begin anew, where the system can: a process may run several programs."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
