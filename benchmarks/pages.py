"""The pages of a machine: tables of its runs in Markdown, with the plots beside them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import summaries
from report import duration, engine_text, geomean, problems
from shapes import KINDS, MODES
from targets import Row, dense

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


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with three digits where they are few."""
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"


def programs_table(rows: list[Row]) -> list[str]:
    """Return the Markdown table of whole programs, with the default number of threads and with one."""
    body = []
    for row in rows:
        for threads in ("default", "1"):
            own, other = (row["engines"].get(f"{engine} {threads}") for engine in ("fastrnn", "torch"))
            if own or other:
                ratio = row["ratios"].get(f"torch {threads}")
                times = [milliseconds(found["seconds"]) if found else "-" for found in (own, other)]
                memory = [f"{found['peak_bytes'] / 1e6:.0f}" if found else "-" for found in (own, other)]
                body.append(
                    [
                        row["program"],
                        row["sizes"],
                        str((own or other or {})["threads"]),
                        *times,
                        f"**{ratio:.2f}**" if ratio else "-",
                        f"{own['units_per_second']:,.0f} {row['unit']}" if own else "-",
                        *memory,
                    ]
                )
    header = ["program", "sizes", "threads", "fastrnn, ms a step", "PyTorch, ms a step", "ratio"]
    return table([*header, "fastrnn, a second", "fastrnn, peak MB", "PyTorch, peak MB"], body)


def services_table(rows: list[Row]) -> list[str]:
    """Return the Markdown table of many callers that make the same call."""
    engines = {
        "fastrnn default": "fastrnn",
        "fastrnn 1": "fastrnn, 1 thread",
        "onnxruntime default": "ONNX Runtime",
    }
    plural = {"thread": "threads", "process": "processes"}
    body = []
    for row in rows:
        callers = f"{row['callers']} {row['kind'] if row['callers'] == 1 else plural[row['kind']]}"
        cells = []
        for name in engines:
            found = row["engines"].get(name)
            cells.append(_rate(found) if found else "-")
        compared = ("over_single_threaded", "over_one_caller")
        cells += [f"{row[name]:.2f}" if name in row else "-" for name in compared]
        body.append([row["call"], callers, *cells])
    return table(["call", "callers", *engines.values(), "over 1 thread", "over 1 caller"], body)


def _rate(found: dict[str, Any]) -> str:
    rate = found["calls_per_second"]
    return f"{rate:{',.0f' if rate >= 10 else '.2g'}} ({milliseconds(found['p99_ms'] / 1e3)})"


def mixtures_table(rows: list[Row]) -> list[str]:
    """Return the Markdown table of calls that are mixed with other work."""
    body = []
    for row in rows:
        cells = ["failed", "-", "-"]
        if "failed" not in row:
            cells = [milliseconds(row["together"]), milliseconds(row["parts"]), f"**{row['ratio']:.2f}**"]
        body.append([row["mixture"], row["size"], *cells])
    return table(["mixture", "size", "together, ms", "sum of the parts, ms", "ratio"], body)


def users_section(results: dict[str, Any], stem: str) -> list[str]:
    """Return the section of a run of the suites programs and callers."""
    meta, name = results["meta"], run_name(stem)
    settings = ", ".join(f"{key}={value}" for key, value in meta["environment"].items())
    facts = [
        ["cores", str(meta["cores"])],
        ["fastrnn", f"commit {meta['commit']}, {meta['date'][:10]}"],
        ["settings of the shell", settings or "none"],
    ]
    lines = [f"## {name}", "", *table(["", ""], facts)]
    if "programs" in results:
        lines += [
            f"### {name}: whole programs",
            "",
            "The ratio is the time of PyTorch over the time of fastrnn. In training, a step has the forward and the",
            "backward pass, clipping and Adam.",
            "",
            *programs_table(results["programs"]),
        ]
    if "services" in results:
        lines += [
            f"### {name}: many callers of the same call",
            "",
            "Calls a second of all callers together, and in brackets the 99th percentile of their times in ms.",
            "",
            *services_table(results["services"]),
        ]
    if "mixtures" in results:
        lines += [
            f"### {name}: a call in company",
            "",
            "The ratio is the time together over the sum of the parts.",
            "",
            *mixtures_table(results["mixtures"]),
        ]
    return lines


def machine_page(runs: dict[str, dict[str, Any]], images: dict[str, list[str]], title: str) -> str:
    """Return the page of one machine."""
    lines = [f"# {title}", ""]
    if any(dense(results.get("rows", [])) for results in runs.values()):
        lines += [
            "A ratio is the time of the fastest alternative over the time of fastrnn. Above 1, fastrnn is faster. The",
            "bold number is the geometric mean over all shapes of that size, and their range follows it.",
            "[shapes.md](shapes.md) has every shape.",
            "",
        ]
    lines += ["[The benchmarks' page](../../README.md) says how these figures are measured.", ""]
    for stem, results in runs.items():
        of_users = summaries.of_users(results)
        lines += users_section(results, stem) if of_users else run_section(results, stem, images[stem])
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
        rows = dense([row for row in results.get("rows", []) if "error" not in row])
        for mode in MODES:
            for kind in KINDS:
                members = [row for row in rows if row["mode"] == mode and row["kind"] == kind]
                found = [name for name in ENGINE_NAMES if any(name in row["engines"] for row in members)]
                if members:
                    lines += [f"## {run_name(stem)}: {KIND_NAMES[kind]}, {MODE_NAMES[mode].lower()}", ""]
                    lines += shape_table(members, found[1:])
    return "\n".join(lines)
