"""Memory: it stays level over many calls, what is kept is given back, and running out of it is an error."""

from __future__ import annotations

import gc
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Variant, make_case, make_layer, needs_proc, run_layer, run_python, run_threads

import fastrnn


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@needs_proc
def test_nothing_leaks() -> None:
    """Resident memory stays level over many calls."""
    v = Variant("gru", 2, True, I=16, H=48, T=40, B=16)
    case = make_case(v)
    layer, one_way = make_layer(v, case.params), fastrnn.GRU(16, 48)

    def some(n: int) -> int:
        for _ in range(n):
            run_layer(layer, case, lengths=case.lengths)
            layer.forward(case.x)  # a tape that is never used
            one_way.stream(4)
        return resident()

    before = some(50)
    assert some(200) - before < 4_000_000


def measure_memory() -> None:
    """Print by how much resident memory grows over many calls after the first ones."""
    layer = fastrnn.GRU(8, 16, bidirectional=True, rng=0)
    rng = np.random.default_rng(0)
    shapes = rng.integers(1, 20, (10_000, 2))
    data = np.ones((24, 24, 8), np.float32)

    def call(T: int, B: int) -> None:
        y, _, tape = layer.forward(data[:T, :B])
        layer.backward(tape, y)

    def change(part: np.ndarray) -> None:
        for T, B in part.tolist():
            call(T, B)

    def live_shortly(n: int) -> None:
        for _ in range(n):
            run_threads(lambda _: call(24, 24), 4)

    sizes = []
    for part in np.split(shapes, 10):
        change(part) if sys.argv[1] == "changing shapes" else live_shortly(12)
        sizes.append(resident())
    # single looks differ by what the allocator happens to hold; a leak would raise the least of several
    print(min(sizes[6:]) - min(sizes[2:6]))


@needs_proc
@pytest.mark.parametrize("how", ["short-lived threads", "changing shapes"])
def test_memory_stays_within_a_megabyte(how: str) -> None:
    code = f"""
import sys
sys.argv = ["", {how!r}]
from test_memory import measure_memory
measure_memory()
"""
    run = run_python("-c", code, OMP_NUM_THREADS="2", MALLOC_ARENA_MAX="2")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 1_000_000, f"{run.stdout} bytes more"


FALLING = """
import numpy as np
import fastrnn
layer, pages = fastrnn.RNN(1, 16), []
for turn in range(8):
    steps = 1024
    while steps >= 64:  # as sorted batches do
        layer(np.broadcast_to(np.zeros(1, np.float32), (steps, 512, 1)))
        steps = steps * 9 // 10
    pages.append(int(open("/proc/self/statm").read().split()[1]))
print((pages[-1] - pages[1]) * 4096)
"""


@needs_proc
def test_kept_blocks_do_not_lose_their_size() -> None:
    """A block used for a little less than it holds would come back as less, and the next call want a new one."""
    assert int(run_python("-c", FALLING, OMP_NUM_THREADS="1").stdout) < 16 << 20


POOLED = """
import resource
import numpy as np
import fastrnn
layer = fastrnn.RNN(1, 64, rng=0)
x = lambda steps: np.broadcast_to(np.float32(0), (steps, 1000, 1))
layer(x(10))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (500 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
layer(x(1000))  # 256 MB, which the pool keeps
print(layer(x(1400))[0].nbytes)  # 358 MB
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="RLIMIT_AS is not kept elsewhere")
def test_kept_memory_is_given_back_where_it_is_missing() -> None:
    run = run_python("-c", POOLED, OMP_NUM_THREADS="1")
    assert run.stdout.strip() == str(1400 * 1000 * 64 * 4), run.stderr[-2000:]


CRAMPED = """
import resource, sys
import numpy as np
import fastrnn
layer, x = fastrnn.RNN(1, 1, 2, dropout=0.5, bidirectional=sys.argv[1] == "2"), np.zeros((1, 1 << 20, 1), np.float32)
fastrnn.RNN(1, 64)(np.zeros((100, 20, 1), np.float32))  # threads are there
used = int(open("/proc/self/statm").read().split()[0]) * 4096
outcomes = set()
for room in range(32 << 20, 2048 << 20, 8 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
    try:
        y, _, tape = layer.forward(x)
        layer.backward(tape, y)
        outcomes.add("served")
        break
    except MemoryError:
        outcomes.add("MemoryError")
    y = tape = None
print(sorted(outcomes))
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="RLIMIT_AS is not kept elsewhere")
@pytest.mark.parametrize("directions", ["1", "2"])
def test_memory_that_runs_out_anywhere_is_an_error(directions: str) -> None:
    """Between threads nothing may be allocated: an exception cannot leave their region."""
    run = run_python("-c", CRAMPED, directions, OMP_NUM_THREADS="2")
    assert run.stdout.strip() == "['MemoryError', 'served']"
