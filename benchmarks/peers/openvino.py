"""OpenVINO: the ONNX model compiled for latency, in float32 (it would take bfloat16 where the CPU has it)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from timing import Prepared

from peers import onnx_model

if TYPE_CHECKING:
    from shapes import Case
    from workload import Workload


def version() -> str:
    """Version of the installed package."""
    import onnx  # noqa: F401  (the model is built with it)
    import openvino

    return str(openvino.__version__).split("-")[0]


def unsupported(case: Case) -> str | None:
    """Why a case cannot run: inference in float32 only."""
    if case.mode == "train":
        return "inference only"
    return None if case.dtype == "float32" else "no float64 kernels"


def compiled(model: bytes, threads: int, precision: str = "f32") -> Any:
    """Compile a model for one stream on `threads` threads."""
    import openvino as ov

    core = ov.Core()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,  # pinning would bind the calling thread, which the other engines use too
    }
    return core.compile_model(core.read_model(model, b""), "CPU", config)


def prepare(workload: Workload, threads: int, precision: str = "f32") -> Prepared:
    """Prepare OpenVINO for one workload; with precision "bf16" it computes in bfloat16 where the CPU can."""
    import openvino as ov

    request = compiled(onnx_model.build(workload), threads, precision).create_infer_request()
    request.set_tensor("x", ov.Tensor(workload.x, shared_memory=True))

    def read(_: Any) -> dict[str, np.ndarray]:
        names = onnx_model.output_names(workload)
        return onnx_model.read(workload, [request.get_tensor(name).data.copy() for name in names])

    return Prepared(partial(request.infer, share_outputs=True), read)
