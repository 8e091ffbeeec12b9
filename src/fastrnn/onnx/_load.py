"""Layers from the recurrent nodes of an ONNX model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn._arrays import expect
from fastrnn._conversion import Weights
from fastrnn._recurrent import Recurrent
from fastrnn.onnx._join import fits, stands_on, uses
from fastrnn.onnx._model import Model, Scope
from fastrnn.onnx._nodes import Node, constants, is_recurrent, layer_of, learned_state, parse


@dataclass
class _Found:
    """Nodes that make one layer, from the input up."""

    scope: Scope
    nodes: list[Node]
    levels: list[list[Weights]]
    states: list[dict[str, Any] | None]

    def layer(self) -> Recurrent:
        held = [state for state in self.states if state is not None]
        state = {name: np.concatenate([s[name] for s in held]) for name in held[0]} if held else None
        return layer_of(self.nodes, self.levels, state)


def load(path_or_model: Any, *, join: bool = True) -> dict[str, Recurrent]:
    """Return the recurrent layers of an ONNX model by the names of their nodes.

    Every node RNN, GRU and LSTM becomes a layer, those in the bodies of If, Loop and Scan too; so does
    DynamicQuantizeLSTM of ONNX Runtime, whose weights of 8 bits become float32. A weight may be an initializer, in the
    file or beside it, or what operators such as Slice, Concat and Unsqueeze make of some. An initial state that the
    graph holds becomes a learned state; one that is an input of the graph is the ``state`` of your call. A node without
    a name is named by its operator and its number, such as "LSTM_0".

    Parameters
    ----------
    path_or_model : path, bytes or onnx.ModelProto
    join : bool
        Whether nodes that stand on each other, as exporters write the layers of one module, become one layer with
        ``num_layers``. It has the name of the lowest node.

    Returns
    -------
    dict of str to LSTM, GRU or RNN
        float64 where the weights are, otherwise float32.

    Raises
    ------
    ValueError
        The file is not sound, or a node has something that no layer has. The message names the node, what was
        expected and what came. It is also raised if there is no such node: cells that are taken apart into MatMul,
        Sigmoid and Tanh are not put together again.
    ImportError
        onnx is not installed: ``pip install 'fastrnn[onnx]'``.

    Examples
    --------
    >>> import os, tempfile, fastrnn, fastrnn.onnx
    >>> path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    >>> fastrnn.onnx.export(fastrnn.GRU(3, 4, num_layers=2), path)
    >>> fastrnn.onnx.load(path)
    {'GRU_0': GRU(3, 4, num_layers=2)}
    >>> fastrnn.onnx.load(path, join=False)
    {'GRU_0': GRU(3, 4), 'GRU_1': GRU(4, 4)}
    """
    model = Model(path_or_model)
    found: list[_Found] = []
    counts: dict[int, dict[str, int]] = {}
    operators: set[str] = set()
    names: set[str] = set()
    for scope, proto in model.nodes():
        operators.add(proto.op_type)
        if not is_recurrent(proto):
            continue
        node = parse(proto, node_name(proto, names), model.where)
        weights, state = constants(node, scope), learned_state(node, scope)
        if join and id(scope) not in counts:
            counts[id(scope)] = uses(scope)
        for group in found if join else ():
            same = group.scope is scope and (group.states[-1] is None) == (state is None)
            on_top = same and fits(weights, group.levels[-1])
            if on_top and stands_on(node, group.nodes[-1], scope, counts[id(scope)]):
                group.nodes.append(node)
                group.levels.append(weights)
                group.states.append(state)
                break
        else:
            found.append(_Found(scope, [node], [weights], [state]))
    apart = {"Sigmoid", "Tanh"} & operators and {"MatMul", "Gemm"} & operators
    hint = ": its cells may be taken apart into MatMul, Sigmoid and Tanh, which are not put together" * bool(
        apart
    )
    what = os.fspath(path_or_model) if isinstance(path_or_model, (str, os.PathLike)) else "path_or_model"
    expect(found, str(what), "a graph with a node RNN, GRU or LSTM", f"none{hint}")
    return {group.nodes[0].name: group.layer() for group in found}


def node_name(proto: Any, taken: set[str]) -> str:
    """Return a name of a node that no other has, and add it to those that are taken."""
    name = proto.name
    if not name or name in taken:
        number = 0
        while (name := f"{proto.name or proto.op_type}_{number}") in taken:
            number += 1
    taken.add(name)
    return str(name)
