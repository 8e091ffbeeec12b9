"""Every variant of a layer in one table, seeded data for it, and ways to run and compare."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Examples of each property: in an ordinary run, and under `-m slow`, which runs the properties too.
EXAMPLES = {"ordinary": 50, "thorough": 500}


def pytest_configure(config: pytest.Config) -> None:
    """One place decides how long Hypothesis searches; Ctrl-C works in the processes that tests start."""
    # a shell's background job ignores it, and children inherit that
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, count in EXAMPLES.items():
        settings.register_profile(
            name,
            max_examples=count,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],  # the machine may be busy
        )
    settings.load_profile("thorough" if config.option.markexpr == "slow" else "ordinary")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long runs only where they are asked for."""
    if config.option.markexpr == "slow":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("slow")
    if not config.option.markexpr:
        skip = pytest.mark.skip(reason="long; run with -m slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX")
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="no /proc, so memory and threads are not watched"
)

KINDS = ("rnn_tanh", "rnn_relu", "lstm", "gru", "gru_before")
KIND = pytest.mark.parametrize("kind", KINDS)
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_before": 3}
# Options of cells that go with every kind once: one dict of keyword arguments each.
GENERAL: dict[str, dict[str, Any]] = {
    "rnn_tanh": {"activations": (("scaled_tanh", 1.2, 0.7),), "clip": 0.9},
    "rnn_relu": {"nonlinearity": ("leaky_relu", 0.1)},
    "lstm": {"peepholes": True, "activations": ("hard_sigmoid", "softsign", ("elu", 0.5)), "clip": 1.5},
    "gru": {"activations": ("hard_sigmoid", "softplus"), "clip": 1.0},
    "gru_before": {"activations": ("sigmoid", ("leaky_relu", 0.1)), "clip": 1.0},
}
TOLERANCE = {
    np.dtype(np.float32): {"rtol": 1.3e-6, "atol": 1e-5},
    np.dtype(np.float64): {"rtol": 1e-9, "atol": 1e-11},
}


@dataclass(frozen=True)
class Variant:
    """One kind of layer; `str` is its name in the test's id."""

    kind: str
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    proj_size: int = 0
    I: int = 5  # the letters of the equations
    H: int = 7
    T: int = 6
    B: int = 3
    dtype: Any = np.float32
    reverse: bool = False
    merge: str = "concat"
    learned_state: bool = False
    options: tuple[tuple[str, Any], ...] = ()  # of the cells: keyword arguments of the layer

    def __str__(self) -> str:
        words = [self.kind, f"l{self.num_layers}"]
        words += ["bi"] * self.bidirectional + ["nobias"] * (not self.bias) + ["proj"] * bool(self.proj_size)
        words += ["reverse"] * self.reverse + [self.merge] * (self.merge != "concat")
        words += ["learned"] * self.learned_state
        words += ["options"] * bool(self.options)
        return "-".join([*words, np.dtype(self.dtype).name])

    @property
    def D(self) -> int:
        return 1 + self.bidirectional

    @property
    def out(self) -> int:
        """Width of one direction's h."""
        return self.proj_size or self.H

    @property
    def width(self) -> int:
        """Width of y."""
        return self.out * (self.D if self.merge == "concat" else 1)

    @property
    def states(self) -> int:
        return 2 if self.kind == "lstm" else 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters, in the order of torch."""
        shapes: dict[str, tuple[int, ...]] = {}
        rows = GATES[self.kind] * self.H
        for layer in range(self.num_layers):
            for way in ("", "_reverse")[: self.D]:
                end = f"_l{layer}{way}"
                shapes["weight_ih" + end] = (rows, self.I if layer == 0 else self.width)
                shapes["weight_hh" + end] = (rows, self.out)
                if self.bias:
                    shapes["bias_ih" + end] = shapes["bias_hh" + end] = (rows,)
                if self.proj_size:
                    shapes["weight_hr" + end] = (self.proj_size, self.H)
                for gate in "ifo" * dict(self.options).get("peepholes", False):
                    shapes[f"weight_c{gate}{end}"] = (self.H,)
        if self.learned_state:
            for name, width in (("h_0", self.out), ("c_0", self.H))[: self.states]:
                shapes[name] = (self.num_layers * self.D, width)
        return shapes

    def state_shapes(self) -> tuple[tuple[int, int, int], ...]:
        n = self.num_layers * self.D
        return ((n, self.B, self.out), (n, self.B, self.H))[: self.states]


def variants(**change: Any) -> list[Variant]:
    """Cells x layers x directions x bias x projection; keywords replace fields of all of them."""
    table = [
        Variant(kind, layers, bidirectional, bias, proj)
        for kind in KINDS
        for layers in (1, 2)
        for bidirectional in (False, True)
        for bias in (True, False)
        for proj in ((0, 4) if kind == "lstm" else (0,))
    ]
    # with options: stacks in both directions, and in one direction for streams
    general = [
        Variant(kind, 2, bidirectional, True, proj, options=tuple(GENERAL[kind].items()))
        for kind in KINDS
        for bidirectional in (False, True)
        for proj in ((0, 4) if kind == "lstm" and bidirectional else (0,))
    ]
    return [replace(v, **change) for v in table + general]


def completed(v: Variant) -> Variant:
    """Return a variant drawn at random with the options of its kind, if it has any, and a projection if it may."""
    options = tuple(GENERAL[v.kind].items()) if v.options else ()
    return replace(v, options=options, proj_size=v.proj_size if v.kind == "lstm" else 0)


def both_dtypes(table: list[Variant]) -> list[Variant]:
    return [replace(v, dtype=dtype) for v in table for dtype in (np.float32, np.float64)]


@dataclass
class Case:
    """Seeded numbers for a variant: parameters, inputs, and a gradient for everything that comes out."""

    params: dict[str, np.ndarray]
    x: np.ndarray
    state: Any
    dy: np.ndarray
    dstate: Any
    lengths: np.ndarray
    reset: np.ndarray


def make_case(v: Variant, seed: int = 0) -> Case:
    rng = np.random.default_rng([seed, v.T, v.B, v.I, v.H])

    def uniform(shape: tuple[int, ...], bound: float = 1.0) -> np.ndarray:
        return rng.uniform(-bound, bound, shape).astype(v.dtype)

    def state() -> Any:
        arrays = tuple(uniform(shape) for shape in v.state_shapes())
        return arrays if v.states == 2 else arrays[0]

    lengths = rng.integers(0, v.T + 1, v.B)
    if v.B > 1:
        lengths[rng.permutation(v.B)[:2]] = [v.T, 0]
    return Case(
        params={key: uniform(shape, 1.5 / np.sqrt(v.H)) for key, shape in v.shapes().items()},
        x=uniform((v.T, v.B, v.I)),
        state=state(),
        dy=uniform((v.T, v.B, v.width)),
        dstate=state(),
        lengths=lengths,
        reset=rng.random((v.T, v.B)) < 0.3,
    )


def as_tuple(state: Any) -> tuple[np.ndarray, ...]:
    """Return (h, c) or (h,)."""
    return state if isinstance(state, tuple) else (state,)


def same_structure(v: Variant, arrays: Iterable[np.ndarray]) -> Any:
    """Return the arrays as the state of a variant: (h, c) or h."""
    arrays = tuple(arrays)
    return arrays if v.states == 2 else arrays[0]


def padding(v: Variant, lengths: np.ndarray) -> np.ndarray:
    """Return [T, B], true behind the end of a sequence."""
    return np.arange(v.T)[:, None] >= lengths


def take_rows(case: Case, rows: Any) -> Case:
    """Return the case of some rows of the batch: an index, a slice or a list."""

    def take(state: Any) -> Any:
        return tuple(s[:, rows] for s in state) if isinstance(state, tuple) else state[:, rows]

    return Case(
        case.params,
        case.x[:, rows],
        take(case.state),
        case.dy[:, rows],
        take(case.dstate),
        case.lengths[rows],
        case.reset[:, rows],
    )


def make_layer(v: Variant, params: dict[str, np.ndarray] | None = None, **more: Any) -> Any:
    """The fastrnn layer of a variant, with these parameters."""
    import fastrnn

    options: dict[str, Any] = dict(reverse=v.reverse, merge=v.merge, learned_state=v.learned_state)
    options |= dict(num_layers=v.num_layers, bias=v.bias, bidirectional=v.bidirectional, dtype=v.dtype)
    kwargs = options | dict(v.options) | more
    if v.kind == "lstm":
        layer = fastrnn.LSTM(v.I, v.H, proj_size=v.proj_size, **kwargs)
    elif v.kind.startswith("gru"):
        layer = fastrnn.GRU(v.I, v.H, reset_after=v.kind == "gru", **kwargs)
    else:
        layer = fastrnn.RNN(v.I, v.H, **{"nonlinearity": v.kind[4:], **kwargs})
    if params is not None:
        layer.load_state_dict(params)
    return layer


def make_torch(v: Variant, params: dict[str, np.ndarray], **kwargs: Any) -> Any:
    """The torch layer of a variant, with these parameters."""
    torch = pytest.importorskip("torch", reason="torch is not installed, so nothing is compared with PyTorch")
    kwargs = dict(num_layers=v.num_layers, bias=v.bias, bidirectional=v.bidirectional) | kwargs
    kwargs["dtype"] = getattr(torch, np.dtype(v.dtype).name)
    if v.kind == "lstm":
        net = torch.nn.LSTM(v.I, v.H, proj_size=v.proj_size, **kwargs)
    elif v.kind == "gru":
        net = torch.nn.GRU(v.I, v.H, **kwargs)
    else:
        net = torch.nn.RNN(v.I, v.H, nonlinearity=v.kind[4:], **kwargs)
    net.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in params.items()})
    return net


def run_torch(net: Any, case: Case, lengths: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Outputs and all gradients of a torch layer; with lengths as a packed sequence, which refuses 0."""
    import torch

    pair = isinstance(case.state, tuple)
    x = torch.from_numpy(case.x.copy()).requires_grad_()
    state = [torch.from_numpy(s.copy()).requires_grad_() for s in (case.state if pair else (case.state,))]
    inputs = x
    if lengths is not None:
        inputs = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
    y, last = net(inputs, tuple(state) if pair else state[0])
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=case.x.shape[0])
    last = last if pair else (last,)
    dlast = [torch.from_numpy(d) for d in (case.dstate if pair else (case.dstate,))]
    torch.autograd.backward([y, *last], [torch.from_numpy(case.dy), *dlast])
    return named(
        y.detach().numpy(),
        tuple(s.detach().numpy() for s in last),
        x.grad.numpy(),
        tuple(s.grad.numpy() for s in state),
        {key: p.grad.numpy() for key, p in net.named_parameters()},
    )


def run_reference(
    v: Variant, case: Case, dy: Any = "case", dstate: Any = "case", **kwargs: Any
) -> dict[str, np.ndarray]:
    """Outputs and all gradients of the reference, in float64 whatever the variant's dtype."""
    from fastrnn import reference

    def wide(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(s.astype(np.float64) for s in value)
        return None if value is None else value.astype(np.float64)

    params = {key: wide(value) for key, value in case.params.items()}
    kwargs = dict(reverse=v.reverse, merge=v.merge) | kwargs
    if v.options:
        options = dict(v.options)
        if "nonlinearity" in options:
            options["activations"] = (options.pop("nonlinearity"),)
        kwargs["options"] = options
    y, last, tape = reference.forward(v.kind, wide(case.x), wide(case.state), params, **kwargs)
    dy = case.dy if isinstance(dy, str) else dy
    dstate = case.dstate if isinstance(dstate, str) else dstate
    dx, dfirst, dparams = reference.backward(tape, wide(dy), wide(dstate))
    return named(y, last, dx, dfirst, dparams)


def run_layer(
    layer: Any, case: Case, dy: Any = "case", dstate: Any = "case", dy_last: Any = None, **kwargs: Any
) -> dict[str, np.ndarray]:
    """Outputs and all gradients of a fastrnn layer in its training pass."""
    y, last, tape, *_ = layer.forward(case.x, case.state, **kwargs)
    dy = case.dy if isinstance(dy, str) else dy
    dstate = case.dstate if isinstance(dstate, str) else dstate
    g = layer.backward(tape, dy, dstate, dy_last=dy_last)
    return named(y, last, g.x, g.state, g.params)


def named(y: Any, last: Any, dx: Any, dfirst: Any, dparams: Any) -> dict[str, np.ndarray]:
    """One flat dict of everything there is to compare."""
    last, dfirst = as_tuple(last), as_tuple(dfirst)
    out = {"y": y, "dx": dx}
    for i, letter in enumerate("hc"[: len(last)]):
        out[letter + "_n"] = last[i]
        out["d" + letter + "_0"] = dfirst[i]
    learned = {key: "learned_" + key for key in ("h_0", "c_0")}  # "dh_0" is that of the state that was used
    out |= {"d" + learned.get(key, key): value for key, value in dparams.items()}
    return {key: value for key, value in out.items() if value is not None}


def assert_close(got: dict[str, np.ndarray], want: dict[str, np.ndarray], dtype: Any) -> None:
    """Every array, at the tolerance of its dtype."""
    assert set(got) == set(want)
    for key in want:
        assert got[key].dtype == dtype, key
        np.testing.assert_allclose(got[key], want[key], err_msg=key, **TOLERANCE[np.dtype(dtype)])


def assert_same_bits(got: Any, want: Any, message: str = "") -> None:
    """Equality of every bit, so that 0.0 is not -0.0 and a NaN equals itself."""
    if isinstance(want, dict):
        assert set(got) == set(want)
        for key in want:
            assert_same_bits(got[key], want[key], f"{message} {key}")
    elif isinstance(want, tuple):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same_bits(one, other, message)
    else:
        assert got.dtype == want.dtype, message
        assert got.shape == want.shape, message
        unsigned = np.dtype(f"u{want.dtype.itemsize}")
        bits = [np.ascontiguousarray(a).view(unsigned) for a in (got, want)]
        assert (bits[0] == bits[1]).all(), f"{message}: {(bits[0] != bits[1]).sum()} of {want.size} differ"


def numeric_gradient(f: Any, a: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Central differences of the scalar f() with respect to every number of a, which is changed in place."""
    out = np.zeros_like(a)
    flat, grad = a.reshape(-1), out.reshape(-1)
    assert a.size == 0 or np.shares_memory(flat, a)
    for i in range(flat.size):
        old = flat[i]
        flat[i] = old + eps
        above = f()
        flat[i] = old - eps
        below = f()
        flat[i] = old
        grad[i] = (above - below) / (2 * eps)
    return out


def assert_gradient(got: Any, want: Any, message: str = "") -> None:
    """Closeness of a gradient in float64 and its central differences, as in torch's gradcheck."""
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5, err_msg=message)


def check_gradients(v: Variant, layer: Any, case: Case, got: dict[str, np.ndarray], run: Any) -> None:
    """Compare all gradients in `got` with central differences of the outputs and last state that run() returns."""
    states, dstates = (case.state, case.dstate) if v.states == 2 else ((case.state,), (case.dstate,))

    def loss() -> float:
        y, last = run()
        ends = zip(last if v.states == 2 else (last,), dstates, strict=True)
        return float((y * case.dy).sum() + sum((s * d).sum() for s, d in ends))

    inputs = {"dx": case.x} | {"d" + key: value for key, value in layer.params.items()}
    inputs |= {f"d{letter}_0": s for letter, s in zip("hc", states, strict=False)}
    assert set(inputs) == {key for key in got if key.startswith("d")}
    for key, array in inputs.items():
        assert_gradient(got[key], numeric_gradient(loss, array), key)


@pytest.fixture(params=["npz", "safetensors"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a file of each kind may be written."""
    if request.param == "safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    return tmp_path / f"file.{request.param}"


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes of a file with a part cut off, taken out, put in or overwritten."""
    changed = bytearray(data)
    kind = rng.integers(5)
    if kind == 0:
        del changed[int(rng.integers(len(data))) :]
    elif kind == 1:
        start = int(rng.integers(len(data)))
        del changed[start : start + int(rng.integers(1, 20))]
    elif kind == 2:
        start = int(rng.integers(len(data)))
        changed[start:start] = rng.bytes(int(rng.integers(1, 20)))
    else:  # most of the structure stands at both ends
        for _ in range(int(rng.integers(1, 4))):
            i = int(min(rng.exponential(150), len(data) - 1))
            changed[i if kind == 3 else len(data) - 1 - i] = int(rng.integers(256))
    return bytes(changed)


def run_threads(work: Callable[[int], object], n: int) -> None:
    """Run work(0), ..., work(n - 1), each in a Python thread of its own, and wait for all."""
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_python(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a new interpreter that sees this directory and these environment variables."""
    here = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), *sys.path])} | environment
    return subprocess.run(
        [sys.executable, *args], env=env, text=True, capture_output=True, timeout=300, check=False
    )


def kernel_sets() -> list[str]:
    """Kernel sets that this build has and this CPU can run, found by trying them."""
    names = ["sse2", "avx2", "avx512", "neon"]
    return [n for n in names if run_python("-c", "import fastrnn", FASTRNN_ISA=n).returncode == 0]


@pytest.fixture(params=["nn", "fastrnn"])
def api(request: pytest.FixtureRequest) -> Any:
    """torch.nn, then fastrnn.torch: tests that pass on the first are known to be right."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if request.param == "nn":
        return torch.nn
    import fastrnn.torch

    return fastrnn.torch
