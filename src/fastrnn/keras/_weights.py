"""Keras' arrays and torch.nn's: gates, transposes, halves of biases, and the layout of CuDNN's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn._conversion import CELLS, GATES, KERAS_ORDER, Weights, inverse, reordered
from fastrnn._recurrent import Recurrent

Array = NDArray[Any]


def cell_of(arrays: Sequence[Array], where: str) -> str:
    """Return which cell has weights of these shapes."""
    recurrent = arrays[1]
    hidden = recurrent.shape[0] if recurrent.ndim == 2 else 0
    gates = recurrent.shape[1] // hidden if hidden and recurrent.shape[1] % hidden == 0 else 0
    cells = {count: cell for cell, count in GATES.items()}
    expected = "a recurrent kernel of shape [H, H], [H, 3 H] or [H, 4 H]"
    expect(gates in cells, where, expected, f"shape {recurrent.shape}")
    return cells[gates]


def converted(
    arrays: Sequence[Array], cell: str, where: str, reset_after: bool | None = None
) -> tuple[Weights, bool | None]:
    """Return the weights of one direction, and for a GRU whether it resets after the product.

    Parameters
    ----------
    arrays : kernel [I, gates * H], recurrent kernel [H, gates * H] and perhaps bias, as Keras has them
    reset_after : bool, optional
        What the configuration says; None: the shape of the bias says it.
    """
    kernel, recurrent, bias = (*arrays, None)[:3] if len(arrays) < 3 else arrays[:3]
    gates = GATES[cell]
    assert kernel is not None
    assert recurrent is not None
    hidden = recurrent.shape[0] if recurrent.ndim == 2 else 0
    rows = gates * hidden
    fits = hidden > 0 and recurrent.shape == (hidden, rows)
    expect(fits, f"{where}: recurrent_kernel", f"shape [H, {gates} H]", recurrent.shape)
    fits = kernel.ndim == 2 and kernel.shape[0] > 0 and kernel.shape[1] == rows
    expect(fits, f"{where}: kernel", f"shape [features, {rows}]", kernel.shape)
    shapes: list[tuple[int, ...]] = [(rows,)] + [(2 * rows,)] * (gates > 1) + [(2, rows)] * (cell == "GRU")
    expect(
        bias is None or bias.shape in shapes,
        f"{where}: bias",
        f"one of shapes {shapes}",
        bias is None or bias.shape,
    )
    cudnn = bias is not None and bias.shape == (2 * rows,)
    if cudnn:
        kernel = _by_gate(kernel, gates, lambda k: k.T.reshape(k.shape, order="F"))
        recurrent = _by_gate(recurrent, gates, lambda k: k.T)
    halves: list[Array | None] = [None, None]
    if bias is not None:
        halves = list(bias.reshape(2, -1)) if bias.size == 2 * rows else [bias, np.zeros_like(bias)]
    if cell == "GRU" and bias is not None:
        after = bias.size == 2 * rows
        expected = f"shape {(2, rows) if reset_after else (rows,)} with reset_after={reset_after}"
        expect(reset_after in (None, after), f"{where}: bias", expected, bias.shape)
        reset_after = after
    order = KERAS_ORDER[cell]
    dtype = np.float64 if kernel.dtype.itemsize > 4 else np.float32
    turned = [
        None if a is None else reordered(a.T.astype(dtype, copy=False), order)
        for a in (kernel, recurrent, *halves)
    ]
    assert turned[0] is not None
    assert turned[1] is not None
    return Weights(turned[0], turned[1], turned[2], turned[3]), reset_after


def _by_gate(kernel: Array, gates: int, change: Callable[[Array], Array]) -> Array:
    return np.hstack([change(part) for part in np.hsplit(kernel, gates)])


def state_dict(layer: Recurrent) -> dict[str, Array]:
    """Return a layer's parameters as Keras has them.

    For a layer of one direction the names are "kernel", "recurrent_kernel" and "bias"; two directions put "forward/"
    and "backward/" before them, several layers "layer_0/" and so on. The order is that of Keras' ``get_weights``, so
    that ``keras_layer.set_weights(list(state_dict(layer).values()))`` sets a layer or a Bidirectional.

    Parameters
    ----------
    layer : LSTM, GRU or RNN

    Returns
    -------
    dict of str to array
        The two biases of an LSTM, an RNN and a GRU with ``reset_after=False`` are added up: Keras has one.

    Raises
    ------
    ValueError
        The layer has parameters that no layer of Keras has, such as a projection.

    Examples
    --------
    >>> import fastrnn, fastrnn.keras
    >>> {name: array.shape for name, array in fastrnn.keras.state_dict(fastrnn.GRU(2, 3)).items()}
    {'kernel': (2, 9), 'recurrent_kernel': (3, 9), 'bias': (2, 9)}
    """
    expect(isinstance(layer, Recurrent), "layer", "an LSTM, GRU or RNN", type(layer).__name__, TypeError)
    cell = next(name for name, kind in CELLS.items() if isinstance(layer, kind))
    known = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    other = [name for name in layer.params if not name.startswith(known)]
    expect(not other, "layer", "parameters that Keras has too", ", ".join(other[:4]))
    order = inverse(KERAS_ORDER[cell])
    found: dict[str, Array] = {}
    for level in range(layer.num_layers):
        for way in ("", "_reverse")[: 1 + layer.bidirectional]:
            end = f"_l{level}{way}"
            arrays = {
                name: reordered(layer.params[name + end], order) for name in known[: 4 if layer.bias else 2]
            }
            prefix = f"layer_{level}/" if layer.num_layers > 1 else ""
            if layer.bidirectional:
                prefix += "backward/" if way else "forward/"
            found[f"{prefix}kernel"] = arrays["weight_ih"].T.copy()
            found[f"{prefix}recurrent_kernel"] = arrays["weight_hh"].T.copy()
            if layer.bias:
                two = cell == "GRU" and layer.reset_after  # type: ignore[attr-defined]
                halves = np.stack([arrays["bias_ih"], arrays["bias_hh"]])
                found[f"{prefix}bias"] = halves if two else halves.sum(axis=0)
    return found
