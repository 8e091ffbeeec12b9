"""Recurrent nodes that stand on each other, as exporters write the layers of one module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastrnn._conversion import Weights
from fastrnn.onnx._model import FOLDED, MAX_DEPTH, Scope, evaluate
from fastrnn.onnx._nodes import Node

# Operators that may stand between two layers, if together they only put the directions side by side.
BETWEEN = FOLDED & {"Identity", "Dropout", "Squeeze", "Unsqueeze", "Transpose", "Reshape", "Flatten", "Cast"}


def uses(scope: Scope) -> dict[str, int]:
    """Return how often each name of a graph is read, by nodes, graphs inside them and as an output."""
    counts: dict[str, int] = {}
    for inner, node in scope.nodes():
        for name in node.input:
            counts[name] = counts.get(name, 0) + 1
        for body in inner.bodies(node):
            for output in body.graph.output:
                counts[output.name] = counts.get(output.name, 0) + 1
    for output in scope.graph.output:
        counts[output.name] = counts.get(output.name, 0) + 1
    return counts


def stands_on(upper: Node, lower: Node, scope: Scope, counts: dict[str, int]) -> bool:
    """Whether a node reads exactly what another one of the same kind puts out, and nobody else reads that.

    What stands between them is tried on numbers that are all different: it must turn [T, D, B, H] into [T, B, D * H].
    """
    if not _same_kind(upper, lower):
        return False
    chain: list[Any] = []
    name = upper.input("X")
    while name != lower.output(0):
        _, made = scope.find(name)
        between = made is not None and hasattr(made, "op_type") and made.domain in ("", "ai.onnx")
        if not between or not made.input or made.op_type not in BETWEEN:
            return False
        if counts.get(name) != 1 or len(chain) >= MAX_DEPTH:
            return False
        chain.append(made)
        name = made.input[0]
    return counts.get(name) == 1 and _side_by_side(chain, upper, lower, scope)


def _same_kind(a: Node, b: Node) -> bool:
    """Whether two nodes agree in everything but names, where they begin, and sizes of inputs."""
    common = dict.fromkeys(("where", "name"), "") | {"inputs": (), "outputs": ()}
    return (
        replace(a, **common) == replace(b, **common)  # type: ignore[arg-type]
        and a.input("sequence_lens") == b.input("sequence_lens")
        and bool(b.output(0))
    )


def _side_by_side(chain: list[Any], upper: Node, lower: Node, scope: Scope) -> bool:
    hidden = lower.hidden_size or upper.hidden_size
    if hidden is None:
        return False
    y: Any = np.arange(3 * lower.directions * 2 * hidden, dtype=np.float32)
    if lower.batch_first:  # [B, T, D, H]
        y = y.reshape(2, 3, lower.directions, hidden)
        want = y.reshape(2, 3, -1)
    else:
        y = y.reshape(3, lower.directions, 2, hidden)
        want = y.swapaxes(1, 2).reshape(3, 2, -1)
    value = y
    for node in reversed(chain):
        others = [scope.value(name) if name else None for name in node.input[1:]]
        if any(other is None and name for other, name in zip(others, node.input[1:], strict=True)):
            return False
        try:
            value = evaluate(node, [value, *others], scope.model.opset)[0]
        except Exception:  # written for other sizes than these: the nodes stay apart
            return False
    return value.shape == want.shape and bool((value == want).all())


def fits(upper: list[Weights], lower: list[Weights]) -> bool:
    """Whether the weights of one node can stand on those of another in one layer."""
    a, b = upper[0], lower[0]
    hidden = b.sizes[1]
    return (
        a.sizes == (hidden * len(lower), hidden)
        and a.weight_ih.dtype == b.weight_ih.dtype
        and (a.bias_ih is None) == (b.bias_ih is None)
        and (a.peepholes is None) == (b.peepholes is None)
    )
