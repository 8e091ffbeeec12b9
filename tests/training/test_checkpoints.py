"""Files of modules with their optimiser, files of other libraries and of other dtypes, and where they are saved."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits

import fastrnn
from fastrnn import io, nn, optim

f32 = np.float32


@pytest.fixture(params=["npz", "safetensors"])
def path(request: Any, tmp_path: Path) -> Path:
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"checkpoint.{request.param}"


def trained(optimiser: Any, steps: int, seed: int = 0) -> dict[str, Any]:
    lstm, head = fastrnn.LSTM(2, 3, rng=seed), nn.Linear(3, 2, rng=seed)
    opt = optimiser([lstm, head])
    rng = np.random.default_rng(1)
    for _ in range(steps):
        opt.step([rng.standard_normal(p.flat.size).astype(f32) for p in (lstm, head)])
    return {"lstm": lstm, "head": head, "opt": opt, "best": np.full(3, float(seed))}


OPTIMISERS = [optim.Adam, lambda p: optim.SGD(p, momentum=0.9), lambda p: optim.SGD(p), optim.RMSprop]


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    for name in ("lstm", "head"):
        assert_same_bits(a[name].flat, b[name].flat)
    for key, value in a["opt"].state_dict().items():
        np.testing.assert_array_equal(value, b["opt"].state_dict()[key])
    np.testing.assert_array_equal(a["best"], b["best"])


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_what_was_saved_is_restored_with_the_same_dict(optimiser: Any, path: Path) -> None:
    saved, other = trained(optimiser, 5), trained(optimiser, 2, seed=9)
    io.save(path, saved, {"epoch": "5"})
    assert io.restore(path, other) == {"epoch": "5"}
    same(saved, other)
    grads = [np.ones_like(saved[name].flat) for name in ("lstm", "head")]
    saved["opt"].step(grads)
    other["opt"].step(grads)
    same(saved, other)


def test_without_the_optimiser(path: Path) -> None:
    saved, other = trained(optim.Adam, 5), trained(optim.Adam, 2, seed=9)
    io.save(path, saved)
    modules = {name: other[name] for name in ("lstm", "head")}
    before = other["lstm"].flat.copy()
    with pytest.raises(ValueError, match=r"also holds best, opt: give them too, or strict=False"):
        io.restore(path, modules)
    np.testing.assert_array_equal(other["lstm"].flat, before)
    io.restore(path, modules, strict=False)
    assert_same_bits(other["lstm"].flat, saved["lstm"].flat)
    with pytest.raises(ValueError, match=r"missing more\.weight"):
        io.restore(path, {"lstm": other["lstm"], "more": nn.Linear(2, 2)}, strict=False)


def test_nothing_changes_where_a_part_does_not_fit(path: Path) -> None:
    saved, other = trained(optim.Adam, 5), trained(optim.RMSprop, 2, seed=9)
    io.save(path, saved)
    before = {**other["lstm"].state_dict(), **other["opt"].state_dict()}
    with pytest.raises(ValueError, match="opt"):
        io.restore(path, other)
    arrays, _ = io.read(path)
    arrays["opt.steps"] = np.array(-1)
    io.save(path, arrays)
    other["opt"] = optim.Adam([other["lstm"], other["head"]])
    with pytest.raises(ValueError, match="steps: expected at least 0, got -1"):
        io.restore(path, other)
    for name, value in other["lstm"].state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_chain_and_its_optimiser(path: Path) -> None:
    def make(seed: int) -> dict[str, Any]:
        net = nn.Sequential({"gru": fastrnn.GRU(2, 3, rng=seed), "head": nn.Linear(3, 1, rng=seed)})
        return {"net": net, "opt": optim.Adam([net])}

    a, b = make(0), make(1)
    io.save(path, a)
    assert "net.gru.weight_ih_l0" in io.load(path)
    io.restore(path, b)
    for one, other in zip(a["net"].flats, b["net"].flats, strict=True):
        assert_same_bits(one, other)


# -- dtypes and files of other libraries ------------------------------------------------------------------------


def safetensors_file(dtype: str, data: bytes, shape: list[int]) -> bytes:
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    numbers = np.array([[1.0, -2.5, 0.0], [np.inf, 3.140625, 2.0**-130]], f32)
    upper = (numbers.view(np.uint32) >> 16).astype("<u2")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_file("BF16", upper.tobytes(), [2, 3]))
    got = io.load(path)["w"]
    assert got.dtype == f32
    np.testing.assert_array_equal(got, numbers)
    path.write_bytes(safetensors_file("BF16", upper.tobytes()[:-2], [2, 3]))
    with pytest.raises(ValueError, match="not a sound safetensors file"):
        io.load(path)


def test_bfloat16_that_torch_wrote(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    st = pytest.importorskip("safetensors.torch")
    gru = torch.nn.GRU(2, 3).to(torch.bfloat16)
    st.save_file(dict(gru.state_dict()), tmp_path / "gru.safetensors")
    layer = fastrnn.GRU(2, 3)
    layer.load_state_dict(io.load(tmp_path / "gru.safetensors"))
    np.testing.assert_array_equal(layer.params["weight_hh_l0"], gru.weight_hh_l0.float().detach().numpy())


def test_a_dtype_that_is_not_read_is_no_damage(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_file("F8_E4M3", b"1234", [4]))
    with pytest.raises(ValueError, match=r"w: expected real numbers .* got dtype 'F8_E4M3'$") as error:
        io.load(path)
    assert "sound" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pytorch_model.bin", "PyTorch"),
        ("model.h5", "Keras"),
        ("model.keras", "Keras"),
        ("array.npy", "numpy.load"),
        ("model.onnx", r"fastrnn.onnx.load\(path\)"),
        ("model", r"got '.*model'$"),
    ],
)
def test_files_of_other_libraries_come_with_a_hint(name: str, hint: str, tmp_path: Path) -> None:
    for call in (io.load, lambda p: io.save(p, {}), lambda p: io.restore(p, {})):
        with pytest.raises(ValueError, match=r"^path: expected a name ending in .*" + hint):
            call(tmp_path / name)


@pytest.mark.parametrize("name", ["model.pt", "model.PTH"])
def test_files_of_pytorch_are_read_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: expected a name ending in .safetensors or .npz, got "):
        io.save(tmp_path / name, {})
    for call in (io.load, lambda p: io.restore(p, {})):
        with pytest.raises(FileNotFoundError):
            call(tmp_path / name)


def test_a_missing_folder_is_named(path: Path) -> None:
    missing = path.parent / "runs" / "1"
    with pytest.raises(FileNotFoundError, match=r"^path: expected a folder that exists, got '.*runs/1'$"):
        io.save(missing / path.name, {"a": np.ones(1)})
    assert not missing.exists()


def test_masked_arrays_are_not_saved(path: Path) -> None:
    with pytest.raises(TypeError, match=r"^a: expected an array without masked elements"):
        io.save(path, {"a": np.ma.masked_equal([1.0, -999.0], -999)})


# -- messages ---------------------------------------------------------------------------------------------------


def test_messages_stay_short(path: Path) -> None:
    deep, flat = fastrnn.LSTM(2, 3, num_layers=20), fastrnn.LSTM(2, 3)
    many = {f"part.{i}": np.ones(1) for i in range(300)}
    io.save(path, many)
    for call in (
        lambda: flat.load_state_dict(deep.state_dict()),
        lambda: deep.load_state_dict(many),
        lambda: io.restore(path, {"deep": deep}),
        lambda: io.copy_into(deep.params, many),
        lambda: fastrnn.functional.lstm(np.ones((1, 1, 2), f32), None, {**deep.state_dict(), **many}),
        lambda: fastrnn.functional.lstm(np.ones((1, 1, 2), f32), None, many),
        lambda: nn.Sequential({"deep": deep}).load_state_dict(many),
        lambda: fastrnn.init.identity(dict(many)),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        assert len(str(error.value)) < 600
