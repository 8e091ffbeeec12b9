"""Plots of a results file: speed-up per shape on a log axis, and the roofline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shapes import KINDS, MODES, Case
from targets import Row, dense

COLOURS = {"torch": "#d55e00", "onnxruntime": "#0072b2", "openvino": "#009e73", "jax": "#cc79a7"}
KIND_COLOURS = {"rnn": "#009e73", "lstm": "#0072b2", "gru": "#d55e00"}
KIND_TITLES = {"rnn": "Elman RNN", "lstm": "LSTM", "gru": "GRU"}
MODE_TITLES = {"infer": "inference", "train": "training"}


def shape_label(row: Row) -> str:
    """B, T, I, H, and what departs from one forward layer."""
    extra = (" bi" if row["bidirectional"] else "") + (f" L{row['layers']}" if row["layers"] > 1 else "")
    return f"{row['B']}, {row['T']}, {row['I']}, {row['H']}{extra}"


def speedup(rows: list[Row], path: Path, heading: str) -> None:
    """Draw the times of every peer over fastrnn's, a panel for each cell and mode."""
    from matplotlib import pyplot as plt

    modes = [mode for mode in MODES if any(row["mode"] == mode for row in rows)]
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    panels = {
        (mode, kind): [row for row in rows if row["mode"] == mode and row["kind"] == kind]
        for mode in modes
        for kind in kinds
    }
    tallest = [max(len(panels[mode, kind]) for kind in kinds) for mode in modes]
    figure, axes = plt.subplots(
        len(modes),
        len(kinds),
        figsize=(4.2 * len(kinds), 1.2 + sum(0.6 + 0.2 * count for count in tallest)),
        squeeze=False,
        sharex=True,
        height_ratios=[max(count, 3) for count in tallest],
        layout="constrained",
    )
    handles: dict[str, Any] = {}
    for (mode, kind), members in panels.items():
        axis = axes[modes.index(mode)][kinds.index(kind)]
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.axvline(1, color="black", linewidth=1)
        axis.grid(axis="x", which="both", linewidth=0.3)
        axis.set_title(f"{KIND_TITLES[kind]}, {MODE_TITLES[mode]}", fontsize=10)
        axis.set_yticks(range(len(members)), [shape_label(row) for row in members], fontsize=7)
        axis.set_ylim(len(members) - 0.5, -0.5)
        for name, colour in COLOURS.items():
            points = [
                (row["engines"][name]["seconds"] / row["engines"]["fastrnn"]["seconds"], height)
                for height, row in enumerate(members)
                if name in row["engines"]
            ]
            if points:
                handles[name] = axis.scatter(*zip(*points, strict=True), s=22, color=colour, zorder=3)
        if mode == modes[-1]:
            axis.set_xlabel("time over fastrnn's (right of 1: fastrnn is faster)", fontsize=8)
    figure.suptitle(f"{heading}; shapes are B, T, I, H", fontsize=11)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
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

    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    peak = limits["fma_gflops"]["float32"] * threads
    low, high = 0.2, max(1000.0, *(2 * intensity(row) for row in rows))
    for number, (level, bandwidth) in enumerate(limits["read_gbs"].items()):
        rate = bandwidth * (1 if level == "DRAM" else threads)
        edge = peak / rate
        axis.plot([low, edge], [low * rate, peak], color="grey", linewidth=1)
        place = low * (1.5 if number % 2 else 1.05)  # L2 and L3 are often so close that labels would overlap
        axis.text(place, place * rate * 1.05, f"{level} {rate:.0f} GB/s", fontsize=8, rotation=32)
    axis.plot([peak / limits["read_gbs"]["L1"] / threads, high], [peak, peak], color="black", linewidth=1)
    axis.text(high, peak * 1.05, f"FMA peak {peak:.0f} GFLOP/s", fontsize=8, ha="right")
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
    axis.set_xlabel("FLOP per byte of weights read (R once a step)")
    axis.set_ylabel("GFLOP/s")
    axis.set_title(f"fastrnn below the limits of {threads} core{'s' if threads > 1 else ''}", fontsize=11)
    axis.grid(which="both", linewidth=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, **save_options(path))
    plt.close(figure)


def save_options(path: Path) -> dict[str, Any]:
    """Options of savefig that make a file depend on nothing but its data."""
    return {"metadata": {"Date": None}} if path.suffix == ".svg" else {"dpi": 110}


def draw(results: dict[str, Any], stem: Path, kind: str = "svg") -> list[str]:
    """Draw what the results allow beside `stem`; returns the file names."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "fastrnn"
    meta = results["meta"]
    heading = (
        f"{meta['cpu']}, {meta['threads']} thread{'s' if meta['threads'] > 1 else ''}, {meta['date'][:10]}"
    )
    rows = dense([row for row in results["rows"] if "error" not in row])
    paths = []

    def path(name: str) -> Path:
        paths.append(stem.with_name(f"{stem.name}-{name}.{kind}"))
        return paths[-1]

    against = [row for row in rows if "ratio" in row]
    research = [row for row in against if row["suite"] == "research"]
    if research:
        speedup(research, path("speedup"), heading)
    if len(against) > len(research):
        speedup(against, path("all"), heading)
    single = [row for row in rows if row["dtype"] == "float32"]
    if results["limits"] and single:
        roofline_plot(single, results["limits"], meta["threads"], path("roofline"))
    return [item.name for item in paths]
