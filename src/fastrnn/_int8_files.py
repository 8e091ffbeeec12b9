"""Recurrent weights as integers and scales: how `fastrnn.io` writes them, and how it finds them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn._recurrent import Recurrent
from fastrnn.reference.low_precision import dequantize, quantize

Array = NDArray[Any]

SCALE = ".scale"  # what the name of a matrix's scales ends with


def recurrent_layers(modules: Mapping[str, Any]) -> Iterator[tuple[str, Recurrent]]:
    """Yield the recurrent layers among modules and in chains of modules, with their names."""
    for name, item in modules.items():
        if isinstance(item, Recurrent):
            yield name, item
        elif isinstance(getattr(item, "modules", None), dict):
            yield from ((f"{name}.{n}", m) for n, m in item.modules.items() if isinstance(m, Recurrent))


def matrices(name: str, layer: Recurrent) -> list[str]:
    """Return the names that the weight matrices of a layer have in a file."""
    return [f"{name}.{key}" for key in layer.shapes if key.startswith("weight")]


def with_integers(arrays: dict[str, Array], modules: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays with the matrices of recurrent layers as integers, and their scales beside them."""
    found = list(recurrent_layers(modules))
    expect(found, "weights_dtype", "'float32' where there is no recurrent layer", "'int8'")
    out = dict(arrays)
    for name, layer in found:
        expect(layer.dtype == np.float32, name, "a layer of float32 for weights of int8", layer.dtype)
        for key in matrices(name, layer):
            expect(
                np.isfinite(arrays[key]).all(), key, "finite numbers for weights of int8", "NaN or infinity"
            )
            out[key], out[key + SCALE] = quantize(arrays[key])
    return out


def without_integers(
    arrays: dict[str, Array], modules: Mapping[str, Any], where: str
) -> tuple[dict[str, Array], list[Recurrent]]:
    """Return the arrays with matrices of float32 again, and the layers whose matrices were integers."""
    out, frozen = dict(arrays), []
    for name, layer in recurrent_layers(modules):
        keys = [key for key in matrices(name, layer) if key + SCALE in arrays]
        for key in keys:
            q, scale = out.get(key), out.pop(key + SCALE)
            sound = (
                q is not None
                and q.dtype == np.int8
                and q.ndim == 2
                and scale.dtype == np.float32
                and scale.shape == q.shape[:1]
                and bool((q > -128).all())
                and bool((np.isfinite(scale) & (scale > 0)).all())
            )
            expect(
                sound,
                f"{where}: {key}",
                "integers from -127 to 127 and a positive scale for each row",
                "others",
            )
            assert q is not None
            with np.errstate(over="ignore"):
                out[key] = dequantize(q, scale)
            expect(np.isfinite(out[key]).all(), f"{where}: {key}", "finite weights", "infinite ones")
        if keys:
            expect(
                len(keys) == len(matrices(name, layer)), f"{where}: {name}", "all weights as integers", "some"
            )
            expect(layer.dtype == np.float32, name, "a layer of float32 for weights of int8", layer.dtype)
            frozen.append(layer)
    return out, frozen
