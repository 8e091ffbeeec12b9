"""Damaged and hostile files of ONNX, Keras and PyTorch: ValueErrors, and no more memory than a file's size explains."""

from __future__ import annotations

import os
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import mutate

from fastrnn import io

LONG = pytest.param(10_000, marks=pytest.mark.slow, id="10000")
COUNTS = pytest.mark.parametrize("count", [100, LONG])
ROOM = 12_000_000  # of what libraries keep from their first call on


def attempt(load: Callable[[Any], Any], path: Path) -> bool:
    """Load a file; anything but success or a ValueError fails, and so does memory out of proportion."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(path)
        sound = True
    except ValueError:
        sound = False
    finally:
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert used < 40 * path.stat().st_size + ROOM, used
    return sound


def fuzz(load: Callable[[Any], Any], path: Path, count: int) -> None:
    data = path.read_bytes()
    assert attempt(load, path)
    rng = np.random.default_rng(4)
    sound = 0
    for _ in range(count):
        changed = bytearray(mutate(data, rng))
        if changed and rng.random() < 0.5:  # the structure stands anywhere in these files
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
        path.write_bytes(bytes(changed))
        sound += attempt(load, path)
    assert sound < count


# -- ONNX -----------------------------------------------------------------------------------------------------------


def onnx_models() -> list[str]:
    return ["folded", "branches", "quantized", "stacked"]


def onnx_model(name: str) -> Any:
    graphs = pytest.importorskip("onnx_graphs")
    import test_onnx_load as models

    held = graphs.arrays("LSTM")
    if name == "folded":
        nodes, tensors = models.folded(held)
        return graphs.model([*nodes, graphs.node("LSTM")], tensors)
    if name == "branches":
        return models.in_a_branch("GRU", graphs.arrays("GRU", I=4))
    return models.quantized(held, True, True)[0] if name == "quantized" else models.stacked("GRU", 2)[0]


@pytest.mark.parametrize("name", onnx_models())
@COUNTS
def test_mutated_onnx(name: str, count: int, tmp_path: Path) -> None:
    made = onnx_model(name)
    import fastrnn.onnx

    path = tmp_path / "a.onnx"
    path.write_bytes(made.SerializeToString())
    fuzz(fastrnn.onnx.load, path, count)


def stored(name: str, shape: list[int], **fields: Any) -> Any:
    """A tensor that declares a shape, whatever it holds."""
    from onnx_graphs import onnx

    return onnx.TensorProto(name=name, dims=shape, data_type=1, **fields)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dims": [2**40, 2**20]},
        {"dims": [2**62, 4]},
        {"dims": [-1, 16, 3]},
        {"dims": [1, 16, 3], "raw_data": b"123"},
        {"dims": [1, 16, 3], "data_type": 99},
        {"dims": [1, 16, 3], "data_type": 8},
        {"dims": [1] * 70, "raw_data": b"1234"},
    ],
    ids=str,
)
def test_tensors_that_declare_more_than_they_hold(tensor: dict[str, Any], tmp_path: Path) -> None:
    graphs = pytest.importorskip("onnx_graphs")
    import fastrnn.onnx

    made = graphs.model([graphs.node("LSTM")], graphs.arrays("LSTM"))
    made.graph.initializer[0].CopyFrom(graphs.onnx.TensorProto(**({"name": "W", "data_type": 1} | tensor)))
    (tmp_path / "a.onnx").write_bytes(made.SerializeToString())
    assert not attempt(fastrnn.onnx.load, tmp_path / "a.onnx")


def growing(kind: str) -> Any:
    """Graphs of a few nodes that would make gigabytes, or go deep."""
    graphs = pytest.importorskip("onnx_graphs")
    helper, held = graphs.helper, graphs.arrays("LSTM")
    w = held.pop("W")
    if kind == "expand":
        nodes = [helper.make_node("Expand", ["w", "s"], ["W"])]
        return graphs.model([*nodes, graphs.node("LSTM")], held | {"w": w, "s": np.array([2**30, 16, 3])})
    if kind == "gather":
        nodes = [helper.make_node("Gather", ["w", "i"], ["v"]), helper.make_node("Gather", ["v", "i"], ["u"])]
        nodes.append(helper.make_node("Gather", ["u", "i"], ["W"]))
        held["i"] = np.zeros((20, 20, 20), np.int64)
        return graphs.model([*nodes, graphs.node("LSTM")], held | {"w": w})
    if kind == "doubling":
        names = ["w", *(f"w{k}" for k in range(40))]
        nodes = [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)]
        nodes.append(helper.make_node("Identity", [names[-1]], ["W"]))
        return graphs.model([*nodes, graphs.node("LSTM")], held | {"w": w})
    if kind == "chain":
        names = ["w", *(f"w{k}" for k in range(5000)), "W"]
        nodes = [helper.make_node("Identity", [a], [b]) for a, b in pairwise(names)]
        return graphs.model([*nodes, graphs.node("LSTM")], held | {"w": w})
    if kind == "circle":
        nodes = [helper.make_node("Identity", ["a"], ["W"]), helper.make_node("Identity", ["W"], ["a"])]
        return graphs.model([*nodes, graphs.node("LSTM")], held)
    functions = []
    for k in range(30):  # each calls the one before it twice
        calls = [("a", "b"), ("b", "c")]
        body = [helper.make_node(f"f{k - 1}", [i], [o], domain="own") for i, o in calls]
        body = body if k else [helper.make_node("Identity", ["a"], ["c"])]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{k}", ["a"], ["c"], body, opsets))
    if kind == "recursive":
        functions[0].node[0].CopyFrom(helper.make_node("f29", ["a"], ["c"], domain="own"))
    nodes = [helper.make_node("f29", ["w"], ["W"], domain="own"), graphs.node("LSTM")]
    return graphs.model(nodes, held | {"w": w}, functions=functions, domains=("own",))


@pytest.mark.parametrize(
    "kind", ["expand", "gather", "doubling", "chain", "circle", "functions", "recursive"]
)
def test_graphs_that_grow(kind: str, tmp_path: Path) -> None:
    import fastrnn.onnx

    (tmp_path / "a.onnx").write_bytes(growing(kind).SerializeToString())
    assert not attempt(fastrnn.onnx.load, tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("location", "more"),
    [
        ("../secret", {}),
        ("/etc/hostname", {}),
        ("link", {}),
        (".", {}),
        ("", {}),
        ("\0", {}),
        ("none", {}),
        ("data", {"offset": "-4"}),
        ("data", {"offset": "1000000000000"}),
        ("data", {"length": "100000000000000"}),
        ("data", {"offset": "x"}),
        ("data", {"length": "8"}),
    ],
)
def test_data_outside_the_folder_are_not_read(location: str, more: dict[str, str], tmp_path: Path) -> None:
    graphs = pytest.importorskip("onnx_graphs")
    import fastrnn.onnx

    folder = tmp_path / "model"
    folder.mkdir()
    for path in (tmp_path / "secret", folder / "data"):
        path.write_bytes(np.ones(48, np.float32).tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    made = graphs.model([graphs.node("LSTM")], graphs.arrays("LSTM"))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = graphs.onnx.TensorProto.EXTERNAL
    for key, value in ({"location": location} | more).items():
        tensor.external_data.add(key=key, value=value)
    (folder / "a.onnx").write_bytes(made.SerializeToString())
    assert not attempt(fastrnn.onnx.load, folder / "a.onnx")
    tensor.external_data[0].value = "data"
    del tensor.external_data[1:]
    (folder / "a.onnx").write_bytes(made.SerializeToString())
    assert attempt(fastrnn.onnx.load, folder / "a.onnx")


# -- Keras ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain.keras", "plain.h5", "plain.weights.h5"])
@COUNTS
def test_mutated_keras(name: str, count: int, tmp_path: Path) -> None:
    files = pytest.importorskip("keras_files")
    import fastrnn.keras

    fuzz(fastrnn.keras.load, files.unpacked(name, tmp_path), count)


def hostile(kind: str, path: Path) -> Path:
    """HDF5 files whose parts lie elsewhere, or that declare more than they hold."""
    files = pytest.importorskip("keras_files")
    import h5py

    held = files.arrays("LSTM")
    files.write(path, {"a": files.named("a", held)})
    files.write(path.with_name("other.h5"), {"a": files.named("a", held)})
    with h5py.File(path, "a") as file:
        group = file["a/a"]
        if kind == "cycle":
            del file.attrs["layer_names"]
            group["again"] = file["/"]
            return path
        del group["kernel:0"]
        if kind == "external link":
            group["kernel:0"] = h5py.ExternalLink("other.h5", "/a/a/kernel:0")
        elif kind == "soft link":
            group["kernel:0"] = h5py.SoftLink("/a/a/bias:0")
        elif kind == "huge":
            group.create_dataset("kernel:0", (2**20, 2**20), np.float32, chunks=(2**10, 2**10))
        elif kind == "compressed":
            group.create_dataset("kernel:0", data=np.zeros((2000, 16), np.float32), compression="gzip")
        elif kind == "external data":
            raw = str(path.with_name("raw"))
            group.create_dataset("kernel:0", (3, 16), np.float32, external=[(raw, 0, 192)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3, 16), np.float32)
            layout[:] = h5py.VirtualSource(path.with_name("other.h5"), "a/a/kernel:0", (3, 16))
            group.create_virtual_dataset("kernel:0", layout)
        elif kind == "integers":
            group["kernel:0"] = np.zeros((3, 16), np.int64)
        elif kind == "text":
            group["kernel:0"] = "none"
        elif kind == "three axes":
            group["kernel:0"] = np.zeros((1, 3, 16), np.float32)
        elif kind == "a group":
            group.create_group("kernel:0")
    return path


HOSTILE = ["external link", "soft link", "huge", "compressed", "external data", "virtual", "integers", "text"]


@pytest.mark.parametrize("kind", [*HOSTILE, "three axes", "a group", "cycle"])
def test_hostile_hdf5(kind: str, tmp_path: Path) -> None:
    import fastrnn.keras

    assert not attempt(fastrnn.keras.load, hostile(kind, tmp_path / "a.h5"))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{", "[]", "3", '{"class_name": "LSTM"}', '{"class_name": []}']
)
def test_hostile_configurations(text: str, tmp_path: Path) -> None:
    files = pytest.importorskip("keras_files")
    import h5py

    import fastrnn.keras

    path = files.write(tmp_path / "a.h5", {"a": files.named("a", files.arrays("LSTM"))}, files.model())
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = text[:60_000]
    assert not attempt(fastrnn.keras.load, path)


def test_deep_configurations(tmp_path: Path) -> None:
    files = pytest.importorskip("keras_files")
    import fastrnn.keras

    config = files.layer("LSTM", "a")
    for _ in range(200):
        config = files.model(config)
    path = files.write(tmp_path / "a.h5", {"a": files.named("a", files.arrays("LSTM"))}, config)
    assert not attempt(fastrnn.keras.load, path)


@pytest.mark.parametrize("kind", ["bomb", "nothing", "sizes"])
def test_hostile_archives(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    import fastrnn.keras

    path = tmp_path / "a.keras"
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED if kind == "bomb" else zipfile.ZIP_STORED
    ) as archive:
        archive.writestr("metadata.json", "{}")
        if kind != "nothing":
            archive.writestr("config.json", " " * 10_000_000 if kind == "bomb" else "{}")
            archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + os.urandom(300))
    assert not attempt(fastrnn.keras.load, path)


# -- PyTorch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [100, LONG])
def test_mutated_pytorch(count: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save(torch.nn.GRU(2, 3).state_dict(), tmp_path / "a.pt")
    fuzz(io.load, tmp_path / "a.pt", count)
