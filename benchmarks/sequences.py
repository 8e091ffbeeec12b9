"""Suites "ragged", "stream" and "long": sequences as people have them.

ragged: lengths uniform on 1..T, time per token over the dense call's, and against PyTorch packed and padded.
stream: one step at a time with the state carried, from Python.
long: checkpointed BPTT over 200,000 steps (time and peak memory), and a forward pass of a million.
"""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import peers
from contests import OWN, Comparison, Contest, Settings, outcome, own
from peak_memory import measure_apart
from shapes import Case
from timing import Prepared
from workload import Arrays, Workload, make_workload

if TYPE_CHECKING:
    from collections.abc import Callable

RAGGED = ((32, 100, 64, 64), (32, 100, 256, 256), (64, 50, 128, 128))
RAGGED_QUICK = RAGGED[:1]
STREAM = ((1, 32), (64, 64))  # (I, H)
STREAM_TARGETS = {(1, 32): 1.0, (64, 64): 2.5}  # microseconds a step, LSTM
LONG_STEPS, LONG_SIZE = 200_000, 128
MILLION, MILLION_INPUTS = 1_000_000, 16


# ------------------------------------------------------------------------------------------------- ragged


def uniform_lengths(case: Case, seed: int = 1) -> np.ndarray:
    """Lengths uniform on 1..T, [B]; the first row is full so that padding goes to T."""
    lengths = np.random.default_rng(seed).integers(1, case.T + 1, case.B)
    lengths[0] = case.T
    return lengths


def valid_rows(padded: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Return the sequences inside a padded [T, B, ...] array."""
    return [padded[:length, row] for row, length in enumerate(lengths)]


def padded(rows: list[np.ndarray], steps: int) -> np.ndarray:
    """Sequences as one zero-padded [T, B, ...] array."""
    out = np.zeros((steps, len(rows), *rows[0].shape[1:]), rows[0].dtype)
    for row, values in enumerate(rows):
        out[: len(values), row] = values
    return out


def masked(workload: Workload, lengths: np.ndarray) -> Workload:
    """Return the workload with zeros in the padding of x and dy."""
    case = workload.case
    keep = (np.arange(case.T)[:, None] < lengths)[..., None]
    dy = None if workload.dy is None else np.where(keep, workload.dy, 0).astype(case.dtype)
    return replace(workload, x=np.where(keep, workload.x, 0).astype(case.dtype), dy=dy)


def own_ragged(workload: Workload, lengths: np.ndarray, threads: int) -> Prepared:
    """Prepare fastrnn on a `Ragged`, its gradients a `Ragged` too."""
    import fastrnn

    module = peers.load(OWN)
    x = fastrnn.Ragged.from_list(valid_rows(workload.x, lengths))
    pad = partial(padded, steps=workload.case.T)

    def read(result: Any) -> Arrays:
        if workload.dy is None:
            return {**module.read_inference(result), "y": pad(result[0].to_list())}
        named = module.read_training(result)
        return {**named, "y": pad(result[0].to_list()), "dx": pad(result[2].x.to_list())}

    context = partial(module.threads_set, threads)
    built = module.layer(workload, freeze=workload.dy is None)
    if workload.dy is None:
        return Prepared(partial(built, x), read, context)
    dy = fastrnn.Ragged.from_list(valid_rows(workload.dy, lengths))
    return Prepared(partial(module.train, built, x, dy), read, context)


def torch_packed(workload: Workload, lengths: np.ndarray, threads: int) -> Prepared:
    """Prepare PyTorch on a PackedSequence that was packed beforehand."""
    import torch
    from torch.nn.utils import rnn

    torch.set_num_threads(threads)
    module = peers.load("torch")
    built, case = module.module(workload), workload.case
    pack = partial(rnn.pack_padded_sequence, lengths=torch.from_numpy(lengths), enforce_sorted=False)

    def unpack(data: Any) -> np.ndarray:
        values: np.ndarray = rnn.pad_packed_sequence(packed._replace(data=data), total_length=case.T)[
            0
        ].numpy()
        return values

    packed = pack(torch.from_numpy(workload.x))
    if workload.dy is None:
        return Prepared(
            partial(built.eval(), packed),
            lambda result: {"y": unpack(result[0].data), **module.state_arrays(result[1])},
            torch.inference_mode,
        )
    packed = packed._replace(data=packed.data.requires_grad_())
    dy = pack(torch.from_numpy(workload.dy)).data
    names = [f"d{name}" for name, _ in built.named_parameters()]
    wanted = [packed.data, *built.parameters()]

    def run() -> Any:
        y, state = built(packed)
        return y, state, torch.autograd.grad(y.data, wanted, dy)

    def read(result: Any) -> Arrays:
        y, state, grads = result
        named = {"y": unpack(y.data.detach()), **module.state_arrays(state), "dx": unpack(grads[0])}
        return named | dict(zip(names, (grad.numpy() for grad in grads[1:]), strict=True))

    return Prepared(run, read)


def torch_padded(workload: Workload, lengths: np.ndarray, threads: int) -> Prepared:
    """Prepare PyTorch on the padded batch, its padding ignored (dy is zero there)."""
    prepared: Prepared = peers.load("torch").prepare(workload, threads)
    keep = (np.arange(workload.case.T)[:, None] < lengths)[..., None]
    inner = prepared.read

    def read(result: Any) -> Arrays:
        named = {name: value for name, value in inner(result).items() if name not in ("h_n", "c_n")}
        return named | {"y": np.where(keep, named["y"], 0)}

    prepared.read = read
    return prepared


def ragged_contest(case: Case, settings: Settings) -> Contest:
    """Ragged and resetting batches, by token."""
    full = make_workload(case)
    lengths = uniform_lengths(case)
    workload = masked(full, lengths)
    reset = np.random.default_rng(2).random((case.T, case.B)) < 0.05
    prepare, threads = peers.load(OWN).prepare, settings.threads
    engines: dict[str, Callable[[], Prepared]] = {
        OWN: partial(own_ragged, workload, lengths, threads),
        f"{OWN} lengths": partial(prepare, workload, threads, lengths=lengths),
        f"{OWN} dense": partial(prepare, full, threads),
        f"{OWN} reset": partial(prepare, full, threads, reset=reset),
    }
    if "torch" in settings.peers:
        engines["torch packed"] = partial(torch_packed, workload, lengths, threads)
        engines["torch padded"] = partial(torch_padded, workload, lengths, threads)
    if "onnxruntime" in settings.peers and not peers.load("onnxruntime").unsupported(case):
        engines["onnxruntime"] = partial(peers.load("onnxruntime").prepare, workload, threads, lengths)
    units = dict.fromkeys(engines, float(lengths.sum()))
    units[f"{OWN} dense"] = units[f"{OWN} reset"] = float(case.T * case.B)
    checks = {name: "all" for name in engines if name not in (f"{OWN} dense", f"{OWN} reset")}
    checks["torch padded"] = "shared"
    dense = f"{OWN} dense"
    limit = 1.15 if case.mode == "infer" else 1.2
    comparisons = [
        Comparison("Ragged: time per token over dense", OWN, dense, "<=", limit),
        Comparison("lengths: time per token over dense", f"{OWN} lengths", dense, "<=", limit),
        Comparison("reset of 5 %: time over none", f"{OWN} reset", dense, "<=", 1.1),
    ]
    if case.mode == "train":
        comparisons.append(Comparison("PyTorch packed over Ragged", "torch packed", OWN, ">=", 5.0))
        comparisons.append(Comparison("PyTorch padded over Ragged", "torch padded", OWN, ">=", 3.0))
    return Contest(
        case,
        engines,
        checks,
        units,
        comparisons,
        flops=case.flops * float(lengths.sum()) / (case.T * case.B),
        title=f"{case.label}: ragged",
    )


# ------------------------------------------------------------------------------------------------- stream


def own_stream(workload: Workload, threads: int) -> Prepared:
    """Prepare `stream.step` of a frozen fastrnn layer."""
    case, x, module = workload.case, workload.x[0], peers.load(OWN)
    stream = module.layer(workload, freeze=True).stream(case.B)
    out = np.empty((case.B, case.H), case.dtype)
    return Prepared(
        partial(stream.step, x, out=out), lambda y: {"y": y}, partial(module.threads_set, threads)
    )


def own_calls(workload: Workload, threads: int) -> Prepared:
    """Prepare whole calls of a frozen fastrnn layer at T = 1, the state carried."""
    module, x, state = peers.load(OWN), workload.x, None
    layer = module.layer(workload, freeze=True)

    def run() -> np.ndarray:
        nonlocal state
        y, state = layer(x, state)
        values: np.ndarray = y
        return values

    return Prepared(run, lambda y: {"y": y[0]}, partial(module.threads_set, threads))


def torch_stream(workload: Workload, *, cell: bool) -> Prepared:
    """Prepare nn.LSTM (RNN, GRU) at T = 1, or nn.LSTMCell (RNNCell, GRUCell), the state carried."""
    import torch

    module = peers.load("torch")
    case, x, state = workload.case, torch.from_numpy(workload.x), None
    if not cell:
        built = module.module(workload).eval()

        def run() -> Any:
            nonlocal state
            y, state = built(x, state)
            return y

        return Prepared(run, lambda y: {"y": y[0].numpy()}, torch.inference_mode)
    name = {"rnn": "RNNCell", "lstm": "LSTMCell", "gru": "GRUCell"}[case.kind]
    one = getattr(torch.nn, name)(case.I, case.H)
    weights = {key.removesuffix("_l0"): torch.from_numpy(value) for key, value in workload.params.items()}
    one.load_state_dict(weights)
    row = x[0]

    def run_cell() -> Any:
        nonlocal state
        state = one(row, state)
        return state[0] if case.kind == "lstm" else state

    return Prepared(run_cell, lambda y: {"y": y.numpy()}, torch.inference_mode)


def onnxruntime_stream(workload: Workload, threads: int) -> Prepared:
    """Prepare ONNX Runtime at T = 1: two bindings, each writing the state the other reads."""
    module, onnx_model = peers.load("onnxruntime"), peers.load("onnx_model")
    opened = module.session(onnx_model.build(workload, state=True), threads)
    buffers = [module.empty_outputs(opened) for _ in range(2)]
    for value in buffers[1].values():
        value.fill(0)
    bindings = []
    for written, held in ((buffers[0], buffers[1]), (buffers[1], buffers[0])):
        states = {f"{name[0]}_in": value for name, value in held.items() if name != "y"}
        bindings.append(module.bind(opened, {"x": workload.x, **states}, written))
    turns = itertools.cycle(bindings)
    return Prepared(
        lambda: opened.run_with_iobinding(next(turns)),
        lambda _: {"y": buffers[0]["y"].reshape(workload.case.B, workload.case.H)},
        keep=(workload, buffers),
    )


def jax_stream(workload: Workload) -> Prepared:
    """Prepare a jitted JAX step, the state carried."""
    import jax
    import jax.numpy as jnp

    case = workload.case
    step = peers.load("jax").cell(case.kind, case.H)
    w, r, b_ih, b_hh = (jax.device_put(np.ascontiguousarray(value.T)) for value in workload.params.values())
    function = jax.jit(lambda state, x: step(state, x @ w + b_ih, r, b_hh))
    x, zeros = jax.device_put(workload.x[0]), jnp.zeros((case.B, case.H), case.dtype)
    state = (zeros, zeros) if case.kind == "lstm" else (zeros,)

    def run() -> Any:
        nonlocal state
        state, y = jax.block_until_ready(function(state, x))
        return y

    return Prepared(run, lambda y: {"y": np.asarray(y)})


def stream_growth(workload: Workload, steps: int = 10_000) -> list[dict[str, Any]]:
    """Bytes that Python still holds after many steps, by tracemalloc."""
    run = own_stream(workload, 1).run
    tracemalloc.start()
    try:
        for _ in range(steps):
            run()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(steps):
            run()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    return [outcome(f"stream.step: bytes held after {steps} more steps", grown, "<=", 512)]


def stream_contest(case: Case, settings: Settings) -> Contest:
    """One step from Python, the state carried."""
    workload = make_workload(case)
    engines: dict[str, Callable[[], Prepared]] = {
        OWN: partial(own_stream, workload, settings.threads),
        f"{OWN} call": partial(own_calls, workload, settings.threads),
    }
    if "torch" in settings.peers:
        engines["torch"] = partial(torch_stream, workload, cell=False)
        engines["torch cell"] = partial(torch_stream, workload, cell=True)
    if "onnxruntime" in settings.peers:
        engines["onnxruntime"] = partial(onnxruntime_stream, workload, settings.threads)
    if "jax" in settings.peers:
        engines["jax"] = partial(jax_stream, workload)
    target = STREAM_TARGETS.get((case.I, case.H)) if case.kind == "lstm" else None
    comparisons = [Comparison("stream.step [us]", OWN, None, "<=", target)] if target else []
    return Contest(
        case,
        engines,
        dict.fromkeys(engines, "all"),
        comparisons=comparisons,
        figures=partial(stream_growth, workload),
        title=f"{case.label}: stream",
    )


# --------------------------------------------------------------------------------------------------- long


def checkpoint_contest(case: Case, settings: Settings) -> Contest:
    """BPTT over a very long sequence, with checkpoints and without."""
    name = f"{OWN} checkpoint"
    engines = {OWN: own(case, settings), name: own(case, settings, checkpoint="auto")}
    for peer in settings.peers:
        if not peers.load(peer).unsupported(case):
            engines[peer] = partial(peers.load(peer).prepare, make_workload(case), settings.threads)

    def memory() -> list[dict[str, Any]]:
        found = measure_apart(case, "auto")["peak_bytes"] / 1e6
        kept = measure_apart(case, None)["peak_bytes"] / 1e6
        return [
            outcome('checkpoint="auto": peak MB above inputs and outputs', found, "<=", 64.0),
            outcome("no checkpoint: peak MB above inputs and outputs", kept),
        ]

    return Contest(
        case,
        engines,
        dict.fromkeys(engines, "all"),
        comparisons=[Comparison('checkpoint="auto": time over none', name, OWN, "<=", 1.4)],
        figures=memory,
        title=f"{case.label}: checkpoint",
        rounds=min(settings.rounds, 3),
    )


def million_contest(case: Case, settings: Settings) -> Contest:
    """Compare a forward pass of a million steps with one of a tenth, by step."""
    short = replace(case, T=case.T // 10)
    name = f"{OWN} T{short.T}"
    return Contest(
        case,
        {OWN: own(case, settings), name: own(short, settings)},
        units={OWN: case.T, name: short.T},
        comparisons=[Comparison(f"time per step, T = {case.T} over T = {short.T}", OWN, name, "<=", 1.05)],
        title=f"{case.label}: linear in T",
        rounds=min(settings.rounds, 3),
    )


def sequence_contests(
    suite: str, kind: str, mode: str, settings: Settings, *, quick: bool = False
) -> list[partial[Contest]]:
    """Return builders of the contests of suite "ragged", "stream" or "long" for one cell and mode."""

    def case(shape: tuple[int, int, int, int]) -> Case:
        batch, steps, inputs, hidden = shape
        return Case(suite, kind, mode, steps, batch, inputs, hidden)

    if suite == "ragged":
        return [
            partial(ragged_contest, case(shape), settings) for shape in (RAGGED_QUICK if quick else RAGGED)
        ]
    if suite == "stream":
        return [
            partial(stream_contest, case((1, 1, inputs, hidden)), settings)
            for inputs, hidden in STREAM
            if mode == "infer"
        ]
    if mode == "infer":
        return [partial(million_contest, case((1, MILLION, MILLION_INPUTS, LONG_SIZE)), settings)]
    return [partial(checkpoint_contest, case((1, LONG_STEPS, LONG_SIZE, LONG_SIZE)), settings)]
