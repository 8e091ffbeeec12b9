"""The operators RNN, GRU and LSTM: the standard's own tests, and ONNX Runtime's as vectors.

``FASTRNN_VECTORS`` names the file of vectors; without it they are skipped.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_graphs import GATES, has, helper, onnx

import fastrnn.onnx as door
from fastrnn.onnx import backend

PATH = os.environ.get("FASTRNN_VECTORS", "")


def official() -> list[Any]:
    """The standard's cases for these operators; those of all others would take seconds to make."""
    from onnx.backend.test.case import node

    for op in GATES:
        importlib.import_module(f"onnx.backend.test.case.node.{op.lower()}")
    cases = [case for case in node._NodeTestCases if case.model.graph.node[0].op_type in GATES]
    return sorted(cases, key=lambda case: str(case.name))


@pytest.mark.parametrize("case", official(), ids=lambda case: case.name)
def test_official(case: Any) -> None:
    node = case.model.graph.node[0]
    ways = [a.s for a in node.attribute if a.name == "direction"]
    wanted = ["peepholes"] * (len(node.input) > 7) + ["reverse"] * (ways == [b"reverse"])
    if not has(*wanted):
        pytest.skip(f"layers do not have {wanted}")
    assert backend.is_compatible(case.model)
    prepared = backend.prepare(case.model)
    for inputs, outputs in case.data_sets:
        got = prepared.run([_array(i) for i in inputs])
        assert len(got) == len(outputs)
        for one, other in zip(got, outputs, strict=True):
            np.testing.assert_allclose(one, _array(other), rtol=case.rtol, atol=case.atol)
        again = backend.run_node(node, [_array(i) for i in inputs])
        for one, other in zip(got, again, strict=True):
            np.testing.assert_array_equal(one, other)


def _array(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else onnx.numpy_helper.to_array(value)


def test_there_are_official_tests() -> None:
    assert len(official()) >= 18


def records() -> list[dict[str, Any]]:
    return json.loads(Path(PATH).read_text()) if PATH else []


def needed(record: dict[str, Any]) -> list[str]:
    """The options that a record needs beside those that every version of the layers has."""
    attributes, inputs = record["attrs"], record["inputs"]
    names = [name.lower() for name in attributes.get("activations") or []]
    default = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}[record["op"]]
    plain = names in ([], default, default * 2, ["relu"], ["relu"] * 2)
    wanted = ["activations"] * (not plain) + ["clip"] * ("clip" in attributes)
    wanted += ["reverse"] * (attributes.get("direction") == "reverse")
    wanted += ["input_forget"] * bool(attributes.get("input_forget"))
    return wanted + ["peepholes"] * (len(inputs) > 7 and inputs[7] is not None)


@pytest.mark.skipif(not PATH, reason="FASTRNN_VECTORS does not name the file of test vectors")
@pytest.mark.parametrize("record", records(), ids=lambda record: record["id"])
def test_vector(record: dict[str, Any]) -> None:
    op = record["op"]
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    places = ["Y", "Y_h", "Y_c"]
    given = {n: e for n, e in zip(names, record["inputs"], strict=False) if e is not None}
    wanted = {n: e for n, e in zip(places, record["outputs"], strict=False) if e is not None}
    inputs = [name if name in given else "" for name in names]
    outputs = [name if name in wanted else "" for name in places[: 3 if op == "LSTM" else 2]]
    while not inputs[-1]:
        inputs.pop()
    attributes = {key: value for key, value in record["attrs"].items() if value is not None}
    for key in ("activation_alpha", "activation_beta"):
        attributes |= {key: [float(v) for v in attributes[key]]} if key in attributes else {}
    attributes |= {"clip": float(attributes["clip"])} if "clip" in attributes else {}
    node = helper.make_node(op, inputs, outputs, **attributes)
    arrays = {name: _entry(name, entry) for name, entry in given.items()}
    if record["expect"] != "ok":
        with pytest.raises(ValueError, match=f"node '{op}': "):
            backend.run_node(node, arrays)
        return
    if not has(*needed(record)):
        with pytest.raises(ValueError, match=f"node '{op}': .*expected an? {op} without"):
            backend.run_node(node, arrays)
        pytest.skip(f"layers do not have {needed(record)}")
    got = backend.run_node(node, arrays)
    tolerance = 1e-4 if op == "LSTM" else 1e-6
    for name, entry in wanted.items():
        np.testing.assert_allclose(
            getattr(got, name), _entry(name, entry), rtol=tolerance, atol=tolerance, err_msg=name
        )


def _entry(name: str, entry: Any) -> np.ndarray:
    dtype = np.int32 if name == "sequence_lens" else np.float32
    return np.array(entry["data"], dtype).reshape(entry["shape"])


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("length", [0, 2, 3])
def test_rows_without_steps_have_a_zero_state(op: str, length: int) -> None:
    """As in ONNX Runtime, whose final state of a sequence of no steps is 0, whatever it began with."""
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(length)
    names = ["X", "W", "R", "", "L", "h"] + ["c"] * (op == "LSTM")
    node = helper.make_node(op, names, ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2], hidden_size=2)
    shapes = {
        "X": (3, 2, 1),
        "W": (1, 2 * GATES[op], 1),
        "R": (1, 2 * GATES[op], 2),
        "h": (1, 2, 2),
        "c": (1, 2, 2),
    }
    arrays = {name: rng.standard_normal(shapes[name]).astype(np.float32) for name in names if name in shapes}
    arrays["L"] = np.array([3, length], np.int32)
    got = backend.run_node(node, arrays)
    import onnxruntime
    from onnx_graphs import model

    given = {name: list(array.shape) for name, array in arrays.items() if name != "L"}
    given["L"] = (onnx.TensorProto.INT32, [2])
    whole = model([node], {}, outputs=tuple(node.output), given=given)
    want = onnxruntime.InferenceSession(whole.SerializeToString()).run(None, arrays)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_backend_says_what_it_does_not_have() -> None:
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("CUDA")
    node = helper.make_node("RNN", ["X", "W", "R"], ["Y"], hidden_size=1)
    ones = [np.ones((1, 1, 1), np.float32)] * 3
    with pytest.raises(ValueError, match="device: expected 'CPU', got 'CUDA'"):
        backend.run_node(node, ones, device="CUDA")
    with pytest.raises(ValueError, match="inputs: expected 3 arrays, got 2"):
        backend.run_node(node, ones[:2])
    with pytest.raises(ValueError, match="node: expected RNN, GRU or LSTM, got Add"):
        backend.run_node(helper.make_node("Add", ["a", "b"], ["c"]), ones[:2])
    assert issubclass(backend.FastrnnBackend, onnx.backend.base.Backend)
    assert door.backend is backend
