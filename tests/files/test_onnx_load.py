"""Layers from ONNX files: where weights may stand, what is joined, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_graphs import arrays, constant, helper, inputs, model, needs, node, numpy_helper, onnx, reference

import fastrnn
from fastrnn.onnx import load

OPS = pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])


def y_of(layer: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(layer(x)[0])


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@OPS
@pytest.mark.parametrize("bias", [True, False])
def test_initializers(op: str, bias: bool, tmp_path: Path) -> None:
    held = arrays(op, bias=bias)
    made = node(op)
    if not bias:
        del made.input[3]
    onnx.save(model([made], held), tmp_path / "a.onnx")
    for source in (tmp_path / "a.onnx", str(tmp_path / "a.onnx"), (tmp_path / "a.onnx").read_bytes()):
        layers = load(source)
        assert list(layers) == ["cell"]
        layer = layers["cell"]
        assert type(layer).__name__ == op
        assert layer.bias is bias
        assert_close(y_of(layer, inputs()), reference(op, held, inputs()))


@pytest.mark.parametrize("after", [0, 1])
def test_both_resets(after: int) -> None:
    held = arrays("GRU")
    layer = load(model([node("GRU", linear_before_reset=after)], held))["cell"]
    assert layer.reset_after is bool(after)
    want = reference("GRU", held, inputs(), linear_before_reset=after)
    assert_close(y_of(layer, inputs()), want)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats(dtype: Any) -> None:
    held = arrays("LSTM", dtype=dtype)
    layer = load(model([node("LSTM")], held))["cell"]
    assert layer.dtype == (np.float64 if dtype is np.float64 else np.float32)
    assert_close(y_of(layer, inputs()), reference("LSTM", held, inputs()))


def test_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    held = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays("GRU").items()}
    layer = load(model([node("GRU")], held, opset=22))["cell"]
    wide = {name: array.astype(np.float32) for name, array in held.items()}
    assert_close(y_of(layer, inputs()), reference("GRU", wide, inputs()))


# -- what exporters put around weights ------------------------------------------------------------------------


def folded(held: dict[str, np.ndarray]) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Nodes and tensors that make W, R and B in a long way, as exporters of PyTorch write them."""
    w, r, b = held["W"][0], held["R"][0], held["B"][0]
    half = len(w) // 2
    tensors = {
        "w_low": w[:half], "w_high": np.concatenate([np.zeros((3, 3), np.float32), w[half:]]),
        "starts": np.array([3]), "ends": np.array([2**62]), "axis": np.array([0]),
        "r_turned": r.T, "b_16": np.repeat(b[None], 2, axis=0), "one": np.array([1]),
        "shape": np.array([1, -1]), "zero": np.zeros(1, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Slice", ["w_high", "starts", "ends", "axis"], ["w_cut"]),
        helper.make_node("Concat", ["w_low", "w_cut"], ["w"], axis=0),
        helper.make_node("Unsqueeze", ["w", "axis"], ["w_1"]),
        helper.make_node("Identity", ["w_1"], ["W"]),
        helper.make_node("Transpose", ["r_turned"], ["r"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["r", "axis"], ["R"]),
        helper.make_node("Gather", ["b_16", "one"], ["b_row"], axis=0),
        helper.make_node("Squeeze", ["b_row", "axis"], ["b"]),
        helper.make_node("Cast", ["b"], ["b_cast"], to=1),
        helper.make_node("Add", ["b_cast", "zero"], ["b_sum"]),
        helper.make_node("Reshape", ["b_sum", "shape"], ["B"]),
    ]
    return nodes, tensors


@OPS
def test_weights_behind_operators(op: str) -> None:
    held = arrays(op)
    nodes, tensors = folded(held)
    layer = load(model([*nodes, node(op)], tensors))["cell"]
    assert_close(y_of(layer, inputs()), reference(op, held, inputs()))


def test_constant_nodes_and_functions() -> None:
    held = arrays("LSTM")
    body = [helper.make_node("Identity", ["a"], ["b"])]
    function = helper.make_function("own", "same", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [constant(f"{name}_c", array) for name, array in held.items()]
    nodes += [helper.make_node("same", [f"{name}_c"], [name], domain="own") for name in held]
    layer = load(model([*nodes, node("LSTM")], {}, functions=[function], domains=("own",)))["cell"]
    assert_close(y_of(layer, inputs()), reference("LSTM", held, inputs()))


def in_a_branch(op: str, held: dict[str, np.ndarray]) -> Any:
    """A model whose node stands in a branch of If in a branch of If, with weights of the outer graphs."""
    value = helper.make_tensor_value_info("y", 1, [None, 1, None, 4])
    deep = helper.make_graph([node(op, "deep")], "deep", [], [value])
    flat = helper.make_graph([node(op, "flat", out="z")], "flat", [], [_info("z")])
    inner = helper.make_node("If", ["cond"], ["z2"], "inner", then_branch=deep, else_branch=flat)
    then = helper.make_graph([inner], "then", [], [_info("z2")])
    other = helper.make_graph([helper.make_node("Unsqueeze", ["x", "axes"], ["u"])], "else", [], [_info("u")])
    outer = helper.make_node("If", ["cond"], ["out"], "outer", then_branch=then, else_branch=other)
    given = {"x": [None, None, 4], "cond": (onnx.TensorProto.BOOL, [])}
    return model([outer], held | {"axes": np.array([1])}, outputs=("out",), given=given)


def _info(name: str) -> Any:
    return helper.make_tensor_value_info(name, 1, [None, 1, None, 4])


@OPS
def test_nodes_in_branches(op: str) -> None:
    held = arrays(op, I=4)
    layers = load(in_a_branch(op, held))
    assert set(layers) == {"deep", "flat"}
    for layer in layers.values():
        assert_close(y_of(layer, inputs(I=4)), reference(op, held, inputs(I=4)))


def test_external_data(tmp_path: Path) -> None:
    held = arrays("GRU")
    whole = model([node("GRU")], held)
    onnx.save_model(
        whole, tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0
    )
    layer = load(tmp_path / "a.onnx")["cell"]
    assert_close(y_of(layer, inputs()), reference("GRU", held, inputs()))
    with pytest.raises(ValueError, match="expected a model from a path"):
        load((tmp_path / "a.onnx").read_bytes())


# -- quantized weights ----------------------------------------------------------------------------------------


def quantized(held: dict[str, np.ndarray], unsigned: bool, by_row: bool) -> Any:
    """A model with DynamicQuantizeLSTM, and the weights that its integers stand for."""
    tensors: dict[str, np.ndarray] = {"B": held["B"]}
    exact = dict(held)
    for name in ("W", "R"):
        turned = held[name].swapaxes(1, 2)  # [D, I, 4 H]
        axes = 1 if by_row else (1, 2)
        scale = np.abs(turned).max(axis=axes, keepdims=True) / 127
        zero = 128 if unsigned else 0
        integers = np.clip(np.round(turned / scale) + zero, 0 if unsigned else -128, 255 if unsigned else 127)
        tensors[name] = integers.astype(np.uint8 if unsigned else np.int8)
        tensors[f"{name}s"] = (scale[:, 0] if by_row else scale[:, 0, 0]).astype(np.float32)
        tensors[f"{name}z"] = np.full(tensors[f"{name}s"].shape, zero, tensors[name].dtype)
        exact[name] = ((integers - zero) * scale).swapaxes(1, 2).astype(np.float32)
    names = ["x", "W", "R", "B", "", "", "", "", "Ws", "Wz", "Rs", "Rz"]
    made = helper.make_node("DynamicQuantizeLSTM", names, ["y"], "q", domain="com.microsoft", hidden_size=4)
    return model([made], tensors, domains=("com.microsoft",)), exact


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("by_row", [False, True])
def test_quantized_weights_become_floats(unsigned: bool, by_row: bool) -> None:
    whole, exact = quantized(arrays("LSTM"), unsigned, by_row)
    layer = load(whole)["q"]
    assert_close(y_of(layer, inputs()), reference("LSTM", exact, inputs()))
    runtime = pytest.importorskip("onnxruntime")
    y = runtime.InferenceSession(whole.SerializeToString()).run(None, {"x": inputs()})[0]
    np.testing.assert_allclose(y_of(layer, inputs()), y[:, 0], atol=0.02)  # its x and h have 8 bits


# -- layers that stand on each other ---------------------------------------------------------------------------


def stacked(
    op: str, directions: int = 1, dropped: bool = True, skip: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Two nodes as exporters of PyTorch write a module of two layers."""
    lower, upper = arrays(op, D=directions, seed=1), arrays(op, I=4 * directions, D=directions, seed=2)
    tensors = {f"{name}0": array for name, array in lower.items()} | {f"{n}1": a for n, a in upper.items()}
    way = "bidirectional" if directions == 2 else "forward"
    tensors |= {"axis": np.array([1]), "shape": np.array([0, 0, -1])}
    nodes = [helper.make_node(op, ["x", "W0", "R0", "B0"], ["a", "a_h"], "one", hidden_size=4, direction=way)]
    if directions == 2:
        nodes.append(helper.make_node("Transpose", ["a"], ["t"], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", ["t", "shape"], ["s"]))
    else:
        nodes.append(helper.make_node("Squeeze", ["a", "axis"], ["s"]))
    if dropped:
        nodes.append(helper.make_node("Dropout", ["s"], ["d"]))
    last = "d" if dropped else "s"
    nodes.append(
        helper.make_node(op, [last, "W1", "R1", "B1"], ["y", "y_h"], "two", hidden_size=4, direction=way)
    )
    return model(nodes, tensors, outputs=("y", "s") if skip else ("y", "a_h")), {
        "lower": lower,
        "upper": upper,
    }


@OPS
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dropped", [True, False])
def test_layers_of_one_module_are_joined(op: str, directions: int, dropped: bool) -> None:
    whole, _ = stacked(op, directions, dropped)
    layers = load(whole)
    assert list(layers) == ["one"]
    assert layers["one"].num_layers == 2
    apart = load(whole, join=False)
    assert list(apart) == ["one", "two"]
    x = inputs()
    np.testing.assert_array_equal(y_of(layers["one"], x), y_of(apart["two"], y_of(apart["one"], x)))


def test_nodes_stay_apart_where_others_read_between_them() -> None:
    whole, _ = stacked("LSTM", skip=True)
    assert list(load(whole)) == ["one", "two"]


def test_nodes_stay_apart_where_numbers_are_moved_between_them() -> None:
    whole, _ = stacked("GRU", directions=2)
    transpose = next(n for n in whole.graph.node if n.op_type == "Transpose")
    transpose.attribute[0].ints[:] = [0, 2, 3, 1]  # units before directions
    assert list(load(whole)) == ["one", "two"]


def test_nodes_without_names_have_numbers() -> None:
    held = arrays("RNN")
    nodes = [
        node("RNN", ""),
        node("RNN", "", out="z"),
        node("RNN", "same", out="u"),
        node("RNN", "same", out="v"),
    ]
    assert list(load(model(nodes, held))) == ["RNN_0", "RNN_1", "same", "same_0"]


# -- initial states ---------------------------------------------------------------------------------------------


def with_state(state: list[Any], tensors: dict[str, np.ndarray], op: str = "GRU") -> Any:
    made = node(op)
    made.input.extend(["", "h"])
    return model([*state, made], arrays(op) | tensors)


ROW = np.array([[[0.5, -0.25, 0, 1]]], np.float32)


@pytest.mark.parametrize(
    ("state", "tensors"),
    [
        ([helper.make_node("ConstantOfShape", ["s"], ["h"])], {"s": np.array([1, 2, 4])}),
        ([helper.make_node("Expand", ["z", "s"], ["h"])], {"z": 0 * ROW, "s": np.array([1, 2, 4])}),
        ([], {"h": np.zeros((1, 2, 4), np.float32)}),
        (
            [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("ConstantOfShape", ["s"], ["h"])],
            {},
        ),
    ],
)
def test_zero_states_are_left_out(state: list[Any], tensors: dict[str, np.ndarray]) -> None:
    layer = load(with_state(state, tensors))["cell"]
    assert_close(y_of(layer, inputs()), reference("GRU", arrays("GRU"), inputs()))


@needs("learned_state")
@pytest.mark.parametrize(
    ("state", "tensors"),
    [
        ([], {"h": ROW}),
        ([], {"h": ROW.repeat(2, axis=1)}),
        (
            [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Expand", ["r", "s"], ["h"])],
            {"r": ROW},
        ),
        ([helper.make_node("Tile", ["r", "n"], ["h"])], {"r": ROW, "n": np.array([1, 2, 1])}),
    ],
)
def test_states_in_the_graph_are_learned(state: list[Any], tensors: dict[str, np.ndarray]) -> None:
    layer = load(with_state(state, tensors))["cell"]
    assert layer.learned_state
    plain = load(model([node("GRU")], arrays("GRU")))["cell"]
    want = plain(inputs(), ROW.repeat(2, axis=1))[0]
    np.testing.assert_array_equal(y_of(layer, inputs()), want)


def test_states_that_differ_between_sequences_are_refused() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    with pytest.raises(ValueError, match="node 'cell': initial_h: expected one state for all sequences"):
        load(with_state([], {"h": rows}))
    with pytest.raises(ValueError, match="node 'cell': initial_h: expected zeros, an input or a constant"):
        load(
            with_state(
                [helper.make_node("ConstantOfShape", ["s"], ["h"], value=_one())], {"s": np.array([1, 2, 4])}
            )
        )


def _one() -> Any:
    return numpy_helper.from_array(np.ones(1, np.float32))


def test_states_from_inputs_are_those_of_the_call() -> None:
    made = node("GRU")
    made.input.extend(["", "h"])
    whole = model([made], arrays("GRU"), given={"x": [None, None, 3], "h": [1, None, 4]})
    assert_close(y_of(load(whole)["cell"], inputs()), reference("GRU", arrays("GRU"), inputs()))


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 5}, r"R: expected shape \(1, 20, 5\), got \(1, 16, 4\)"),
        ({"hidden_size": -1}, "hidden_size: expected at least 1, got -1"),
        ({"hidden_size": 4.0}, "hidden_size: expected an attribute of type i"),
        (
            {"direction": "sideways"},
            "direction: expected 'forward' or 'reverse' or 'bidirectional', got 'sideways'",
        ),
        ({"direction": "bidirectional"}, r"R: expected shape \(2, 16, 4\), got \(1, 16, 4\)"),
        ({"layout": 2}, "layout: expected 0 or 1, got 2"),
        ({"clip": -1.0}, "clip: expected more than 0, got -1.0"),
        ({"clip": float("nan")}, "clip: expected more than 0, got nan"),
        ({"activations": ["Tanh"]}, "activations: expected 3, got 1"),
        ({"activations": ["Tanh", "Tanh", "Magic"]}, "activations: expected one of affine .* got 'Magic'"),
        ({"activations": ["ScaledTanh"] * 3}, "activation_alpha: expected a number for ScaledTanh, got none"),
        (
            {"linear_before_reset": 1},
            "attribute 'linear_before_reset': expected one that LSTM has, got another",
        ),
        ({"brightness": 1}, "attribute 'brightness': expected one that LSTM has, got another"),
    ],
)
def test_attributes_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="node 'cell': " + message):
        load(model([node("LSTM", **change)], arrays("LSTM")))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("W", (1, 15, 3)), ("W", (16, 3)), ("R", (1, 16, 5)), ("B", (1, 16)), ("W", (1, 16, 0))],
)
def test_shapes_are_refused_by_name(name: str, shape: tuple[int, ...]) -> None:
    held = arrays("LSTM") | {name: np.zeros(shape, np.float32)}
    with pytest.raises(ValueError, match=rf"node 'cell': {name}: expected shape .*, got \({shape[0]}"):
        load(model([node("LSTM")], held))


def test_weights_that_are_not_constant_are_refused() -> None:
    held = {name: array for name, array in arrays("LSTM").items() if name != "W"}
    whole = model([node("LSTM")], held, given={"x": [1, 1, 3], "W": [1, 16, 3]})
    with pytest.raises(ValueError, match="node 'cell': W: expected a constant, got the input 'W'"):
        load(whole)
    made = helper.make_node("Mul", ["V", "x"], ["W"])
    with pytest.raises(ValueError, match="node 'cell': W: expected a constant, got the output 'W' of Mul"):
        load(model([made, node("LSTM")], {n: a for n, a in arrays("LSTM").items() if n != "W"} | {"V": ROW}))


def test_cells_that_are_taken_apart_are_refused() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Tanh", ["b"], ["y"]),
    ]
    with pytest.raises(
        ValueError, match=r"expected a graph with a node RNN, GRU or LSTM, got none: its cells may be taken"
    ):
        load(model(nodes, {"w": np.ones((3, 4), np.float32)}))
    with pytest.raises(ValueError, match=r"got none$"):
        load(model([helper.make_node("Relu", ["x"], ["y"])], {}))
    with pytest.raises(
        TypeError, match=r"path_or_model: expected a path, bytes or an onnx.ModelProto, got int"
    ):
        load(3)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.onnx"
    onnx.save(model([node("LSTM", clip=-1.0)], arrays("LSTM")), path)
    with pytest.raises(ValueError, match=r"some.onnx: node 'cell': clip"):
        load(path)
    path.write_bytes(b"\x12\x34 no model")
    with pytest.raises(ValueError, match=r"some.onnx: not a sound ONNX file"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.onnx")


@needs("reverse", "clip", "input_forget", "activations", "peepholes")
def test_options_arrive() -> None:
    held = arrays("LSTM") | {"P": np.arange(12, dtype=np.float32)[None]}
    made = node(
        "LSTM", direction="reverse", clip=2.0, input_forget=1, activations=["Sigmoid", "Relu", "Tanh"]
    )
    made.input.extend(["", "", "", "P"])
    layer = load(model([made], held))["cell"]
    assert isinstance(layer, fastrnn.LSTM)
    text = repr(layer)
    for option in ("reverse=True", "clip=2.0", "input_forget=True", "relu", "peepholes=True"):
        assert option in text
    for name, start in (("weight_ci_l0", 0), ("weight_co_l0", 4), ("weight_cf_l0", 8)):  # ONNX has i, o, f
        np.testing.assert_array_equal(layer.params[name].ravel(), np.arange(start, start + 4))
