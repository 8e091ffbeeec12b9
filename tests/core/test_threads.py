"""Threads: callers that share a layer, the interpreter's lock, tapes, and fewer threads than asked for."""

from __future__ import annotations

import statistics
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from conftest import (
    KINDS,
    Variant,
    assert_same_bits,
    make_case,
    make_layer,
    posix,
    run_layer,
    run_python,
    run_threads,
)

import fastrnn


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

    run_threads(work, len(cases))
    for results, expected in zip(got, want, strict=True):
        assert len(results) == 5
        for result in results:
            assert_same_bits(result, expected)


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

    run_threads(work, 8)
    assert failures == []


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
            i: int,
            tape: object = tape,
            y: np.ndarray = y,
            out: list[str] = outcomes,
            barrier: threading.Barrier = together,
        ) -> None:
            barrier.wait()
            try:
                layer.backward(tape, y)
                out.append("served")
            except ValueError as error:
                out.append(str(error))

        run_threads(work, 4)
        used = "tape: expected an unused tape, got one that already served a backward"
        assert sorted(outcomes) == ["served", used, used, used]


def test_a_tape_is_taken_while_its_gradient_is_read() -> None:
    """Reading ``dy`` may run any code, another backward of the tape too; a call that fails leaves it unused."""
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


def test_threads_come_from_the_environment() -> None:
    run = run_python("-c", "import fastrnn; print(fastrnn.get_num_threads())", OMP_NUM_THREADS="3")
    assert run.stdout.strip() == "3"


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
