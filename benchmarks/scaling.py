"""Suite "scaling": fastrnn against itself, what a shape alone does not show.

Threads 1 and n, three layers and two directions against one, float64 against float32, T = 10000 against 100,
and what one call from Python costs, frozen and not.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from contests import LINE_ROUNDS, MACHINE, OWN, Comparison, Contest, Settings, exchange, fma, own
from shapes import RESEARCH, Case

THREAD_FLOPS = 20e6  # below this two threads need not pay, only not hurt
NOISE = 0.03  # what two runs of the same code differ by, allowed where the target is "no worse"
STACKED = ((1, 100, 64, 64), (64, 100, 64, 64), (64, 100, 256, 256), (32, 50, 512, 512))
DOUBLE = ((1, 100, 64, 64), (64, 100, 256, 256), (32, 50, 512, 512))
STEPS = ((1, 64), (32, 64), (1, 256))  # (B, I = H)


def threads_contest(case: Case, settings: Settings) -> Contest:
    """One thread against all; and what the machine gives at the same time: to fma, to lines that go to and fro."""
    line = f"{MACHINE} line"
    single, alone, name = f"{OWN} 1 thread", f"{MACHINE} 1 thread", f"1 -> {settings.threads} threads"
    engines = {
        OWN: own(case, settings),
        single: own(case, settings, threads=1),
        MACHINE: partial(fma, case, settings.threads),
        alone: partial(fma, case, 1),
        line: exchange,
    }
    large = case.flops > THREAD_FLOPS
    comparisons = [
        Comparison(name, single, OWN, ">=", 1.85 if large else 1.0 - NOISE),
        Comparison(f"{name}, fma alone", alone, MACHINE, "", None, float(settings.threads)),
        Comparison("a line to another core and back [ns]", line, None, "", None, 1e3),
    ]
    if large:
        beside = (alone, MACHINE)
        share = Comparison(
            f"{name} over that of fma", single, OWN, ">=", 1.85 / 2, 1 / settings.threads, beside
        )
        comparisons.append(share)
    return Contest(
        case,
        engines,
        {single: "all"},
        units={line: LINE_ROUNDS},
        comparisons=comparisons,
        title=f"{case.label}: threads",
    )


def shape_contest(case: Case, other: Case, what: str, settings: Settings) -> Contest:
    """Time per FLOP of `case` over that of the simpler `other`."""
    name = f"{OWN} single"
    return Contest(
        case,
        {OWN: own(case, settings), name: own(other, settings)},
        units={OWN: case.flops, name: other.flops},
        comparisons=[Comparison(f"{what}: time per FLOP over one layer's", OWN, name, "<=", 1.0 + NOISE)],
        title=f"{case.label}: {what}",
    )


def double_contest(case: Case, settings: Settings) -> Contest:
    """float64's rate over half of float32's."""
    single = f"{OWN} float32"
    return Contest(
        case,
        {OWN: own(case, settings), single: own(replace(case, dtype="float32"), settings)},
        comparisons=[Comparison("float64: rate over half of float32's", single, OWN, ">=", 0.9, 2.0)],
        title=f"{case.label}: float64",
    )


def steps_contest(case: Case, settings: Settings) -> Contest:
    """Time per step of a long sequence over that of a short one."""
    short = replace(case, T=100)
    name = f"{OWN} T100"
    return Contest(
        case,
        {OWN: own(case, settings), name: own(short, settings)},
        units={OWN: case.T, name: short.T},
        comparisons=[Comparison(f"time per step, T = {case.T} over T = 100", OWN, name, "<=", 1.05)],
        title=f"{case.label}: steps",
    )


def call_contest(case: Case, settings: Settings) -> Contest:
    """One call of one step from Python, in microseconds; with a state, or there would be half as much to do."""
    packing = f"{OWN} not frozen"
    zeros = np.zeros((1, case.B, case.H), case.dtype)
    state = (zeros, zeros) if case.kind == "lstm" else zeros
    return Contest(
        case,
        {OWN: own(case, settings, state=state), packing: own(case, settings, freeze=False, state=state)},
        checks={packing: "all"},
        comparisons=[
            Comparison("one call of one step, frozen [us]", OWN, None, "<=", 4.0),
            Comparison("one call of one step, not frozen [us]", packing, None, "<=", 6.0),
        ],
        title=f"{case.label}: call",
        flops=float(case.step_flops),
    )


def scaling_contests(kind: str, mode: str, settings: Settings) -> list[partial[Contest]]:
    """Return builders of the suite's contests for one cell and mode."""

    def case(shape: tuple[int, int, int, int], dtype: str = "float32") -> Case:
        batch, steps, inputs, hidden = shape
        return Case("scaling", kind, mode, steps, batch, inputs, hidden, dtype=dtype)

    found = [partial(threads_contest, case(shape), settings) for shape in RESEARCH if settings.threads > 1]
    for shape in STACKED:
        plain = case(shape)
        found.append(partial(shape_contest, replace(plain, layers=3), plain, "3 layers", settings))
        both = replace(plain, bidirectional=True)
        found.append(partial(shape_contest, both, plain, "bidirectional", settings))
    found += [partial(double_contest, case(shape, "float64"), settings) for shape in DOUBLE]
    found += [partial(steps_contest, case((batch, 10_000, size, size)), settings) for batch, size in STEPS]
    if mode == "infer":
        found.append(partial(call_contest, case((1, 1, 64, 64)), settings))
    return found
