"""An ONNX model as it is read: graphs inside graphs, tensors in the file or beside it, values that are constant."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn.onnx._library import onnx_library

Array = NDArray[Any]

MAX_DEPTH = 100  # graphs inside graphs, and operators between a constant and a weight
MAX_NODES = 200_000  # of a model whose functions are written out

# Operators that exporters put between stored weights and recurrent nodes. All are small; those that can make
# more of less have a bound below.
FOLDED = {
    "Identity", "Dropout", "Slice", "Concat", "Squeeze", "Unsqueeze", "Transpose", "Reshape", "Flatten", "Split",
    "Gather", "Cast", "Expand", "Add", "Sub", "Mul", "Div", "Neg", "DequantizeLinear",
}  # fmt: skip
# Operators that only move the numbers of their first input, so that zeros stay zeros.
MOVES = {"Identity", "Slice", "Squeeze", "Unsqueeze", "Transpose", "Reshape", "Flatten", "Split", "Gather"}
MOVES |= {"Cast", "Expand", "Tile", "Dropout"}


class Model:
    """A model, its folder, and how much memory its constants may take."""

    def __init__(self, source: Any) -> None:
        onnx = onnx_library()
        self.where = ""
        self.folder: Path | None = None
        if isinstance(source, onnx.ModelProto):
            self.proto = source
        else:
            expected = "a path, bytes or an onnx.ModelProto"
            fits = isinstance(source, (str, os.PathLike, bytes))
            expect(fits, "path_or_model", expected, type(source).__name__, TypeError)
            data = source
            if not isinstance(source, bytes):
                path = Path(source)
                self.where, self.folder = f"{path}: ", path.parent
                data = path.read_bytes()
            try:
                self.proto = onnx.load_model_from_string(data)
            except Exception as error:  # hostile bytes can make a parser raise anything
                raise ValueError(f"{self.where}not a sound ONNX file: {error}") from error
        size = self.proto.ByteSize()
        self.left = 16 * size + (1 << 20)  # bytes that constants may still take
        if self.proto.functions:
            self.proto = self._without_functions()
        self.opset = next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.main = Scope(self, self.proto.graph, None, 0)

    def _without_functions(self) -> Any:
        """Return the model with its functions written out where they are called."""
        from onnx.inliner import inline_local_functions

        bodies = {(f.domain, f.name): f.node for f in self.proto.functions}
        sizes: dict[tuple[str, str], int] = {}

        def count(nodes: Any, depth: int) -> int:
            expect(
                depth < MAX_DEPTH, f"{self.where}functions", f"at most {MAX_DEPTH} inside one another", "more"
            )
            total = 0
            for node in nodes:
                key = (node.domain, node.op_type)
                if key in bodies and key not in sizes:
                    sizes[key] = count(bodies[key], depth + 1)
                total += sizes.get(key, 1)
                total += sum(count(a.g.node, depth + 1) for a in node.attribute if a.HasField("g"))
                expect(total <= MAX_NODES, f"{self.where}functions", f"at most {MAX_NODES} nodes", "more")
            return total

        count(self.proto.graph.node, 0)
        try:
            return inline_local_functions(self.proto)
        except Exception as error:
            raise ValueError(f"{self.where}functions that cannot be written out: {error}") from error

    def spend(self, size: int, what: str) -> None:
        """Count bytes that are about to be taken."""
        expected = "constants in proportion to the file"
        expect(size <= self.left, f"{self.where}{what}", expected, f"{size} bytes more")
        self.left -= size

    def tensor(self, tensor: Any) -> Array:
        """Return the numbers of a tensor that the file holds, or a file beside it."""
        onnx = onnx_library()
        what = f"{self.where}tensor {tensor.name!r}"
        try:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                return self._external(tensor, what)
            raw = len(tensor.raw_data)
            count = math.prod(tensor.dims)
            held = max(raw, 8 * max(len(getattr(tensor, field)) for field in _FIELDS))
            expect(
                0 <= count <= 2 * held + 1,
                what,
                "as many numbers as it declares",
                f"shape {list(tensor.dims)}",
            )
            self.spend(4 * count, what)
            return _floats(onnx.numpy_helper.to_array(tensor))
        except ValueError as error:
            raise error if what in str(error) else ValueError(f"{what}: {error}") from error
        except Exception as error:
            raise ValueError(f"{what}: not sound: {error}") from error

    def _external(self, tensor: Any, what: str) -> Array:
        """Read a tensor from a file below the model's folder, and from nowhere else."""
        onnx = onnx_library()
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        expect(
            self.folder is not None, what, "a model from a path, for data in other files", "a model in memory"
        )
        assert self.folder is not None
        folder = self.folder.resolve()
        path = folder / location
        inside = bool(location) and "\0" not in location and not Path(location).is_absolute()
        inside = inside and path.resolve().is_relative_to(folder) and path.resolve() != folder
        expect(inside, what, "data in the model's folder", repr(location))
        expect(
            path.is_file() and not path.is_symlink(), what, "a file with its data", f"no file {location!r}"
        )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count = math.prod(tensor.dims)
        held = path.stat().st_size
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", count * dtype.itemsize))
        fits = offset >= 0 and length >= 0 and offset + length <= held
        expect(fits, what, f"bytes inside a file of {held}", f"{length} from {offset}")
        expect(length == count * dtype.itemsize, what, f"{count * dtype.itemsize} bytes", length)
        self.left += 16 * length
        self.spend(4 * count, what)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        return _floats(
            np.frombuffer(data, dtype.newbyteorder("<") if dtype.isbuiltin == 1 else dtype)
        ).reshape(tuple(tensor.dims))

    def nodes(self) -> Iterator[tuple[Scope, Any]]:
        """Yield the nodes of all graphs, those inside others too, with the graph they stand in."""
        yield from self.main.nodes()


_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def _floats(array: Array) -> Array:
    """Return small floats, which NumPy may not have, as float32; everything else as it is."""
    small = array.dtype.itemsize < 4 and (array.dtype.kind in "fV" or "float" in array.dtype.name)
    return array.astype(np.float32) if small else array.astype(array.dtype.newbyteorder("="), copy=False)


class Scope:
    """A graph, and the graphs around it, whose names it sees."""

    def __init__(self, model: Model, graph: Any, outer: Scope | None, depth: int) -> None:
        limit = f"at most {MAX_DEPTH} inside one another"
        expect(depth < MAX_DEPTH, f"{model.where}graphs", limit, "more")
        self.model, self.graph, self.outer, self.depth = model, graph, outer, depth
        self.initializers = {t.name: t for t in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self.inputs = {i.name for i in graph.input}
        self._values: dict[str, Array | None] = {}

    def bodies(self, node: Any) -> Iterator[Scope]:
        """Yield the graphs inside a node."""
        for attribute in node.attribute:
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield Scope(self.model, graph, self, self.depth + 1)

    def nodes(self) -> Iterator[tuple[Scope, Any]]:
        """Yield this graph's nodes, and after each those inside it."""
        for node in self.graph.node:
            yield self, node
            for body in self.bodies(node):
                yield from body.nodes()

    def find(self, name: str) -> tuple[Scope, Any]:
        """Return where a name stands, and the tensor or node that it stands for; None for an input."""
        scope: Scope | None = self
        while scope is not None:
            for table in (scope.initializers, scope.producers):
                if name in table:
                    return scope, table[name]
            if name in scope.inputs:
                return scope, None
            scope = scope.outer
        return self, None

    def value(self, name: str, depth: int = 0) -> Array | None:
        """Return what a name always stands for; None if that depends on the inputs."""
        scope, made = self.find(name)
        if made is None or depth > MAX_DEPTH:
            return None
        if name not in scope._values:
            scope._values[name] = scope._compute(name, made, depth)
        return scope._values[name]

    def _compute(self, name: str, made: Any, depth: int) -> Array | None:
        onnx = onnx_library()
        if isinstance(made, onnx.TensorProto):
            return self.model.tensor(made)
        if made.domain not in ("", "ai.onnx"):
            return None
        what = f"node {made.name or made.op_type!r}"
        if made.op_type == "Constant":
            return _constant(self.model, made, what)
        if made.op_type not in FOLDED:
            return None
        inputs = [self.value(i, depth + 1) if i else None for i in made.input]
        if any(value is None and i for value, i in zip(inputs, made.input, strict=True)):
            return None
        arrays = [value for value in inputs if value is not None]
        self.model.spend(_bound(made, arrays), what)
        try:
            return evaluate(made, inputs, self.model.opset)[list(made.output).index(name)]
        except Exception as error:
            raise ValueError(f"{self.model.where}{what}: cannot be computed: {error}") from error

    def initial_state(self, name: str, depth: int = 0) -> Array | str | None:
        """Return "zeros", the constant that begins every sequence, or None if the state comes from an input."""
        value = self.value(name, depth)
        if value is not None:
            return value if value.any() else "zeros"
        scope, made = self.find(name)
        if made is None or depth > MAX_DEPTH or made.domain not in ("", "ai.onnx"):
            return None
        if made.op_type == "ConstantOfShape":
            fill = [a.t for a in made.attribute if a.name == "value"]
            return "zeros" if not fill or not self.model.tensor(fill[0]).any() else "constant"
        if made.op_type == "Concat":
            parts = {str(scope.initial_state(i, depth + 1)) for i in made.input}
            return "zeros" if parts == {"zeros"} else None if "None" in parts else "constant"
        if made.op_type not in MOVES or not made.input:
            return None
        source = scope.initial_state(made.input[0], depth + 1)
        if isinstance(source, np.ndarray):  # repeated for every sequence of a batch
            repeated = made.op_type in ("Expand", "Tile", "Identity", "Cast") and source.ndim == 3
            return source if repeated and source.shape[1] == 1 else "constant"
        return source


def _constant(model: Model, node: Any, what: str) -> Array:
    """Return what a node Constant holds."""
    onnx = onnx_library()
    for attribute in node.attribute:
        if attribute.name == "value":
            return model.tensor(attribute.t)
        if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
            kind = np.float32 if "float" in attribute.name else np.int64
            return np.array(onnx.helper.get_attribute_value(attribute), kind)
    raise ValueError(f"{model.where}{what}: expected a constant of numbers, got another kind")


def _bound(node: Any, inputs: list[Array]) -> int:
    """Return how many bytes an operator may at most need for its outputs."""
    held = sum(array.nbytes for array in inputs)
    if node.op_type in ("Cast", "DequantizeLinear"):
        return 16 * sum(array.size for array in inputs)
    if node.op_type == "Expand":
        return int(math.prod(np.broadcast_shapes(inputs[0].shape, _small(inputs[1])))) * inputs[0].itemsize
    if node.op_type == "Gather":
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return int(held // max(1, inputs[0].shape[axis]) * inputs[1].size)
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        return 8 * int(math.prod(np.broadcast_shapes(*(array.shape for array in inputs))))
    return held


def _small(shape: Array) -> tuple[int, ...]:
    """Return a shape that is stored as an array."""
    expect(shape.ndim == 1 and shape.size <= 32, "shape", "at most 32 axes", f"an array {shape.shape}")
    return tuple(int(n) for n in shape)


def evaluate(node: Any, inputs: list[Array | None], opset: int) -> list[Array]:
    """Return the outputs of one operator as onnx's reference implementation computes them."""
    onnx = onnx_library()
    from onnx.reference import ReferenceEvaluator

    names = [name for name in dict.fromkeys(node.input) if name]
    infos = [onnx.ValueInfoProto(name=name) for name in names]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "one", infos, outputs)
    runner = ReferenceEvaluator(graph, opsets={"": opset})
    feeds = dict(zip(node.input, inputs, strict=True))
    results = dict(
        zip([o.name for o in outputs], runner.run(None, {n: feeds[n] for n in names}), strict=True)
    )
    return [np.asarray(results[name]) if name else np.zeros(0) for name in node.output]
