"""Copies and pickles of frozen layers stay frozen."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import KIND, Variant, assert_same_bits, make_case, make_layer

import fastrnn

WAYS: dict[str, Callable[..., Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
    WAYS[f"pickle {protocol}"] = lambda layer, protocol=protocol: pickle.loads(pickle.dumps(layer, protocol))


@pytest.mark.parametrize("way", WAYS)
@KIND
def test_a_copy_of_a_frozen_layer_is_frozen(kind: str, way: str) -> None:
    v = Variant(kind, 2)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = layer(case.x)[0]
    layer.freeze()
    other = WAYS[way](layer)
    assert other.frozen
    assert not other.flat.flags.writeable
    assert not any(view.flags.writeable for view in other.params.values())
    with pytest.raises(ValueError, match="frozen; unfreeze"):
        other.load_state_dict(case.params)
    assert_same_bits(other(case.x)[0], want)
    other.unfreeze()  # of the copy alone
    other.flat[:] = 0
    assert not other(case.x)[0].any()
    assert layer.frozen
    assert_same_bits(layer(case.x)[0], want)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_layer_that_is_not_frozen_can_be_written(way: str) -> None:
    layer = make_layer(Variant("gru", H=40))  # pickle treats large arrays in a way of its own
    layer.freeze()
    layer.unfreeze()
    other = WAYS[way](layer)
    assert not other.frozen
    other.freeze()
    other.unfreeze()
    other.flat[:] = np.arange(other.flat.size)
    assert all(view.flags.writeable for view in other.params.values())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "copy"])  # which takes one object
def test_a_copied_layer_and_its_optimiser_stay_together(way: str, frozen: bool) -> None:
    layer = make_layer(Variant("gru", H=40))
    optimiser = fastrnn.optim.SGD([layer], lr=1.0)
    if frozen:
        layer.freeze()
    layer, optimiser = WAYS[way]((layer, optimiser))
    layer.unfreeze()
    before = layer.flat.copy()
    optimiser.step([np.ones_like(before)])
    assert_same_bits(layer.flat, before - 1)
    assert_same_bits(layer.params["weight_ih_l0"].ravel(), layer.flat[: layer.params["weight_ih_l0"].size])
