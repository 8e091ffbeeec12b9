"""Processes that take turns: one works on request, the others are blocked on their stdin.

Each engine has a process of its own, so that no library meets the threads or the settings of another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "worker.py"


class WorkerError(RuntimeError):
    """A request failed, or the process has ended."""


class Worker:
    """One process of `worker.py`, with `module.Server(*arguments)` in it."""

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def send(self, do: str, **arguments: Any) -> None:
        """Begin a request; `receive` has its answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"the process has ended with status {self.process.wait()}") from None

    def receive(self) -> dict[str, Any]:
        """Wait for the answer; raises WorkerError where there is none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"the process has ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.send(do, **arguments)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):  # the process has ended, and a request was not read
                if stream:
                    stream.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def receive_all(workers: Sequence[Worker]) -> list[dict[str, Any]]:
    """Wait for all answers, then raise WorkerError if one is an error: none is left for the next request."""
    answers: list[dict[str, Any]] = []
    failed: WorkerError | None = None
    for worker in workers:
        try:
            answers.append(worker.receive())
        except WorkerError as error:
            failed = failed or error
    if failed:
        raise failed
    return answers


def rotated(names: list[str], number: int) -> list[str]:
    """Return the order of a round: each starts one further on."""
    shift = number % len(names)
    return names[shift:] + names[:shift]
