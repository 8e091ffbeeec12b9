"""Threads: how many there are, that they let go of their cores, and that they are found again after a fork."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_python

import fastrnn
from fastrnn import _core

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def run_program(code: str, **environment: str) -> Any:
    """Run a program of its own and return what it prints, as JSON."""
    run = run_python("-c", code, **environment)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


# ---- waiting -------------------------------------------------------------------------------------------

REST = """
import json, os, time
from pathlib import Path
import numpy as np
import fastrnn
from fastrnn import _core, losses, nn, optim

def other_states():
    own = os.getpid()
    stats = {int(task.name): (task / "stat").read_text() for task in Path("/proc/self/task").iterdir()}
    return [text.rpartition(")")[2].split()[0] for thread, text in stats.items() if thread != own]

rng = np.random.default_rng(0)
x = rng.standard_normal((50, 32, 64), np.float32)
found = {}

def rest(name):
    # a thread that wakes up for a moment at the wrong time is not one that spins: it must be seen at rest
    for _ in range(20):
        time.sleep(0.05)
        states = other_states()
        if "R" not in states and not _core.config()["helpers"]["awake"]:
            break
    found[name] = {"states": states, "helpers": _core.config()["helpers"]}

layer = fastrnn.LSTM(64, 128, rng=0)
y, _, tape = layer.forward(x)
rest("forward")
layer.backward(tape, np.ones_like(y))
rest("backward")
one = fastrnn.LSTM(64, 256, rng=0)
one.freeze()
one(x[:, :1])
rest("one sequence")
linear = nn.Linear(128, 2000, rng=0)
losses.linear_softmax_cross_entropy(linear, y, rng.integers(0, 2000, (50, 32)))
rest("cross-entropy")
optim.Adam([layer]).step([np.ones_like(layer.flat)])
rest("optimiser")
print(json.dumps(found))
"""


@linux
def test_no_thread_keeps_a_core_after_a_call() -> None:
    """A moment after a call of any kind, every thread that helped with it sleeps."""
    found = run_program(REST, OMP_NUM_THREADS="3")
    for name, rest in found.items():
        assert rest["helpers"]["awake"] == 0, (name, rest)
        assert "R" not in rest["states"], (name, rest)
    assert found["optimiser"]["helpers"]["all"] == 2


# ---- fork ----------------------------------------------------------------------------------------------

FORK = """
import json, os
import numpy as np
import fastrnn
from fastrnn import _core

layer = fastrnn.LSTM(32, 128, rng=0)
x = np.random.default_rng(0).standard_normal((20, 64, 32), np.float32)
want, _ = layer(x)
before = _core.config()["helpers"]["all"]
read, write = os.pipe()
if os.fork() == 0:
    inherited = _core.config()["helpers"]["all"]
    same = bool((layer(x)[0] == want).all())
    made = _core.config()["helpers"]["all"]
    os.write(write, json.dumps([inherited, same, made, fastrnn.get_num_threads()]).encode())
    os._exit(0)
child = json.loads(os.read(read, 1000))
os.wait()
print(json.dumps({"before": before, "child": child, "same": bool((layer(x)[0] == want).all())}))
"""


@linux
def test_a_child_finds_threads_again_after_a_fork() -> None:
    """Threads do not survive a fork. The child forgets its parent's and gets its own."""
    found = run_program(FORK, OMP_NUM_THREADS="4")
    assert found["before"] == 3
    assert found["child"] == [0, True, 3, 4]
    assert found["same"]


# ---- how many --------------------------------------------------------------------------------------------


def system(root: Path, siblings: dict[int, str], files: dict[str, str]) -> str:
    """Lay out the files that the core reads to find out which CPUs it may use."""
    for cpu, shared in siblings.items():
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = shared
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return str(root)


ALONE = {cpu: str(cpu) for cpu in range(64)}
PAIRS = {cpu: f"{cpu % 32},{cpu % 32 + 32}" for cpu in range(64)}
V1 = {
    "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc",
    "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "250000",
    "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000",
}


@pytest.mark.parametrize(
    ("siblings", "files", "allowed", "cores", "quota", "usable"),
    [
        pytest.param(ALONE, {}, range(64), 64, 0, 64, id="no limit"),
        pytest.param(PAIRS, {}, range(64), 32, 0, 32, id="two hyperthreads a core"),
        pytest.param(PAIRS, {}, [0, 32], 1, 0, 1, id="both halves of one core"),
        pytest.param(PAIRS, {}, [0, 1, 2], 3, 0, 3, id="three cores by affinity"),
        pytest.param({}, {}, range(4), 4, 0, 4, id="no topology"),
        pytest.param(
            ALONE,
            {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "100000 100000"},
            range(64),
            64,
            1,
            1,
            id="a container of one CPU of 64",
        ),
        pytest.param(
            ALONE,
            {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"},
            range(64),
            64,
            0.5,
            1,
            id="half a CPU",
        ),
        pytest.param(
            PAIRS,
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "350000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "800000 100000",
            },
            range(64),
            32,
            3.5,
            3,
            id="the group above has the lower quota",
        ),
        pytest.param(ALONE, V1, range(64), 64, 2.5, 2, id="version 1"),
        pytest.param(
            ALONE,
            {**V1, "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "-1"},
            range(8),
            8,
            0,
            8,
            id="version 1, no quota",
        ),
        pytest.param(
            ALONE,
            {"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": "x"},
            range(2),
            2,
            0,
            2,
            id="unreadable",
        ),
    ],
)
def test_cpus_that_may_be_used(
    tmp_path: Path,
    siblings: dict[int, str],
    files: dict[str, str],
    allowed: Any,
    cores: int,
    quota: float,
    usable: int,
) -> None:
    """Affinity, control groups of both versions and hyperthreads, from a fake of the files that say so."""
    found = _core.count_cpus(system(tmp_path, siblings, dict(files)), list(allowed))
    assert found == {"allowed": len(list(allowed)), "cores": cores, "quota": quota, "usable": usable}


AFFINITY = """
import json, os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
import fastrnn
from fastrnn import _core
fastrnn.LSTM(64, 128)(np.ones((50, 32, 64), np.float32))
print(json.dumps([fastrnn.get_num_threads(), _core.config()["helpers"]["all"]]))
"""


@linux
def test_affinity_limits_the_threads() -> None:
    environment = {name: "" for name in os.environ if name.startswith("OMP_")}
    assert run_program(AFFINITY, **environment) == [1, 0]


def test_threads_that_were_set_hold() -> None:
    before = fastrnn.get_num_threads()
    try:
        for n in (1, 3, 2):
            fastrnn.set_num_threads(n)
            assert fastrnn.get_num_threads() == n
    finally:
        fastrnn.set_num_threads(before)


# ---- joining and leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("B", [1, 3, 16])
@pytest.mark.parametrize("H", [40, 128])
def test_threads_that_join_and_leave_change_no_bit(B: int, H: int) -> None:
    """Helpers may come late, lose their core, or come back: in this mode they do so at random."""
    layer = fastrnn.GRU(24, H, num_layers=2, rng=0)
    x = np.random.default_rng(1).standard_normal((60, B, 24), np.float32)
    threads = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(1)
        want, _, tape = layer.forward(x)
        gradients = layer.backward(tape, np.ones_like(want)).flat
        fastrnn.set_num_threads(4)
        for seed in range(1, 9):
            _core.shuffle_shares(seed)
            y, _, tape = layer.forward(x)
            np.testing.assert_array_equal(y, want)
            np.testing.assert_array_equal(layer(x)[0], want)
            np.testing.assert_array_equal(layer.backward(tape, np.ones_like(y)).flat, gradients)
    finally:
        _core.shuffle_shares(0)
        fastrnn.set_num_threads(threads)
