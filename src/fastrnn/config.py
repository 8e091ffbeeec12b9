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
    """Return how many threads a call may use: what was set, else OMP_NUM_THREADS or the number of cores.

    In a forked child process it is 1, because OpenMP's threads do not survive a fork. Limits that threadpoolctl
    sets count too.
    """
    return _core.num_threads()


def show_config() -> None:
    """Print version, kernel set, threads and compiler."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("fastrnn")
    except PackageNotFoundError:
        number = "not installed"
    config = _core.config()
    print(f"fastrnn {number}")
    print(f"kernel set: {config['kernel_set']} (of {', '.join(config['available_kernel_sets'])})")
    print(f"threads: {config['threads']}")
    print(f"compiler: {config['compiler']}")
    sizes = ", ".join(f"{level} {size // 1024} KiB" for level, size in config["cache_bytes"].items())
    print(f"caches: {sizes}")
