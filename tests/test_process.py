"""The library as a guest in somebody else's process: threads, signals, forks, and the floating-point mode."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

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


FORK = """
import os, sys
import numpy as np
import fastrnn
layer = fastrnn.LSTM(32, 128, rng=0)
x = np.ones((20, 64, 32), np.float32)
y, _ = layer(x)
pid = os.fork()
if pid == 0:
    again, _ = layer(x)
    os._exit(0 if (again == y).all() and fastrnn.get_num_threads() == 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@posix
def test_a_forked_child_does_not_hang() -> None:
    run = subprocess.run(
        [sys.executable, "-c", FORK], timeout=60, env=os.environ | {"OMP_NUM_THREADS": "4"}, check=False
    )
    assert run.returncode == 0


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
def on_alarm(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, signal.SIG_DFL)
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
