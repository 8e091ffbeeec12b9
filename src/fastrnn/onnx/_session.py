"""A whole ONNX model whose recurrent nodes run in fastrnn, and the rest in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect, readable, some
from fastrnn._recurrent import Recurrent
from fastrnn.onnx._library import onnx_library, runtime_library
from fastrnn.onnx._load import node_name
from fastrnn.onnx._model import Model, Scope
from fastrnn.onnx._nodes import STORED, Node, constants, is_recurrent, layer_of, parse
from fastrnn.onnx._plan import Stage, plan, read_by
from fastrnn.onnx._run import run, run_with_weights

Array = NDArray[Any]


@dataclass(frozen=True)
class Value:
    """An input or an output of a session, described as onnxruntime does."""

    name: str
    shape: list[int | str | None]
    type: str
    dtype: Any = None  # of NumPy, where it has one


class Session:
    """A model that :func:`accelerate` has cut at its recurrent nodes; it is called as onnxruntime's InferenceSession.

    Attributes
    ----------
    layers : dict of str to layer
        The nodes that run in fastrnn. Their layers are frozen.
    left : dict of str to str
        The recurrent nodes that stay in onnxruntime, and why.
    """

    def __init__(self, model: Model, options: Any, dequantize: bool) -> None:
        self.layers: dict[str, Recurrent] = {}
        self.left: dict[str, str] = {}
        self._builder = _Builder(model, options, dequantize, self.layers, self.left)
        graph = model.proto.graph
        stored = {t.name for t in graph.initializer}
        self._inputs = [_value(info) for info in graph.input if info.name not in stored]
        self._needed = {value.name for value in self._inputs}
        self._known = {info.name for info in graph.input}
        self._part = _Part(model.main, {i.name: i.type for i in graph.input}, self._builder)
        self._outputs = [_value(info) for info in graph.output]

    def run(
        self, output_names: Sequence[str] | None, inputs: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Return the outputs of the model.

        Parameters
        ----------
        output_names : list of str or None
            None for all outputs, in the order of the model.
        inputs : dict of str to array
        run_options : onnxruntime.RunOptions, optional
            Handed on to onnxruntime.

        Raises
        ------
        ValueError
            An input is missing or unknown, or does not fit.
        """
        expect(isinstance(inputs, Mapping), "inputs", "a dict of arrays", type(inputs).__name__, TypeError)
        if not self._known.issuperset(inputs) or not self._needed.issubset(inputs):
            missing, others = sorted(self._needed - inputs.keys()), sorted(inputs.keys() - self._known)
            expect(not missing, "inputs", f"also {some(missing)}", some(inputs) or "none")
            expect(not others, "inputs", f"only {some(sorted(self._known))}", some(others))
        values: dict[str, Any] = {}
        for name, value in inputs.items():
            tensor = not isinstance(value, (list, tuple))
            values[name] = readable(f"inputs: {name}", value, "an array") if tensor else value
        for value in self._inputs:
            _check(value, values[value.name])
        outputs = self._part.run(values, run_options)
        if not output_names:
            return outputs
        found = dict(zip(self._part.outputs, outputs, strict=True))
        unknown = [name for name in output_names if name not in found]
        if unknown:
            raise ValueError(f"output_names: expected some of {some(found)}, got {unknown[0]!r}")
        return [found[name] for name in output_names]

    def get_inputs(self) -> list[Value]:
        """Return the inputs that a call needs."""
        return list(self._inputs)

    def get_outputs(self) -> list[Value]:
        """Return the outputs."""
        return list(self._outputs)

    def __repr__(self) -> str:
        layers = ", ".join(f"{name}: {layer}" for name, layer in self.layers.items())
        return f"Session({layers})"


def accelerate(path_or_model: Any, *, session_options: Any = None, dequantize: bool = False) -> Session:
    """Return a session that runs a model's recurrent nodes in fastrnn and everything else in onnxruntime.

    The graph is cut at its recurrent nodes, those in the branches of If too. Nothing is computed twice: each cut hands
    on what later parts need. The outputs are those of onnxruntime, within rounding. A node that fastrnn does not have,
    or one in the body of a Loop or Scan, stays in onnxruntime.

    Parameters
    ----------
    path_or_model : path, bytes or onnx.ModelProto
    session_options : onnxruntime.SessionOptions, optional
        For the parts that onnxruntime runs.
    dequantize : bool
        Whether DynamicQuantizeLSTM runs here too, with float32 weights. Its outputs then differ from onnxruntime's by
        the error of 8 bits, which onnxruntime has and float32 has not.

    Raises
    ------
    ValueError
        The file is not sound, or no recurrent node can run in fastrnn. The message says why for each.
    ImportError
        onnx or onnxruntime is not installed.

    Examples
    --------
    >>> import numpy as np, os, tempfile, fastrnn, fastrnn.onnx
    >>> path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    >>> fastrnn.onnx.export(fastrnn.GRU(3, 4), path, lengths=False, state=False)
    >>> session = fastrnn.onnx.accelerate(path)
    >>> session.layers
    {'GRU_0': GRU(3, 4)}
    >>> y, h_n = session.run(None, {"x": np.ones((5, 2, 3), np.float32)})
    >>> y.shape, h_n.shape
    ((5, 2, 4), (1, 2, 4))
    """
    model = Model(path_or_model)
    session = Session(model, session_options, dequantize)
    reasons = some((f"{name}: {why}" for name, why in session.left.items()), "; ") or "no such node"
    what = f"{model.where or 'path_or_model: '}graph"
    ran = session.layers or session._builder.cells
    expect(ran, what, "a node RNN, GRU or LSTM that runs in fastrnn", reasons)
    return session


@dataclass
class _Cell:
    """A recurrent node; without a layer its weights are inputs too."""

    node: Node
    layer: Recurrent | None
    needs: dict[str, str]  # names in the graph by the places of the operator's inputs

    def run(self, values: Mapping[str, Any], _: Any) -> list[Any]:
        inputs = {place: values[name] for place, name in self.needs.items()}
        if self.layer is None:
            return run_with_weights(self.node, inputs)
        return run(self.node, self.layer, inputs)


@dataclass
class _Branches:
    """An If with recurrent nodes inside."""

    condition: str
    then: _Part
    otherwise: _Part

    def run(self, values: Mapping[str, Any], run_options: Any) -> list[Any]:
        condition = np.asarray(values[self.condition])
        expect(condition.size == 1, "If", "one condition", f"shape {condition.shape}")
        return (self.then if condition.reshape(())[()] else self.otherwise).run(values, run_options)


class _Builder:
    """Decides for each node whether it runs here, once."""

    def __init__(
        self, model: Model, options: Any, dequantize: bool, layers: dict[str, Recurrent], left: dict[str, str]
    ) -> None:
        self.model, self.options, self.dequantize = model, options, dequantize
        self.layers, self.left = layers, left
        self.names: set[str] = set()
        self.cells = 0

    def cell(self, scope: Scope, proto: Any) -> _Cell | None:
        """Return a recurrent node that runs here, or None if it stays in onnxruntime."""
        name = node_name(proto, self.names)
        try:
            node = parse(proto, name, self.model.where)
            if node.quantized and not self.dequantize:
                raise ValueError("its weights have 8 bits: dequantize=True runs it with float32 weights")
            places = {place: node.input(place) for place in ("X", "sequence_lens") if node.input(place)}
            states = {p: node.input(p) for p in ("initial_h", "initial_c") if node.input(p)}
            stored = {place: node.input(place) for place in STORED if node.input(place)}
            if any(scope.value(given) is None for given in stored.values()):
                expect(not node.quantized, f"{node.where}: W", "constant weights", "an input")
                self.cells += 1
                return _Cell(node, None, places | states | stored)
            layer = layer_of([node], [constants(node, scope)], None).freeze()
        except ValueError as error:
            self.left[name] = str(error)
            return None
        self.layers[name] = layer
        given = {p: n for p, n in states.items() if not _zeros(scope.initial_state(n))}
        return _Cell(node, layer, places | given)

    def has_cell(self, scope: Scope, proto: Any, nested: bool = False) -> bool:
        """Whether an If has a recurrent node in its branches; those in other bodies stay in onnxruntime."""
        found = False
        for body in scope.bodies(proto):
            for node in body.graph.node:
                if is_recurrent(node):
                    if proto.op_type != "If" or nested:
                        self.left[node_name(node, self.names)] = f"it is in the body of {proto.op_type}"
                    found = found or (proto.op_type == "If" and not nested)
                else:
                    found |= self.has_cell(body, node, nested or proto.op_type != "If")
        return found


class _Part:
    """A graph that runs in stages."""

    def __init__(self, scope: Scope, types: Mapping[str, Any], builder: _Builder) -> None:
        self._scope, self._builder = scope, builder
        self._types = dict(types)
        self._special: dict[int, _Cell | _Branches] = {}
        self._constants: dict[str, Array] = {}  # what is read of the graph's own values
        nodes = list(scope.graph.node)  # kept, so that each stays the same object
        self._numbers = numbers = {id(node): k for k, node in enumerate(nodes)}
        needs: dict[int, list[str]] = {}  # of the nodes that run here
        for k, node in enumerate(nodes):
            if is_recurrent(node):
                cell = builder.cell(scope, node)
                if cell is not None:
                    self._special[k], needs[k] = cell, list(cell.needs.values())
            elif builder.has_cell(scope, node):
                needs[k] = [name for name in read_by(scope, node) if scope.value(name) is None]
        stages = plan(scope, nodes, lambda n: numbers[id(n)] in needs, lambda n: needs[numbers[id(n)]])
        self._stages = [(self._compile(stage), stage) for stage in stages]
        self.outputs = [output.name for output in scope.graph.output]
        read = [name for k in needs for name in needs[k]] + self.outputs
        self._constants |= {n: value for n in read if (value := scope.value(n)) is not None}
        self._nodes = nodes
        self._steps = [
            (session, stage, [(self._special[numbers[id(n)]], list(n.output)) for n in stage.special])
            for session, stage in self._stages
        ]

    def _compile(self, stage: Stage) -> Any:
        """Return onnxruntime's session of a stage, after which the types of what it makes are known."""
        session = None
        if stage.others:
            session = self._session(stage)
            for output in session.get_outputs():
                self._types[output.name] = _type(output)
        for node in stage.special:
            self._prepare(node)
        return session

    def _prepare(self, node: Any) -> None:
        """Note the types of what a special node makes; build the branches of an If."""
        onnx = onnx_library()
        k = self._numbers[id(node)]
        cell = self._special.get(k)
        if isinstance(cell, _Cell):
            x = self._types.get(cell.needs["X"])
            kind = x.tensor_type.elem_type if x is not None else onnx.TensorProto.FLOAT
            width, directions = cell.layer and cell.layer.hidden_size, cell.node.directions
            outer = (
                [None, None, directions, width] if cell.node.batch_first else [None, directions, None, width]
            )
            state = [None, directions, width] if cell.node.batch_first else [directions, None, width]
            for index, name in enumerate(node.output):
                if name:
                    shape = state if index else outer
                    self._types[name] = onnx.helper.make_tensor_type_proto(kind, shape)
            return
        bodies = {a.name: a.g for a in node.attribute if a.HasField("g")}
        expect({"then_branch", "else_branch"} <= bodies.keys(), "If", "two branches", some(bodies) or "none")
        parts = [
            _Part(
                Scope(self._scope.model, bodies[name], self._scope, self._scope.depth + 1),
                self._types,
                self._builder,
            )
            for name in ("then_branch", "else_branch")
        ]
        self._special[k] = _Branches(node.input[0], parts[0], parts[1])
        for name, inner in zip(node.output, parts[0].outputs, strict=True):
            kind = parts[0]._types.get(inner)
            if kind is not None and kind.HasField("tensor_type"):  # the branches may have different shapes
                kind = onnx.helper.make_tensor_type_proto(kind.tensor_type.elem_type, None)
            if kind is not None:
                self._types[name] = kind

    def _session(self, stage: Stage) -> Any:
        onnx, runtime = onnx_library(), runtime_library("a model with other nodes than RNN, GRU and LSTM")
        model = self._scope.model
        graph = onnx.GraphProto(name="part")
        graph.node.extend(stage.others)
        stored = {name for node in stage.others for name in read_by(self._scope, node)}
        for name in sorted(stored):
            where, made = self._scope.find(name)
            if made is not None and name in where.initializers and name not in stage.inputs:
                tensor = graph.initializer.add()
                tensor.CopyFrom(made)
                if made.data_location == onnx.TensorProto.EXTERNAL:
                    tensor.CopyFrom(onnx.numpy_helper.from_array(model.tensor(made), name))
        for name in stage.inputs:
            constant = None if name in self._types else self._scope.value(name)
            if constant is not None:
                self._constants[name] = constant
                self._types[name] = onnx.helper.make_tensor_type_proto(
                    onnx.helper.np_dtype_to_tensor_dtype(constant.dtype), constant.shape
                )
            expect(
                name in self._types,
                f"{model.where}{name!r}",
                "a value that is made before it is read",
                "none",
            )
            graph.input.add(name=name).type.CopyFrom(self._types[name])
        for name in stage.outputs:
            graph.output.add(name=name)
        whole = onnx.ModelProto(ir_version=model.proto.ir_version, graph=graph)
        whole.opset_import.extend(model.proto.opset_import)
        try:
            return runtime.InferenceSession(
                whole.SerializeToString(), self._builder.options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ValueError(f"{model.where}onnxruntime cannot run this model: {error}") from error

    def run(self, outer: Mapping[str, Any], run_options: Any) -> list[Any]:
        """Return the outputs of the graph; ``outer`` holds its inputs and what it sees of the graphs around it."""
        values = {**self._constants, **outer}
        for session, stage, units in self._steps:
            if session is not None:
                feeds = {name: values[name] for name in stage.inputs}
                values.update(zip(stage.outputs, session.run(stage.outputs, feeds, run_options), strict=True))
            for unit, names in units:
                values.update(zip(names, unit.run(values, run_options), strict=False))
        return [values[name] for name in self.outputs]


def _zeros(state: Any) -> bool:
    """Whether an initial state is known to be zeros, which need not be handed on."""
    return isinstance(state, str) and state == "zeros"


def _value(info: Any) -> Value:
    onnx = onnx_library()
    if not info.type.HasField("tensor_type"):
        return Value(info.name, [], info.type.WhichOneof("value") or "unknown")
    tensor = info.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim]
    kind = _kind_names(onnx).get(tensor.elem_type, "unknown")
    known = tensor.elem_type and kind not in ("unknown", "undefined", "string")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if known else None
    return Value(info.name, shape, f"tensor({kind})", dtype)


def _check(value: Value, array: Any) -> None:
    """Raise unless an input has the type and the fixed sizes that the model declares."""
    if not isinstance(array, np.ndarray):
        return
    if value.dtype is not None and array.dtype != value.dtype:
        raise ValueError(f"inputs: {value.name}: expected an array of {value.dtype}, got {array.dtype}")
    pairs = zip(value.shape, array.shape, strict=False)
    fits = array.ndim == len(value.shape) and all(n == m for n, m in pairs if isinstance(n, int))
    if value.shape and not fits:
        raise ValueError(f"inputs: {value.name}: expected shape {value.shape}, got {array.shape}")


def _kind_names(onnx: Any) -> dict[int, str]:
    """Return onnxruntime's names of the types of elements."""
    return {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}


def _type(output: Any) -> Any:
    """Return ONNX's type of an output of onnxruntime. No shape may mean that it is unknown."""
    onnx = onnx_library()
    numbers = {name: number for number, name in _kind_names(onnx).items()}
    text = output.type
    if text.startswith("seq(tensor("):
        inner = onnx.helper.make_tensor_type_proto(numbers[text[11:-2]], None)
        return onnx.helper.make_sequence_type_proto(inner)
    expect(text.startswith("tensor("), output.name, "a tensor or a sequence of tensors", text)
    return onnx.helper.make_tensor_type_proto(numbers[text[7:-1]], output.shape or None)
