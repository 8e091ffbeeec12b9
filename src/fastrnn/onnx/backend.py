"""fastrnn as a backend of ONNX, in the form of ``onnx.backend.base``.

Models of RNN, GRU and LSTM nodes run without another library. Other nodes need onnxruntime.

>>> import numpy as np, onnx, fastrnn.onnx
>>> node = onnx.helper.make_node("RNN", ["X", "W", "R"], ["Y", "Y_h"], hidden_size=2)
>>> ones = [np.ones(shape, np.float32) for shape in ((3, 1, 4), (1, 2, 4), (1, 2, 2))]
>>> outputs = fastrnn.onnx.backend.run_node(node, ones)
>>> outputs.Y.shape, outputs.Y_h.shape
((3, 1, 1, 2), (1, 1, 2))
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn._arrays import expect
from fastrnn.onnx._library import onnx_library
from fastrnn.onnx._model import Model
from fastrnn.onnx._nodes import INPUTS, QUANTIZED_INPUTS, is_recurrent, parse
from fastrnn.onnx._run import run_with_weights
from fastrnn.onnx._session import Session

onnx_library()

from onnx.backend.base import Backend, BackendRep, namedtupledict  # noqa: E402

__all__ = ["FastrnnBackend", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class Prepared(BackendRep):  # type: ignore[misc]
    """A model that can be run again and again."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the outputs as a named tuple.

        Parameters
        ----------
        inputs : list of arrays in the order of the model's inputs, or dict of arrays
        """
        expect(not kwargs, "kwargs", "none", sorted(kwargs))
        names = [value.name for value in self._session.get_inputs()]
        if not isinstance(inputs, Mapping):
            inputs = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            expect(len(inputs) == len(names), "inputs", f"{len(names)} arrays", len(inputs))
            inputs = dict(zip(names, inputs, strict=True))
        outputs = self._session.run(None, inputs)
        return _named([value.name for value in self._session.get_outputs()], outputs)


class FastrnnBackend(Backend):  # type: ignore[misc]
    """The backend: its methods are functions of this module too."""

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Return whether a model can be prepared: it has a recurrent node, and others only beside onnxruntime."""
        if not cls.supports_device(device):
            return False
        found = [node for _, node in Model(model).nodes()]
        every = all(is_recurrent(node) for node in found)
        others = importlib.util.find_spec("onnxruntime") is not None
        return any(map(is_recurrent, found)) and (every or others)

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Return a model that can be run.

        Raises
        ------
        ValueError
            The device is not the CPU, or a node cannot be run.
        """
        expect(cls.supports_device(device), "device", "'CPU'", repr(device))
        expect(not kwargs, "kwargs", "none", sorted(kwargs))
        session = Session(Model(model), None, False)
        if importlib.util.find_spec("onnxruntime") is None and session.left:
            raise ValueError("; ".join(session.left.values()))
        return Prepared(session)

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Return the outputs of a model for one call."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Return the outputs of one recurrent node.

        Parameters
        ----------
        node : onnx.NodeProto
            RNN, GRU or LSTM.
        inputs : list of arrays in the order of the node's inputs, without those that it leaves out; or dict of arrays
        """
        expect(cls.supports_device(device), "device", "'CPU'", repr(device))
        expect(is_recurrent(node), "node", "RNN, GRU or LSTM", node.op_type)
        parsed = parse(node, node.name or node.op_type)
        used = [name for name in dict.fromkeys(node.input) if name]
        if not isinstance(inputs, Mapping):
            inputs = list(inputs)
            expect(len(inputs) == len(used), "inputs", f"{len(used)} arrays", len(inputs))
            inputs = dict(zip(used, inputs, strict=True))
        missing = [name for name in used if name not in inputs]
        expect(not missing, "inputs", f"also {missing}", list(inputs))
        places = QUANTIZED_INPUTS if parsed.quantized else INPUTS
        arrays = {place: inputs[name] for place, name in zip(places, node.input, strict=False) if name}
        made = run_with_weights(parsed, arrays)
        pairs = [(name, value) for name, value in zip(node.output, made, strict=False) if name]
        return _named([name for name, _ in pairs], [value for _, value in pairs])

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether a device is the CPU."""
        return bool(device.partition(":")[0] == "CPU")


def _named(names: list[str], outputs: list[Any]) -> tuple[Any, ...]:
    made: tuple[Any, ...] = namedtupledict("Outputs", names)(*outputs)
    return made


is_compatible = FastrnnBackend.is_compatible
prepare = FastrnnBackend.prepare
run_model = FastrnnBackend.run_model
run_node = FastrnnBackend.run_node
supports_device = FastrnnBackend.supports_device
