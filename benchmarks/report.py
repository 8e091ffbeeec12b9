"""Results of bench.py as text: printed rows and the printed summary; run as a program, the pages of a machine.

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
from collections import defaultdict
from pathlib import Path
from typing import Any

import summaries
from targets import Row, dense, targets


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
    from pages import machine_page, shapes_page
    from plots import draw

    options.out.mkdir(parents=True, exist_ok=True)
    runs, images = {}, {}
    for path in options.json:
        target = options.out / path.name
        if target.resolve() != path.resolve():
            summaries.write(target, summaries.summarise(summaries.load(path)))
        # from the summary in any case: so the pages can be made again without the samples
        runs[path.stem] = results = summaries.load(target)
        images[path.stem] = []
        if options.plots is None or path.stem in options.plots:
            images[path.stem] = draw(results, target.with_suffix(""), options.format)
        if not summaries.of_users(results):
            print(summary(results))
    title = options.title or next(iter(runs.values()))["meta"]["cpu"]
    (options.out / "README.md").write_text(machine_page(runs, images, title))
    if any(dense(results.get("rows", [])) for results in runs.values()):
        (options.out / "shapes.md").write_text(shapes_page(runs, title))


if __name__ == "__main__":
    main()
