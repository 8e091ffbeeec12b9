"""Services: how many calls a second any number of threads or processes get in all, and how long one waits.

The engines: fastrnn with default settings, fastrnn with `set_num_threads(1)`, and ONNX Runtime for inference.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from workers import Worker, WorkerError, receive_all, rotated

from callers.calls import CALLS, Call

DEFAULT, SINGLE, OTHER = "fastrnn default", "fastrnn 1", "onnxruntime default"
ENGINES = (DEFAULT, SINGLE, OTHER)
CALLERS = (("thread", 1), ("thread", 2), ("thread", 8), ("process", 2), ("process", 4))
AGREE = 1e-4  # relative, of the sum of outputs


@dataclass(frozen=True)
class Settings:
    """`rounds` turns of `seconds` each."""

    rounds: int = 3
    seconds: float = 1.0
    engines: tuple[str, ...] = ENGINES
    calls: tuple[Call, ...] = CALLS
    callers: tuple[tuple[str, int], ...] = CALLERS


@dataclass
class Record:
    """What an engine did: calls a second of each round, and all latencies in nanoseconds."""

    rates: list[float] = field(default_factory=list)
    latencies: list[int] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As plain data."""
        middle, high = np.percentile(self.latencies, (50, 99)) / 1e6
        return {
            "calls_per_second": statistics.median(self.rates),
            "p50_ms": float(middle),
            "p99_ms": float(high),
            "rates": self.rates,
        }


def serve(workers: list[Worker], kind: str, number: int, seconds: float, record: Record) -> None:
    """One turn of an engine: threads of its first process, or its first processes with a thread each."""
    used = workers[: number if kind == "process" else 1]
    for worker in used:
        worker.send("serve", callers=1 if kind == "process" else number, seconds=seconds)
    answers = receive_all(used)
    record.rates.append(sum(len(answer["latencies"]) / answer["seconds"] for answer in answers))
    for answer in answers:
        record.latencies += answer["latencies"]


def open_call(
    call: Call, workers: dict[str, list[Worker]]
) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Build a call in every process: the engines that may be timed, those that failed, those that are wrong."""
    ready: list[str] = []
    failed: dict[str, str] = {}
    wrong: dict[str, str] = {}
    expected: float | None = None
    for engine, processes in workers.items():
        if call.trains and engine == OTHER:
            continue
        try:
            found = [worker.ask("open", name=call.name)["figure"] for worker in processes]
        except WorkerError as error:
            failed[engine] = str(error)
            continue
        expected = found[0] if expected is None else expected
        if not all(abs(figure - expected) <= AGREE * abs(expected) for figure in found):
            wrong[engine] = f"sum of outputs: expected {expected:.6g}, got {found[0]:.6g}"
            continue
        ready.append(engine)
    return ready, failed, wrong


def run(settings: Settings, show: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Measure all calls with all callers; `show` is told every line. Returns the rows."""
    most = max((number for kind, number in settings.callers if kind == "process"), default=1)
    workers = {
        engine: [Worker("callers.server", *engine.split()) for _ in range(most)]
        for engine in settings.engines
    }
    show(HEAD)
    rows: list[dict[str, Any]] = []
    try:
        for call in settings.calls:
            ready, failed, wrong = open_call(call, workers)
            for engine, why in (failed | wrong).items():
                show(f"{call.name}: without {engine}: {why}")
            for kind, number in settings.callers:
                records = {engine: Record() for engine in ready}
                for turn in range(settings.rounds if ready else 0):
                    for engine in rotated(ready, turn):
                        serve(workers[engine], kind, number, settings.seconds, records[engine])
                row = {
                    "call": call.name,
                    "sizes": call.sizes,
                    "kind": kind,
                    "callers": number,
                    "engines": {engine: record.row() for engine, record in records.items()},
                    "failed": failed,
                    "wrong": wrong,
                }
                row |= ratios(row, next((r for r in rows if r["call"] == call.name), row))
                rows.append(row)
                show(text(row))
    finally:
        for processes in workers.values():
            for worker in processes:
                worker.close()
    return rows


def ratios(row: dict[str, Any], alone: dict[str, Any]) -> dict[str, float]:
    """Compare default settings with one thread for as many callers, with a single caller, with ONNX Runtime.

    `alone` is the row of the same call with one caller.
    """
    found: dict[str, float] = {}
    engines = row["engines"]
    if DEFAULT not in engines:
        return found
    own = engines[DEFAULT]
    if SINGLE in engines:
        found["over_single_threaded"] = statistics.median(
            a / b for a, b in zip(own["rates"], engines[SINGLE]["rates"], strict=True)
        )
    found["over_one_caller"] = own["calls_per_second"] / alone["engines"][DEFAULT]["calls_per_second"]
    if OTHER in engines:
        found["p99_over_onnxruntime"] = own["p99_ms"] / engines[OTHER]["p99_ms"]
    return found


# -------------------------------------------------------------------------------------------- table

COLUMNS = "calls a second (50th, 99th percentile in ms)"
HEAD = (
    f"{COLUMNS}\n{'call':13} {'callers':12} {'fastrnn':>25} {'fastrnn, 1 thread':>25} {'ONNX Runtime':>25}"
    f" {'over 1 thread':>13} {'over 1 caller':>13} {'99th over ONNX':>14}"
)


def text(row: dict[str, Any]) -> str:
    """One line of the table."""
    plural = {"thread": "threads", "process": "processes"}
    callers = f"{row['callers']} {row['kind'] if row['callers'] == 1 else plural[row['kind']]}"
    cells = "".join(f" {_cell(row['engines'].get(engine)):>25}" for engine in ENGINES)
    compared = "".join(
        f" {f'{row[key]:.2f}' if key in row else '-':>{width}}"
        for key, width in (
            ("over_single_threaded", 13),
            ("over_one_caller", 13),
            ("p99_over_onnxruntime", 14),
        )
    )
    return f"{row['call']:13} {callers:12}{cells}{compared}"


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['calls_per_second']:,.0f} ({found['p50_ms']:.3g}, {found['p99_ms']:.3g})"
