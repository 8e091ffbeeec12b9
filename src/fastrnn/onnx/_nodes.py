"""A recurrent node of an ONNX graph: what its attributes say, and its weights in the order of torch.nn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import _conversion
from fastrnn._arrays import expect
from fastrnn._conversion import GATES, ONNX_ORDER, Weights, reordered
from fastrnn._recurrent import Recurrent
from fastrnn.onnx._library import onnx_library
from fastrnn.onnx._model import Scope

Array = NDArray[Any]

QUANTIZED = "DynamicQuantizeLSTM"  # of ONNX Runtime: weights of 8 bits with scales
# Names of the inputs by their place.
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
QUANTIZED_INPUTS = (*INPUTS, "W_scale", "W_zero_point", "R_scale", "R_zero_point")
STORED = ("W", "R", "B", "P", *QUANTIZED_INPUTS[8:])  # those that are weights
INPUT_COUNT = {"RNN": 6, "GRU": 6, "LSTM": 8, QUANTIZED: 12}

# ONNX's activation functions: fastrnn's names, and the defaults of alpha and beta as far as a function takes them.
FUNCTIONS: dict[str, tuple[str, tuple[float | None, ...]]] = {
    "sigmoid": ("sigmoid", ()),
    "tanh": ("tanh", ()),
    "relu": ("relu", ()),
    "softsign": ("softsign", ()),
    "softplus": ("softplus", ()),
    "elu": ("elu", (1.0,)),
    "leakyrelu": ("leaky_relu", (0.01,)),
    "thresholdedrelu": ("thresholded_relu", (1.0,)),
    "hardsigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "affine": ("affine", (1.0, 0.0)),
    "scaledtanh": ("scaled_tanh", (None, None)),
}
# What each attribute holds, and which operators have it.
ATTRIBUTES: dict[str, tuple[str, tuple[str, ...]]] = {
    "activations": ("strings", ("RNN", "GRU", "LSTM")),
    "activation_alpha": ("floats", ("RNN", "GRU", "LSTM")),
    "activation_beta": ("floats", ("RNN", "GRU", "LSTM")),
    "clip": ("f", ("RNN", "GRU", "LSTM")),
    "direction": ("s", ("RNN", "GRU", "LSTM")),
    "hidden_size": ("i", ("RNN", "GRU", "LSTM")),
    "layout": ("i", ("RNN", "GRU", "LSTM")),
    "output_sequence": ("i", ("RNN", "GRU", "LSTM")),  # of opset 1: whether Y is wanted
    "linear_before_reset": ("i", ("GRU",)),
    "input_forget": ("i", ("LSTM",)),
}


@dataclass(frozen=True)
class Node:
    """What a recurrent node says, without its weights."""

    where: str  # for messages
    name: str
    cell: str  # RNN, GRU or LSTM
    quantized: bool
    hidden_size: int | None  # None: as R says
    direction: str
    batch_first: bool
    reset_after: bool
    input_forget: bool
    clip: float | None
    functions: tuple[tuple[Any, ...], ...]  # of each direction
    inputs: tuple[str, ...]  # names in the graph, by the places of INPUTS
    outputs: tuple[str, ...]

    @property
    def directions(self) -> int:
        """How many directions the node runs."""
        return 2 if self.direction == "bidirectional" else 1

    def input(self, place: str) -> str:
        """Return the graph's name of an input, "" where there is none."""
        index = QUANTIZED_INPUTS.index(place)
        return self.inputs[index] if index < len(self.inputs) else ""

    def output(self, index: int) -> str:
        """Return the graph's name of an output, "" where nobody wants it."""
        return self.outputs[index] if index < len(self.outputs) else ""


def is_recurrent(node: Any) -> bool:
    """Whether a node of a graph is one that this package reads."""
    if node.domain == "com.microsoft":
        return bool(node.op_type == QUANTIZED)
    return node.domain in ("", "ai.onnx") and node.op_type in GATES


def parse(proto: Any, name: str, file: str = "") -> Node:
    """Return what a node says; every attribute is understood or refused."""
    where = f"{file}node {name!r}"
    quantized = proto.op_type == QUANTIZED
    cell = "LSTM" if quantized else proto.op_type
    held = _attributes(proto, cell, where)
    direction = held.get("direction", "forward")
    ways = ("forward", "reverse", "bidirectional")
    expect(direction in ways, f"{where}: direction", " or ".join(map(repr, ways)), repr(direction))
    for flag in ("layout", "linear_before_reset", "input_forget"):
        expect(held.get(flag, 0) in (0, 1), f"{where}: {flag}", "0 or 1", held.get(flag))
    hidden_size, clip = held.get("hidden_size"), held.get("clip")
    expect(hidden_size is None or hidden_size > 0, f"{where}: hidden_size", "at least 1", hidden_size)
    expect(clip is None or clip > 0, f"{where}: clip", "more than 0", clip)
    count = INPUT_COUNT[proto.op_type]
    expect(3 <= len(proto.input) <= count, f"{where}: inputs", f"3 to {count}", len(proto.input))
    outputs = 3 if cell == "LSTM" else 2
    expect(len(proto.output) <= outputs, f"{where}: outputs", f"at most {outputs}", len(proto.output))
    for place in range(3):
        expect(proto.input[place], f"{where}: {INPUTS[place]}", "an input", "none")
    return Node(
        where, name, cell, quantized, hidden_size, direction,
        batch_first=bool(held.get("layout", 0)),
        reset_after=bool(held.get("linear_before_reset", 0)),
        input_forget=bool(held.get("input_forget", 0)),
        clip=clip,
        functions=_functions(held, cell, 2 if direction == "bidirectional" else 1, where),
        inputs=tuple(proto.input), outputs=tuple(proto.output),
    )  # fmt: skip


def _attributes(proto: Any, cell: str, where: str) -> dict[str, Any]:
    """Return the attributes of a node as Python values."""
    onnx = onnx_library()
    held: dict[str, Any] = {}
    for attribute in proto.attribute:
        name = attribute.name
        kind, cells = ATTRIBUTES.get(name, ("", ()))
        expect(cell in cells, f"{where}: attribute {name!r}", f"one that {cell} has", "another")
        wanted = getattr(
            onnx.AttributeProto, {"s": "STRING", "i": "INT", "f": "FLOAT"}.get(kind, kind.upper())
        )
        fits = attribute.type == wanted and not attribute.ref_attr_name
        expect(fits, f"{where}: {name}", f"an attribute of type {kind}", f"type {attribute.type}")
        value: Any = onnx.helper.get_attribute_value(attribute)
        try:
            value = [v.decode() for v in value] if kind == "strings" else value
            value = value.decode() if kind == "s" else value
        except UnicodeDecodeError:
            raise ValueError(f"{where}: {name}: expected text, got bytes that are none") from None
        held[name] = value
    return held


def _functions(held: dict[str, Any], cell: str, directions: int, where: str) -> tuple[tuple[Any, ...], ...]:
    """Return the activation functions of each direction: a name, or a tuple of a name and its numbers."""
    each = len(_conversion.ACTIVATIONS[cell])
    names = held.get("activations") or list(_conversion.ACTIVATIONS[cell]) * directions
    expect(len(names) == each * directions, f"{where}: activations", each * directions, len(names))
    # alpha and beta are lists of numbers for those functions, in their order, that take one
    numbers = [list(held.get(key, [])) for key in ("activation_alpha", "activation_beta")]
    found: list[Any] = []
    for given in names:
        known = " or ".join(sorted(FUNCTIONS))
        expect(given.lower() in FUNCTIONS, f"{where}: activations", f"one of {known}", repr(given))
        name, defaults = FUNCTIONS[given.lower()]
        values = []
        for letter, left, default in zip(("alpha", "beta"), numbers, defaults, strict=False):
            value: Any = left.pop(0) if left else default
            expect(value is not None, f"{where}: activation_{letter}", f"a number for {given}", "none")
            values.append(float(value))
        found.append((name, *values) if values else name)
    return tuple(tuple(found[d * each : (d + 1) * each]) for d in range(directions))


def constants(node: Node, scope: Scope) -> list[Weights]:
    """Return the weights of a node's directions, which must be constant."""
    arrays: dict[str, Array] = {}
    for place in STORED:
        name = node.input(place)
        if name:
            value = scope.value(name)
            if value is None:
                _, made = scope.find(name)
                got = f"the output {name!r} of {made.op_type}" if made is not None else f"the input {name!r}"
                raise ValueError(f"{node.where}: {place}: expected a constant, got {got}")
            arrays[place] = value
    return weights(node, arrays)


def weights(node: Node, arrays: dict[str, Array]) -> list[Weights]:
    """Return the weights of a node's directions, after their shapes have been checked.

    ``arrays`` has W [D, gates * H, I] and R [D, gates * H, H]; it may have B [D, 2 * gates * H] and P [D, 3 * H].
    """
    if node.quantized:
        arrays = _dequantized(node, arrays)
    gates, directions = GATES[node.cell], node.directions
    for place, array in arrays.items():
        expect(array.dtype.kind == "f", f"{node.where}: {place}", "an array of floats", array.dtype)
    w, r, b, p = (arrays.get(place) for place in ("W", "R", "B", "P"))
    assert w is not None
    assert r is not None
    hidden = node.hidden_size or (r.shape[-1] if r.ndim == 3 else 0)
    _shape(node, "R", r, (directions, gates * hidden, hidden))
    width = w.shape[2] if w.ndim == 3 else 0
    _shape(node, "W", w, (directions, gates * hidden, width or "features"))
    _shape(node, "B", b, (directions, 2 * gates * hidden))
    _shape(node, "P", p, (directions, 3 * hidden))
    dtype = np.float64 if w.dtype.itemsize > 4 else np.float32
    found = []
    for d in range(directions):
        order = ONNX_ORDER[node.cell]
        rows = [reordered(array[d].astype(dtype, copy=False), order) for array in (w, r)]
        halves: list[Array | None] = [None, None]
        if b is not None:
            halves = [reordered(half, order) for half in np.split(b[d].astype(dtype, copy=False), 2)]
        peepholes = None
        if p is not None and p.any():  # those of i, o and f
            peepholes = p[d].astype(dtype, copy=False).reshape(3, hidden)[[0, 2, 1]]
        found.append(Weights(rows[0], rows[1], halves[0], halves[1], peepholes))
    return found


def _shape(node: Node, place: str, array: Array | None, shape: tuple[Any, ...]) -> None:
    if array is not None:
        expect(array.shape == shape and array.size, f"{node.where}: {place}", f"shape {shape}", array.shape)


def _dequantized(node: Node, arrays: dict[str, Array]) -> dict[str, Array]:
    """Return what integers and scales stand for; W and R are stored transposed, scales are for a matrix or a row."""
    found = {place: array for place, array in arrays.items() if place in INPUTS}
    for place in ("W", "R"):
        where = f"{node.where}: {place}"
        integers = arrays[place]
        expect(integers.dtype in (np.int8, np.uint8), where, "int8 or uint8", integers.dtype)
        fits = integers.ndim == 3 and len(integers) == node.directions and integers.size
        expect(fits, where, f"shape ({node.directions}, features, {GATES[node.cell]} * H)", integers.shape)
        scale, zero = (
            arrays.get(f"{place}_scale"),
            arrays.get(f"{place}_zero_point", np.zeros(1, integers.dtype)),
        )
        expect(scale is not None, f"{where}_scale", "an array", "none")
        assert scale is not None
        columns = integers.shape[2]
        for name, array in (("scale", scale), ("zero_point", zero)):
            whole = (node.directions, columns)
            fits = array.shape in ((node.directions,), (1,), (), whole)
            expect(fits, f"{where}_{name}", f"shape {whole[:1]} or {whole}", array.shape)
        scale, zero = (a.reshape(*a.shape[:1], 1, -1) for a in (scale, zero))
        exact = integers.astype(np.float32) - zero.astype(np.float32)
        found[place] = (exact * scale.astype(np.float32)).swapaxes(1, 2)
    return found


def learned_state(node: Node, scope: Scope) -> dict[str, Array] | None:
    """Return the initial states that the graph itself holds, [directions, H] each; None if they are zeros or inputs."""
    found: dict[str, Array] = {}
    kinds: dict[str, str] = {}
    for place in ("initial_h", "initial_c")[: 2 if node.cell == "LSTM" else 1]:
        name = node.input(place)
        state = scope.initial_state(name) if name else "zeros"
        kinds[place] = "input" if state is None else "zeros"
        if isinstance(state, np.ndarray):
            if node.batch_first and state.ndim == 3:
                state = state.swapaxes(0, 1)
            got = f"shape {state.shape}" if state.ndim != 3 else "another state for each"
            one = state.ndim == 3 and len(state) == node.directions and bool((state == state[:, :1]).all())
            expect(one, f"{node.where}: {place}", "one state for all sequences", got)
            found["h_0" if place == "initial_h" else "c_0"] = state[:, 0]
            kinds[place] = "learned"
        elif state == "constant":
            expected = "zeros, an input or a constant"
            raise ValueError(
                f"{node.where}: {place}: expected {expected}, got a value computed from constants"
            )
    if not found:
        return None
    expect(
        "input" not in kinds.values(),
        f"{node.where}: initial_h, initial_c",
        "both constant or both inputs",
        kinds,
    )
    for key in ("h_0", "c_0")[: len(kinds)]:
        found.setdefault(key, np.zeros_like(next(iter(found.values()))))
    return found


def layer_of(
    nodes: Sequence[Node], levels: Sequence[Sequence[Weights]], state: dict[str, Array] | None
) -> Recurrent:
    """Return the layer of one node, or of several that stand on each other and say the same."""
    node = nodes[0]
    options: dict[str, Any] = _conversion.activations(node.cell, node.functions)
    if node.cell == "GRU" and not node.reset_after:
        options["reset_after"] = False
    if node.batch_first:
        options["batch_first"] = True
    if node.direction == "reverse":
        options["reverse"] = True
    if node.input_forget:
        options["input_forget"] = True
    if node.clip is not None:
        options["clip"] = node.clip
    return _conversion.build(node.where, node.cell, levels, state, **options)
