"""Plots of a results file: how the speed-up is distributed over all shapes, and the roofline."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from report import geomean
from shapes import KINDS, MODES, Case
from targets import Row, dense

KIND_COLOURS = {"rnn": "#009e73", "lstm": "#0072b2", "gru": "#d55e00"}
KIND_TITLES = {"rnn": "Elman RNN", "lstm": "LSTM", "gru": "GRU"}
MODE_TITLES = {"infer": "inference", "train": "training"}
FASTER, SLOWER = "#0072b2", "#d55e00"
DOTS_PER_OCTAVE = 10  # columns of dots for each factor of two
HEIGHT = 10  # dots on top of one another that a strip has room for; more stand closer
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


def stacked(ratios: list[float]) -> list[tuple[float, float]]:
    """Return where the dot of each ratio stands: the middle of its column, and its place in it.

    A column lies on one side of 1, never on both.
    """
    counts: Counter[int] = Counter()
    places = []
    for ratio in sorted(ratios):
        column = math.floor(math.log2(ratio) * DOTS_PER_OCTAVE)
        places.append((2 ** ((column + 0.5) / DOTS_PER_OCTAVE), counts[column] + 0.5))
        counts[column] += 1
    packed = min(1.0, HEIGHT / max(counts.values()))
    return [(place, height * packed) for place, height in places]


def ratio_plot(rows: list[Row], path: Path, heading: str) -> None:
    """Draw the ratio to the fastest alternative of every shape as a dot, a strip for each cell and mode."""
    from matplotlib import pyplot as plt

    strips: list[tuple[str, list[float]]] = []
    for kind in ("lstm", "gru", "rnn"):
        for mode in MODES:
            members = [float(row["ratio"]) for row in rows if row["kind"] == kind and row["mode"] == mode]
            if members:
                strips.append((f"{KIND_TITLES[kind]}\n{MODE_TITLES[mode]}", members))
    ratios = [ratio for _, members in strips for ratio in members]
    low, high = min(*ratios, 0.9) / 1.08, max(*ratios, 4.0) * 1.08
    figure, axes = plt.subplots(
        len(strips),
        1,
        figsize=(8, 1.4 + 0.85 * len(strips)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, members) in zip(axes[:, 0], strips, strict=True):
        places = stacked(members)
        colours = [FASTER if place > 1 else SLOWER for place, _ in places]
        axis.scatter(*zip(*places, strict=True), s=17, color=colours, linewidths=0, zorder=3)
        axis.axvline(1, color="black", linewidth=1.2)
        axis.set_ylim(-0.4, HEIGHT + 0.6)
        axis.set_yticks([])
        axis.grid(axis="x", linewidth=0.4)
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
        faster = sum(ratio >= 1 for ratio in members)
        text = f"{geomean(members):.2f}× as fast on average\nfaster on {faster} of {len(members)} shapes"
        axis.text(
            0.995, 0.93, text, transform=axis.transAxes, ha="right", va="top", fontsize=10, linespacing=1.3
        )
        for side in ("top", "left", "right"):
            axis.spines[side].set_visible(False)
    bottom = axes[-1, 0]
    bottom.set_xscale("log")
    bottom.set_xlim(low, high)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    bottom.set_xticks(ticks, [f"{tick:g}×" for tick in ticks], fontsize=11)
    bottom.set_xticks([], minor=True)
    bottom.set_xlabel("time of the fastest alternative ÷ time of fastrnn; each dot is one shape", fontsize=11)
    top = axes[0, 0]
    top.text(1, 1.06, "  fastrnn is faster →", transform=top.get_xaxis_transform(), fontsize=10, color=FASTER)
    top.text(
        1, 1.06, "← slower  ", transform=top.get_xaxis_transform(), fontsize=10, color=SLOWER, ha="right"
    )
    figure.suptitle(heading, fontsize=12)
    figure.savefig(path, **save_options(path))
    plt.close(figure)


def intensity(row: Row) -> float:
    """FLOP per byte of weights read: W once a call, R once a step but the first (in training once more for BPTT)."""
    names = ("suite", "kind", "mode", "T", "B", "I", "H", "layers", "bidirectional", "dtype")
    case = Case(**{name: row[name] for name in names})
    size = 4 if case.dtype == "float32" else 8
    passes = (case.T - 1) * (2 if case.mode == "train" else 1)
    weights = sum(
        case.directions * case.gates * case.H * (case.input_size(layer) + case.H * passes)
        for layer in range(case.layers)
    )
    return case.flops / (size * weights)


def roofline_plot(rows: list[Row], limits: dict[str, Any], threads: int, path: Path) -> None:
    """GFLOP/s over FLOP per byte of weights, below the machine's measured limits."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5.5), layout="constrained")
    peak = limits["fma_gflops"]["float32"] * threads
    low, high = 0.2, max(1000.0, *(2 * intensity(row) for row in rows))
    rates = {
        level: bandwidth * (1 if level == "DRAM" else threads)
        for level, bandwidth in limits["read_gbs"].items()
    }
    for rate in rates.values():
        axis.plot([low, peak / rate], [low * rate, peak], color="grey", linewidth=1)
    axis.plot([peak / limits["read_gbs"]["L1"] / threads, high], [peak, peak], color="black", linewidth=1)
    axis.text(high, peak * 1.05, f"multiply-adds: {peak:.0f} GFLOP/s", fontsize=10, ha="right")
    for kind in KINDS:
        for mode, marker in (("infer", "o"), ("train", "^")):
            members = [row for row in rows if row["kind"] == kind and row["mode"] == mode]
            if members:
                axis.scatter(
                    [intensity(row) for row in members],
                    [row["gflops"] for row in members],
                    s=18,
                    marker=marker,
                    color=KIND_COLOURS[kind],
                    label=f"{KIND_TITLES[kind]}, {MODE_TITLES[mode]}",
                    alpha=0.8,
                )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.tick_params(labelsize=11)
    axis.set_xlabel("operations per byte of weights read", fontsize=11)
    axis.set_ylabel("speed in GFLOP/s", fontsize=11)
    cores = f"{threads} core{'s' if threads > 1 else ''}"
    axis.set_title(f"fastrnn below the measured limits of {cores}; each mark is one shape", fontsize=12)
    axis.grid(which="major", linewidth=0.4)
    axis.legend(fontsize=10, loc="lower right")
    axis.set_xlim(low / 1.2, high * 1.2)
    figure.canvas.draw()  # places the axes, which the slope of the lines on paper depends on
    ends = axis.transData.transform([(low, low), (10 * low, 10 * low)])
    slope = math.degrees(math.atan2(*(ends[1] - ends[0])[::-1]))
    for level, rate in rates.items():
        text = f" {level}: {rate:.0f} GB/s"
        axis.text(low, low * rate * 1.05, text, fontsize=10, rotation=slope, rotation_mode="anchor")
    figure.savefig(path, **save_options(path))
    plt.close(figure)


def save_options(path: Path) -> dict[str, Any]:
    """Options of savefig that make a file depend on nothing but its data."""
    if path.suffix == ".svg":
        return {"metadata": {"Date": None}}
    return {"dpi": 160, "pil_kwargs": {"optimize": True}}


def draw(results: dict[str, Any], stem: Path, kind: str = "svg") -> list[str]:
    """Draw what the results allow beside `stem`; returns the file names."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "fastrnn"
    meta = results["meta"]
    rows = dense([row for row in results.get("rows", []) if "error" not in row])
    paths = []

    def path(name: str) -> Path:
        paths.append(stem.with_name(f"{stem.name}-{name}.{kind}"))
        return paths[-1]

    against = [row for row in rows if "ratio" in row]
    if against:
        cores = f"{meta['threads']} core{'s' if meta['threads'] > 1 else ''}"
        heading = f"fastrnn and the fastest alternative: {len(against)} shapes, {cores} of {meta['cpu']}"
        ratio_plot(against, path("ratio"), heading)
    single = [row for row in rows if row["dtype"] == "float32"]
    if single and results["limits"]:
        roofline_plot(single, results["limits"], meta["threads"], path("roofline"))
    return [item.name for item in paths]
