"""ONNX Runtime: weights packed at load, all graph optimisations, inputs and outputs bound to NumPy memory."""

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
    import onnxruntime

    return str(onnxruntime.__version__)


def unsupported(case: Case) -> str | None:
    """Why a case cannot run: inference in float32 only."""
    if case.mode == "train":
        return "inference only"
    return None if case.dtype == "float32" else "no float64 kernels"


def session(model: bytes, threads: int) -> Any:
    """Open a session on `threads` threads; its pool spins during a run (its fastest setting)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bind(opened: Any, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> Any:
    """Bind named arrays as the session's inputs and outputs; they must stay alive."""
    binding = opened.io_binding()
    for name, value in inputs.items():
        binding.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
    for name, value in outputs.items():
        binding.bind_output(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
    return binding


def empty_outputs(opened: Any) -> dict[str, np.ndarray]:
    """Arrays for the session's outputs."""
    return {output.name: np.empty(output.shape, np.float32) for output in opened.get_outputs()}


def prepare(workload: Workload, threads: int, lengths: np.ndarray | None = None) -> Prepared:
    """Prepare ONNX Runtime for one workload, `lengths` [B] of the rows if they differ."""
    opened = session(onnx_model.build(workload, lengths=lengths is not None), threads)
    inputs = {"x": workload.x}
    if lengths is not None:
        inputs["lengths"] = lengths.astype(np.int32)
    outputs = empty_outputs(opened)
    binding = bind(opened, inputs, outputs)

    def read(_: Any) -> dict[str, np.ndarray]:
        return onnx_model.read(workload, [outputs[name] for name in onnx_model.output_names(workload)])

    return Prepared(partial(opened.run_with_iobinding, binding), read, keep=inputs)
