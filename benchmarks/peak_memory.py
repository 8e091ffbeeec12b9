"""Peak memory of one fastrnn training step above its inputs and outputs, measured in a process of its own.

    python benchmarks/peak_memory.py --kind lstm -T 200000 -B 1 -I 128 -H 128 --checkpoint auto

prints {"peak_bytes": ..., "tape_bytes": ...}.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
from shapes import Case
from workload import make_workload

STATUS = Path("/proc/self/status")


def status_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process; None where /proc does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), None)


def peak_bytes() -> int:
    """Largest resident size so far."""
    peak = status_bytes("VmHWM")
    if peak is not None:
        return peak
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def measure(case: Case, checkpoint: str | int | None) -> dict[str, Any]:
    """Run one training step of `case` in this process."""
    own = peers.load("fastrnn")
    warm = make_workload(replace(case, T=64))  # starts threads and loads code outside the measurement
    own.train(own.layer(warm, freeze=False), warm.x, warm.dy, checkpoint=checkpoint)
    workload = make_workload(case)
    layer = own.layer(workload, freeze=False)
    before = status_bytes("VmRSS") or peak_bytes()
    y, state, tape = layer.forward(workload.x, checkpoint=checkpoint)
    tape_bytes = int(getattr(tape, "nbytes", 0))
    grads = layer.backward(tape, workload.dy)
    outputs = [y, grads.x, grads.flat, *own.state_arrays(state).values()]
    return {
        "peak_bytes": max(0, peak_bytes() - before - sum(array.nbytes for array in outputs)),
        "tape_bytes": tape_bytes,
    }


def measure_apart(case: Case, checkpoint: str | int | None) -> dict[str, Any]:
    """Run `measure` in a new process."""
    command = [sys.executable, __file__, "--kind", case.kind, "--dtype", case.dtype]
    for flag in "TBIH":
        command += [f"-{flag}", str(getattr(case, flag))]
    if checkpoint is not None:
        command += ["--checkpoint", str(checkpoint)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", default="lstm")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--checkpoint", type=lambda text: int(text) if text.isdigit() else text)
    for flag in "TBIH":
        parser.add_argument(f"-{flag}", type=int, required=True)
    options = parser.parse_args()
    case = Case(
        "long", options.kind, "train", options.T, options.B, options.I, options.H, dtype=options.dtype
    )
    print(json.dumps(measure(case, options.checkpoint)))


if __name__ == "__main__":
    main()
