"""Threads that get in each other's way: right numbers or an error that says what happened, never a crash.

All of it runs, and can fail, under the ordinary interpreter: calls of the core release the lock, and a switch interval
of microseconds lets threads meet between any two lines of Python. Tests whose fault would be a crash run in a process
of their own. Long runs: `-m slow`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits, run_python, run_threads

import fastrnn

SECONDS = [pytest.param(1.0, id="short"), pytest.param(20.0, id="long", marks=pytest.mark.slow)]
USED = "tape: expected an unused tape, got one that already served a backward"
IN_USE = "stream: expected one call at a time, got a second one while another runs"


@pytest.fixture(autouse=True)
def eager_switches() -> Iterator[None]:
    """Let threads take turns a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def all_at_once(works: list[Callable[[], None]], seconds: float) -> None:
    """Call each function again and again, all at once; raise what any of them raised."""
    end = time.monotonic() + seconds
    failures: list[BaseException] = []
    together = threading.Barrier(len(works))

    def loop(i: int) -> None:
        together.wait()
        try:
            while time.monotonic() < end and not failures:
                works[i]()
        except BaseException as error:
            failures.append(error)

    run_threads(loop, len(works))
    if failures:
        raise failures[0]


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU])
def test_a_stream_that_two_threads_step(kind: Any, seconds: float) -> None:
    """A step of so many units releases the lock. Whoever comes meanwhile gets an error, and the steps that were
    taken give the numbers of so many steps one after the other."""
    layer = kind(16, 512, rng=0)
    layer.freeze()
    x = np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32)
    rounds = 40
    want = layer(np.repeat(x[None], rounds, axis=0))[0]
    refused = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or not refused:
        assert time.monotonic() < end + 60, "no two steps ever met"
        stream = layer.stream()
        got: list[np.ndarray] = []
        errors: list[str] = []
        together = threading.Barrier(2)

        def work(
            i: int, stream: Any = stream, got: Any = got, out: Any = errors, both: Any = together
        ) -> None:
            both.wait()
            for _ in range(rounds // 2):
                try:
                    got.append(stream.step(x))
                except RuntimeError as refusal:
                    out.append(str(refusal))

        run_threads(work, 2)
        assert all(IN_USE in error for error in errors), errors
        refused += len(errors)
        assert len(got) + len(errors) == rounds
        # Another thread may have noted its result first, so the order is open and the set is not.
        for y in got:
            assert any(np.array_equal(y, step) for step in want[: len(got)])
        state = stream.state
        assert_same_bits((state[0] if isinstance(state, tuple) else state)[-1], want[len(got) - 1])


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_stream_of_which_one_thread_steps_and_others_read_and_reset(seconds: float) -> None:
    """A state that is read is that of some number of whole steps since a reset."""
    layer = fastrnn.LSTM(8, 400, rng=0)
    x = np.ones((1, 8), np.float32)
    fresh, known = layer.stream(), {np.zeros((1, 1, 400), np.float32).tobytes()}
    stream, limit = layer.stream(), 50
    for _ in range(limit):
        known.add(fresh.step(x)[None].tobytes())
    taken = [0]

    def patient(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except RuntimeError as error:
            if IN_USE not in str(error):
                raise
            return None

    def step() -> None:
        if taken[0] == limit:
            if patient(lambda: stream.reset() or True):
                taken[0] = 0
        elif patient(lambda: stream.step(x)) is not None:
            taken[0] += 1

    def read() -> None:
        state = patient(lambda: stream.state)
        if state is not None:
            assert state[0].tobytes() in known

    all_at_once([step, read, read], seconds)


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "ragged"])
def test_a_tape_that_several_backwards_want(ragged: bool, seconds: float) -> None:
    layer = fastrnn.LSTM(4, 48, rng=0)
    values = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    x: Any = fastrnn.Ragged(values, [20, 30, 10]) if ragged else values.reshape(20, 3, 4)
    y, _, tape = layer.forward(x)
    want = layer.backward(tape, y).flat
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        y, _, tape = layer.forward(x)
        outcomes: list[Any] = []
        together = threading.Barrier(4)

        def work(i: int, tape: Any = tape, y: Any = y, out: Any = outcomes, all_four: Any = together) -> None:
            all_four.wait()
            try:
                out.append(layer.backward(tape, y).flat)
            except ValueError as error:
                out.append(str(error))
            assert tape.nbytes >= 0

        run_threads(work, 4)
        served = [out for out in outcomes if not isinstance(out, str)]
        assert len(served) == 1
        assert [out for out in outcomes if isinstance(out, str)] == [USED] * 3
        assert_same_bits(served[0], want)


# What prints "ok" although another thread writes to the lengths that calls have checked.
WRITTEN_MEANWHILE = """
import sys, threading, time
import numpy as np
import fastrnn

sys.setswitchinterval(5e-6)
how, seconds = sys.argv[1], float(sys.argv[2])
layer = fastrnn.LSTM(3, 16, bidirectional=True, rng=0)
x = np.random.default_rng(0).standard_normal((64, 500, 3)).astype(np.float32)
good = np.random.default_rng(1).integers(0, 65, 500)
lengths = good.copy()
ragged = fastrnn.Ragged.from_padded(x, good)
target = ragged.lengths if how == "ragged" else lengths
end = time.monotonic() + seconds

def write():
    rng = np.random.default_rng(2)
    while time.monotonic() < end:
        target[rng.integers(500)] = [-1, 10**12, 2**62, 0, 64, -(2**63)][int(rng.integers(6))]
        time.sleep(0)
        target[:] = good

thread = threading.Thread(target=write)
thread.start()
calls = refused = 0
while time.monotonic() < end:
    calls += 1
    try:
        if how == "ragged":
            y, _, tape = layer.forward(ragged)
            assert len(y.values) == len(ragged.values)
            layer.backward(tape, np.ones_like(y.values) if (y.lengths == 1).all() else y)
        elif how == "attention":
            fastrnn.nn.DotAttention()(x, x, lengths)
        elif how == "helpers":
            fastrnn.Ragged.from_padded(x, lengths)
            list(fastrnn.chunks(x, 30, lengths))
        else:
            y, _, tape = layer.forward(x, lengths=lengths)
            layer.backward(tape, y)
    except (ValueError, OverflowError) as error:
        assert "lengths" in str(error) or how == "helpers", error
        refused += 1
thread.join()
assert refused or seconds < 0.5, "the writer was never noticed"
print("ok", calls, refused)
"""


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("how", ["padded", "ragged", "attention", "helpers"])
def test_lengths_that_are_written_meanwhile(how: str, seconds: float) -> None:
    run = run_python("-c", WRITTEN_MEANWHILE, how, str(seconds))
    assert run.stdout.startswith("ok"), (run.returncode, run.stdout, run.stderr)


def test_the_outputs_of_a_ragged_call_keep_the_lengths_that_it_read() -> None:
    """Whoever fills one Ragged again for the next batch does not change what the last call returned."""
    layer = fastrnn.GRU(3, 4, rng=0)
    ragged = fastrnn.Ragged(np.ones((4, 3), np.float32), np.array([3, 1]))
    y, _, tape = layer.forward(ragged)
    inferred, _ = layer(ragged)
    ragged.lengths[:] = [1, 3]
    assert y.lengths.tolist() == inferred.lengths.tolist() == [3, 1]
    g = layer.backward(tape, fastrnn.Ragged(np.ones((4, 4), np.float32), [3, 1]))
    assert g.x.lengths.tolist() == [3, 1]


def test_a_ragged_keeps_the_lengths_that_it_was_made_of() -> None:
    lengths = np.array([3, 1])
    ragged = fastrnn.Ragged(np.ones((4, 3), np.float32), lengths)
    lengths[:] = [1, 3]
    assert ragged.lengths.tolist() == [3, 1]


@pytest.mark.parametrize("seconds", SECONDS)
def test_layers_that_are_frozen_and_thawed_by_several_threads(seconds: float) -> None:
    """Calls and streams beside it give the right numbers, and in the end flags and weights agree."""
    layer = fastrnn.LSTM(6, 32, 2, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 1, 6)).astype(np.float32)
    want = layer(x)[0]

    def call() -> None:
        assert_same_bits(layer(x)[0], want)

    def stream() -> None:
        assert_same_bits(layer.stream().run(x), want)

    all_at_once([layer.freeze, layer.unfreeze, layer.freeze, layer.unfreeze, call, stream], seconds)
    for _ in range(2):
        consistent(layer)
        layer.unfreeze()
    assert not layer.frozen


def consistent(layer: Any) -> None:
    """A frozen layer cannot be written to, or its packed weights would no longer be those of the parameters."""
    writeable = [layer.flat.flags.writeable, *(view.flags.writeable for view in layer.params.values())]
    assert writeable == [not layer.frozen] * len(writeable)


@pytest.mark.parametrize("seconds", SECONDS)
def test_freezing_ends_in_one_state_whatever_came_between(seconds: float) -> None:
    """Many meetings of two threads, after each of which flags and packed weights must agree."""
    layer = fastrnn.GRU(4, 16, 3, rng=0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        together = threading.Barrier(2)

        def work(i: int, both: Any = together) -> None:
            both.wait()
            for _ in range(20):
                (layer.freeze, layer.unfreeze)[i]()

        run_threads(work, 2)
        consistent(layer)


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_layer_that_is_loaded_and_stepped_beside_calls(seconds: float) -> None:
    """A call may see old weights, new ones or a mixture of both; once nobody writes, it sees the new ones."""
    layer = fastrnn.GRU(5, 24, 2, rng=0)
    x = np.ones((10, 4, 5), np.float32)
    states = [fastrnn.GRU(5, 24, 2, rng=seed).state_dict() for seed in (1, 2)]
    optimiser = fastrnn.optim.Adam([layer], lr=1e-4)
    gradient = np.ones_like(layer.flat)

    def load() -> None:
        for state in states:
            layer.load_state_dict(state)

    def call() -> None:
        assert np.isfinite(layer(x)[0]).all()

    def train() -> None:
        y, _, tape = layer.forward(x)
        try:
            assert np.isfinite(layer.backward(tape, y).flat).all()
        except ValueError as error:  # what is noticed of a change between the two
            if not str(error).startswith("tape: expected the parameters to be those of its forward"):
                raise

    def save() -> None:
        assert all(np.isfinite(array).all() for array in layer.state_dict().values())

    all_at_once([load, call, train, save, lambda: optimiser.step([gradient])], seconds)
    layer.load_state_dict(states[0])
    other = fastrnn.GRU(5, 24, 2)
    other.load_state_dict(states[0])
    assert_same_bits(layer(x)[0], other(x)[0])


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_layer_that_is_frozen_while_it_is_loaded(seconds: float) -> None:
    """The weights are those of one state dict as a whole, and the call that came too late says why."""
    layer = fastrnn.GRU(5, 24, 2, rng=0)
    states = [fastrnn.GRU(5, 24, 2, rng=seed).state_dict() for seed in (1, 2)]
    wholes = [np.concatenate([array.ravel() for array in state.values()]).tobytes() for state in states]
    layer.load_state_dict(states[0])

    def load(state: Any) -> None:
        try:
            layer.load_state_dict(state)
        except ValueError as error:
            if str(error) != "load_state_dict: the layer is frozen; unfreeze() it first":
                raise

    def freeze() -> None:
        layer.freeze()
        assert layer.flat.tobytes() in wholes
        layer.unfreeze()

    all_at_once([lambda: load(states[0]), freeze, lambda: load(states[1])], seconds)
