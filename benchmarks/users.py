"""The suites that see fastrnn as its users do: whole programs, their parts, many callers, modules of PyTorch.

But for parts and modules, nothing is measured in this process. Each engine has processes of its own, with the
environment that the user has.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Any

import modules
import parts
from callers import mixtures, services
from programs import suite as programs
from report import write_json

SUITES = ("programs", "parts", "callers", "torch")
POOLS = ("OMP_", "OPENBLAS_", "MKL_", "GOMP_", "KMP_")  # variables that change how libraries use threads


def environment() -> dict[str, str]:
    """The variables that change what default settings are."""
    return {name: value for name, value in os.environ.items() if name.startswith(POOLS)}


def run_programs(options: Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run the programs: results, and what failed."""
    settings = programs.Settings(rounds=options.rounds)
    if options.quick:
        settings = programs.Settings(rounds=2, turn_seconds=0.03, quick=True)
    rows = programs.run(settings)
    return {"programs": rows}, programs.problems(rows)


def run_parts(options: Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run the parts of a training step; nothing is compared, so nothing fails."""
    settings = parts.Settings(rounds=2, quick=True) if options.quick else parts.Settings()
    return {"parts": parts.run(settings)}, []


def run_callers(options: Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run services and mixtures: results, and what failed."""
    called, mixed = services.Settings(), mixtures.Settings()
    if options.quick:
        called, mixed = services.Settings(rounds=1, seconds=0.1), mixtures.Settings(rounds=1, seconds=0.05)
    found = {"services": services.run(called), "mixtures": mixtures.run(mixed)}
    failed = {(engine, why) for row in found["services"] for engine, why in row["failed"].items()}
    failed |= {(row["mixture"], row["failed"]) for row in found["mixtures"] if "failed" in row}
    problems = [f"FAILED: {name}: {why}" for name, why in sorted(failed) if "ModuleNotFoundError" not in why]
    wrong = {(row["call"], *item) for row in found["services"] for item in row["wrong"].items()}
    return found, problems + [f"WRONG: {call}: {engine}: {why}" for call, engine, why in sorted(wrong)]


def run_modules(options: Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run modules of fastrnn.torch beside those of torch.nn: results, and what failed."""
    settings = modules.Settings(options.threads, options.rounds)
    if options.quick:
        settings = modules.Settings(options.threads, rounds=2, seconds=0.002, drawn=2)
    return {"modules": modules.run(settings)}, []


def main(options: Namespace, meta: dict[str, Any]) -> int:
    """Run the suites chosen; returns the exit status."""
    meta = {**meta, "environment": environment(), "quick": options.quick, "load": os.getloadavg()[0]}
    print(f"{meta['cpu']}, {meta['cores']} cores, Python {meta['python']}, commit {meta['commit']}")
    for name, value in meta["environment"].items():
        print(f"{name}={value} is set: libraries that read it do not run with default settings")
    if meta["load"] > 0.5:
        print(f"load {meta['load']:.1f}: other processes are running, so even ratios will vary")
    results: dict[str, Any] = {"meta": meta}
    problems: list[str] = []
    for suite, run in zip(SUITES, (run_programs, run_parts, run_callers, run_modules), strict=True):
        if suite in options.suite:
            found, wrong = run(options)
            results |= found
            problems += wrong
            if options.json:
                write_json(options.json, results)
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0
