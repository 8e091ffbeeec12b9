"""Initialisation in place, of one array or of all the parameters of a layer.

Every function takes an array, a dict of parameters named as in ``torch.nn``, or an object with such a dict in
``.params`` (a layer, a cell, ``Linear``). It writes into that and returns it. ``rng`` is a ``numpy.random.Generator``,
a seed or None. A matrix that holds several gates on top of each other is treated gate by gate, because each gate has
its own fan-in and fan-out.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect, expect_writeable, number, readable, some
from fastrnn.gradients import note_change

Array = NDArray[Any]
Seed = np.random.Generator | int | None
Target = TypeVar("Target")

__all__ = ["forget_bias", "identity", "orthogonal", "torch_uniform", "xavier"]


def torch_uniform(target: Target, rng: Seed = None) -> Target:
    """Fill with PyTorch's default: U(-k, k), k = 1 / sqrt(hidden_size), or 1 / sqrt(fan-in) if there is none.

    Parameters
    ----------
    target : array [..., fan_in] of float, dict of parameters, or layer

    Examples
    --------
    >>> bool(abs(torch_uniform(np.empty((3, 4)), rng=0)).max() <= 0.5)
    True
    """
    rng = np.random.default_rng(rng)
    arrays = _arrays(target)
    size = _hidden_size(arrays) or next((a.shape[-1] for a in arrays.values() if a.ndim > 1), 0)
    for name, array in arrays.items():
        if name in ("h_0", "c_0"):  # a learned initial state begins as zeros
            array[...] = 0
            continue
        bound = 1 / np.sqrt(max(size or array.shape[-1], 1))
        array[...] = rng.uniform(-bound, bound, array.shape)
    return _filled(target)


def xavier(target: Target, rng: Seed = None, *, gain: float = 1.0) -> Target:
    """Fill every gate with U(-k, k), k = gain * sqrt(6 / (fan_in + fan_out)); biases become 0.

    Glorot and Bengio 2010, equation 16.

    Examples
    --------
    >>> bool(abs(xavier(np.empty((2, 4)), rng=0)).max() <= 1)
    True
    """
    gain = number("gain", gain)
    rng = np.random.default_rng(rng)
    for gate in _gates(target):
        bound = gain * np.sqrt(6 / max(sum(gate.shape), 1))
        gate[...] = rng.uniform(-bound, bound, gate.shape)
    _zero_biases(target)
    return _filled(target)


def orthogonal(target: Target, rng: Seed = None, *, gain: float = 1.0) -> Target:
    """Make the recurrent matrix of every gate (of an array: the whole matrix) orthogonal, times `gain`.

    All singular values are `gain`, so the product of many steps neither grows nor shrinks. Input weights and
    biases stay as they are. Saxe et al. 2014.

    Examples
    --------
    >>> q = orthogonal(np.empty((3, 3)), rng=0)
    >>> bool(np.allclose(q @ q.T, np.eye(3)))
    True
    """
    gain = number("gain", gain)
    rng = np.random.default_rng(rng)
    for gate in _gates(target, "weight_hh"):
        rows, columns = gate.shape
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)  # makes the distribution uniform (Mezzadri 2007)
        gate[...] = gain * (q if rows >= columns else q.T)
    return _filled(target)


def identity(target: Target, *, scale: float = 1.0) -> Target:
    """Make the recurrent matrix of every gate `scale` times the identity, and the biases 0 (IRNN).

    With ``nonlinearity="relu"`` this is the IRNN of Le, Jaitly and Hinton 2015: without input the hidden
    state, and the gradient with it, is carried unchanged. Input weights stay as they are.

    Examples
    --------
    >>> identity(np.empty((2, 2)), scale=0.5)
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    scale = number("scale", scale)
    for gate in _gates(target, "weight_hh"):
        gate[...] = scale * np.eye(*gate.shape)
    _zero_biases(target)
    return _filled(target)


def forget_bias(target: Target, value: float = 1.0) -> Target:
    """Set the forget-gate bias of an LSTM to `value`, so that it remembers from the start.

    Both of the LSTM's biases count: ``bias_ih`` gets `value`, ``bias_hh`` 0. An array is one bias,
    [4 * hidden_size], gates i, f, g, o. Jozefowicz, Zaremba and Sutskever 2015.

    Examples
    --------
    >>> forget_bias(np.zeros(8), 2)
    array([0., 0., 2., 2., 0., 0., 0., 0.])
    """
    value = number("value", value)
    arrays = _arrays(target)
    biases = {name: a for name, a in arrays.items() if name == "" or name.startswith(("bias_ih", "bias_hh"))}
    size = _hidden_size(arrays)
    if not biases or any(b.ndim != 1 or b.size % 4 or size not in (0, b.size // 4) for b in biases.values()):
        shapes = {name: a.shape for name, a in (biases or arrays).items()}
        raise ValueError(f"target: expected an LSTM with biases, or one bias [4 * hidden_size], got {shapes}")
    for name, bias in biases.items():
        quarter = bias.size // 4
        bias[quarter : 2 * quarter] = 0 if name.startswith("bias_hh") else value
    return _filled(target)


def _arrays(target: Any) -> dict[str, Array]:
    """Return the arrays to fill by name; a single array has the name ''."""
    arrays = {"": target} if isinstance(target, np.ndarray) else getattr(target, "params", target)
    wanted = "an array, a dict of parameters or a layer"
    expect(isinstance(arrays, dict), "target", wanted, type(target).__name__, TypeError)
    for array in arrays.values():
        if isinstance(array, np.ma.MaskedArray):
            readable("target", array, "an array of floats")
        fits = isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.ndim
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        expect(fits, "target", "an array of floats", got, TypeError)
    expect_writeable("target", arrays)
    return arrays


def _filled(target: Target) -> Target:
    """Tell the owners of the arrays that they have other numbers now, and return the target."""
    for array in _arrays(target).values():
        note_change(array, "a function of fastrnn.init")
    return target


def _hidden_size(arrays: dict[str, Array]) -> int:
    """Return the hidden size, or 0 where there is no recurrent weight."""
    # With a projection, weight_hh has proj_size columns, so weight_hr is asked first.
    for prefix in ("weight_hr", "weight_hh"):
        for name, array in arrays.items():
            if name.startswith(prefix):
                return int(array.shape[1])
    return 0


def _gates(target: Any, prefix: str = "weight") -> list[Array]:
    """Return every matrix whose name starts with `prefix`, split into its gates."""
    arrays = _arrays(target)
    size = _hidden_size(arrays)
    gates: list[Array] = []
    for name, array in arrays.items():
        if name and not name.startswith(prefix):
            continue
        expect(array.ndim == 2, name or "target", "a matrix", f"shape {array.shape}")
        stacked = size and name.startswith(("weight_ih", "weight_hh"))
        expect(not stacked or len(array) % size == 0, name, f"gates of {size} rows", f"{len(array)} rows")
        gates += np.split(array, len(array) // size if stacked else 1)
    expect(gates, "target", f"a parameter named {prefix}...", some(sorted(arrays)))
    return gates


def _zero_biases(target: Any) -> None:
    for name, array in _arrays(target).items():
        if name.startswith("bias"):
            array[...] = 0
