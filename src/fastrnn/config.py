"""Threads and the kernel set of this process."""

from __future__ import annotations

import numpy as np

import fastrnn._core as _core


def set_num_threads(n: int) -> None:
    """Let calls use at most ``n`` threads. Results are the same bits for every ``n``.

    >>> import fastrnn
    >>> before = fastrnn.get_num_threads()
    >>> fastrnn.set_num_threads(1); fastrnn.get_num_threads()
    1
    >>> fastrnn.set_num_threads(before)
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"n: expected an integer, got {type(n).__name__}")
    if not 1 <= n <= 1024:
        raise ValueError(f"n: expected 1 to 1024, got {n}")
    _core.set_num_threads(int(n))


def get_num_threads() -> int:
    """Return how many threads a call may use.

    That is what was set, else ``OMP_NUM_THREADS``, else one for each physical core that the process may use:
    affinity and the quotas of control groups (containers) count. A limit that threadpoolctl sets later holds
    as well. Several callers at once share the cores among them.
    """
    return _core.num_threads()


def show_config() -> None:
    """Print version, kernel set, threads and what they rest on, compiler and caches."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("fastrnn")
    except PackageNotFoundError:
        number = "not installed"
    config = _core.config()
    print(f"fastrnn {number}")
    print(f"kernel set: {config['kernel_set']} (of {', '.join(config['available_kernel_sets'])})")
    cpus, helpers = config["cpus"], config["helpers"]
    limits = [f"{cpus['allowed']} CPUs allowed", f"{cpus['cores']} cores"]
    if cpus["quota"]:
        limits.append(f"quota of {cpus['quota']:g} CPUs")
    if config["omp_num_threads"]:
        limits.append(f"OMP_NUM_THREADS={config['omp_num_threads']}")
    print(f"threads: {config['threads']} ({', '.join(limits)})")
    print(f"helper threads: {helpers['all']}, {helpers['awake']} awake")
    print(f"compiler: {config['compiler']}")
    sizes = ", ".join(f"{level} {size // 1024} KiB" for level, size in config["cache_bytes"].items())
    print(f"caches: {sizes}")
