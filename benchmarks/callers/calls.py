"""The calls that services make, and how each engine makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from shapes import Case
from workload import Workload, make_workload


@dataclass(frozen=True)
class Call:
    """A call of an LSTM: T steps, B sequences, I inputs, H units."""

    name: str
    T: int
    B: int
    I: int
    H: int
    trains: bool = False

    @property
    def workload(self) -> Workload:
        """Weights and arrays, the same for every engine."""
        mode = "train" if self.trains else "infer"
        return make_workload(Case("callers", "lstm", mode, self.T, self.B, self.I, self.H))

    @property
    def sizes(self) -> str:
        """The sizes as text."""
        return f"T {self.T}, B {self.B}, I {self.I}, H {self.H}"


CALLS = (
    Call("one sequence", T=50, B=1, I=64, H=128),
    Call("batch", T=100, B=16, I=64, H=128),
    Call("large", T=50, B=32, I=512, H=512),
    Call("training", T=50, B=8, I=64, H=128, trains=True),
)
Made = tuple[Callable[[], Any], Callable[[], float]]  # the call, and a figure that engines are compared by


def call(name: str) -> Call:
    """Return the call of that name."""
    return next(found for found in CALLS if found.name == name)


def fastrnn_call(which: Call, threads: str) -> Made:
    """fastrnn: a frozen layer, or forward and backward."""
    import fastrnn

    if threads != "default":
        fastrnn.set_num_threads(int(threads))
    work = which.workload
    layer = fastrnn.LSTM(which.I, which.H)
    layer.load_state_dict(work.params)
    if which.trains:

        def train() -> Any:
            y, _, tape = layer.forward(work.x)
            return y, layer.backward(tape, work.dy)

        return train, lambda: float(np.abs(train()[1].flat).sum())
    layer.freeze()
    return lambda: layer(work.x), lambda: float(np.abs(layer(work.x)[0]).sum())


def onnxruntime_call(which: Call, threads: str) -> Made:
    """ONNX Runtime with its default settings: all callers share a session, as its documentation advises."""
    import onnxruntime
    from peers import onnx_model

    work = which.workload
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        onnx_model.build(work), options, providers=["CPUExecutionProvider"]
    )
    names = onnx_model.output_names(work)

    def infer() -> Any:
        return session.run(names, {"x": work.x})

    return infer, lambda: float(np.abs(infer()[0]).sum())


MAKERS = {"fastrnn": fastrnn_call, "onnxruntime": onnxruntime_call}
