"""Results of bench.py as text: printed rows, the printed summary, and the pages of a machine with plots.

    python benchmarks/report.py build/two-cores.json build/one-core.json \\
        --out benchmarks/results/amd-zen3 --title "AMD EPYC (Zen 3), AVX2"

writes into the folder `--out`: README.md (the machine's page), shapes.md (every shape), a plot of the ratios and one of
the roofline for each run, and a summary of each run, which is what is committed in place of the full results. It reads
summaries as well: `report.py benchmarks/results/amd-zen3/*.json --out ...` makes the pages and plots anew.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import summaries
from shapes import KINDS, MODES
from targets import Row, dense, targets

MODE_NAMES = {"infer": "Inference", "train": "Training"}
KIND_NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn": "Elman RNN"}
ENGINE_NAMES = {
    "fastrnn": "fastrnn",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "jax": "JAX",
}
# names of figures that say too little on a page
FIGURE_NAMES = {
    "1 -> 2 threads": "1 to 2 threads: times as fast",
    "1 -> 2 threads, fma alone": "the same for nothing but multiply-adds",
    "1 -> 2 threads over that of fma": "the first over the second",
    "a line to another core and back [ns]": "a cache line to the other core and back [ns]",
    "PyTorch packed over Ragged": "time of PyTorch's packed sequences over Ragged",
    "PyTorch padded over Ragged": "time of PyTorch's padded sequences over Ragged",
}
# classes of a size, by the largest of each; the last has no end
UNITS = (32, 128, 512)
BATCHES = (1, 16)


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Write the results; the old file stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    part.replace(path)


def duration(seconds: float) -> str:
    """Seconds with three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def percent(share: float | None) -> str:
    """Share as a percentage, n/a without one."""
    return "n/a" if share is None else f"{share * 100:.0f} %"


def geomean(values: list[float]) -> float:
    """Geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def share(row: Row) -> float | None:
    """Share of the roofline a row reached."""
    limit = row.get("roofline")
    return limit["share"] if limit else None


def engine_text(row: Row, name: str) -> str:
    """How many times slower an engine is than fastrnn, or why it has no figure."""
    if name in row["engines"]:
        return f"{row['engines'][name]['seconds'] / row['engines']['fastrnn']['seconds']:.2f}"
    if name in row["wrong"]:
        return "wrong"
    return "failed" if name in row["failed"] else "-"


def comparison_text(item: dict[str, Any]) -> str:
    """One comparison with its target."""
    text = f"{item['name']}: {item['value']:.3g}"
    if item["target"] is None:
        return text
    return f"{text} ({'met' if item['met'] else 'MISSED'}, {item['op']} {item['target']:g})"


def print_row(row: Row) -> str:
    """One row for the terminal."""
    if "error" in row:
        return f"{row['title']}: FAILED: {row['error']}"
    own = row["engines"]["fastrnn"]["seconds"]
    limit = percent(share(row))
    if row.get("roofline"):
        limit += f" of {row['roofline']['bound']}"
    text = f"{row['title']:<34} {row['mode']:<5} {duration(own):>9} {row['gflops']:>7.1f} GF/s {limit:>13}"
    if "ratio" in row:
        text += f"  x{row['ratio']:.2f} {row['best_peer']}"
    left_out = ("fastrnn", row.get("best_peer"))
    others = [name for name in row["engines"] if name not in left_out and not name.startswith("machine")]
    if others:
        text += "  (" + ", ".join(f"{name} {engine_text(row, name)}" for name in others) + ")"
    for name, reason in {**row["failed"], **row["wrong"]}.items():
        text += f"\n    {name}: {reason}"
    return text + "".join(f"\n    {comparison_text(item)}" for item in row["comparisons"])


def problems(results: dict[str, Any]) -> list[str]:
    """Return a line for every row of fastrnn that failed and every output that differs."""
    lines = []
    for row in results["rows"]:
        if "error" in row:
            lines.append(f"FAILED: {row['title']}: {row['error']}")
        else:
            lines += [
                f"WRONG: {row['title']} {row['mode']}: {name}: {gap}" for name, gap in row["wrong"].items()
            ]
    return lines


def ratio_lines(rows: list[Row]) -> list[tuple[str, str, int, float, float, str]]:
    """Return (mode, kind, count, geomean, minimum, its row) of the ratio to the fastest alternative."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if "ratio" in row:
            groups[row["mode"], "all"].append(row)
            groups[row["mode"], row["kind"]].append(row)
    lines = []
    for (mode, kind), members in sorted(groups.items()):
        least = min(members, key=lambda row: row["ratio"])
        mean = geomean([row["ratio"] for row in members])
        lines.append((mode, kind, len(members), mean, least["ratio"], least["title"]))
    return lines


def summary(results: dict[str, Any]) -> str:
    """Geometric mean and minimum of the ratio to the fastest alternative, and the targets missed."""
    rows = [row for row in results["rows"] if "error" not in row]
    lines = ["", "time of the fastest alternative over that of fastrnn:"]
    for mode, kind, count, mean, least, title in ratio_lines(dense(rows)):
        lines.append(
            f"  {mode:<5} {kind:<4} {count:>3} shapes  geomean {mean:.2f}  minimum {least:.2f} ({title})"
        )
    for row in rows:  # a library that is missing from a row flatters its ratio
        lines += [
            f"  {row['title']} {row['mode']}: no figure for {name}: {why}"
            for name, why in row["failed"].items()
        ]
    found = targets(results)
    lines.append(f"targets: {sum(bool(item['met']) for item in found)} of {len(found)} met")
    lines += [
        f"  missed: {item['what']}: {item['figure']}, target {item['target']} ({item['where']})"
        for item in found
        if not item["met"]
    ]
    return "\n".join(lines)


def table(header: list[str], body: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return [f"| {' | '.join(cells)} |" for cells in lines] + [""]


def class_of(size: int, ends: tuple[int, ...]) -> int:
    """Return the class of a size: the first whose end is not below it."""
    return sum(size > end for end in ends)


def class_names(ends: tuple[int, ...]) -> list[str]:
    """Name the classes that the ends cut."""
    starts = [1, *(end + 1 for end in ends)]
    named = [
        f"{start} to {end}" if start < end else f"{end}" for start, end in zip(starts, ends, strict=False)
    ]
    return [*named, f"over {ends[-1]}"]


def ratio_text(members: list[Row]) -> str:
    """Geometric mean and range of the ratios of some rows."""
    ratios = [row["ratio"] for row in members]
    if not ratios:
        return "-"
    mean = f"**{geomean(ratios):.2f}**"
    return mean if len(ratios) == 1 else f"{mean} ({min(ratios):.2f} to {max(ratios):.2f})"


def size_table(rows: list[Row]) -> list[str]:
    """Return the Markdown table of the ratios by cell, units and batch."""
    body = []
    for kind, name in KIND_NAMES.items():
        members = [row for row in rows if row["kind"] == kind]
        classes = [
            (units, [row for row in members if class_of(row["H"], UNITS) == number])
            for number, units in enumerate(class_names(UNITS))
        ]
        for units, found in [*classes, ("all", members)]:
            batches = [
                [row for row in found if class_of(row["B"], BATCHES) == number]
                for number in range(len(BATCHES) + 1)
            ]
            if found:
                body.append([name, units, *map(ratio_text, [*batches, found]), str(len(found))])
    header = ["cell", "units", *(f"batch {name}" for name in class_names(BATCHES)), "all batches", "shapes"]
    return table(header, body)


def suite_table(rows: list[Row]) -> list[str]:
    """Return the Markdown table of the ratios by suite, and of all shapes."""
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    groups = [(suite, [row for row in rows if row["suite"] == suite]) for suite in suites]
    groups.append(("all", rows))
    body = []
    for name, members in groups:
        count = sum(row["ratio"] < 1 for row in members)
        by_kind = [ratio_text([row for row in members if row["kind"] == kind]) for kind in KIND_NAMES]
        body.append([name, ratio_text(members), *by_kind, f"{count} of {len(members)}"])
    return table(["suite", "all cells", *KIND_NAMES.values(), "fastrnn is slower on"], body)


def shape_text(row: Row) -> str:
    """Layers and directions of a row, where there are several, and T where it was cut."""
    parts = [f"{row['layers']} layers"] if row["layers"] > 1 else []
    parts += ["bidirectional"] if row["bidirectional"] else []
    parts += [row["dtype"]] if row["dtype"] != "float32" else []
    parts += [f"{row['published_T']} steps published"] if row["published_T"] else []
    return ", ".join(parts)


def shape_table(rows: list[Row], engines: list[str]) -> list[str]:
    """Return the Markdown table of dense rows: sizes, fastrnn's time, and how many times as long others take."""
    header = [
        "suite",
        "batch",
        "steps",
        "inputs",
        "units",
        "",
        "fastrnn",
        "GFLOP/s",
        "fastest alternative",
        "ratio",
    ]
    body = []
    for row in sorted(rows, key=lambda row: (row["H"], row["B"], row["T"], row["I"])):
        ratio = [ENGINE_NAMES[row["best_peer"]], f"**{row['ratio']:.2f}**"] if "ratio" in row else ["-", "-"]
        body.append(
            [
                row["suite"],
                *(str(row[name]) for name in "BTIH"),
                shape_text(row),
                duration(row["engines"]["fastrnn"]["seconds"]),
                f"{row['gflops']:.1f}",
                *ratio,
                *(engine_text(row, name) for name in engines),
            ]
        )
    return table([*header, *(ENGINE_NAMES[name] for name in engines)], body)


def comparison_table(rows: list[Row]) -> list[str]:
    """Return the Markdown table of what fastrnn is compared to besides libraries: the median, range and worst row."""
    groups: dict[tuple[str, str], list[tuple[float, dict[str, Any], Row]]] = defaultdict(list)
    for row in rows:
        for item in row["comparisons"]:
            groups[item["name"], row["mode"]].append((item["value"], item, row))
    body = []
    for (name, mode), members in groups.items():
        values = [value for value, _, _ in members]
        pick: Callable[..., Any] = min if members[0][1]["op"] == ">=" else max
        worst = pick(members, key=lambda member: member[0])[2]["title"].split(":")[0]
        body.append(
            [
                FIGURE_NAMES.get(name, name),
                MODE_NAMES[mode].lower(),
                f"**{statistics.median(values):.3g}**",
                f"{min(values):.3g} to {max(values):.3g}" if len(values) > 1 else "",
                worst,
                str(len(values)),
            ]
        )
    return table(["figure", "mode", "median", "range", "worst shape", "shapes"], body)


def run_name(stem: str) -> str:
    """Return the title of a run whose file has this name."""
    return stem.replace("-", " ").capitalize()


def run_section(results: dict[str, Any], stem: str, images: list[str]) -> list[str]:
    """Return the section of one run on the machine's page."""
    meta, limits = results["meta"], results["limits"]
    rows = [row for row in results["rows"] if "error" not in row]
    versions = ", ".join(
        f"{ENGINE_NAMES[name]} {version}" for name, version in meta["versions"].items() if name != "fastrnn"
    )
    facts = [
        ["threads", f"{meta['threads']} of {meta['cores']} cores"],
        ["kernel set", meta["config"].get("kernel_set", "unknown")],
        ["fastrnn", f"commit {meta['commit']}, {meta['date'][:10]}"],
        ["compared with", versions],
        ["method", f"medians of {meta['rounds']} rounds, in which the engines take turns"],
    ]
    if limits:
        peaks = ", ".join(f"{value:.0f} GFLOP/s {name}" for name, value in limits["fma_gflops"].items())
        reads = ", ".join(f"{name} {value:.0f} GB/s" for name, value in limits["read_gbs"].items())
        facts.append(["limits of one core", f"{peaks}; reads: {reads}"])
    name = run_name(stem)
    lines = [f"## {name}", "", *table(["", ""], facts)]
    lines += [f"![{image}]({image})\n" for image in images]
    against = [row for row in dense(rows) if "ratio" in row]
    for mode in MODES:
        members = [row for row in against if row["mode"] == mode]
        if members:
            lines += [f"### {name}: {MODE_NAMES[mode].lower()}, by size", "", *size_table(members)]
            if len({row["suite"] for row in members}) > 1:
                lines += [f"### {name}: {MODE_NAMES[mode].lower()}, by suite", "", *suite_table(members)]
    slower = [row for row in against if row["ratio"] < 1]
    if slower:
        body = [
            [
                f"{KIND_NAMES[row['kind']]}, {MODE_NAMES[row['mode']].lower()}",
                *(str(row[name]) for name in "BTIH"),
                shape_text(row),
                ENGINE_NAMES[row["best_peer"]],
                f"{row['ratio']:.3f}",
            ]
            for row in sorted(slower, key=lambda row: float(row["ratio"]))
        ]
        header = ["cell", "batch", "steps", "inputs", "units", "", "fastest alternative", "ratio"]
        lines += [f"### {name}: where fastrnn is slower", "", *table(header, body)]
    if others := [row for row in rows if row["comparisons"]]:
        lines += [f"### {name}: other figures", "", *comparison_table(others)]
    if wrong := problems(results):
        lines += [f"### {name}: problems", "", *(f"- {line}" for line in wrong), ""]
    return lines


def machine_page(runs: dict[str, dict[str, Any]], images: dict[str, list[str]], title: str) -> str:
    """Return the page of one machine."""
    lines = [
        f"# {title}",
        "",
        "A ratio is the time of the fastest alternative over the time of fastrnn: above 1, fastrnn is faster. The bold",
        "number is the geometric mean over the shapes that belong to a place of a table. Their range follows it.",
        "[shapes.md](shapes.md) has every shape. [The benchmarks' page](../../README.md) says how they are measured.",
        "",
    ]
    for stem, results in runs.items():
        lines += run_section(results, stem, images[stem])
    return "\n".join(lines)


def shapes_page(runs: dict[str, dict[str, Any]], title: str) -> str:
    """Return the page with every shape of every run of one machine."""
    lines = [
        f"# {title}: every shape",
        "",
        "The ratio is the time of the fastest alternative over the time of fastrnn, the median of the ratios within",
        "rounds. The last columns have the time of each library over the time of fastrnn.",
        "",
    ]
    for stem, results in runs.items():
        rows = dense([row for row in results["rows"] if "error" not in row])
        for mode in MODES:
            for kind in KINDS:
                members = [row for row in rows if row["mode"] == mode and row["kind"] == kind]
                found = [name for name in ENGINE_NAMES if any(name in row["engines"] for row in members)]
                if members:
                    lines += [f"## {run_name(stem)}: {KIND_NAMES[kind]}, {MODE_NAMES[mode].lower()}", ""]
                    lines += shape_table(members, found[1:])
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "json", nargs="+", type=Path, help="results of runs on one machine, full or summaries"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--title", help="of the pages; default: the CPU's name")
    parser.add_argument("--plots", nargs="*", metavar="STEM", help="runs to draw, by file name; default: all")
    parser.add_argument("--format", default="png", choices=("svg", "png"), help="of the plots")
    options = parser.parse_args()
    from plots import draw

    options.out.mkdir(parents=True, exist_ok=True)
    runs, images = {}, {}
    for path in options.json:
        runs[path.stem] = results = summaries.load(path)
        target = options.out / path.name
        if target.resolve() != path.resolve():
            summaries.write(target, summaries.summarise(results))
        images[path.stem] = []
        if options.plots is None or path.stem in options.plots:
            images[path.stem] = draw(results, target.with_suffix(""), options.format)
        print(summary(results))
    title = options.title or next(iter(runs.values()))["meta"]["cpu"]
    (options.out / "README.md").write_text(machine_page(runs, images, title))
    if any(dense(results["rows"]) for results in runs.values()):
        (options.out / "shapes.md").write_text(shapes_page(runs, title))


if __name__ == "__main__":
    main()
