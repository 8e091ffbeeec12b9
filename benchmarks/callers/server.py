"""One process of a service: threads that call without a pause, and the time of every call."""

from __future__ import annotations

import threading
import time
from typing import Any

from timing import settle

from callers.calls import MAKERS, call


class Server:
    """`engine` is a name of `MAKERS`; `threads` what it may use, or "default" to set nothing."""

    def __init__(self, engine: str, threads: str) -> None:
        self.make, self.threads = MAKERS[engine], threads

    def open(self, name: str) -> dict[str, Any]:
        """Build a call; returns a figure by which engines are compared."""
        self.run, figure = self.make(call(name), self.threads)
        found = {"figure": figure()}
        settle()
        return found

    def serve(self, callers: int, seconds: float) -> dict[str, Any]:
        """Let `callers` threads call for `seconds`; returns the nanoseconds of every call, and of all."""
        kept: list[list[int]] = [[] for _ in range(callers)]
        barrier = threading.Barrier(callers + 1)

        def caller(latencies: list[int]) -> None:
            self.run()
            barrier.wait()
            before = time.perf_counter_ns()
            end = before + int(seconds * 1e9)
            while before < end:
                self.run()
                after = time.perf_counter_ns()
                latencies.append(after - before)
                before = after

        threads = [threading.Thread(target=caller, args=(latencies,)) for latencies in kept]
        for thread in threads:
            thread.start()
        barrier.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - start
        settle()
        return {"seconds": elapsed, "latencies": [latency for latencies in kept for latency in latencies]}
