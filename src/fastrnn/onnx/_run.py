"""Run a recurrent node on arrays in ONNX's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect, readable
from fastrnn._recurrent import Recurrent
from fastrnn.onnx._nodes import STORED, Node, layer_of, weights

Array = NDArray[Any]


def run(node: Node, layer: Recurrent, inputs: Mapping[str, Array]) -> list[Array | None]:
    """Return Y, Y_h and for an LSTM Y_c; None in place of those that the node does not have.

    Parameters
    ----------
    inputs : dict of arrays
        X [T, B, I], and optionally sequence_lens [B], initial_h and initial_c [D, B, H]; with the attribute ``layout``
        X [B, T, I] and states [B, D, H].
    """
    x = inputs["X"]
    expect(x.ndim == 3, f"{node.where}: X", "three axes", f"shape {x.shape}")
    rows = x.shape[0 if node.batch_first else 1]
    lengths = inputs.get("sequence_lens")
    if lengths is not None:
        expect(lengths.shape == (rows,), f"{node.where}: sequence_lens", f"shape ({rows},)", lengths.shape)
    try:
        y, last = layer(x, _state(node, layer, inputs, rows), lengths=lengths)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{node.where}: {error}") from error
    states = last if isinstance(last, tuple) else (last,)
    outputs: list[Array | None] = [None] * (1 + len(states))
    if node.output(0):  # [T, B, D * H] becomes [T, D, B, H]
        y = y.reshape(*y.shape[:2], node.directions, layer.hidden_size)
        outputs[0] = y if node.batch_first else np.ascontiguousarray(y.swapaxes(1, 2))
    for k, state in enumerate(states):
        if node.output(k + 1):
            if lengths is not None and not np.all(lengths):
                state = np.where((np.asarray(lengths) > 0)[:, None], state, np.zeros_like(state))
            outputs[k + 1] = np.ascontiguousarray(state.swapaxes(0, 1)) if node.batch_first else state
    return [None if out is None else out.astype(x.dtype, copy=False) for out in outputs]


def _state(node: Node, layer: Recurrent, inputs: Mapping[str, Array], rows: int) -> Any:
    """Return the initial state as the layer takes it."""
    names = ("initial_h", "initial_c")[: 2 if node.cell == "LSTM" else 1]
    given = [inputs.get(name) for name in names]
    if all(state is None for state in given):
        return None
    shape = (node.directions, rows, layer.hidden_size)
    outer = (rows, node.directions, layer.hidden_size) if node.batch_first else shape
    states = []
    for name, state in zip(names, given, strict=True):
        if state is None:
            state = np.zeros(outer, layer.dtype)
        expect(state.shape == outer, f"{node.where}: {name}", f"shape {outer}", state.shape)
        states.append(state.swapaxes(0, 1) if node.batch_first else state)
    return tuple(states) if node.cell == "LSTM" else states[0]


def run_with_weights(node: Node, arrays: Mapping[str, Any]) -> list[Array | None]:
    """Return the outputs of a node whose weights are inputs too, by the places of the operator's inputs."""
    given = {place: readable(f"{node.where}: {place}", value, "an array") for place, value in arrays.items()}
    layer = layer_of([node], [weights(node, {p: a for p, a in given.items() if p in STORED})], None)
    return run(node, layer, {place: array for place, array in given.items() if place not in STORED})
