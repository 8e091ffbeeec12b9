"""Suite "lowp": inference with weights of 8 and 16 bits, beside what other libraries have of them.

fastrnn's engine is a layer frozen with weights of int8. Beside it run the same layer with bfloat16 and float32 weights,
and the others at their best: ONNX Runtime's dynamic quantization (LSTM only), PyTorch's dynamic int8 and its bfloat16,
and OpenVINO with bfloat16 allowed. Outputs differ by the rounding of each, so they are only checked to be near.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import peers
from contests import OWN, Comparison, Contest, Settings, outcome
from shapes import Case
from timing import Prepared
from workload import Workload, make_workload

if TYPE_CHECKING:
    from collections.abc import Callable

# B, T, I = H: one stream of speech, some, and batches, from weights in the first cache to beyond the second
SHAPES = {
    "lstm": ((1, 50, 256), (1, 50, 512), (1, 30, 1024), (4, 30, 512), (32, 50, 512), (64, 100, 256)),
    "gru": ((1, 50, 512), (1, 30, 1024), (32, 50, 512)),
    "rnn": ((1, 50, 512), (32, 50, 512)),
}
STREAM = {128: 0.6, 512: 0.35}  # I = H: what a step with int8 may take of one with float32
NEAR = 0.15  # far above the errors of rounding, far below the effect of a wrong gate
FLOAT32, BFLOAT16 = f"{OWN} float32", f"{OWN} bfloat16"


def own(workload: Workload, threads: int, weights: str) -> Prepared:
    """Prepare a layer of fastrnn with frozen weights of a type."""
    module = peers.load(OWN)
    built = module.layer(workload, freeze=False).freeze(weights=weights)
    return Prepared(
        partial(built, workload.x), module.read_inference, partial(module.threads_set, threads), keep=built
    )


def near(workload: Workload, build: Callable[[], Prepared]) -> Prepared:
    """Build an engine; ValueError where its outputs are not near those of the float32 layer."""
    prepared = build()
    got = prepared.outputs()["y"]
    want = own(workload, 1, "float32").outputs()["y"]
    gap = float(np.max(np.abs(np.asarray(got, np.float32) - want)))
    if gap > NEAR:
        raise ValueError(f"y differs from float32 by {gap:.3g}")
    return prepared


def torch_int8(workload: Workload, threads: int) -> Prepared:
    """Prepare PyTorch with its dynamic quantization of weights."""
    import torch

    torch.set_num_threads(threads)
    module = peers.load("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        outer = torch.nn.Sequential(module.module(workload).eval())  # a module itself is not replaced
        types = {torch.nn.LSTM, torch.nn.GRU}
        built = torch.ao.quantization.quantize_dynamic(outer, types, dtype=torch.qint8)[0]
    return Prepared(partial(built, torch.from_numpy(workload.x)), module.read_inference, torch.inference_mode)


def torch_bfloat16(workload: Workload, threads: int) -> Prepared:
    """Prepare PyTorch with weights, inputs and states in bfloat16."""
    import torch

    torch.set_num_threads(threads)
    built = peers.load("torch").module(workload).eval().to(torch.bfloat16)
    x = torch.from_numpy(workload.x).to(torch.bfloat16)
    return Prepared(partial(built, x), lambda result: {"y": result[0].float().numpy()}, torch.inference_mode)


def onnxruntime_int8(workload: Workload, threads: int) -> Prepared:
    """Prepare ONNX Runtime with dynamically quantized weights, one scale for each row or for all, as it has it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from peers import onnx_model

    module = peers.load("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        plain, quantized = Path(folder) / "plain.onnx", Path(folder) / "quantized.onnx"
        plain.write_bytes(onnx_model.build(workload))
        quantize_dynamic(plain, quantized, weight_type=QuantType.QInt8)
        opened = module.session(quantized.read_bytes(), threads)
    inputs = {"x": workload.x}
    outputs = module.empty_outputs(opened)
    binding = module.bind(opened, inputs, outputs)

    def read(_: Any) -> dict[str, np.ndarray]:
        return onnx_model.read(workload, [outputs[name] for name in onnx_model.output_names(workload)])

    return Prepared(partial(opened.run_with_iobinding, binding), read, keep=inputs)


def openvino_bfloat16(workload: Workload, threads: int) -> Prepared:
    """Prepare OpenVINO with bfloat16 allowed."""
    return peers.load("openvino").prepare(workload, threads, precision="bf16")  # type: ignore[no-any-return]


def alternatives(kind: str, installed: tuple[str, ...]) -> dict[str, Callable[[Workload, int], Prepared]]:
    """Return the engines that other libraries have for a cell."""
    known: list[tuple[str, Callable[[Workload, int], Prepared], tuple[str, ...]]] = [
        ("torch int8", torch_int8, ("lstm", "gru")),
        ("torch bfloat16", torch_bfloat16, ("lstm", "gru", "rnn")),
        ("onnxruntime int8", onnxruntime_int8, ("lstm",)),
        ("openvino bfloat16", openvino_bfloat16, ("lstm", "gru", "rnn")),
    ]
    return {name: build for name, build, kinds in known if kind in kinds and name.split()[0] in installed}


def freeze_figures(workload: Workload) -> list[dict[str, Any]]:
    """Time packing: int8 over float32, and the machine's rate of products of bytes."""
    from fastrnn import _core

    built = peers.load(OWN).layer(workload, freeze=False)
    seconds = {}
    for weights in ("float32", "int8"):
        samples = []
        for _ in range(5):
            start = time.perf_counter()
            built.freeze(weights=weights)
            samples.append(time.perf_counter() - start)
            built.unfreeze()
        seconds[weights] = min(samples)
    return [
        outcome("freeze int8 over float32", seconds["int8"] / seconds["float32"], "<=", 3.0),
        outcome("int8 Gop/s of one core in registers", _core.measure_int8_peak()),
    ]


def contest(case: Case, settings: Settings) -> Contest:
    """Return the contest of one shape."""
    workload = make_workload(case)
    engines: dict[str, Callable[[], Prepared]] = {
        OWN: partial(near, workload, partial(own, workload, settings.threads, "int8")),
        BFLOAT16: partial(near, workload, partial(own, workload, settings.threads, "bfloat16")),
        FLOAT32: partial(own, workload, settings.threads, "float32"),
    }
    for name, build in alternatives(case.kind, settings.peers).items():
        engines[name] = partial(near, workload, partial(build, workload, settings.threads))
    wanted = 3.5 if case.B <= 4 else 3.0 if case.B >= 32 else None
    far = case.gates * case.H * (case.H + case.I) * 4 > 2 << 20
    comparisons = [
        Comparison("int8 over float32", FLOAT32, OWN, ">=", wanted),
        Comparison("bfloat16 over float32", FLOAT32, BFLOAT16, ">=", 1.8 if far and case.B <= 4 else None),
    ]
    comparisons += [
        Comparison(f"bfloat16 over {name}", name, BFLOAT16, ">=", 1.0)
        for name in engines
        if "bfloat16" in name and name != BFLOAT16
    ]
    return Contest(
        case,
        engines,
        comparisons=comparisons,
        figures=partial(freeze_figures, workload),
        title=f"{case.label} int8",
    )


def stream_contest(case: Case, settings: Settings) -> Contest:
    """Return the contest of one step from Python, `out=` given."""
    workload = make_workload(case)

    def build(weights: str) -> Prepared:
        module = peers.load(OWN)
        stream = module.layer(workload, freeze=False).freeze(weights=weights).stream()
        x, out = workload.x[0, 0], np.empty(case.H, np.float32)
        context = partial(module.threads_set, settings.threads)
        return Prepared(partial(stream.step, x, out), lambda y: {"y": y}, context)

    return Contest(
        case,
        {
            OWN: partial(build, "int8"),
            BFLOAT16: partial(build, "bfloat16"),
            FLOAT32: partial(build, "float32"),
        },
        comparisons=[
            Comparison("a step with int8 over float32", OWN, FLOAT32, "<=", STREAM.get(case.H)),
            Comparison("a step with int8, us", OWN, None, "<=", None),
        ],
        title=f"{case.label} int8 stream",
    )


def low_precision_contests(kind: str, mode: str, settings: Settings) -> list[partial[Contest]]:
    """Return the builders of the suite's contests for one cell; there is no training with rounded weights."""
    if mode != "infer":
        return []
    cases = [Case("lowp", kind, mode, steps, rows, size, size) for rows, steps, size in SHAPES[kind]]
    built = [partial(contest, case, settings) for case in cases]
    if kind == "lstm":
        first = replace(cases[0], T=1)
        built += [partial(stream_contest, replace(first, I=size, H=size), settings) for size in STREAM]
    return built
