"""A process that others share: forks, workers, other libraries' threads, and cores that are taken."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_proc, posix, run_python

import fastrnn

WORK = """
import json, multiprocessing, sys
import numpy as np
import fastrnn

def bits(seed):
    layer = fastrnn.LSTM(16, 64, 2, bidirectional=True, rng=0)
    x = np.random.default_rng(seed).standard_normal((40, 24, 16), np.float32)
    y, _, tape = layer.forward(x)
    return y.tobytes() + layer.backward(tape, y).flat.tobytes()

def again(seed):
    with multiprocessing.get_context(METHOD).Pool(1) as pool:
        return pool.apply(bits, (seed,))

METHOD = sys.argv[1]
if __name__ == "__main__":
    want = [bits(seed) for seed in range(4)]
    with multiprocessing.get_context(METHOD).Pool(2) as pool:
        got = pool.map(bits, range(4))
    print(json.dumps([got == want, [bits(seed) for seed in range(4)] == want]))
"""


@posix
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_after_use(method: str, tmp_path: Path) -> None:
    """Two workers started after this process ran in parallel: they finish, with the same bits."""
    script = tmp_path / "work.py"
    script.write_text(WORK)
    run = run_python(str(script), method, OMP_NUM_THREADS="2")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [True, True]


@posix
def test_a_fork_of_a_fork_and_of_a_thread() -> None:
    code = """
import os, threading
import numpy as np
import fastrnn
layer = fastrnn.GRU(16, 128, rng=0)
x = np.ones((30, 64, 16), np.float32)
want = layer(x)[0]
def child(depth):
    pid = os.fork()
    if pid == 0:
        same = (layer(x)[0] == want).all()
        if depth:
            same &= child(depth - 1) == 0
        os._exit(0 if same else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
codes = [child(2)]
thread = threading.Thread(target=lambda: codes.append(child(1)))
thread.start()
thread.join()
print(codes)
"""
    assert run_python("-c", code, OMP_NUM_THREADS="4").stdout.strip() == "[0, 0]"


@posix
def test_fork_after_another_user_of_libgomp() -> None:
    code = """
import ctypes, os
import numpy as np
import fastrnn
fastrnn.set_num_threads(2)
path = [line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line][0]
ctypes.CDLL(path).GOMP_parallel(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None), None, 2, 0)
pid = os.fork()
if pid == 0:
    fastrnn.LSTM(32, 128)(np.ones((50, 64, 32), np.float32))
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_python("-c", code).stdout.strip() == "0"


COUNT = """
import os
import numpy as np
import fastrnn

def threads():
    fastrnn.LSTM(32, 128)(np.ones((50, 64, 32), np.float32))
    return fastrnn.get_num_threads(), len(os.listdir("/proc/self/task"))
"""


@needs_proc
def test_threadpoolctl_limits_are_respected() -> None:
    code = f"""{COUNT}
from threadpoolctl import threadpool_limits
before = len(os.listdir("/proc/self/task"))
with threadpool_limits(1):
    one = threads()
with threadpool_limits(3, user_api="openmp"):
    three = threads()
print([one[0], one[1] - before, three[0], three[1] - before])
"""
    pytest.importorskip("threadpoolctl")
    run = run_python("-c", code, OMP_NUM_THREADS="4")
    # three threads: the caller and two helpers; one more sleeps, in the parallel region that made the helpers
    assert run.stdout.strip() == "[1, 0, 3, 3]", run.stderr


@needs_proc
def test_joblib_processes_do_not_oversubscribe(tmp_path: Path) -> None:
    """Two processes share the cores instead of each taking all of them."""
    pytest.importorskip("joblib")
    (tmp_path / "count_threads.py").write_text(COUNT)
    code = """
import joblib, os
from count_threads import threads
found = joblib.Parallel(n_jobs=2)(joblib.delayed(threads)() for _ in range(4))
print(max(n for n, _ in found) * 2 <= max(2, joblib.cpu_count()))
"""
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, text=True, capture_output=True, timeout=300, check=False
    )
    assert run.stdout.strip() == "True", run.stderr


@pytest.mark.parametrize("order", ["before", "after"])
def test_torch_and_sklearn_in_the_process(order: str) -> None:
    """Their OpenMP and ours in one process, imported in either order and used in turns."""
    uses = {
        "torch": "import torch; a = torch.ones(300, 300); (a @ a).tanh().sum().item(); "
        "torch.nn.LSTM(8, 16)(torch.ones(5, 6, 8))",
        "sklearn": "from sklearn.cluster import KMeans; KMeans(2).fit(np.arange(400.0).reshape(200, 2))",
    }
    there = [name for name in uses if importlib.util.find_spec(name)]
    if not there:
        pytest.skip("neither torch nor scikit-learn is installed")
    imports = "\nimport ".join([*there, "fastrnn"] if order == "before" else ["fastrnn", *there])
    use = "; ".join(uses[name] for name in there)
    code = f"""
import hashlib
import numpy as np
import {imports}
layer = fastrnn.LSTM(32, 128, 2, rng=0)
x = np.random.default_rng(0).standard_normal((50, 64, 32), np.float32)
for _ in range(3):
    y, _, tape = layer.forward(x)
    g = layer.backward(tape, y)
    {use}
print(hashlib.sha256(y.tobytes() + g.flat.tobytes()).hexdigest())
"""
    run = run_python("-c", code)
    assert run.returncode == 0, run.stderr
    layer = fastrnn.LSTM(32, 128, 2, rng=0)
    y, _, tape = layer.forward(np.random.default_rng(0).standard_normal((50, 64, 32), np.float32))
    bits = y.tobytes() + layer.backward(tape, y).flat.tobytes()
    assert run.stdout.strip() == hashlib.sha256(bits).hexdigest()


SPIN = """
import json, multiprocessing, os, statistics, time
import numpy as np
import fastrnn

def burn(stop):
    while not stop.is_set():
        sum(range(10_000))

def main():
    fastrnn.set_num_threads(2)
    layer = fastrnn.LSTM(64, 512, rng=0)  # hidden units are shared: a barrier a step
    x = np.zeros((150, 1, 64), np.float32)
    layer.freeze()
    def median(n=15):
        times = []
        for _ in range(n):
            start = time.perf_counter()
            layer(x)
            times.append(time.perf_counter() - start)
        return statistics.median(times)
    median()
    alone, crowded = [], []
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        alone.append(median())
        stop = context.Event()
        others = [context.Process(target=burn, args=(stop,)) for _ in range(2)]
        for other in others:
            other.start()
        time.sleep(1)
        crowded.append(median())
        stop.set()
        for other in others:
            other.join()
    print(json.dumps([statistics.median(alone), statistics.median(crowded)]))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_waiting_threads_yield_when_cores_are_taken(tmp_path: Path) -> None:
    """Two threads on two cores that two other processes hold too: at most 2.5 times the time alone."""
    script = tmp_path / "spin.py"
    script.write_text(f"import os\nos.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])\n{SPIN}")
    run = run_python(str(script))
    assert run.returncode == 0, run.stderr
    alone, crowded = json.loads(run.stdout)
    print(f"two threads: {alone * 1e3:.2f} ms alone, {crowded / alone:.2f} times that with both cores taken")
    assert crowded <= 2.5 * alone
