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
    failed: dict[str, str] = {}
    wrong: dict[str, str] = {}
    records: dict[str, dict[str, Any]] = {}

    def ask(key: str, do: str, **arguments: Any) -> dict[str, Any] | None:
        """The answer of an engine that has not failed; None from then on."""
        if key in failed:
            return None
        try:
            return workers[key].ask(do, **arguments)
        except WorkerError as error:
            failed[key] = str(error)
            return None

    for key in workers:
        opened = ask(key, "open", program=program.name, quick=settings.quick)
        if opened is None:
            continue
        expected = next(iter(records.values()), opened)["losses"]
        difference = disagreement(opened["losses"], expected)
        if difference:
            wrong[key] = difference
            continue
        once = ask(key, "run", steps=1)
        if once is not None:
            steps = max(1, min(MOST_STEPS, math.ceil(settings.turn_seconds / once["seconds"])))
            records[key] = {**opened, "steps": steps, "samples": []}
    for number in range(settings.rounds):
        for key in rotated(list(records), number):
            answer = ask(key, "run", steps=records[key]["steps"])
            if answer is not None:
                records[key]["samples"].append(answer["seconds"])
    for key, record in list(records.items()):
        finished = ask(key, "finish")
        if finished is None:
            del records[key]
            continue
        record |= finished
        record["seconds"] = statistics.median(record["samples"])
        record["units_per_second"] = record["units"] / record["seconds"]
    return {
        "program": program.name,
        "task": program.task,
        "sizes": program.sizes,
        "unit": program.unit,
        "engines": records,
        "failed": failed,
        "wrong": wrong,
        **compared(records),
    }


def compared(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ratios of other engines to fastrnn with as many threads, and of fastrnn's one thread to its default."""
    ratios = {}
    for key, record in records.items():
        engine, threads = key.split()
        own = records.get(f"fastrnn {threads}")
        if engine != "fastrnn" and own:
            ratios[key] = paired(record, own)
    found: dict[str, Any] = {"ratios": ratios}
    if all(f"fastrnn {threads}" in records for threads in THREADS):
        found["one_over_default"] = paired(records["fastrnn 1"], records["fastrnn default"])
    return found


def paired(slow: dict[str, Any], fast: dict[str, Any]) -> float:
    """Median of the ratios within each round."""
    pairs = zip(slow["samples"], fast["samples"], strict=True)
    return float(statistics.median(a / b for a, b in pairs))


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


GROUPS = {
    "language models and taggers": ("language", "tagger"),
    "other training": ("classifier", "forecaster", "translation", "policy"),
    "inference": ("vad", "predict"),
}
LONG = 5e-3  # seconds of a step on one thread that a second thread should shorten


def summary(rows: list[dict[str, Any]]) -> str:
    """Geometric mean and minimum of the ratios, and what the default number of threads gives over one."""
    lines = []
    for threads in THREADS:
        key = f"torch {threads}"
        for group, among in GROUPS.items():
            ratios = [row["ratios"][key] for row in rows if row["task"] in among and key in row["ratios"]]
            lines.append(("torch over fastrnn, threads " + threads, group, ratios))
    scaling = [row for row in rows if "one_over_default" in row]
    steps = {"all": scaling}
    steps["5 ms and more"] = [row for row in scaling if row["engines"]["fastrnn 1"]["seconds"] >= LONG]
    for group, among_rows in steps.items():
        lines.append(("fastrnn, one thread over default", group, [r["one_over_default"] for r in among_rows]))
    return "\n".join(f"{what}: {group}: {_spread(ratios)}" for what, group, ratios in lines if ratios)


def _spread(ratios: list[float]) -> str:
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    return f"geomean {mean:.2f}, minimum {min(ratios):.2f}, {len(ratios)} program{'s' * (len(ratios) > 1)}"


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
