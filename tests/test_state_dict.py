"""state_dict and load_state_dict: torch's names, copies, and one error that names all that does not fit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from conftest import Variant, assert_same_bits, both_dtypes, make_layer, variants

import fastrnn


@pytest.mark.parametrize("v", both_dtypes(variants()), ids=str)
def test_round_trip(v: Variant) -> None:
    one, two = make_layer(v), make_layer(v)
    state = one.state_dict()
    assert list(state) == list(v.shapes())
    assert (one.flat != two.flat).any()
    two.load_state_dict(state)
    assert_same_bits(two.flat, one.flat)


def test_entries_are_copies() -> None:
    layer = fastrnn.GRU(3, 4)
    state = layer.state_dict()
    before = layer.flat.copy()
    for value in state.values():
        value[...] = 0
    assert_same_bits(layer.flat, before)
    layer.load_state_dict(state)
    state["weight_ih_l0"][...] = 1
    assert not layer.flat.any()


def test_other_floats_are_cast() -> None:
    layer = fastrnn.GRU(3, 4)
    wide = {key: value.astype(np.float64) for key, value in fastrnn.GRU(3, 4).state_dict().items()}
    layer.load_state_dict(wide)
    for key, value in wide.items():
        np.testing.assert_array_equal(layer.params[key], value)
        assert layer.params[key].dtype == np.float32


def test_everything_wrong_is_named_in_one_error() -> None:
    layer = fastrnn.GRU(3, 4)
    state = layer.state_dict()
    before = layer.flat.copy()
    del state["bias_hh_l0"], state["weight_hh_l0"]
    state["weight_ih_l0"] = np.ones((12, 5), np.float32)
    state["weight_ih_l1"] = np.ones((12, 4), np.float32)
    state["bias_ih_l0"] = np.full(12, 9, np.float32)
    with pytest.raises(ValueError) as error:
        layer.load_state_dict(state)
    message = str(error.value)
    for word in ("bias_hh_l0", "weight_hh_l0", "weight_ih_l1", "weight_ih_l0", "(12, 3)", "(12, 5)"):
        assert word in message, message
    assert "bias_ih_l0" not in message
    assert_same_bits(layer.flat, before)


def test_a_frozen_layer_is_not_overwritten() -> None:
    layer = fastrnn.GRU(3, 4)
    before = layer.flat.copy()
    layer.freeze()
    with pytest.raises(ValueError, match=r"freeze|frozen|read-only"):
        layer.load_state_dict(fastrnn.GRU(3, 4).state_dict())
    assert_same_bits(layer.flat, before)


@pytest.mark.parametrize("v", variants()[::5], ids=str)
def test_copies_and_pickles_stand_alone(v: Variant) -> None:
    layer = make_layer(v)
    x = np.ones((v.T, v.B, v.I), np.float32)
    want, _ = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same_bits(other(x)[0], want)
        assert not np.shares_memory(other.flat, layer.flat)
        other.flat[:] = 0
        assert not other.params["weight_hh_l0"].any()
        assert_same_bits(layer(x)[0], want)
