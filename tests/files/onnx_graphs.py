"""ONNX models for tests: nodes with drawn weights, and what the layers' options can say so far."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import fastrnn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FLOAT = onnx.TensorProto.FLOAT


def has(*options: str) -> bool:
    """Whether layers have these options."""
    return set(options) <= set(inspect.signature(fastrnn.LSTM).parameters)


def needs(*options: str) -> pytest.MarkDecorator:
    """A mark that skips a test where layers do not have options yet."""
    return pytest.mark.skipif(not has(*options), reason=f"layers do not have {', '.join(options)}")


def arrays(
    op: str, I: int = 3, H: int = 4, D: int = 1, seed: int = 0, bias: bool = True, dtype: Any = np.float32
) -> dict[str, np.ndarray]:
    """Weights of a node, by the names of the operator's inputs."""
    rng = np.random.default_rng([seed, I, H, D])

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-0.7, 0.7, shape).astype(dtype)

    rows = GATES[op] * H
    made = {"W": draw(D, rows, I), "R": draw(D, rows, H)}
    return made | ({"B": draw(D, 2 * rows)} if bias else {})


def inputs(T: int = 5, B: int = 2, I: int = 3, seed: int = 1, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (T, B, I)).astype(dtype)


def node(op: str, name: str = "cell", x: str = "x", out: str = "y", **attributes: Any) -> Any:
    """A recurrent node whose weights are W, R and B."""
    outputs = [out, f"{out}_h", f"{out}_c"][: 3 if op == "LSTM" else 2]
    attributes = {"hidden_size": 4} | attributes
    return helper.make_node(op, [x, "W", "R", "B"], outputs, name, **attributes)


def model(
    nodes: list[Any],
    tensors: dict[str, np.ndarray],
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
    given: dict[str, Any] | None = None,
    functions: Any = (),
    domains: tuple[str, ...] = (),
) -> Any:
    """A model with an input x [T, B, 3], or with ``given``: shapes, or (type, shape), by name."""
    infos = []
    for name, kind in (given or {"x": [None, None, 3]}).items():
        elem, shape = kind if isinstance(kind, tuple) else (FLOAT, kind)
        infos.append(helper.make_tensor_value_info(name, elem, shape))
    graph = helper.make_graph(
        nodes,
        "test",
        infos,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(d, 1) for d in domains]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    made.ir_version = 8
    return made


def constant(name: str, values: Any) -> Any:
    """A node Constant."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(values), name))


def reference(op: str, held: dict[str, np.ndarray], x: np.ndarray, **attributes: Any) -> np.ndarray:
    """Y of a node as the operator's definition computes it, written out in NumPy (forward, without options)."""
    w, r = held["W"][0].astype(np.float64), held["R"][0].astype(np.float64)
    b = held.get("B", np.zeros((1, 2 * len(w))))[0].astype(np.float64)
    H = r.shape[1]
    bw, br = b[: len(w)], b[len(w) :]
    h, c = np.zeros((x.shape[1], H)), np.zeros((x.shape[1], H))
    out = []

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    for x_t in x.astype(np.float64):
        a = x_t @ w.T + bw
        if op == "RNN":
            h = np.tanh(a + h @ r.T + br)
        elif op == "LSTM":
            i, o, f, g = np.split(a + h @ r.T + br, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            u = h @ r[: 2 * H].T + br[: 2 * H]
            z, q = np.split(sigmoid(a[:, : 2 * H] + u), 2, axis=1)
            if attributes.get("linear_before_reset"):
                n = np.tanh(a[:, 2 * H :] + q * (h @ r[2 * H :].T + br[2 * H :]))
            else:
                n = np.tanh(a[:, 2 * H :] + (q * h) @ r[2 * H :].T + br[2 * H :])
            h = (1 - z) * n + z * h
        out.append(h)
    return np.stack(out)
