"""Keras files for tests: those that Keras 3 wrote, and older ones as they were written, by h5py."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

DATA = Path(__file__).parents[1] / "data" / "keras"
GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


def unpacked(name: str, folder: Path) -> Path:
    """Write a file of the data where it can be read, and return its path."""
    (folder / name).write_bytes(lzma.decompress((DATA / f"{name}.xz").read_bytes()))
    return folder / name


def outputs(name: str) -> dict[str, np.ndarray]:
    """What Keras returned: x, and y of every layer."""
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def arrays(
    kind: str, I: int = 3, H: int = 4, seed: int = 0, after: bool = True, bias: bool = True
) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias as Keras has them."""
    rng = np.random.default_rng([seed, I, H])
    rows = GATES[kind] * H
    shapes: list[tuple[int, ...]] = [(I, rows), (H, rows)]
    shapes += [(2, rows) if kind == "GRU" and after else (rows,)] * bias
    return [rng.uniform(-0.7, 0.7, shape).astype(np.float32) for shape in shapes]


def layer(kind: str, name: str, H: int = 4, **config: Any) -> dict[str, Any]:
    """The configuration of a layer."""
    said: dict[str, Any] = {"name": name, "units": H, "activation": "tanh", "use_bias": True}
    if kind != "SimpleRNN":
        said["recurrent_activation"] = "sigmoid"
    return {"class_name": kind, "config": said | config}


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a model."""
    return {"class_name": "Sequential", "config": {"name": "model", "layers": list(layers)}}


def write(
    path: Path,
    held: dict[str, dict[str, np.ndarray]],
    config: Any = None,
    version: str | None = "2.4.0",
) -> Path:
    """Write a file in which each layer lists its weights: of a whole model with a configuration, else of weights."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if config is not None else file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
        if version is not None:
            group.attrs["keras_version"] = version.encode()
        group.attrs["layer_names"] = [name.encode() for name in held]
        for name, weights in held.items():
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [key.encode() for key in weights]
            for key, array in weights.items():
                inner[key] = array
    return path


def named(head: str, held: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Weights by the names that Keras 2 gave them."""
    return {
        f"{head}/{kind}:0": array
        for kind, array in zip(("kernel", "recurrent_kernel", "bias"), held, strict=False)
    }


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def reference(kind: str, held: list[np.ndarray], x: np.ndarray, gate: Any = sigmoid) -> np.ndarray:
    """y of a layer [B, T, H] by Keras' equations, in NumPy."""
    kernel, recurrent = (a.astype(np.float64) for a in held[:2])
    bias = held[2].astype(np.float64) if len(held) > 2 else np.zeros(kernel.shape[1])
    H = len(recurrent)
    after = bias.ndim == 2
    b_in, b_rec = bias if after else (bias, np.zeros_like(bias))
    h = c = np.zeros((len(x), H))
    out = []
    for t in range(x.shape[1]):
        a = x[:, t] @ kernel + b_in
        if kind == "SimpleRNN":
            h = np.tanh(a + h @ recurrent)
        elif kind == "LSTM":
            i, f, g, o = np.split(a + h @ recurrent, 4, axis=1)
            c = gate(f) * c + gate(i) * np.tanh(g)
            h = gate(o) * np.tanh(c)
        else:
            inner = h @ recurrent[:, : 2 * H] + b_rec[: 2 * H]
            z, r = np.split(gate(a[:, : 2 * H] + inner), 2, axis=1)
            if after:
                n = np.tanh(a[:, 2 * H :] + r * (h @ recurrent[:, 2 * H :] + b_rec[2 * H :]))
            else:
                n = np.tanh(a[:, 2 * H :] + (r * h) @ recurrent[:, 2 * H :])
            h = z * h + (1 - z) * n
        out.append(h)
    return np.stack(out, axis=1)
