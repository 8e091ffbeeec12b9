"""The engines bench.py compares: fastrnn itself and every peer, each in a module of its own.

A module has three functions; frameworks are imported inside them, so that a missing one costs nothing:

    version() -> str                                    raises ImportError when the framework is missing
    unsupported(case) -> str | None                     why the framework cannot run a case, or None
    prepare(workload, threads) -> timing.Prepared       same weights, same outputs, its best known setting

Outputs are named as in `workload.Arrays`: y [T, B, D*H], h_n and c_n [L*D, B, H]; in training also dx and one
d<parameter> for every parameter.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

NAMES = ("torch", "onnxruntime", "openvino", "jax")  # fastrnn is `peers.own`


def load(name: str) -> ModuleType:
    """Return the module of one engine ("fastrnn" or one of `NAMES`)."""
    return importlib.import_module("peers.own" if name == "fastrnn" else f"peers.{name}")


def installed(names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return ({name: version} of those that import, {name: reason} of the others)."""
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = load(name).version()
        except ImportError as error:
            missing[name] = str(error)
    return versions, missing


def limit_threads(threads: int, isa: str | None = None) -> None:
    """Set what frameworks read only when they load: XLA's pool size, fastrnn's kernel set.

    Call before anything is imported. OMP_NUM_THREADS is set too: torch sizes its pool by it.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["NPROC"] = str(threads)  # the size of XLA's CPU thread pools
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if isa:
        os.environ["FASTRNN_ISA"] = isa
