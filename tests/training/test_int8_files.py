"""Recurrent weights as integers and scales in files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Variant, assert_same_bits, make_case, make_layer

import fastrnn
from fastrnn import io, nn


def parts() -> dict[str, Any]:
    return {
        "lstm": fastrnn.LSTM(5, 7, num_layers=2, bidirectional=True, proj_size=3, rng=0),
        "net": nn.Sequential({"gru": fastrnn.GRU(4, 6, rng=1), "head": fastrnn.Linear(6, 2, rng=2)}),
        "free": np.arange(3.0),
    }


def others() -> dict[str, Any]:
    return {
        "lstm": fastrnn.LSTM(5, 7, num_layers=2, bidirectional=True, proj_size=3),
        "net": nn.Sequential({"gru": fastrnn.GRU(4, 6), "head": fastrnn.Linear(6, 2)}),
        "free": np.zeros(3),
    }


def test_round_trip(path: Path) -> None:
    saved, read = parts(), others()
    io.save(path, saved, {"epoch": "3"}, weights_dtype="int8")
    arrays = io.load(path)
    assert arrays["lstm.weight_hr_l1_reverse"].dtype == arrays["net.gru.weight_ih_l0"].dtype == np.int8
    assert arrays["net.head.weight"].dtype == np.float32
    assert io.restore(path, read) == {"epoch": "3"}
    x = np.random.default_rng(0).standard_normal((6, 2, 5), np.float32)
    assert read["lstm"].weights_dtype == read["net"]["gru"].weights_dtype == "int8"
    saved["lstm"].freeze(weights="int8")
    saved["net"]["gru"].freeze(weights="int8")
    assert_same_bits(read["lstm"](x)[0], saved["lstm"](x)[0])
    assert_same_bits(read["net"](x[..., :4])[0], saved["net"](x[..., :4])[0])
    assert_same_bits(read["free"], saved["free"])
    # the parameters are the rounded numbers, and a second file has the same bytes
    again = path.with_name("again" + path.suffix)
    io.save(
        again,
        {name: copy.deepcopy(part) for name, part in read.items()},
        {"epoch": "3"},
        weights_dtype="int8",
    )
    assert again.read_bytes() == path.read_bytes()


def test_a_quarter_of_the_size(path: Path) -> None:
    layer = {"lstm": fastrnn.LSTM(200, 200)}
    io.save(path, layer)
    whole = path.stat().st_size
    io.save(path, layer, weights_dtype="int8")
    assert path.stat().st_size < 0.27 * whole


@pytest.mark.parametrize("kind", ["rnn_tanh", "lstm", "gru_before"])
def test_every_kind(path: Path, kind: str) -> None:
    v = Variant(kind, 2)
    case = make_case(v)
    layer, other = make_layer(v, case.params), make_layer(v)
    io.save(path, {"layer": layer}, weights_dtype="int8")
    io.restore(path, {"layer": other})
    assert_same_bits(other(case.x, case.state)[0], layer.freeze(weights="int8")(case.x, case.state)[0])


DAMAGE = {
    "an integer that is too small": ("lstm.weight_ih_l0", lambda a: np.full_like(a, -128)),
    "another type": ("lstm.weight_ih_l0", lambda a: a.astype(np.int16)),
    "a scale that is NaN": ("lstm.weight_ih_l0.scale", lambda a: np.full_like(a, np.nan)),
    "a negative scale": ("lstm.weight_ih_l0.scale", lambda a: -a),
    "a scale that overflows": ("lstm.weight_ih_l0.scale", lambda a: np.full_like(a, 3e38)),
    "too few scales": ("lstm.weight_ih_l0.scale", lambda a: a[1:]),
    "scales without integers": ("lstm.weight_ih_l0", lambda a: None),
    "integers without scales": ("lstm.weight_ih_l0.scale", lambda a: None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_wrong_files_change_nothing(path: Path, damage: str) -> None:
    io.save(path, {"lstm": fastrnn.LSTM(3, 4, rng=0)}, weights_dtype="int8")
    arrays = io.load(path)
    name, change = DAMAGE[damage]
    changed = change(arrays.pop(name))
    if changed is not None:
        arrays[name] = changed
    io.save(path, arrays)
    layer = fastrnn.LSTM(3, 4, rng=1)
    before = layer.flat.copy()
    with pytest.raises(ValueError, match=r"lstm"):
        io.restore(path, {"lstm": layer})
    assert_same_bits(layer.flat, before)
    assert not layer.frozen


def test_refusals(path: Path) -> None:
    with pytest.raises(ValueError, match="weights_dtype: expected 'float32' or 'int8', got 'int4'"):
        io.save(path, parts(), weights_dtype="int4")
    with pytest.raises(
        ValueError, match="weights_dtype: expected 'float32' where there is no recurrent layer"
    ):
        io.save(path, {"head": fastrnn.Linear(2, 3)}, weights_dtype="int8")
    with pytest.raises(ValueError, match="gru: expected a layer of float32 for weights of int8, got float64"):
        io.save(path, {"gru": fastrnn.GRU(2, 3, dtype=np.float64)}, weights_dtype="int8")
    broken = fastrnn.RNN(2, 3)
    broken.params["weight_hh_l0"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"rnn\.weight_hh_l0: expected finite numbers"):
        io.save(path, {"rnn": broken}, weights_dtype="int8")
    assert not path.exists()
    io.save(path, {"gru": fastrnn.GRU(2, 3)}, weights_dtype="int8")
    with pytest.raises(ValueError, match="gru: expected a layer of float32 for weights of int8, got float64"):
        io.restore(path, {"gru": fastrnn.GRU(2, 3, dtype=np.float64)})
