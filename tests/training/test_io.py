"""Weights in files: round trips, what a hostile file gets, atomic writing."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import mutate

import fastrnn
from fastrnn import io as weights
from fastrnn.nn import Embedding, Linear


def example() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "f32": rng.standard_normal((3, 4)).astype(np.float32),
        "f64": rng.standard_normal(5),
        "f16": rng.standard_normal(2).astype(np.float16),
        "i64": np.arange(6).reshape(2, 3),
        "u8": np.arange(3, dtype=np.uint8),
        "flag": np.array([True, False]),
        "scalar": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": rng.standard_normal((3, 2)).T,
    }


def test_round_trip(path: Path) -> None:
    weights.save(path, example(), {"name": "value", "ü": "☃"})
    arrays, metadata = weights.read(path)
    assert metadata == {"name": "value", "ü": "☃"}
    assert set(arrays) == set(example())
    for name, array in example().items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
        arrays[name][...] = 0  # writable


def test_pieces(path: Path) -> None:
    pieces = {"embedding": Embedding(3, 4, rng=0), "head": Linear(4, 2, rng=1)}
    weights.save(path, pieces)
    assert set(weights.load(path)) == {"embedding.weight", "head.weight", "head.bias"}
    others = {"embedding": Embedding(3, 4, rng=5), "head": Linear(4, 2, rng=6)}
    weights.restore(path, others)
    for name, piece in pieces.items():
        np.testing.assert_array_equal(others[name].flat, piece.flat)
    with pytest.raises(ValueError, match=r"head.weight: expected shape \(3, 4\), got \(2, 4\)"):
        weights.restore(path, {"embedding": Embedding(3, 4), "head": Linear(4, 3)})
    with pytest.raises(ValueError, match=r"missing more.bias.*unexpected head.bias"):
        weights.restore(path, {"embedding": Embedding(3, 4), "more": Linear(4, 3)})


def test_same_content_same_bytes(path: Path) -> None:
    weights.save(path, example())
    first = path.read_bytes()
    weights.save(path, example())
    assert path.read_bytes() == first


def test_readable_by_the_usual_libraries(tmp_path: Path) -> None:
    weights.save(tmp_path / "a.npz", {"x": np.arange(3.0)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["x"], np.arange(3.0))
    np.savez(tmp_path / "b.npz", y=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    np.testing.assert_array_equal(weights.load(tmp_path / "b.npz")["y"], np.arange(6.0).reshape(2, 3))
    library = pytest.importorskip("safetensors.numpy")
    weights.save(tmp_path / "a.safetensors", {"x": np.arange(3.0)})
    np.testing.assert_array_equal(library.load_file(tmp_path / "a.safetensors")["x"], np.arange(3.0))


def test_compressed_files_are_not_read_and_the_error_says_so(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(3.0))
    with pytest.raises(
        ValueError, match=r"a.npz: expected an uncompressed .npz file .*, got a compressed one"
    ):
        weights.load(tmp_path / "a.npz")


def test_nothing_is_restored_into_a_frozen_layer(path: Path) -> None:
    pieces = {"a": Linear(2, 3, rng=0), "b": fastrnn.GRU(2, 3, rng=0)}
    weights.save(path, pieces)
    others = {"a": Linear(2, 3, rng=1), "b": fastrnn.GRU(2, 3, rng=1)}
    before = others["a"].flat.copy()
    others["b"].freeze()
    with pytest.raises(ValueError, match=r"modules: expected writeable .* b.weight_ih_l0 \(a frozen layer\?"):
        weights.restore(path, others)
    np.testing.assert_array_equal(others["a"].flat, before)


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.save(path, {"x": np.zeros(3)})

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        weights.save(path, {"x": np.ones(3)})
    np.testing.assert_array_equal(weights.load(path)["x"], np.zeros(3))
    assert list(path.parent.iterdir()) == [path]


def attempt(path: Path) -> bool:
    """Load a file that may be damaged: True if it still loads; anything but a ValueError fails the test."""
    try:
        weights.read(path)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow, id="10000")])
def test_mutated_files_are_value_errors(path: Path, count: int) -> None:
    weights.save(path, example(), {"config": json.dumps({"hidden_size": 3})})
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    sound = 0
    for _ in range(count):
        path.write_bytes(mutate(data, rng))
        sound += attempt(path)
    assert sound < count  # a changed number inside an array is not noticed by safetensors, and need not be


def test_every_truncation_is_a_value_error(path: Path) -> None:
    weights.save(path, example())
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert not attempt(path)


def npz(name: str, content: bytes, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a", "a.npy"):  # one array of both names
            archive.writestr(name, npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}\n", b"1"))
    return buffer.getvalue()


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def safetensors(header: Any, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


HUGE = 2**40
HOSTILE = {
    "bomb.npz": npz("a.npy", b"\0" * 10_000_000, compression=zipfile.ZIP_DEFLATED),
    "huge.npz": npz("a.npy", npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({HUGE},)}}\n")),
    "overflow.npz": npz("a.npy", npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**61}, 8)}}\n")),
    "negative.npz": npz(
        "a.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}\n", b"12345678")
    ),
    "object.npz": npz("a.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", b"12345678")),
    "twice.npz": twice(),
    "text.npz": npz("a.npy", b"hello"),
    "deep.npz": npz("a.npy", npy("(" * 5000 + "\n")),
    "metadata.npz": npz(
        "__metadata__.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}\n", b"[]")
    ),
    "huge.safetensors": safetensors({"a": {"dtype": "F64", "shape": [HUGE], "data_offsets": [0, 8 * HUGE]}}),
    "overflow.safetensors": safetensors({"a": {"dtype": "F64", "shape": [2**61, 8], "data_offsets": [0, 0]}}),
    "header.safetensors": struct.pack("<Q", 2**63) + b"{}",
    "overlap.safetensors": safetensors(
        {n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, b"1234"
    ),
    "hole.safetensors": safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]}}, b"1234"),
    "dtype.safetensors": safetensors({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"1"),
    "list.safetensors": safetensors([1, 2]),
    "entry.safetensors": safetensors({"a": 3}),
    "nested.safetensors": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "empty.safetensors": b"",
    "empty.npz": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_allocate_nothing(name: str, tmp_path: Path) -> None:
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        known = {
            "bomb.npz": "expected an uncompressed",
            "dtype.safetensors": "expected real numbers that NumPy",
        }
        with pytest.raises(ValueError, match=known.get(name, "not a sound")):
            weights.load(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(HOSTILE[name]) + 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: weights.save("x.pt", {}),
            ValueError,
            "path: expected a name ending in .safetensors or .npz, got 'x.pt'",
        ),
        (
            lambda: weights.load("x"),
            ValueError,
            "path: expected a name ending in .safetensors or .npz, got 'x'",
        ),
        (lambda: weights.load("does-not-exist.npz"), FileNotFoundError, "does-not-exist.npz"),
        (
            lambda: weights.save("x.npz", {"a": np.array([None])}),
            TypeError,
            "a: expected real numbers, got object",
        ),
        (
            lambda: weights.save("x.npz", Linear(2, 3)),
            TypeError,
            "weights: expected a dict of arrays or of modules, got Linear",
        ),
        (
            lambda: weights.save("x.npz", {1: np.ones(1)}),
            TypeError,
            "weights: expected names that are str, got int",
        ),
        (
            lambda: weights.save("x.safetensors", {"a": np.ones(1, np.longdouble)}),
            TypeError,
            "a: expected a dtype that safetensors has, got",
        ),
        (
            lambda: weights.save("x.npz", {"a": Linear(2, 3), "a.weight": np.ones(1)}),
            ValueError,
            "weights: expected every name once, got a.weight twice",
        ),
        (
            lambda: weights.restore("x.npz", Linear(2, 3)),
            TypeError,
            "modules: expected a dict of modules, optimisers and arrays, got Linear",
        ),
        (
            lambda: weights.restore("x.npz", {"a": 1.0}),
            TypeError,
            "modules: expected a dict of modules, optimisers and arrays, got one of float",
        ),
        (
            lambda: weights.save("x.npz", {"a": np.ones(1)}, "b"),
            TypeError,
            "metadata: expected a dict of str",
        ),
        (
            lambda: weights.save("x.npz", {"a": np.ones(1)}, {"b": 1}),
            TypeError,
            "metadata: expected a dict of str",
        ),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
