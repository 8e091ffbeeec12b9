"""Signals: Ctrl-C ends a call, and other handlers run during it."""

from __future__ import annotations

import json
import signal
import sys

import pytest
from conftest import posix, run_python


@posix
def test_interrupt_from_the_keyboard_is_the_default() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
