"""Results of bench.py as text: printed rows, the summary, and Markdown with plots.

    python benchmarks/report.py benchmarks/results/two-cores.json

writes two-cores.md, two-cores-speedup.svg, two-cores-all.svg and two-cores-roofline.svg beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from targets import Row, dense, targets

MODE_NAMES = {"infer": "Inference", "train": "Training (forward + BPTT, all gradients)"}


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
    """Return (mode, kind, count, geomean, minimum, its row) of the ratio to the best peer."""
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
    """Geometric mean and minimum of the ratio to the best peer, and the targets missed."""
    rows = [row for row in results["rows"] if "error" not in row]
    lines = ["", "ratio to the best peer of each shape:"]
    for mode, kind, count, mean, least, title in ratio_lines(dense(rows)):
        lines.append(
            f"  {mode:<5} {kind:<4} {count:>3} rows  geomean {mean:.2f}  minimum {least:.2f} ({title})"
        )
    for row in rows:  # a peer that is missing from a row flatters its ratio
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


def shape_table(rows: list[Row], engines: list[str]) -> list[str]:
    """Return the Markdown table of the dense rows of one suite and mode."""
    header = [
        "shape",
        "fastrnn",
        "GF/s",
        "share of limit",
        "bound",
        "share of peak",
        "of fma beside",
        "x best peer",
    ]
    body = []
    for row in rows:
        limit = row.get("roofline") or {}
        cut = f" (of {row['published_T']})" if row["published_T"] else ""
        ratio = f"**{row['ratio']:.2f}** {row['best_peer']}" if "ratio" in row else "-"
        body.append(
            [
                row["title"] + cut,
                duration(row["engines"]["fastrnn"]["seconds"]),
                f"{row['gflops']:.1f}",
                percent(limit.get("share")),
                limit.get("bound", "n/a"),
                percent(limit.get("peak_share")),
                percent(limit.get("beside")),
                ratio,
                *(engine_text(row, name) for name in engines),
            ]
        )
    return table([*header, *(f"{name} / fastrnn" for name in engines)], body)


def comparison_table(rows: list[Row]) -> list[str]:
    """Return the Markdown table of the rows that compare fastrnn's own ways."""
    body = []
    for row in rows:
        times = ", ".join(f"{name} {duration(timed['seconds'])}" for name, timed in row["engines"].items())
        for item in row["comparisons"] or [{}]:
            goal = "" if item.get("target") is None else f"{item['op']} {item['target']:g}"
            verdict = {None: "", True: "met", False: "**missed**"}[item.get("met")]
            value = f"{item['value']:.3g}" if item else ""
            body.append([row["title"], row["mode"], item.get("name", ""), value, goal, verdict, times])
    return table(["case", "mode", "figure", "value", "target", "", "time of one call"], body)


def markdown(results: dict[str, Any], stem: str, images: list[str]) -> str:
    """Return the whole report."""
    meta, limits = results["meta"], results["limits"]
    rows = [row for row in results["rows"] if "error" not in row]
    compiler = ", ".join(f"{key}: {value}" for key, value in meta["config"].items())
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    lines = [
        f"# {stem}",
        "",
        f"{meta['cpu']}, {meta['threads']} of {meta['cores']} cores, {meta['system']},",
        f"Python {meta['python']};",
        f"{meta['date']}, commit {meta['commit']}, medians of {meta['rounds']} rounds, engines taking turns.",
        "",
        f"{versions}.",
        f"fastrnn's build: {compiler}.",
        "",
    ]
    if limits:
        peak = ", ".join(f"{value:.1f} GFLOP/s {name}" for name, value in limits["fma_gflops"].items())
        read = ", ".join(f"{name} {value:.0f}" for name, value in limits["read_gbs"].items())
        lines += [f"Measured limits of one core: {peak}; reads in GB/s: {read}.", ""]
    lines += [f"![{image}]({image})\n" for image in images]
    lines += ["## Targets", ""]
    verdict = {True: "met", False: "**missed**", None: ""}
    keys = ("what", "target", "figure", "met", "where")
    body = [[verdict[item[key]] if key == "met" else item[key] for key in keys] for item in targets(results)]
    lines += table(["what", "target", "figure", "", "worst case"], body)
    if ratios := ratio_lines(dense(rows)):
        lines += ["## Ratio to the best peer of each shape", ""]
        body = [[*line[:2], str(line[2]), f"{line[3]:.2f}", f"{line[4]:.2f}", line[5]] for line in ratios]
        lines += table(["mode", "cell", "shapes", "geomean", "minimum", "at"], body)
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in dense(rows):
        groups[row["suite"], row["mode"]].append(row)
    for (suite, mode), members in groups.items():
        engines = [name for name in meta["versions"] if any(name in row["engines"] for row in members)]
        lines += [f"## {suite}: {MODE_NAMES[mode]}", "", *shape_table(members, engines[1:])]
    if others := [row for row in rows if not row.get("on_roofline")]:
        lines += ["## Ragged, streaming and long sequences, scaling", "", *comparison_table(others)]
    if wrong := problems(results):
        lines += ["## Problems", "", *(f"- {line}" for line in wrong), ""]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", nargs="+", type=Path)
    parser.add_argument("--format", default="svg", choices=("svg", "png"), help="of the plots")
    options = parser.parse_args()
    from plots import draw

    for path in options.json:
        results = json.loads(path.read_text())
        images = draw(results, path.with_suffix(""), options.format)
        path.with_suffix(".md").write_text(markdown(results, path.stem, images))
        print(summary(results))


if __name__ == "__main__":
    main()
