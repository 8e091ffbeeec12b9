"""Numbers that break arithmetic: NaN, infinities, subnormals, the floating-point mode, and sizes beyond 2**31."""

from __future__ import annotations

import ctypes
import json
import platform
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import (
    KIND,
    KINDS,
    Variant,
    assert_same_bits,
    make_case,
    make_layer,
    make_torch,
    run_layer,
    run_python,
    run_reference,
)

import fastrnn

glibc_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="the layout of fenv_t is known for glibc on x86-64 only",
)


# -- NaN and infinities


@pytest.mark.parametrize("where", ["x", "h0", "c0", "dy", "dh", "dc"])
@pytest.mark.parametrize("options", ["dense", "lengths and reset"])
@KIND
def test_nan_stays_in_its_row(kind: str, options: str, where: str) -> None:
    v = Variant(kind, 2, True, B=6, H=17)
    if where in ("c0", "dc") and kind != "lstm":
        return  # no cell state
    case = make_case(v)
    layer = make_layer(v, case.params)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in options}
    if kwargs:
        case.lengths[3] = v.T
        case.reset[:, 3] = False
    want = run_layer(layer, case, **kwargs)
    array = {"x": case.x, "dy": case.dy}.get(where)
    if array is None:
        state = case.dstate if where[0] == "d" else case.state
        array = state if kind != "lstm" else state["hc".index(where[-2 if where[0] != "d" else 1])]
    array[:, 3] = np.nan
    got = run_layer(layer, case, **kwargs)
    others = np.arange(v.B) != 3
    assert any(np.isnan(a).any() for a in got.values()), "the NaN has vanished"
    for key in got:
        if not key.startswith(("dweight", "dbias")):
            assert_same_bits(got[key][:, others], want[key][:, others], key)


VALUES = {"inf": np.inf, "-inf": -np.inf, "1e30": 1e30, "-1e30": -1e30}
PLACES = [(kind, where) for kind in KINDS for where in ("x", "h0", "c0") if where != "c0" or kind == "lstm"]


def special(v: Variant, where: str, value: str) -> Any:
    """A case with an infinite or very large number at one place of several rows."""
    case = make_case(v)
    number = VALUES[value]
    if where == "x":
        case.x[1, 0, 2] = case.x[v.T - 1, 2, 0] = number
    else:
        state = case.state[where == "c0"] if v.states == 2 else case.state
        state[0, 1, 0] = state[1, 2, 3] = number
    return case


def assert_saturated(got: np.ndarray, want: np.ndarray) -> None:
    """NaN and infinities at the same places, the rest close as sums of that size are."""
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    largest = max(1.0, np.abs(want[finite]).max(initial=0))
    np.testing.assert_allclose(got[finite], want[finite], rtol=1.3e-6, atol=1e-5 * largest)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("kind", "where"), [p for p in PLACES if p[0] != "gru_before"])
def test_infinities_saturate_as_in_torch(kind: str, where: str, dtype: Any, value: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed, so nothing is compared with PyTorch")
    v = Variant(kind, bidirectional=True, B=4, dtype=dtype)
    case = special(v, where, value)
    net = make_torch(v, case.params)
    state = tuple(map(torch.from_numpy, case.state)) if v.states == 2 else torch.from_numpy(case.state)
    with torch.no_grad():
        want, _ = net(torch.from_numpy(case.x), state)
    assert_saturated(make_layer(v, case.params)(case.x, case.state)[0], want.numpy())


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("kind", "where"), PLACES)
def test_infinities_saturate_as_in_the_reference(kind: str, where: str, value: str) -> None:
    v = Variant(kind, bidirectional=True, B=4, dtype=np.float64)
    case = special(v, where, value)
    with np.errstate(all="ignore"):
        want = run_reference(v, case)
    assert_saturated(make_layer(v, case.params)(case.x, case.state)[0], want["y"])


@pytest.mark.parametrize("closed", [-1e30, -1000.0, -710.0, -708.0, -100.0, -88.0, -87.0, -86.8, -86.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_before"])
def test_a_closed_gate_lets_the_other_half_through(kind: str, dtype: Any, closed: float) -> None:
    """z of a GRU at 0 leaves h = n, whatever n is; i and o of an LSTM at 0 leave c and h at f c and 0."""
    v = Variant(kind, I=1, H=40, T=2, B=1, dtype=dtype)
    params = {key: np.zeros(shape, dtype) for key, shape in v.shapes().items()}
    gate = 0 if kind == "lstm" else 1
    params["bias_ih_l0"][gate * v.H : (gate + 1) * v.H] = closed
    params["bias_ih_l0"][2 * v.H : 3 * v.H] = np.linspace(-3, 3, v.H)
    case = make_case(v)
    case.params = params
    got, want = run_layer(make_layer(v, params), case), run_reference(v, case)
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=1.3e-6, atol=1e-5, err_msg=key)


# -- the floating-point mode belongs to the caller

FLAGS = 0x3F  # what has happened so far, which any arithmetic may add to


def environment() -> tuple[int, int, int]:
    """x87 control word, MXCSR without its flags, rounding mode, of the calling thread."""
    libm = ctypes.CDLL("libm.so.6")
    room = (ctypes.c_uint32 * 8)()
    assert libm.fegetenv(room) == 0
    return room[0] & 0xFFFF, room[7] & ~FLAGS, libm.fegetround()


def calls() -> Iterator[tuple[str, Any]]:
    """Every kind of call, each big enough for several threads."""
    x = np.full((30, 40, 32), 1e-40, np.float32)
    for kind in KINDS:
        layer = make_layer(Variant(kind, 2, True, I=32, H=64))
        frozen = make_layer(Variant(kind, I=32, H=64))
        frozen.freeze()
        stream = frozen.stream(40)
        yield f"{kind} inference", lambda layer=layer: layer(x)
        yield f"{kind} frozen", lambda frozen=frozen: frozen(x)
        yield f"{kind} step", lambda stream=stream: stream.step(x[0])
        yield f"{kind} run", lambda stream=stream: stream.run(x)

        def train(layer: Any = layer) -> None:
            y, _, tape = layer.forward(x, checkpoint=5)
            layer.backward(tape, np.ones_like(y))

        yield f"{kind} training", train

        def fail(layer: Any = layer) -> None:
            with pytest.raises(ValueError, match=r"^x: "):
                layer(x[:, :, :3])

        yield f"{kind} error", fail


@glibc_x86
@pytest.mark.parametrize("rounding", [0, 0x400, 0x800, 0xC00], ids=["nearest", "down", "up", "to zero"])
def test_the_mode_of_the_calling_thread_stays(rounding: int) -> None:
    """Also a mode of its own, in the main thread and in another; and the mode changes no bit of the result."""
    want = [layer_bits() for _ in range(2)]
    failures: list[str] = []

    def work() -> None:
        libm = ctypes.CDLL("libm.so.6")
        todo = list(calls())
        libm.fesetround(rounding)
        try:
            before = environment()
            for name, call in todo:
                call()
                if environment() != before:
                    failures.append(name)
            if layer_bits() != want[0]:
                failures.append("bits")
        finally:
            libm.fesetround(0)

    assert want[0] == want[1]
    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []


def layer_bits() -> bytes:
    v = Variant("lstm", 1, True, I=32, H=64, T=30, B=40)
    case = LAYER_CASE or LAYER_CASE.append(make_case(v)) or LAYER_CASE
    result = run_layer(make_layer(v, case[0].params), case[0])
    return b"".join(result[key].tobytes() for key in sorted(result))


LAYER_CASE: list[Any] = []


@glibc_x86
def test_the_mode_of_the_threads_of_openmp_stays() -> None:
    """Seen from inside: a region of the same libgomp, whose threads fastrnn has used before."""
    paths = {
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line
    }
    seen: list[tuple[int, Any]] = []
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
        lambda _: seen.append((threading.get_native_id(), environment()))
    )
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(3)
    try:
        want = environment()
        for _, call in calls():
            call()
        for path in paths:  # torch and scikit-learn may have brought copies of their own
            ctypes.CDLL(path).GOMP_parallel(callback, None, 3, 0)
    finally:
        fastrnn.set_num_threads(before)
    assert len({thread for thread, _ in seen}) >= 3
    assert {mode for _, mode in seen} == {want}


@glibc_x86
def test_import_leaves_the_mode_alone() -> None:
    code = """
from test_numbers import environment
import sys
assert "fastrnn" in sys.modules
"""
    # this module imports fastrnn itself, so the first look is taken without it
    look = "import ctypes; room = (ctypes.c_uint32 * 8)(); ctypes.CDLL('libm.so.6').fegetenv(room)"
    show = "print(room[0] & 0xffff, room[7] & ~0x3f)"
    run = run_python("-c", f"{look}; {show}\nimport fastrnn, fastrnn.models\n{look}; {show}")
    before, after = run.stdout.splitlines()
    assert before == after, run.stderr
    assert run_python("-c", code).returncode == 0


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


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "training"])
@KIND
def test_subnormal_inputs_cost_nothing(kind: str, mode: str) -> None:
    """Median time of a call on subnormal numbers, against ordinary ones, in turns: at most 1.2 times.

    CPU time of one thread, so that other processes do not count.
    """
    v = Variant(kind, I=64, H=128, T=100, B=4)
    cases = [make_case(v), make_case(v)]
    for array in (cases[1].x, *cases[1].params.values(), cases[1].dy):
        array *= np.float32(1e-39)
    layers = [make_layer(v, case.params) for case in cases]

    def seconds(i: int) -> float:
        start = time.thread_time()
        if mode == "inference":
            layers[i](cases[i].x)
        else:
            tape = layers[i].forward(cases[i].x)[2]
            layers[i].backward(tape, cases[i].dy)
        return time.thread_time() - start

    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)
    try:
        times = [(seconds(0), seconds(1)) for _ in range(41)][5:]
    finally:
        fastrnn.set_num_threads(before)
    ratio = statistics.median(b for _, b in times) / statistics.median(a for a, _ in times)
    print(f"subnormal inputs, {kind} {mode}: {ratio:.2f} of the time of ordinary ones")
    assert ratio <= 1.2


# -- sizes


@pytest.mark.slow
@pytest.mark.parametrize(("T", "B", "H"), [(5, 2**23 // 5 + 1, 64), (2**21, 17, 16), (2897, 2897, 64)])
def test_more_than_2_31_gates(T: int, B: int, H: int) -> None:
    """T * B * 4 H > 2**31; all rows are alike, so each must have the bits of one row alone."""
    assert T * B * 4 * H > 2**31
    layer = fastrnn.LSTM(4, H, rng=0)
    steps = np.random.default_rng(0).standard_normal((T, 1, 4), np.float32)
    x = np.broadcast_to(steps, (T, B, 4))  # no stride between rows
    dy = np.broadcast_to(np.float32(1e-3), (B, H))
    want_y, want_state, tape = layer.forward(steps, checkpoint="auto")
    want = layer.backward(tape, dy[:1])
    y, state, tape = layer.forward(x, checkpoint="auto")
    for b in {0, 1, B // 2, B - 1}:
        assert_same_bits(y[:, b], want_y[:, 0])
        assert_same_bits(state[0][:, b], want_state[0][:, 0])
    assert (y[-1] == want_y[-1]).all()
    del y
    g = layer.backward(tape, dy)
    for b in {0, 1, B // 2, B - 1}:
        assert_same_bits(g.x[:, b], want.x[:, 0])
        assert_same_bits(g.state[1][:, b], want.state[1][:, 0])
    for key, value in want.params.items():  # sums of B equal terms, rounded as sums are
        scale = np.abs(value).max() * B
        np.testing.assert_allclose(g.params[key], value * np.float32(B), rtol=1e-2, atol=1e-3 * scale)


LIMITED = """
import json, resource, sys
import numpy as np
import fastrnn
fastrnn.set_num_threads(1)
x = np.zeros((20, 4, 3), np.float32)
layer = fastrnn.LSTM(3, 8, rng=0)
want = layer(x)[0]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
view = lambda *shape: np.broadcast_to(np.float32(0), shape)
huge = 2**31 - 1
attempts = {
    "hidden_size": lambda: fastrnn.LSTM(3, huge),
    "both sizes": lambda: fastrnn.GRU(huge, huge),
    "a size that could be addressed": lambda: fastrnn.RNN(1, 2**15),
    "num_layers": lambda: fastrnn.RNN(1, 1, huge),
    "num_layers and a size": lambda: fastrnn.RNN(1, 2**20, 10_000),
    "proj_size": lambda: fastrnn.LSTM(3, huge, proj_size=huge - 1),
    "cell": lambda: fastrnn.LSTMCell(huge, huge),
    "steps": lambda: layer(None, steps=huge),
    "steps in training": lambda: layer.forward(None, steps=2**22),
    "steps with lengths": lambda: layer(None, steps=huge, lengths=np.zeros(4, int)),
    "zero-stride x": lambda: layer(view(2**40, 2**10, 3)),
    "zero-stride x in training": lambda: layer.forward(view(2**20, 2**6, 3)),
    "rows": lambda: layer(view(1, 2**40, 3)),
    "rows in training": lambda: layer.forward(view(1, 2**22, 3)),
    "checkpointed": lambda: layer.forward(view(2**24, 1, 3), checkpoint="auto"),
    "strided x": lambda: layer(view(2**30, 4, 3)[::2, :, ::-1]),
    "state": lambda: layer(x, (view(1, 2**40, 8), view(1, 2**40, 8))),
    "stream": lambda: layer.stream(huge),
    "stream of double": lambda: fastrnn.GRU(3, 8, dtype=float).stream(2**28),
    "Ragged": lambda: layer(fastrnn.Ragged(view(2**40, 3), [2**40])),
    "dropout": lambda: fastrnn.GRU(3, 8, 3, dropout=0.5).forward(view(2**22, 4, 3)),
    "functional": lambda: fastrnn.functional.lstm(view(2**40, 1, 3), None, layer.params),
    "double of a float32 view": lambda: fastrnn.GRU(3, 8, dtype=float)(view(2**30, 1, 3)),
}
result = {}
for name, attempt in attempts.items():
    try:
        attempt()
        result[name] = "nothing"
    except (MemoryError, ValueError) as error:
        result[name] = type(error).__name__
result["usable"] = bool((layer(x)[0] == want).all())
print(json.dumps(result))
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="RLIMIT_AS is not kept elsewhere")
def test_absurd_sizes_are_errors_under_a_memory_limit() -> None:
    """Where nothing can be allocated: MemoryError or ValueError, at once, and the process lives on."""
    start = time.perf_counter()
    run = run_python("-c", LIMITED)
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout)
    assert result.pop("usable")
    assert {name for name, error in result.items() if error == "nothing"} == set()
    assert result["num_layers"] == "ValueError"
    assert time.perf_counter() - start < 60


def test_num_layers_has_a_bound() -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"^num_layers: expected at most 10000, got 2147483647$"):
        fastrnn.LSTM(1, 1, 2**31 - 1)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_before", "rnn_tanh"])
def test_long_sums_keep_their_digits(kind: str) -> None:
    """Weight gradients over 300,000 equal terms: one after the other they would lose 1 % in float32."""
    T, B = 3, 100_000
    v = Variant(kind, I=3, H=5, T=T, B=1)
    case = make_case(v)
    layer = make_layer(v, case.params)
    y, _, tape = layer.forward(np.broadcast_to(case.x, (T, B, 3)))
    g = layer.backward(tape, np.broadcast_to(case.dy, y.shape))
    y, _, tape = layer.forward(case.x)
    one = layer.backward(tape, case.dy)
    for key, value in one.params.items():
        np.testing.assert_allclose(g.params[key] / B, value, rtol=1e-4, atol=1e-4 * np.abs(value).max())


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_before", "rnn_relu"])
def test_long_sums_have_the_same_bits_however_they_are_cut(kind: str) -> None:
    """Sums begin anew every 4096 terms, wherever chunks, segments and threads end."""
    v = Variant(kind, 2, bidirectional=kind == "gru", I=7, H=20, T=1100, B=9)
    case = make_case(v)
    layer = make_layer(v, case.params)
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(1)
        want = run_layer(layer, case)
        ragged = run_layer(layer, case, lengths=case.lengths)
        for threads in (2, 3):
            fastrnn.set_num_threads(threads)
            assert_same_bits(run_layer(layer, case), want)
            assert_same_bits(run_layer(layer, case, checkpoint=77), want)
            assert_same_bits(run_layer(layer, case, lengths=case.lengths, checkpoint="auto"), ragged)
    finally:
        fastrnn.set_num_threads(before)
