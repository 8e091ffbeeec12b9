"""A layer as an ONNX file."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _size, expect
from fastrnn._conversion import ACTIVATIONS, CELLS, ONNX_ORDER, functions_of, inverse, option, reordered
from fastrnn._recurrent import Recurrent
from fastrnn.io import write_atomically
from fastrnn.onnx._library import onnx_library
from fastrnn.onnx._nodes import FUNCTIONS

Array = NDArray[Any]
PathLike = str | os.PathLike[str]

OLDEST = 10  # the operators around the recurrent ones take their arguments as inputs since then
# Options of layers that the operators have, and those that make no difference to inference.
SAID = {"bias", "batch_first", "bidirectional", "num_layers", "nonlinearity", "reset_after", "dtype"}
SAID |= {"activations", "clip", "input_forget", "peepholes", "reverse", "merge", "learned_state"}
TRAINING = {"dropout", "recurrent_dropout", "noise", "rng"}


def export(
    layer: Recurrent, path: PathLike, *, opset: int = 22, lengths: bool = True, state: bool = True
) -> None:
    """Write a layer to an ONNX file, which any runtime for ONNX can run.

    The inputs of the graph are ``x``, and where you ask for them ``lengths`` [B] (int32) and the initial state ``h_0``,
    for an LSTM also ``c_0``. The outputs are ``y``, ``h_n`` and for an LSTM ``c_n``. Shapes are those of a call, with
    a batch axis; the numbers of steps and of sequences are left open. Each layer is a node named "LSTM_0" and so on.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    path : path
        The file is written whole or not at all.
    opset : int
        Version of the operators, from 10 to the newest that the installed onnx has.
    lengths : bool
        Whether the graph takes the steps of each sequence. For a sequence of no steps, runtimes return zeros as its
        final state; a layer returns the initial state.
    state : bool
        Whether the graph takes the initial state. Otherwise it is zeros, or what the layer has learned.

    Raises
    ------
    ValueError
        The layer has something that ONNX does not have, such as a projection.
    ImportError
        onnx is not installed.

    Examples
    --------
    >>> import os, tempfile, fastrnn, fastrnn.onnx
    >>> path = os.path.join(tempfile.mkdtemp(), "lstm.onnx")
    >>> lstm = fastrnn.LSTM(3, 4, bidirectional=True)
    >>> fastrnn.onnx.export(lstm, path)
    >>> again = fastrnn.onnx.load(path)["LSTM_0"]
    >>> bool((again.flat == lstm.flat).all())
    True
    """
    onnx = onnx_library()
    newest = onnx.defs.onnx_opset_version()
    expect(isinstance(layer, Recurrent), "layer", "an LSTM, GRU or RNN", type(layer).__name__, TypeError)
    expect(OLDEST <= _size("opset", opset) <= newest, "opset", f"{OLDEST} to {newest}", opset)
    graph = _Graph(layer, lengths, state).build()
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, producer_name="fastrnn")
    model.ir_version = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    try:
        data = model.SerializeToString()
    except Exception as error:  # protobuf ends at 2 GiB
        raise ValueError(f"layer: expected one that fits a file of 2 GiB, got {layer}") from error
    write_atomically(path, data)


class _Graph:
    """The graph of a layer as it is built, node by node."""

    def __init__(self, layer: Recurrent, lengths: bool, state: bool) -> None:
        self.onnx = onnx_library()
        self.layer, self.lengths, self.given = layer, lengths, state
        self.cell = next(name for name, kind in CELLS.items() if isinstance(layer, kind))
        self.kind = self.onnx.helper.np_dtype_to_tensor_dtype(layer.dtype)
        self.directions = 2 if layer.bidirectional else 1
        self.merge = option(layer, "merge", "concat") if layer.bidirectional else "concat"
        self.states = ("h", "c") if self.cell == "LSTM" else ("h",)
        self.learned = bool(option(layer, "learned_state"))
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self._refuse()

    def _refuse(self) -> None:
        """Raise where the layer has an option that ONNX does not have."""
        layer = self.layer
        expect(
            not layer.proj_size,
            "layer",
            "no projection, which ONNX does not have",
            f"proj_size={layer.proj_size}",
        )
        expect(
            self.merge in ("concat", "sum", "mul", "ave"), "layer", "a merge that is known", repr(self.merge)
        )
        for name, parameter in inspect.signature(type(layer)).parameters.items():
            if name in SAID | TRAINING | {"input_size", "hidden_size", "proj_size"}:
                continue
            value = option(layer, name, parameter.default)
            same = value is parameter.default or value == parameter.default
            expect(same, "layer", f"no {name}, which ONNX does not have", f"{name}={value!r}")

    def build(self) -> Any:
        """Return the graph."""
        helper, layer = self.onnx.helper, self.layer
        time = ["steps", "batch"]
        sides = time[::-1] if layer.batch_first else time
        inputs = [helper.make_tensor_value_info("x", self.kind, [*sides, layer.input_size])]
        if self.lengths:
            inputs.append(helper.make_tensor_value_info("lengths", self.onnx.TensorProto.INT32, ["batch"]))
        count = layer.num_layers * self.directions
        if self.given:
            for letter in self.states:
                shape = [count, "batch", layer.hidden_size]
                inputs.append(helper.make_tensor_value_info(f"{letter}_0", self.kind, shape))
        x = "x"
        if layer.batch_first:
            x = self.node("Transpose", [x], "x_by_step", perm=[1, 0, 2])
        lasts: dict[str, list[str]] = {letter: [] for letter in self.states}
        for level in range(layer.num_layers):
            x, made = self._level(level, x)
            for letter, name in made.items():
                lasts[letter].append(name)
        if layer.batch_first:
            x = self.node("Transpose", [x], "y_by_sequence", perm=[1, 0, 2])
        self.node("Identity", [x], "y")
        width = layer.hidden_size * (self.directions if self.merge == "concat" else 1)
        outputs = [helper.make_tensor_value_info("y", self.kind, [*sides, width])]
        for letter in self.states:
            self.node("Concat", lasts[letter], f"{letter}_n", axis=0)
            shape = [count, "batch", layer.hidden_size]
            outputs.append(helper.make_tensor_value_info(f"{letter}_n", self.kind, shape))
        tensors = list(self.tensors.values())
        return helper.make_graph(self.nodes, type(layer).__name__.lower(), inputs, outputs, tensors)

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node of one output, and return the output's name."""
        name = f"{operator}_of_{output}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def tensor(self, name: str, values: Any) -> str:
        """Add a stored tensor, and return its name."""
        self.tensors[name] = self.onnx.numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def _level(self, level: int, x: str) -> tuple[str, dict[str, str]]:
        """Add the nodes of one layer; return the names of its outputs: y, and the states by letter."""
        layer = self.layer
        inputs = [x, *self._weights(level), "lengths" if self.lengths else ""]
        inputs += [self._initial(letter, level, x) for letter in self.states]
        peepholes = self._peepholes(level)
        inputs += [peepholes] * bool(peepholes)
        while not inputs[-1]:
            inputs.pop()
        made = [f"Y_{level}", *(f"Y_{letter}_{level}" for letter in self.states)]
        attributes = self._attributes()
        node = self.onnx.helper.make_node(self.cell, inputs, made, f"{self.cell}_{level}", **attributes)
        self.nodes.append(node)
        states = dict(zip(self.states, made[1:], strict=True))
        if self.directions == 1:  # [T, 1, B, H]
            shape = self.tensor(f"shape_{level}", np.array([0, -1, layer.hidden_size], np.int64))
            return self.node("Reshape", [made[0], shape], f"y_{level}"), states
        if self.merge == "concat":
            swapped = self.node("Transpose", [made[0]], f"Y_by_sequence_{level}", perm=[0, 2, 1, 3])
            shape = self.tensor(f"shape_{level}", np.array([0, 0, 2 * layer.hidden_size], np.int64))
            return self.node("Reshape", [swapped, shape], f"y_{level}"), states
        halves = []
        for direction in range(2):
            which = self.tensor(f"direction_{direction}", np.array(direction, np.int64))
            halves.append(self.node("Gather", [made[0], which], f"y_{level}_{direction}", axis=1))
        if self.merge == "mul":
            return self.node("Mul", halves, f"y_{level}"), states
        total = self.node("Add", halves, f"y_{level}")
        if self.merge == "ave":
            half = self.tensor("half", np.array(0.5, layer.dtype))
            total = self.node("Mul", [total, half], f"y_{level}_mean")
        return total, states

    def _suffixes(self, level: int) -> list[str]:
        return [f"_l{level}{way}" for way in ("", "_reverse")[: self.directions]]

    def _weights(self, level: int) -> list[str]:
        """Return the names of W, R and B of a layer; B is "" where there is none."""
        params, order = self.layer.params, inverse(ONNX_ORDER[self.cell])
        ends = self._suffixes(level)

        def stacked(name: str) -> Array:
            return np.stack([reordered(params[name + end], order) for end in ends])

        names = [
            self.tensor(f"W_{level}", stacked("weight_ih")),
            self.tensor(f"R_{level}", stacked("weight_hh")),
        ]
        if not self.layer.bias:
            return [*names, ""]
        biases = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
        return [*names, self.tensor(f"B_{level}", biases)]

    def _peepholes(self, level: int) -> str:
        """Return the name of P [D, 3 * H] of a layer, in the order i, o, f; "" where there is none."""
        if not option(self.layer, "peepholes"):
            return ""
        params = self.layer.params
        rows = [
            np.concatenate([params[f"weight_{gate}{end}"].ravel() for gate in ("ci", "co", "cf")])
            for end in self._suffixes(level)
        ]
        return self.tensor(f"P_{level}", np.stack(rows))

    def _initial(self, letter: str, level: int, x: str) -> str:
        """Return the name of a layer's initial state; "" for zeros."""
        size = self.directions
        if self.given:
            if self.layer.num_layers == 1:
                return f"{letter}_0"
            bounds = [self.tensor(f"from_{level}", np.array([level * size], np.int64))]
            bounds += [self.tensor(f"to_{level}", np.array([(level + 1) * size], np.int64))]
            bounds += [self.tensor("axis", np.array([0], np.int64))]
            return self.node("Slice", [f"{letter}_0", *bounds], f"initial_{letter}_{level}")
        if not self.learned:
            return ""
        hidden = self.layer.hidden_size
        held = self.layer.params[f"{letter}_0"].reshape(-1, 1, hidden)
        row = self.tensor(f"learned_{letter}_{level}", held[level * size : (level + 1) * size])
        if "batch_shape" not in {node.output[0] for node in self.nodes}:
            shape = self.node("Shape", [x], "shape_of_x")
            second = self.tensor("second", np.array([1], np.int64))
            batch = self.node("Gather", [shape, second], "batch_size", axis=0)
            sides = [self.tensor("directions", np.array([size], np.int64)), batch]
            sides.append(self.tensor("width", np.array([hidden], np.int64)))
            self.node("Concat", sides, "batch_shape", axis=0)
        return self.node("Expand", [row, "batch_shape"], f"initial_{letter}_{level}")

    def _attributes(self) -> dict[str, Any]:
        layer = self.layer
        reverse = bool(option(layer, "reverse"))
        direction = "bidirectional" if self.directions == 2 else "reverse" if reverse else "forward"
        found: dict[str, Any] = {"hidden_size": layer.hidden_size, "direction": direction}
        if self.cell == "GRU":
            found["linear_before_reset"] = int(layer.reset_after)  # type: ignore[attr-defined]
        if option(layer, "input_forget"):
            found["input_forget"] = 1
        if option(layer, "clip") is not None:
            found["clip"] = float(option(layer, "clip"))
        return found | self._activations()

    def _activations(self) -> dict[str, Any]:
        """Return the attributes that say the activations, where they are not the operator's own."""
        each = functions_of(self.layer, self.cell)
        expect(each is not None, "layer", "one activation for all gates, as ONNX has", repr(self.layer))
        assert each is not None
        spelled = {name: onnx for onnx, (name, _) in FUNCTIONS.items()}
        names: list[str] = []
        numbers: dict[str, list[float]] = {"activation_alpha": [], "activation_beta": []}
        for function in (f for direction in each for f in direction):
            name, *values = (function,) if isinstance(function, str) else function
            plain = {"linear": ("affine", [1.0, 0.0]), "identity": ("affine", [1.0, 0.0])}
            name, values = plain.get(name, (name, values))
            expect(name in spelled, "layer", "activations that ONNX has", repr(function))
            defaults = FUNCTIONS[spelled[name]][1]
            values = [*values, *defaults[len(values) :]][: len(defaults)]
            names.append(SPELLED[spelled[name]])
            for key, value in zip(numbers, values, strict=False):
                numbers[key].append(float(value))
        own = [SPELLED[name] for name in ACTIVATIONS[self.cell]] * self.directions
        if names == own:
            return {}
        return {"activations": names} | {key: held for key, held in numbers.items() if held}


# The operators' own spelling of the names of activation functions.
SPELLED = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "affine": "Affine", "leakyrelu": "LeakyRelu"}
SPELLED |= {"thresholdedrelu": "ThresholdedRelu", "scaledtanh": "ScaledTanh", "hardsigmoid": "HardSigmoid"}
SPELLED |= {"elu": "Elu", "softsign": "Softsign", "softplus": "Softplus"}
