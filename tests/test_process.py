"""The library as a guest in somebody else's process: threads, signals, forks, and the floating-point mode."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import KINDS, Variant, assert_same_bits, make_case, make_layer, run_layer, run_python

import fastrnn

STATM = Path("/proc/self/statm")
posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX")


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_share_a_layer(kind: str) -> None:
    v = Variant(kind, 2, True, I=12, H=40, T=30, B=9)
    cases = [make_case(v, seed) for seed in range(6)]
    layer = make_layer(v, cases[0].params)
    want = [run_layer(layer, case, lengths=case.lengths) for case in cases]
    got: list = [[] for _ in cases]

    def work(i: int) -> None:
        for _ in range(5):
            got[i].append(run_layer(layer, cases[i], lengths=cases[i].lengths))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, expected in zip(got, want, strict=True):
        assert len(results) == 5
        for result in results:
            assert_same_bits(result, expected)


def test_the_lock_is_released() -> None:
    """While a long call runs, this thread goes on."""
    layer = fastrnn.LSTM(4, 128)
    x = np.zeros((20_000, 1, 4), np.float32)
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        layer(x)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    ticks = 0
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks >= 10


def test_subnormal_numbers_survive_a_call() -> None:
    """Flushing them to zero speeds up the kernels, but the mode belongs to the caller."""
    small = np.full(8, 1e-40, np.float32)
    v = Variant("lstm", 2, True, H=64, T=20, B=16)
    case = make_case(v)
    case.x[...] = 1e-40
    layer = make_layer(v, case.params)
    run_layer(layer, case)
    stream = fastrnn.GRU(3, 4).stream()
    stream.step(np.full(3, 1e-40, np.float32))
    with pytest.raises(ValueError, match=r"^x: "):
        layer(np.zeros((1, 1, 99), np.float32))
    assert (small * np.float32(0.5) > 0).all()
    assert float(small[0]) * 1e-280 > 0


def test_subnormal_numbers_are_not_slow() -> None:
    """A state that decays to nothing takes no longer than any other."""
    layer = fastrnn.RNN(1, 128, bias=False)
    layer.flat[:] = 0
    layer.params["weight_hh_l0"][...] = np.eye(128, dtype=np.float32)
    x = np.zeros((4000, 1, 1), np.float32)

    def seconds(value: float) -> float:
        best = 1e9
        for _ in range(5):
            start = time.perf_counter()
            layer(x, np.full((1, 1, 128), value, np.float32))
            best = min(best, time.perf_counter() - start)
        return best

    seconds(0.5)
    assert seconds(1e-40) < 3 * seconds(0.5)


INTERRUPT = """
import json, signal, sys, time
import numpy as np
import fastrnn
layer = fastrnn.LSTM(8, 256, rng=0)
x = np.zeros((40_000, 16, 8), np.float32)
short, _ = layer(x[:5])
call = {"inference": layer, "training": layer.forward}[sys.argv[1]] if sys.argv[1] != "backward" else None
if call is None:
    x = x[:8000]
    y, _, tape = layer.forward(x)
    dy = np.ones_like(y)
    call = lambda x: layer.backward(tape, dy)
sent = []
import os, threading
def send():
    time.sleep(0.15)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send, daemon=True).start()
try:
    call(x)
    caught = False
except KeyboardInterrupt:
    caught = True
after = time.perf_counter() - (sent[0] if sent else 0)
print(json.dumps({"caught": caught, "seconds": after, "usable": bool((layer(x[:5])[0] == short).all())}))
"""


@posix
@pytest.mark.parametrize("call", ["inference", "training", "backward"])
def test_interrupt_ends_a_long_call(call: str) -> None:
    run = run_python("-c", INTERRUPT, call)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["caught"], "the call was over before the signal"
    assert result["seconds"] < 0.5
    assert result["usable"]


IMPORT = """
import time
import numpy
start = time.perf_counter()
import fastrnn
print(time.perf_counter() - start)
"""


def test_import_is_quick() -> None:
    seconds = [float(run_python("-c", IMPORT).stdout) for _ in range(5)]
    assert min(seconds) < 0.05


def test_import_needs_nothing_but_numpy() -> None:
    names = ("torch", "scipy", "matplotlib", "tqdm")
    code = f"import sys, fastrnn; print([m for m in {names} if m in sys.modules])"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_threads_come_from_the_environment() -> None:
    run = run_python("-c", "import fastrnn; print(fastrnn.get_num_threads())", OMP_NUM_THREADS="3")
    assert run.stdout.strip() == "3"


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    fastrnn.show_config()
    text = capsys.readouterr().out
    for word in ("fastrnn", "kernel set:", "threads:", "compiler:"):
        assert word in text


@pytest.mark.skipif(not STATM.exists(), reason="no /proc/self/statm, so memory is not watched")
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
        gc.collect()
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = some(50)
    assert some(200) - before < 4_000_000


@posix
def test_interrupt_from_the_keyboard_is_the_default() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# -- threads


def test_eight_threads_give_the_serial_bits() -> None:
    """All on one layer, each with its own tapes, streams and sizes, with freezing in between."""
    v = Variant("lstm", 2, I=12, H=40, T=30, B=9)
    cases = [make_case(Variant(**vars(v) | {"T": 5 + 5 * i, "B": 1 + i}), i) for i in range(8)]
    layer = make_layer(v, cases[0].params)
    want = [(run_layer(layer, case), layer(case.x)[0]) for case in cases]
    failures: list[str] = []
    together = threading.Barrier(8)

    def work(i: int) -> None:
        together.wait()
        for turn in range(6):
            if i == 0:
                layer.freeze() if turn % 2 else layer.unfreeze()
            try:
                assert_same_bits(run_layer(layer, cases[i], checkpoint=None if turn % 2 else 3), want[i][0])
                assert_same_bits(layer.stream(i + 1).run(cases[i].x), want[i][1])
            except Exception as error:
                failures.append(f"thread {i}: {error}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["as it is", "dy is cast first"])
def test_one_tape_serves_one_of_many_threads(dtype: type) -> None:
    """A tape is used up by the first backward to begin, so that no two change or free its memory."""
    layer = fastrnn.LSTM(8, 64, rng=0)
    x = np.ones((400, 8, 8), np.float32)
    for _ in range(3):
        y, _, tape = layer.forward(x)
        y = y.astype(dtype)
        outcomes: list[str] = []
        together = threading.Barrier(4)

        def work(
            tape: object = tape,
            y: np.ndarray = y,
            out: list[str] = outcomes,
            meet: threading.Barrier = together,
        ) -> None:
            meet.wait()
            try:
                layer.backward(tape, y)
                out.append("served")
            except ValueError as error:
                out.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        used = "tape: expected an unused tape, got one that already served a backward"
        assert sorted(outcomes) == ["served", used, used, used]


def test_a_tape_is_taken_while_its_gradient_is_read() -> None:
    """Reading ``dy`` may run any code, another backward of the tape too; a call that fails leaves it fresh."""
    layer = fastrnn.LSTM(3, 4, rng=0)
    y, _, tape = layer.forward(np.ones((5, 2, 3), np.float32))

    class Gradient:
        errors: ClassVar[list[str]] = []

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            try:
                layer.backward(tape, np.ones_like(y))
            except ValueError as error:
                self.errors.append(str(error))
            return np.ones_like(y)

    with pytest.raises(ValueError, match="dstate"):
        layer.backward(tape, np.ones_like(y), (np.ones(3, np.float32), None))
    got = layer.backward(tape, Gradient()).flat
    assert Gradient.errors == ["tape: expected an unused tape, got one that already served a backward"]
    y, _, tape = layer.forward(np.ones((5, 2, 3), np.float32))
    assert_same_bits(got, layer.backward(tape, np.ones_like(y)).flat)


def test_a_python_thread_keeps_its_pace_during_a_call() -> None:
    """Loops a second of pure Python beside a one-threaded call, against the same loops alone, in turns."""
    layer = fastrnn.LSTM(4, 128)
    x = np.zeros((10_000, 1, 4), np.float32)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)

    def pace(done: threading.Event) -> float:
        loops, start = 0, time.perf_counter()
        while not done.is_set():
            loops += 1
        return loops / (time.perf_counter() - start)

    def beside(call: object) -> float:
        done, begun = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            call()  # type: ignore[operator]
            done.set()

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        result = pace(done)
        thread.join()
        return result

    try:
        pairs = [(beside(lambda: time.sleep(0.2)), beside(lambda: layer(x))) for _ in range(7)]
    finally:
        fastrnn.set_num_threads(before)
    alone, busy = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert busy >= 0.5 * alone


# what prints "ok" where OpenMP gives a call fewer threads than it asked for
FEWER = """
import ctypes, os, signal, sys, threading, time
import numpy as np
import fastrnn
fastrnn.set_num_threads(4)
layer = fastrnn.LSTM(32, 128, rng=0)
x = np.ones((50, 64, 32), np.float32)
if sys.argv[1] == "nested":
    path = [line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line][0]
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: layer(x))
    ctypes.CDLL(path).GOMP_parallel(call, None, 2, 0)
elif sys.argv[1] == "handler":
    signal.signal(signal.SIGALRM, lambda *_: layer(x))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    long = np.zeros((20_000, 16, 32), np.float32)
    start = time.perf_counter()
    while time.perf_counter() - start < 1:
        layer(long[:8000])
else:
    layer(x)
print("ok")
"""


@posix
@pytest.mark.parametrize(
    ("how", "environment"),
    [
        ("plain", {"OMP_DYNAMIC": "true"}),
        ("plain", {"OMP_THREAD_LIMIT": "2"}),
        ("plain", {"OMP_MAX_ACTIVE_LEVELS": "0"}),
        ("nested", {}),
        ("handler", {}),
    ],
    ids=["dynamic", "limit", "no levels", "nested", "from a signal handler"],
)
def test_fewer_threads_than_asked_for(how: str, environment: dict[str, str]) -> None:
    run = run_python("-c", FEWER, how, **environment)
    assert run.stdout.strip() == "ok", run.stderr


# -- processes

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


@pytest.mark.skipif(not STATM.exists(), reason="no /proc, so threads are not counted")
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
    assert run.stdout.strip() == "[1, 0, 3, 2]", run.stderr


@pytest.mark.skipif(not STATM.exists(), reason="no /proc, so threads are not counted")
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


# -- memory


def resident() -> int:
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATM.exists(), reason="no /proc/self/statm, so memory is not watched")
@pytest.mark.parametrize("how", ["short-lived threads", "changing shapes"])
def test_memory_stays_within_a_megabyte(how: str) -> None:
    code = f"""
import sys
sys.argv = ["", {how!r}]
from test_process import measure_memory
measure_memory()
"""
    run = run_python("-c", code, OMP_NUM_THREADS="2", MALLOC_ARENA_MAX="2")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 1_000_000, f"{run.stdout} bytes more"


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


@pytest.mark.skipif(not STATM.exists(), reason="no /proc/self/statm, so memory is not watched")
def test_kept_blocks_do_not_lose_their_size() -> None:
    """A block used for a little less than it holds would come back as less, and the next call want a new one."""
    assert int(run_python("-c", FALLING, OMP_NUM_THREADS="1").stdout) < 16 << 20


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
            threads = [threading.Thread(target=call, args=(24, 24)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    sizes = []
    for part in np.split(shapes, 10):
        change(part) if sys.argv[1] == "changing shapes" else live_shortly(12)
        sizes.append(resident())
    # single looks differ by what the allocator happens to hold; a leak would raise the least of several
    print(min(sizes[6:]) - min(sizes[2:6]))


# -- signals

HANDLER = """
import json, os, signal, sys, threading, time
import numpy as np
import fastrnn
layer = fastrnn.GRU(8, 256, rng=0)
x = np.zeros((6000, 16, 8), np.float32)
want = layer(x)[0]
sent, seen, half, two = [], [], [], 2.0
def handler(*_):
    seen.append(time.perf_counter())
    half.append(sys.float_info.min / two)
signal.signal(signal.SIGUSR1, handler)
def send():
    time.sleep(0.1)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGUSR1)
thread = threading.Thread(target=send)
thread.start()
y = layer(x)[0]
thread.join()
print(json.dumps({"same": bool((y == want).all()), "seconds": seen[0] - sent[0], "half": half[0]}))
"""


@posix
def test_a_signal_handler_runs_during_a_call() -> None:
    """One that raises nothing does not end the call."""
    run = run_python("-c", HANDLER)
    result = json.loads(run.stdout)
    assert result["same"]
    assert result["seconds"] < 0.5


@posix
def test_a_signal_handler_computes_in_the_callers_mode() -> None:
    """And not with subnormals flushed to zero."""
    assert json.loads(run_python("-c", HANDLER).stdout)["half"] == sys.float_info.min / 2


FORKED = """
import os, signal, threading, time
import numpy as np
import fastrnn
layer, x = fastrnn.LSTM(8, 256, rng=0), np.zeros((6000, 16, 8), np.float32)
layer(x[:2])
def fork():
    if os.fork():
        os.wait()
        return
    def stop(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    began = time.perf_counter()
    try:
        layer(x)
    except KeyboardInterrupt:
        print(time.perf_counter() - began, flush=True)
    os._exit(0)
thread = threading.Thread(target=fork)
thread.start()
thread.join()
"""


@posix
def test_interrupt_in_the_child_of_a_thread() -> None:
    """The thread that forked is the main thread of the child."""
    assert float(run_python("-c", FORKED).stdout) < 0.6


WAITING = """
import signal, time
import numpy as np
import fastrnn
fastrnn.set_num_threads(4)
layer, x = fastrnn.LSTM(1, 64, 2, bidirectional=True), np.broadcast_to(np.zeros(1, np.float32), (600_000, 1, 1))
def stop(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, stop)
began = time.perf_counter()
layer(x[:60_000])
length = 10 * (time.perf_counter() - began)
late = []
for at in [0.55] * 12:  # two threads have the upper layer; now and then the main one is not among them
    signal.setitimer(signal.ITIMER_REAL, at * length)
    began = time.perf_counter()
    try:
        layer(x)
    except KeyboardInterrupt:
        late.append(time.perf_counter() - began - at * length)
    signal.setitimer(signal.ITIMER_REAL, 0)
print(max(late, default=0))
"""


@posix
@pytest.mark.slow
def test_interrupt_while_threads_wait_for_each_other() -> None:
    assert float(run_python("-c", WAITING).stdout) < 0.5


AGAIN = """
import os, signal, threading, time
import numpy as np
import fastrnn
layer = fastrnn.LSTM(8, 256, rng=0)
y, _, tape = layer.forward(np.zeros((4000, 16, 8), np.float32))
dy = np.ones_like(y)
def send():
    time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send, daemon=True).start()
try:
    layer.backward(tape, dy)
except KeyboardInterrupt:
    try:
        layer.backward(tape, dy)
    except ValueError as error:
        print(error)
"""


@posix
def test_an_interrupted_backward_has_used_up_its_tape() -> None:
    """Its memory is half overwritten: another backward would give wrong gradients without a word."""
    run = run_python("-c", AGAIN)
    assert run.stdout.strip() == "tape: expected an unused tape, got one that already served a backward"


SHAPES = {
    "one wide step": "layer, x = fastrnn.LSTM(256, 256), view(1, 150_000, 256)",
    "wide inputs": "layer, x = fastrnn.GRU(20_000, 32), view(4000, 8, 20_000)",
    "many layers": "layer, x = fastrnn.GRU(4, 8, 50, bidirectional=True), view(20_000, 1, 4)",
    "one row": "layer, x = fastrnn.RNN(4, 64), view(1_000_000, 1, 4)",
    "one row, wide inputs": "layer, x = fastrnn.LSTM(128, 64), view(300_000, 1, 128)",
}
WIDE = pytest.mark.xfail(
    reason="a call asks for signals between steps only, and one step can be long", strict=False
)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("shape", [pytest.param(s, marks=[WIDE] * (s == "one wide step")) for s in SHAPES])
def test_interrupt_ends_calls_of_any_shape(shape: str) -> None:
    code = f"""
import os, signal, threading, time
import numpy as np
import fastrnn
view = lambda *shape: np.broadcast_to(np.zeros(shape[-1], np.float32), shape)
{SHAPES[shape]}
sent = []
def send():
    time.sleep(0.4)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send, daemon=True).start()
try:
    y, _, tape = layer.forward(x, checkpoint="auto")
    layer.backward(tape, y)
    print(9)
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
"""
    run = run_python("-c", code)
    assert float(run.stdout) < 0.5, run.stderr


# -- a core taken away

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
