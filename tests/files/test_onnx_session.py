"""Whole models cut at their recurrent nodes: onnxruntime's outputs, and nothing computed twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx_graphs import arrays, constant, helper, inputs, model, node, onnx
from test_onnx_load import folded, in_a_branch, quantized, stacked

from fastrnn.onnx import accelerate, backend

runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def both(whole: Any, feeds: dict[str, Any], **options: Any) -> Any:
    """Compare all outputs with onnxruntime's; return the session."""
    session = accelerate(whole, **options)
    want = runtime.InferenceSession(whole.SerializeToString()).run(None, feeds)
    got = session.run(None, feeds)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    return session


def parts(session: Any) -> list[Any]:
    """The parts of a session, those of branches too."""
    found = [session._part]
    for part in found:
        for unit in part._special.values():
            found += [unit.then, unit.otherwise] if hasattr(unit, "then") else []
    return found


def assert_nothing_twice(session: Any) -> None:
    """Every node that depends on inputs stands in one stage."""
    for part in parts(session):
        counts = Counter(
            id(n)
            for _, stage in part._stages
            for n in [*stage.others, *stage.special]
            if n.op_type not in CONSTANT
        )
        assert set(counts.values()) <= {1}
        assert len(counts) == len([n for n in part._nodes if n.op_type not in CONSTANT])


CONSTANT = {"Constant", "ConstantOfShape"}


def convolved(op: str) -> Any:
    """Convolution, recurrent node, gate by the convolution's own output, another recurrent node, product."""
    held = arrays(op, I=4)
    second = {f"{name}2": array for name, array in arrays(op, I=4, seed=5).items()}
    tensors = held | second | {
        "K": np.random.default_rng(0).standard_normal((4, 3, 3)).astype(np.float32),
        "axis": np.array([1]), "V": np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32),
    }  # fmt: skip
    last = node(op, "second", x="gated", out="z")
    last.input[1:4] = ["W2", "R2", "B2"]
    nodes = [
        constant("half", np.float32(0.5)),
        helper.make_node("Conv", ["audio", "K"], ["conv"], pads=[1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Transpose", ["relu"], ["steps"], perm=[2, 0, 1]),
        node(op, "first", x="steps"),
        helper.make_node("Squeeze", ["y", "axis"], ["flat"]),
        helper.make_node("Mul", ["steps", "half"], ["half_steps"]),
        helper.make_node("Add", ["flat", "half_steps"], ["gated"]),
        last,
        helper.make_node("Squeeze", ["z", "axis"], ["flat_z"]),
        helper.make_node("MatMul", ["flat_z", "V"], ["logits"]),
        helper.make_node("Exp", ["audio"], ["unused"]),
        helper.make_node("Add", ["logits", "half"], ["out"]),
    ]
    del nodes[-2]
    return model(nodes, tensors, outputs=("out", "z_h", "steps"), given={"audio": [None, 3, None]})


AUDIO = np.random.default_rng(3).standard_normal((2, 3, 9)).astype(np.float32)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_convolutions_around_two_nodes(op: str) -> None:
    session = both(convolved(op), {"audio": AUDIO})
    assert list(session.layers) == ["first", "second"]
    assert all(layer.frozen for layer in session.layers.values())
    assert not session.left
    assert_nothing_twice(session)
    (conv,) = [stage for _, stage in session._part._stages if any(n.op_type == "Conv" for n in stage.others)]
    assert "steps" in conv.outputs  # handed on, not computed again


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("condition", [True, False])
def test_branches(op: str, condition: bool) -> None:
    session = both(in_a_branch(op, arrays(op, I=4)), {"x": inputs(I=4), "cond": np.array(condition)})
    assert set(session.layers) == {"deep", "flat"}
    assert len(parts(session)) == 5
    for part in parts(session):  # weights are not handed on in every call
        assert not any({"W", "R", "B"} & {*stage.inputs} for _, stage in part._stages)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_weights_behind_operators(op: str) -> None:
    nodes, tensors = folded(arrays(op))
    session = both(model([*nodes, node(op)], tensors), {"x": inputs()})
    assert [stage.others for _, stage in session._part._stages] == [[]]  # nothing is left for onnxruntime


@pytest.mark.parametrize("directions", [1, 2])
def test_stacked(directions: int) -> None:
    whole, _ = stacked("GRU", directions)
    session = both(whole, {"x": inputs()})
    assert list(session.layers) == ["one", "two"]


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_weights_and_states_that_are_inputs(op: str) -> None:
    held = arrays(op)
    state = np.random.default_rng(2).uniform(-1, 1, (1, 2, 4)).astype(np.float32)
    made = node(op)
    made.input.extend(["lens", "h"])
    given: dict[str, Any] = {name: list(array.shape) for name, array in held.items()}
    given |= {"x": [None, None, 3], "h": [1, None, 4], "lens": (onnx.TensorProto.INT32, [None])}
    nodes = [helper.make_node("Neg", ["h0"], ["h"]), made]
    given["h0"] = given.pop("h")
    feeds = held | {"x": inputs(), "h0": state, "lens": np.array([5, 2], np.int32)}
    outputs = ("y", "y_h")
    session = both(model(nodes, {}, outputs=outputs, given=given), feeds)
    assert session.layers == {}  # made anew in each call
    both(model(nodes, held, outputs=outputs, given={k: v for k, v in given.items() if k not in held}),
         {k: v for k, v in feeds.items() if k not in held})  # fmt: skip


def test_initial_states_of_constants() -> None:
    made = node("LSTM")
    made.input.extend(["", "h", "c"])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["batch"]),
        helper.make_node("Concat", ["one", "batch", "four"], ["sides"], axis=0),
        helper.make_node("ConstantOfShape", ["sides"], ["h"]),
        helper.make_node("Expand", ["row", "sides"], ["c"]),
        made,
    ]
    tensors = arrays("LSTM") | {"one": np.array([1]), "four": np.array([4])}
    row = np.array([[[0.5, -1, 0, 2]]], np.float32)
    both(model(nodes, tensors | {"row": 0 * row}), {"x": inputs()})
    both(model(nodes, tensors | {"row": row}), {"x": inputs()})


def test_eight_bits_stay_in_onnxruntime_unless_asked_for() -> None:
    whole, _ = quantized(arrays("LSTM"), False, False)
    with pytest.raises(
        ValueError, match="expected a node RNN, GRU or LSTM that runs in fastrnn, got q: its weights"
    ):
        accelerate(whole)
    session = accelerate(whole, dequantize=True)
    want = runtime.InferenceSession(whole.SerializeToString()).run(None, {"x": inputs()})[0]
    np.testing.assert_allclose(session.run(None, {"x": inputs()})[0], want, atol=0.02)


def in_a_loop() -> Any:
    """A recurrent node at the top, and another in the body of a Loop."""
    held = arrays("RNN", I=4)
    state = helper.make_tensor_value_info("s", 1, [None, None, 4])
    count, go = helper.make_tensor_value_info("k", 7, []), helper.make_tensor_value_info("go", 9, [])
    body = [
        node("RNN", "inner", x="s", out="i"),
        helper.make_node("Squeeze", ["i", "axis"], ["s_out"]),
        helper.make_node("Identity", ["go"], ["go_out"]),
    ]
    results = [
        helper.make_tensor_value_info("go_out", 9, []),
        helper.make_tensor_value_info("s_out", 1, None),
    ]
    graph = helper.make_graph(body, "body", [count, go, state], results)
    nodes = [
        node("RNN", "outer"),
        helper.make_node("Squeeze", ["y", "axis"], ["flat"]),
        helper.make_node("Loop", ["times", "", "flat"], ["out"], "loop", body=graph),
    ]
    tensors = held | {"axis": np.array([1]), "times": np.array(2)}
    return model(nodes, tensors, outputs=("out",), given={"x": [None, None, 4]})


def test_bodies_of_loops_stay_in_onnxruntime() -> None:
    session = both(in_a_loop(), {"x": inputs(I=4)})
    assert list(session.layers) == ["outer"]
    assert session.left == {"inner": "it is in the body of Loop"}


def test_inputs_are_checked() -> None:
    session = accelerate(convolved("GRU"))
    (value,) = session.get_inputs()
    assert (value.name, value.type, value.shape) == ("audio", "tensor(float)", [None, 3, None])
    assert [v.name for v in session.get_outputs()] == ["out", "z_h", "steps"]
    assert session.run(["z_h"], {"audio": AUDIO})[0].shape == (1, 2, 4)
    for feeds, message in [
        ({}, "inputs: expected also audio, got none"),
        ({"audio": AUDIO, "more": AUDIO}, "inputs: expected only audio, got more"),
        ({"audio": AUDIO.astype(np.float64)}, "inputs: audio: expected an array of float32, got float64"),
        ({"audio": AUDIO[:, :2]}, r"inputs: audio: expected shape \[None, 3, None\], got \(2, 2, 9\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            session.run(None, feeds)
    with pytest.raises(ValueError, match="output_names: expected some of out, z_h, steps, got 'no'"):
        session.run(["no"], {"audio": AUDIO})


def test_models_that_onnxruntime_refuses() -> None:
    whole = convolved("GRU")
    whole.graph.node[1].op_type = "Nonsense"
    with pytest.raises(ValueError, match="onnxruntime cannot run this model"):
        accelerate(whole)
    with pytest.raises(
        ValueError, match="expected a node RNN, GRU or LSTM that runs in fastrnn, got no such node"
    ):
        accelerate(model([helper.make_node("Relu", ["x"], ["y"])], {}))


def test_the_backend_runs_whole_models() -> None:
    prepared = backend.prepare(convolved("LSTM"))
    want = runtime.InferenceSession(convolved("LSTM").SerializeToString()).run(None, {"audio": AUDIO})
    for got in (
        prepared.run([AUDIO]),
        prepared.run({"audio": AUDIO}),
        backend.run_model(convolved("LSTM"), AUDIO),
    ):
        np.testing.assert_allclose(got.out, want[0], rtol=1e-5, atol=1e-5)
