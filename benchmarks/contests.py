"""A contest: one case, the engines that run it side by side, and what their times are compared to."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import peers
import timing
from roofline import Limits, roofline
from shapes import Case
from timing import Prepared
from workload import Arrays, Workload, difference, make_workload, tolerance

ORACLE_FLOPS = 2e9  # the reference loops over time in Python
OWN = "fastrnn"  # engines whose name starts so are variants of it; all others are peers
MACHINE = "machine"  # the engine that runs nothing but fma: no peer (`Prepared.other`)
FMA_ROUNDS = 100_000  # of its loop in a call: some 0.2 ms
LINE_ROUNDS = 500  # of an exchange between two threads: some 0.1 ms


@dataclass(frozen=True)
class Settings:
    """What one run of bench.py keeps fixed."""

    threads: int
    peers: tuple[str, ...]
    rounds: int
    min_seconds: float
    budget: float = math.inf  # seconds a row may take before three rounds must do
    limits: Limits | None = None


@dataclass(frozen=True)
class Comparison:
    """factor * time(numerator) / time(denominator), per unit of work, that should be `op` target.

    The median of the values within each round. Without a denominator the value is the numerator's time in
    microseconds; with `beside` it is divided by the like ratio of those two engines.
    """

    name: str
    numerator: str
    denominator: str | None
    op: str  # "<=" or ">="
    target: float | None
    factor: float = 1.0
    beside: tuple[str, str] | None = None


def outcome(name: str, value: float, op: str = "", target: float | None = None) -> dict[str, Any]:
    """One compared figure as JSON values; without a target it only informs."""
    met = None if target is None else value <= target if op == "<=" else value >= target
    return {"name": name, "value": value, "op": op, "target": target, "met": met}


@dataclass
class Contest:
    """Engines (built on demand) for one case; `units` is the work of a call where engines differ in it."""

    case: Case
    engines: dict[str, Callable[[], Prepared]]
    checks: dict[str, str] = field(default_factory=dict)  # engine: "all" outputs equal fastrnn's, or "shared"
    units: dict[str, float] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    figures: Callable[[], list[dict[str, Any]]] | None = None  # more outcomes, measured after the times
    skipped: dict[str, str] = field(default_factory=dict)
    title: str = ""
    rounds: int | None = None
    flops: float | None = None  # of fastrnn's call, where it is not the case's
    on_roofline: bool = False
    oracle: Callable[[], Arrays] | None = (
        None  # fastrnn's expected outputs, asked for when no peer could tell
    )


def dense_contest(case: Case, settings: Settings) -> Contest:
    """Return the contest of fastrnn and every peer that can run a plain dense case."""
    workload = make_workload(case)
    engines: dict[str, Callable[[], Prepared]] = {
        OWN: partial(peers.load(OWN).prepare, workload, settings.threads)
    }
    skipped = {}
    for name in settings.peers:
        reason = peers.load(name).unsupported(case)
        if reason:
            skipped[name] = reason
        else:
            engines[name] = partial(peers.load(name).prepare, workload, settings.threads)
    checks = dict.fromkeys(engines, "all")
    if settings.limits:
        engines[MACHINE] = partial(fma, case, settings.threads)
    return Contest(
        case,
        engines,
        checks,
        skipped=skipped,
        title=case.label,
        on_roofline=True,
        oracle=partial(reference, workload) if case.flops <= ORACLE_FLOPS else None,
    )


def reference(workload: Workload) -> Arrays:
    """Return outputs and gradients of a workload by fastrnn.reference, plain NumPy in float64."""
    from fastrnn import reference as oracle

    kind = "rnn_tanh" if workload.case.kind == "rnn" else workload.case.kind
    params = {name: value.astype(np.float64) for name, value in workload.params.items()}
    y, state, tape = oracle.forward(kind, workload.x.astype(np.float64), None, params)
    named = {"y": y, **peers.load(OWN).state_arrays(state)}
    if workload.dy is None:
        return named
    dx, _, grads = oracle.backward(tape, workload.dy.astype(np.float64))
    return named | {"dx": dx} | {f"d{name}": value for name, value in grads.items()}


def check(expected: Arrays, prepared: Prepared, how: str, case: Case) -> str | None:
    """Compare one engine's outputs with fastrnn's; None when equal."""
    return difference(expected, prepared.outputs(), tolerance(case), shared=how == "shared")


def prepare_all(contest: Contest) -> tuple[dict[str, Prepared], dict[str, str], dict[str, str]]:
    """Build and check the engines; returns (ready, those that failed, those whose outputs are wrong).

    fastrnn's own failure is not caught: without it there is nothing to compare.
    """
    ready: dict[str, Prepared] = {}
    failed: dict[str, str] = {}
    wrong: dict[str, str] = {}
    expected: Arrays = {}
    for name, build in contest.engines.items():
        try:
            prepared = build()
            if name == OWN:
                expected = prepared.outputs()
            elif name in contest.checks and (
                gap := check(expected, prepared, contest.checks[name], contest.case)
            ):
                wrong[name] = gap
                continue
        except Exception as error:
            if name.startswith(OWN):
                raise
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        ready[name] = prepared
    if contest.oracle and not wrong and all(name == OWN or ready[name].other for name in ready):
        gap = difference(contest.oracle(), expected, tolerance(contest.case))
        if gap:
            wrong["reference"] = gap
    return ready, failed, wrong


def compare(contest: Contest, timings: dict[str, timing.Timing]) -> list[dict[str, Any]]:
    """Evaluate the contest's comparisons whose engines all ran."""
    found = []
    for item in contest.comparisons:
        names = [name for name in (item.numerator, item.denominator, *(item.beside or ())) if name]
        if any(name not in timings for name in names):
            continue
        numerator = timings[item.numerator]
        value = item.factor / contest.units.get(item.numerator, 1.0)
        if item.denominator:
            beside = [timings[name] for name in item.beside or ()]
            value *= paired_ratio(numerator, timings[item.denominator], *beside)
            value *= contest.units.get(item.denominator, 1.0)
        else:
            value *= numerator.seconds * 1e6
        found.append(outcome(item.name, value, item.op, item.target))
    return found


def paired_ratio(theirs: timing.Timing, ours: timing.Timing, *beside: timing.Timing) -> float:
    """Their time over ours: the median of the ratios within each round, so that a slow minute hits both.

    `beside`: two more, whose ratio it is divided by. An engine that was sampled once is compared by the
    medians.
    """
    above, below = [theirs, *beside[1:]], [ours, *beside[:1]]
    if len({len(timed.samples) for timed in above + below}) > 1:
        return math.prod(t.seconds for t in above) / math.prod(t.seconds for t in below)

    def products(timings: list[timing.Timing]) -> list[float]:
        return [math.prod(samples) for samples in zip(*(t.samples for t in timings), strict=True)]

    return statistics.median(a / b for a, b in zip(products(above), products(below), strict=True))


def fma(case: Case, threads: int) -> Prepared:
    """Return the machine as an engine: a call is a loop of nothing but fma on so many threads at once."""
    from fastrnn import _core

    run = partial(_core.run_fma, case.dtype == "float64", threads, FMA_ROUNDS)
    return Prepared(run, lambda flops: {"flops": np.asarray(flops)}, keep=run(), other=True)


def exchange() -> Prepared:
    """Return as an engine two threads of the machine that hand a cache line to and fro."""
    from fastrnn import _core

    run = partial(_core.exchange_lines, LINE_ROUNDS)
    return Prepared(run, lambda rounds: {"rounds": np.asarray(rounds)}, other=True)


def run_contest(contest: Contest, settings: Settings, progress: Callable[[str], None]) -> dict[str, Any]:
    """Check, time and compare; returns the row of the results file."""
    case = contest.case
    start = time.perf_counter()
    progress("preparing")
    ready, failed, wrong = prepare_all(contest)
    timings = timing.measure(
        ready, contest.rounds or settings.rounds, settings.min_seconds, progress, settings.budget
    )
    machine = timings.get(MACHINE)
    seconds = {name: timed.seconds for name, timed in timings.items()}
    flops = contest.flops or case.flops
    row: dict[str, Any] = {
        **case.fields(),
        "title": contest.title or case.label,
        "on_roofline": contest.on_roofline,
        "flops": flops,
        "threads": settings.threads,
        "engines": {
            name: {
                "seconds": timed.seconds,
                "calls": timed.calls,
                "samples": timed.samples,
                "units": contest.units.get(name, 1.0),
            }
            for name, timed in timings.items()
        },
        "gflops": flops / seconds[OWN] / 1e9,
        "skipped": contest.skipped,
        "failed": failed,
        "wrong": wrong,
        "comparisons": compare(contest, timings),
    }
    rivals = {
        name: value for name, value in seconds.items() if not (name.startswith(OWN) or ready[name].other)
    }
    if rivals:
        row["best_peer"] = min(rivals, key=lambda name: rivals[name])
        row["ratio"] = paired_ratio(timings[row["best_peer"]], timings[OWN])
    if contest.on_roofline and settings.limits:
        least = roofline(case, settings.limits, settings.threads)
        row["roofline"] = {
            "seconds": least.seconds,
            "bound": least.bound,
            "weights_level": least.weights_level,
            "share": least.seconds / seconds[OWN],
            "peak_share": case.flops / seconds[OWN] / settings.limits.peak(case.dtype, settings.threads),
        }
        if machine:
            work = case.flops / ready[MACHINE].keep
            row["roofline"]["beside"] = work * paired_ratio(machine, timings[OWN])
    if contest.figures:
        progress("figures")
        row["comparisons"] += contest.figures()
    row["elapsed"] = time.perf_counter() - start
    return row


def own(case: Case, settings: Settings, **options: Any) -> Callable[[], Prepared]:
    """Return a builder of fastrnn on its own workload of `case`; `threads` may be overridden."""
    threads = options.pop("threads", settings.threads)

    def build() -> Prepared:
        workload: Workload = make_workload(case)
        prepared: Prepared = peers.load(OWN).prepare(workload, threads, **options)
        return prepared

    return build
