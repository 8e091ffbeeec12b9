"""The ONNX model of a case, which ONNX Runtime and OpenVINO both load.

ONNX orders the gates i, o, f, c (LSTM) and z, r, h (GRU); linear_before_reset = 1 is PyTorch's GRU. Inputs: x
[T, B, I], optionally lengths [B] (int32) and h_in, c_in [D, B, H] (one layer). Outputs: y [T, B, D*H], and
per layer h<l>, c<l> [D, B, H].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from workload import Arrays, Workload

# ONNX gate k is PyTorch gate ORDER[kind][k]
ORDER = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


def output_names(workload: Workload) -> list[str]:
    """Names of the model's outputs."""
    states = "hc" if workload.case.kind == "lstm" else "h"
    return ["y", *(f"{state}{layer}" for layer in range(workload.case.layers) for state in states)]


def read(workload: Workload, values: Any) -> Arrays:
    """Name the outputs as `workload.Arrays` does, stacking the layers' states."""
    case = workload.case
    found = dict(zip(output_names(workload), values, strict=True))
    named = {"y": np.asarray(found["y"]).reshape(case.T, case.B, case.directions * case.H)}
    for state in "hc" if case.kind == "lstm" else "h":
        named[f"{state}_n"] = np.concatenate([found[f"{state}{layer}"] for layer in range(case.layers)])
    return named


def build(workload: Workload, *, lengths: bool = False, state: bool = False) -> bytes:
    """Return the serialised model; `lengths` and `state` add those inputs."""
    from onnx import TensorProto, checker, helper, numpy_helper

    case = workload.case
    directions, hidden = case.directions, case.H

    def declare(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    def gates(name: str, layer: int) -> np.ndarray:
        suffixes = [f"l{layer}", f"l{layer}_reverse"][:directions]
        stacked = np.stack([workload.params[f"{name}_{suffix}"] for suffix in suffixes])
        split = stacked.reshape(directions, case.gates, hidden, *stacked.shape[2:])
        return np.ascontiguousarray(split[:, ORDER[case.kind]]).reshape(stacked.shape)

    inputs = [declare("x", case.T, case.B, case.I)]
    if lengths:
        inputs.append(declare("lengths", case.B, kind=TensorProto.INT32))
    states = ["h", "c"] if case.kind == "lstm" else ["h"]
    if state:
        inputs += [declare(f"{name}_in", directions, case.B, hidden) for name in states]
    outputs = [declare("y", case.T, *([1] if directions == 1 else []), case.B, directions * hidden)]
    nodes, constants, below = [], [], "x"
    for layer in range(case.layers):
        bias = np.concatenate([gates("bias_ih", layer), gates("bias_hh", layer)], axis=1)
        for name, value in (("W", gates("weight_ih", layer)), ("R", gates("weight_hh", layer)), ("B", bias)):
            constants.append(numpy_helper.from_array(value, f"{name}{layer}"))
        options: dict[str, Any] = {"direction": "bidirectional" if case.bidirectional else "forward"}
        if case.kind == "gru":
            options["linear_before_reset"] = 1
        read_names = [below, f"W{layer}", f"R{layer}", f"B{layer}", "lengths" if lengths else ""]
        if state:
            read_names += [f"{name}_in" for name in states]
        last = layer == case.layers - 1
        raw = "y" if last and directions == 1 else f"raw{layer}"  # [T, D, B, H]; D = 1 is y already
        written = [raw, *(f"{name}{layer}" for name in states)]
        nodes.append(helper.make_node(case.kind.upper(), read_names, written, hidden_size=hidden, **options))
        outputs += [declare(name, directions, case.B, hidden) for name in written[1:]]
        if raw != "y":
            below = "y" if last else f"y{layer}"
            nodes.append(helper.make_node("Transpose", [raw], [f"swapped{layer}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"swapped{layer}", "rows"], [below]))
    constants.append(numpy_helper.from_array(np.array([case.T, case.B, directions * hidden]), "rows"))
    graph = helper.make_graph(nodes, case.kind, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return model.SerializeToString()
