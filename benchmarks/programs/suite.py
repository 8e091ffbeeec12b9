"""`bench.py --suite programs`: whole programs, engines in processes of their own taking turns.

Every engine has two processes: one with default settings and one with a single thread. In the latter NumPy has a
single thread too, so that "1 thread" is one. The first losses of all engines must agree before anything is timed.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers import Worker, WorkerError, rotated

from programs.tasks import PROGRAMS, Program

ENGINES = ("fastrnn", "torch")
THREADS = ("default", "1")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
FIRST_LOSS, NEXT_LOSSES = 1e-4, 1e-3  # relative; updates from rounded gradients differ a little more
MOST_STEPS = 100_000


@dataclass(frozen=True)
class Settings:
    """`rounds` turns of at least `turn_seconds`; `quick` keeps processes from program to program."""

    engines: tuple[str, ...] = ENGINES
    rounds: int = 7
    turn_seconds: float = 0.3
    quick: bool = False


Keys = dict[str, Worker]  # "fastrnn default" and the like


def start(settings: Settings) -> Keys:
    """Start one process for every engine and number of threads."""
    return {
        f"{engine} {threads}": Worker(
            "programs.server", engine, threads, env=ONE_THREAD if threads == "1" else {}
        )
        for threads in THREADS
        for engine in settings.engines
    }


def stop(workers: Keys) -> None:
    """End the processes."""
    for worker in workers.values():
        worker.close()


def disagreement(losses: list[float], expected: list[float]) -> str | None:
    """Say how the first losses of an engine differ from those expected; None where they agree."""
    for number, (found, right) in enumerate(zip(losses, expected, strict=True)):
        limit = NEXT_LOSSES if number else FIRST_LOSS
        if not abs(found - right) <= limit * abs(right):  # NaN differs
            return f"loss {number + 1}: expected {right:.6g} within {limit:g}, got {found:.6g}"
    return None


def run_program(program: Program, workers: Keys, settings: Settings) -> dict[str, Any]:
    """Run one program in all processes; returns its row."""
    row: dict[str, Any] = {
        "program": program.name,
        "sizes": program.sizes,
        "unit": program.unit,
        "engines": {},
        "failed": {},
        "wrong": {},
    }
    records = row["engines"]
    expected: list[float] | None = None
    for key, worker in workers.items():
        try:
            opened = worker.ask("open", program=program.name, quick=settings.quick)
        except WorkerError as error:
            row["failed"][key] = str(error)
            continue
        expected = expected or opened["losses"]
        wrong = disagreement(opened["losses"], expected)
        if wrong:
            row["wrong"][key] = wrong
            continue
        seconds = worker.ask("run", steps=1)["seconds"]
        steps = max(1, min(MOST_STEPS, math.ceil(settings.turn_seconds / seconds)))
        records[key] = {**opened, "steps": steps, "samples": []}
    order = list(records)
    for number in range(settings.rounds):
        for key in rotated(order, number):
            answer = workers[key].ask("run", steps=records[key]["steps"])
            records[key]["samples"].append(answer["seconds"])
    for key, record in records.items():
        record |= workers[key].ask("finish")
        record["seconds"] = statistics.median(record["samples"])
        record["units_per_second"] = record["units"] / record["seconds"]
    row["ratios"] = {
        key: paired(records[key], records[f"fastrnn {key.split()[1]}"])
        for key in records
        if not key.startswith("fastrnn ") and f"fastrnn {key.split()[1]}" in records
    }
    if all(f"fastrnn {threads}" in records for threads in THREADS):
        row["one_over_default"] = paired(records["fastrnn 1"], records["fastrnn default"])
    return row


def paired(slow: dict[str, Any], fast: dict[str, Any]) -> float:
    """Median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(slow["samples"], fast["samples"], strict=True))


def run(settings: Settings, show: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Run all programs; `show` is told every line of the table. Returns the rows."""
    from tqdm import tqdm

    show(HEAD)
    rows: list[dict[str, Any]] = []
    workers: Keys = {}
    try:
        with tqdm(total=len(PROGRAMS), unit="program", dynamic_ncols=True, file=sys.stderr) as bar:
            for program in PROGRAMS:
                bar.set_postfix_str(program.name)
                workers = workers or start(settings)
                row = run_program(program, workers, settings)
                rows.append(row)
                bar.clear()
                show(text(row))
                bar.update()
                if not settings.quick or row["failed"]:
                    stop(workers)
                    workers = {}
    finally:
        stop(workers)
    show(summary(rows))
    return rows


# -------------------------------------------------------------------------------------------- table

HEAD = "\n".join(
    f"{title:44} {threads:>7} {a:>9} {b:>9} {ratio:>6} {rate:>17} {c:>8} {d:>8}"
    for title, threads, a, b, ratio, rate, c, d in (
        ("program", "threads", "fastrnn", "torch", "ratio", "fastrnn", "fastrnn", "torch"),
        ("", "", "ms a step", "ms a step", "", "a second", "peak MB", "peak MB"),
    )
)


def text(row: dict[str, Any]) -> str:
    """One program: a line for the default number of threads and one for a single thread."""
    lines = []
    for title, threads in zip((row["program"], f"  {row['sizes']}"), THREADS, strict=True):
        own, other = (row["engines"].get(f"{engine} {threads}") for engine in ENGINES)
        ratio = row["ratios"].get(f"torch {threads}")
        rate = f"{own['units_per_second']:,.0f} {row['unit']}" if own else "-"
        used = (own or other or {}).get("threads", "-")
        lines.append(
            f"{title:44} {used:>7} {_ms(own):>9} {_ms(other):>9} {f'{ratio:.2f}' if ratio else '-':>6}"
            f" {rate:>17} {_mb(own):>8} {_mb(other):>8}"
        )
    return "\n".join(lines)


def _ms(record: dict[str, Any] | None) -> str:
    return f"{record['seconds'] * 1e3:.3g}" if record else "-"


def _mb(record: dict[str, Any] | None) -> str:
    return f"{record['peak_bytes'] / 1e6:.0f}" if record else "-"


def summary(rows: list[dict[str, Any]]) -> str:
    """Geometric mean and minimum of the ratios, and what the default number of threads gives over one."""
    lines = []
    for threads in THREADS:
        ratios = [row["ratios"][f"torch {threads}"] for row in rows if f"torch {threads}" in row["ratios"]]
        if ratios:
            lines.append(f"torch over fastrnn, threads {threads}: {_spread(ratios)}")
    scaling = [row["one_over_default"] for row in rows if "one_over_default" in row]
    if scaling:
        lines.append(f"fastrnn, one thread over default: {_spread(scaling)}")
    return "\n".join(lines)


def _spread(ratios: list[float]) -> str:
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    return f"geomean {mean:.2f}, minimum {min(ratios):.2f}, {len(ratios)} programs"


def problems(rows: list[dict[str, Any]]) -> list[str]:
    """What failed and what was wrong; a missing PyTorch is neither."""
    found = []
    for row in rows:
        found += [f"WRONG: {row['program']}: {key}: {why}" for key, why in row["wrong"].items()]
        found += [
            f"FAILED: {row['program']}: {key}: {why}"
            for key, why in row["failed"].items()
            if not (why.startswith("ModuleNotFoundError") and not key.startswith("fastrnn "))
        ]
    return found
