"""The project's targets and the figure a results file holds for each.

A target that a file says nothing about is left out. All speeds are of float32; a run with another kernel set
or thread count is held to the same shares of its own measured peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

# RTNeural's layer sizes: LSTM nanoseconds a step at B = 1, T = 1000 on a core of 110 GFLOP/s
STEP_NS = {8: 60.0, 16: 75.0, 32: 230.0, 64: 900.0}
STEP_PEAK = 110.0
PROPORTION = {"lstm": 1.0, "gru": 3 / 4, "rnn": 1 / 4}  # gates


def dense(rows: list[Row]) -> list[Row]:
    """Return the rows of the dense suites: fastrnn beside other libraries, on the roofline."""
    return [row for row in rows if row.get("on_roofline")]


def target(what: str, goal: str, figure: str, where: str, *, met: bool) -> dict[str, Any]:
    """One line of the table."""
    return {"what": what, "target": goal, "figure": figure, "where": where, "met": met}


def ratio_targets(rows: list[Row], what: str, least: float, mean: float) -> list[dict[str, Any]]:
    """Minimum and geometric mean of the ratio to the fastest alternative."""
    known = [row for row in rows if "ratio" in row]
    if not known:
        return []
    worst = min(known, key=lambda row: float(row["ratio"]))
    average = math.exp(sum(math.log(row["ratio"]) for row in known) / len(known))
    figure, where = f"{worst['ratio']:.2f}", f"{worst['title']} ({worst['best_peer']})"
    return [
        target(f"{what}: minimum", f">= {least:g}", figure, where, met=worst["ratio"] >= least),
        target(
            f"{what}: geomean", f">= {mean:g}", f"{average:.2f}", f"{len(known)} shapes", met=average >= mean
        ),
    ]


def is_large(row: Row) -> bool:
    """Many rows of a large layer, whose products should run at peak."""
    return bool(row["H"] >= 512 and row["B"] >= 32)


def is_middle(row: Row) -> bool:
    """Many rows of a layer whose weights fit in a near cache."""
    return bool(64 <= row["H"] <= 256 and row["B"] >= 32)


def share_target(
    rows: list[Row], what: str, key: str, least: float, keep: Callable[[Row], bool]
) -> list[dict[str, Any]]:
    """Least share (of peak or of the roofline) over the rows to keep."""
    known = [
        row for row in rows if key in row.get("roofline", {}) and row["dtype"] == "float32" and keep(row)
    ]
    if not known:
        return []
    worst = min(known, key=lambda row: float(row["roofline"][key]))
    share = worst["roofline"][key]
    missed = sum(row["roofline"][key] < least for row in known)
    where = f"{worst['title']}; {len(known) - missed} of {len(known)} shapes reach it"
    return [target(what, f">= {least * 100:.0f} %", f"{share * 100:.0f} %", where, met=missed == 0)]


def step_targets(rows: list[Row], limits: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Nanoseconds a step of whole B = 1 calls, scaled to a core of 110 GFLOP/s."""
    scale = limits["fma_gflops"]["float32"] / STEP_PEAK if limits else 1.0
    found = []
    for row in rows:
        small = row["B"] == 1 and row["T"] == 1000 and row["I"] == row["H"] and row["H"] in STEP_NS
        if small and row["mode"] == "infer" and row["dtype"] == "float32" and row["layers"] == 1:
            goal = STEP_NS[row["H"]] * PROPORTION[row["kind"]]
            value = row["engines"]["fastrnn"]["seconds"] / row["T"] * 1e9
            figure = f"{value:.0f} ns ({value * scale:.0f} ns at {STEP_PEAK:.0f} GFLOP/s)"
            name = f"{row['kind']} I = H = {row['H']}, B = 1, T = 1000, a step"
            found.append(target(name, f"< {goal:.0f} ns", figure, row["title"], met=value * scale < goal))
    return found


def comparison_targets(rows: list[Row]) -> list[dict[str, Any]]:
    """Worst figure of every comparison that has a target, by name, target and mode."""
    groups: dict[tuple[Any, ...], list[tuple[float, Row]]] = {}
    for row in rows:
        for item in row["comparisons"]:
            if item["target"] is not None:
                key = (item["name"], item["op"], item["target"], row["mode"])
                groups.setdefault(key, []).append((item["value"], row))
    found = []
    for (name, op, goal, mode), members in groups.items():
        pick = max if op == "<=" else min
        value, row = pick(members, key=lambda member: member[0])
        missed = sum(v > goal if op == "<=" else v < goal for v, _ in members)
        where = f"{row['title']}; {len(members) - missed} of {len(members)} reach it"
        found.append(target(f"{name}, {mode}", f"{op} {goal:g}", f"{value:.3g}", where, met=missed == 0))
    return found


def targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return {what, target, figure, where, met} of every target the results speak of."""
    rows = [row for row in results["rows"] if "error" not in row]
    shapes = dense(rows)
    infer = [row for row in shapes if row["mode"] == "infer"]
    train = [row for row in shapes if row["mode"] == "train"]
    found = ratio_targets(infer, "inference, fastest alternative over fastrnn", 1.0, 2.0)
    found += ratio_targets(train, "training, fastest alternative over fastrnn", 1.1, 3.5)
    for kind in ("gru", "rnn"):
        members = [row for row in train if row["kind"] == kind]
        found += ratio_targets(members, f"{kind} training, fastest alternative over fastrnn", 1.4, 4.0)
    for members, name, large, middle in ((infer, "forward", 0.92, 0.80), (train, "training", 0.88, 0.75)):
        for key, what in (("beside", "of fma at the same time"), ("peak_share", "of the best FMA peak")):
            for sizes, least, keep in (
                ("H >= 512, B >= 32", large, is_large),
                ("H 64..256, B >= 32", middle, is_middle),
            ):
                found += share_target(members, f"{name}, {sizes}: share {what}", key, least, keep)
        found += share_target(
            members,
            f"{name}, B = 1 sequences, weights beyond L1: share of the roofline",
            "share",
            0.85,
            lambda row: row["B"] == 1 and row["T"] > 1 and row["roofline"]["weights_level"] != "L1",
        )
    return found + step_targets(shapes, results["limits"]) + comparison_targets(rows)
