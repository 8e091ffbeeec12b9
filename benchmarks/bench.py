"""fastrnn, every other library that is installed and the machine's limit, side by side.

    python benchmarks/bench.py                                  the shapes of papers, all cells, both modes
    python benchmarks/bench.py --suite tiny odd --kind gru --mode train --threads 1
    python benchmarks/bench.py --suite all --json build/all.json  all shapes; then benchmarks/report.py
    python benchmarks/bench.py --quick                          under a minute
    python benchmarks/bench.py --suite programs                 whole training steps and loops, beside PyTorch
    python benchmarks/bench.py --suite callers                  many threads and processes that call at once
    python benchmarks/bench.py --suite torch --threads 1        modules of fastrnn.torch beside those of torch.nn

All engines get the same weights and inputs, and their outputs (in training also every gradient) must equal
fastrnn's before anything is timed. Engines take turns inside one run; figures are medians of the rounds. The
exit status is 1 when an output is wrong or fastrnn fails, never because of a time.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import peers
import users
from contests import OWN, Contest, Settings, dense_contest, run_contest
from low_precision import low_precision_contests
from report import print_row, problems, summary, write_json
from roofline import Limits
from scaling import scaling_contests
from sequences import sequence_contests
from shapes import KINDS, MODES, SHAPE_SUITES, SUITES, Case, cap, suite_cases, unique

ASSUMED_GFLOPS = 50.0  # of one core, to cut T by --max-seconds where the peak is unknown


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--suite", nargs="+", default=["research"], choices=[*SUITES, *users.SUITES, "all"], metavar="SUITE"
    )
    parser.add_argument("--mode", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--kind", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores"
    )
    parser.add_argument("--isa", choices=("sse2", "avx2", "avx512", "neon"), help="kernel set of fastrnn")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "float64"), help="of the dense suites"
    )
    parser.add_argument(
        "--peers", nargs="*", default=list(peers.NAMES), choices=peers.NAMES, help="default: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the suite drawn: another one, other shapes")
    parser.add_argument("--rounds", type=int, help="turns of every engine (default 7; quick 3)")
    parser.add_argument("--min-ms", type=float, help="least length of a sample (default 20; quick 5)")
    parser.add_argument(
        "--max-seconds", type=float, default=2.0, help="cut T where half of peak takes longer"
    )
    parser.add_argument("--row-seconds", type=float, default=20.0, help="beyond this, three rounds must do")
    parser.add_argument("--max-gb", type=float, default=2.0, help="cut T where one engine would keep more")
    parser.add_argument("--quick", action="store_true", help="a few shapes of every kind, under a minute")
    parser.add_argument("--json", type=Path, help="write the results here (after every row)")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads: expected at least 1, got {options.threads}")
    if set(options.suite) & set(users.SUITES) and not set(options.suite) <= set(users.SUITES):
        parser.error(f"--suite: expected {' and '.join(users.SUITES)} without other suites")
    if "all" in options.suite:
        options.suite = list(SUITES)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.min_ms = options.min_ms or (5.0 if options.quick else 20.0)
    return options


def machine() -> dict[str, Any]:
    """CPU, cores, operating system and Python."""
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def commit() -> str:
    """Commit the figures come from, marked when the working tree differs from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def own_config() -> dict[str, Any]:
    """Kernel set, compiler and the like, as fastrnn's core tells them."""
    import fastrnn

    config = getattr(fastrnn._core, "config", None)
    return dict(config()) if config else {}


def measured_limits() -> Limits | None:
    """Measure one core through fastrnn's own SIMD wrapper; None where this build cannot."""
    import fastrnn

    measure = getattr(fastrnn._core, "measure_limits", None)
    return Limits.measured(measure()) if measure else None


def plan(options: argparse.Namespace, settings: Settings) -> list[partial[Contest]]:
    """Return builders of all contests of a run, in order."""
    gflops = ASSUMED_GFLOPS * settings.threads
    if settings.limits:
        gflops = settings.limits.peak(options.dtype, settings.threads) / 2e9
    suites = ["quick", "ragged", "stream"] if options.quick else options.suite
    cases, others = [], []
    for suite in suites:
        for kind in options.kind:
            for mode in options.mode:
                if suite in SHAPE_SUITES or suite == "quick":
                    cases += suite_cases(suite, kind, mode, options.dtype, options.seed)
                elif suite == "lowp":
                    others += low_precision_contests(kind, mode, settings)
                elif suite == "scaling":
                    others += scaling_contests(kind, mode, settings)
                elif not options.quick or kind == "lstm":
                    others += sequence_contests(suite, kind, mode, settings, quick=options.quick)
    cut = unique(cap(case, options.max_seconds, gflops, options.max_gb * 1e9) for case in cases)
    return [*(partial(dense_contest, case, settings) for case in cut), *others]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything asked for, printing a line a row; returns the results."""
    peers.limit_threads(options.threads, options.isa)
    from tqdm import tqdm

    versions, missing = peers.installed([OWN, *options.peers])
    if OWN in missing:
        raise SystemExit(f"fastrnn does not import: {missing[OWN]}")
    import fastrnn

    fastrnn.set_num_threads(options.threads)
    limits = measured_limits()
    found = tuple(name for name in options.peers if name in versions)
    settings = Settings(
        options.threads, found, options.rounds, options.min_ms / 1e3, options.row_seconds, limits
    )
    if "jax" in found:
        peers.load("jax").thorough = not options.quick
    results: dict[str, Any] = {
        "meta": {
            **machine(),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": commit(),
            "config": {key: str(value) for key, value in own_config().items()},
            "versions": versions,
            "missing": missing,
            "threads": options.threads,
            "isa": options.isa,
            "rounds": options.rounds,
            "min_ms": options.min_ms,
            "quick": options.quick,
            "load": os.getloadavg()[0],
        },
        "limits": vars(limits) if limits else None,
        "rows": [],
    }
    print(describe(results))
    contests = plan(options, settings)
    with tqdm(total=len(contests), unit="row", dynamic_ncols=True, file=sys.stderr) as bar:
        for build in contests:
            try:
                contest = build()
                row = run_contest(contest, settings, partial(show, bar, contest.title))
            except Exception as error:  # one broken row must not lose the others
                row = {"title": planned(build), "error": f"{type(error).__name__}: {error}"}
            results["rows"].append(row)
            bar.write(print_row(row), file=sys.stdout)
            bar.update()
            if options.json:
                write_json(options.json, results)
    return results


def planned(build: partial[Contest]) -> str:
    """Name a contest that could not be built or run."""
    case: Case = build.args[0]
    return f"{case.suite} {case.label} {case.mode}"


def show(bar: Any, title: str, engine: str) -> None:
    """Name what is running on the progress bar."""
    bar.set_postfix_str(f"{title} {engine}", refresh=True)


def describe(results: dict[str, Any]) -> str:
    """Head of the printed table: machine, versions, limits."""
    meta, limits = results["meta"], results["limits"]
    lines = [
        f"{meta['cpu']}, {meta['threads']} of {meta['cores']} cores, commit {meta['commit']}, {meta['date']}",
        ", ".join(f"{name} {version}" for name, version in meta["versions"].items()),
    ]
    lines += [f"without {name}: {reason}" for name, reason in meta["missing"].items()]
    if meta["load"] > 0.5:
        lines.append(f"load {meta['load']:.1f}: other processes are running, so even ratios will vary")
    if limits:
        peak = ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in limits["fma_gflops"].items())
        read = ", ".join(f"{name} {value:.0f}" for name, value in limits["read_gbs"].items())
        lines.append(f"one core: {peak}; reads in GB/s: {read}")
    else:
        lines.append("limits: n/a")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = parse(arguments)
    if set(options.suite) & set(users.SUITES):
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return users.main(options, {**machine(), "date": date, "commit": commit()})
    results = run(options)
    print(summary(results))
    wrong = problems(results)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
