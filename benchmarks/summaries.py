"""The summary of a run: all that the report and its plots read, small enough to be committed.

A full results file holds every sample of every engine. The summary keeps the medians, with six digits. Dense shapes
are a table of one line each; `load` works out again what follows from a shape, the times and the machine's limits. It
reads full files too.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from contests import OWN
from roofline import Limits, roofline
from shapes import Case
from targets import Row

SHAPE = [field.name for field in fields(Case)]
SAMPLES = ("samples", "rates", "losses")  # of the suites programs and callers: only their medians are kept
RESULT = ["ratio", "beside", "failed", "wrong"]  # and then the seconds of each engine


def short(value: Any) -> Any:
    """Return JSON values with six significant digits in place of all."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [short(item) for item in value]
    return value


def of_users(results: dict[str, Any]) -> bool:
    """Say whether these are results of the suites programs or callers, whose summary has the same form."""
    return any(name in results for name in ("programs", "services", "mixtures"))


def without_samples(value: Any) -> Any:
    """Return JSON values without what each round measured."""
    if isinstance(value, dict):
        return {name: without_samples(item) for name, item in value.items() if name not in SAMPLES}
    return [without_samples(item) for item in value] if isinstance(value, list) else value


def case_of(row: Row) -> Case:
    """Return the case of a row."""
    return Case(**{name: row[name] for name in SHAPE})


def seconds_of(row: Row) -> dict[str, float]:
    """Return the median seconds of every engine that is a library."""
    engines: dict[str, Row] = row["engines"]
    return {name: timed["seconds"] for name, timed in engines.items() if not name.startswith("machine")}


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of a full results file."""
    if of_users(results):
        found: dict[str, Any] = short(without_samples(results))
        return found
    dense = [row for row in results["rows"] if row.get("on_roofline")]
    engines = list(dict.fromkeys(name for row in dense for name in seconds_of(row)))
    shapes = [
        [
            *(row[name] for name in SHAPE),
            row.get("ratio"),
            row.get("roofline", {}).get("beside"),
            row["failed"] or None,
            row["wrong"] or None,
            *(seconds_of(row).get(name) for name in engines),
        ]
        for row in dense
    ]
    others = []
    for row in results["rows"]:
        if "error" in row:
            others.append(row)
        elif not row.get("on_roofline"):
            kept = {
                name: row[name] for name in ("title", "mode", "comparisons", "failed", "wrong") if row[name]
            }
            others.append({**kept, "engines": seconds_of(row)})
    return {
        "meta": results["meta"],
        "limits": short(results["limits"]),
        "columns": [*SHAPE, *RESULT, *engines],
        "shapes": short(shapes),
        "others": short(others),
    }


def write(path: Path, summary: dict[str, Any]) -> None:
    """Write a summary with one row to a line, so that a change of it can be read."""
    parts = []
    for name, value in summary.items():
        if isinstance(value, list) and name != "columns":
            rows = [json.dumps(row, allow_nan=False, separators=(",", ":")) for row in value]
            parts.append(f'"{name}": [\n' + ",\n".join(rows) + "\n]")
        else:
            parts.append(f'"{name}": {json.dumps(value, allow_nan=False)}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def dense_row(named: Row, limits: Limits | None, threads: int) -> Row:
    """Return the row of one dense shape as a full file has it, but for the samples."""
    case = case_of(named)
    engines = {name: named[name] for name in named if name not in (*SHAPE, *RESULT) and named[name]}
    row: Row = {
        **case.fields(),
        "title": case.label,
        "on_roofline": True,
        "engines": {name: {"seconds": seconds} for name, seconds in engines.items()},
        "gflops": case.flops / engines[OWN] / 1e9,
        "failed": named["failed"] or {},
        "wrong": named["wrong"] or {},
        "comparisons": [],
    }
    if named["ratio"] is not None:
        others = {name: seconds for name, seconds in engines.items() if not name.startswith(OWN)}
        row |= {"ratio": named["ratio"], "best_peer": min(others, key=lambda name: others[name])}
    if limits:
        least = roofline(case, limits, threads)
        row["roofline"] = {
            "seconds": least.seconds,
            "bound": least.bound,
            "weights_level": least.weights_level,
            "share": least.seconds / engines[OWN],
            "peak_share": case.flops / engines[OWN] / limits.peak(case.dtype, threads),
        }
        if named["beside"] is not None:
            row["roofline"]["beside"] = named["beside"]
    return row


def restored(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary in the form of a full results file, but for the samples."""
    limits = Limits.measured(summary["limits"])
    threads = summary["meta"]["threads"]
    named = (dict(zip(summary["columns"], values, strict=True)) for values in summary["shapes"])
    rows = [dense_row(row, limits, threads) for row in named]
    for row in summary["others"]:
        if "error" not in row:
            engines = {name: {"seconds": seconds} for name, seconds in row["engines"].items()}
            row = {"comparisons": [], "failed": {}, "wrong": {}, **row, "engines": engines}
        rows.append(row)
    return {"meta": summary["meta"], "limits": summary["limits"], "rows": rows}


def load(path: Path) -> dict[str, Any]:
    """Read a full results file or a summary."""
    results: dict[str, Any] = json.loads(path.read_text())
    return restored(results) if "shapes" in results else results
