"""state_dict and load_state_dict: torch's names, copies, and one error that names all that does not fit."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

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


PIECES = {
    "layer": lambda rng: fastrnn.GRU(3, 4, 2, rng=rng),
    "cell": lambda rng: fastrnn.LSTMCell(3, 4, rng=rng),
    "linear": lambda rng: fastrnn.Linear(3, 2, rng=rng),
}
COPIES = {
    "copy": lambda objects: tuple(copy.copy(o) for o in objects),
    "deepcopy": copy.deepcopy,
    "pickle": lambda objects: pickle.loads(pickle.dumps(objects)),
}


def output(piece: Any) -> np.ndarray:
    """What a piece makes of ones: y, or the state of a cell."""
    y = piece(np.ones((5, 2, 3) if isinstance(piece, fastrnn.GRU) else (2, 3), np.float32))
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", PIECES)
def test_copies_can_be_trained(kind: str, way: str) -> None:
    """A copy's buffer is what its calls read, and not that of the original."""
    piece, other = PIECES[kind](0), PIECES[kind](1)
    (twin,) = COPIES[way]((piece,))
    want = output(piece)
    assert_same_bits(output(twin), want)
    twin.flat[:] = other.flat
    assert_same_bits(output(twin), output(other))
    assert all(np.shares_memory(p, twin.flat) for p in twin.params.values())
    assert_same_bits(output(piece), want)


@pytest.mark.parametrize("kind", PIECES)
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_piece_and_its_optimiser_stay_together(kind: str, way: str) -> None:
    piece = PIECES[kind](0)
    piece, steps = COPIES[way]((piece, fastrnn.optim.SGD([piece], 0.5)))
    before = piece.flat.copy()
    steps.step([np.ones_like(piece.flat)])
    np.testing.assert_array_equal(piece.flat, before - np.float32(0.5))
    same = PIECES[kind](0)
    same.flat[:] = piece.flat
    assert_same_bits(output(piece), output(same))


@pytest.mark.parametrize("way", COPIES)
def test_copied_gradients_are_views_of_their_buffer(way: str) -> None:
    layer = fastrnn.GRU(3, 4)
    y, _, tape = layer.forward(np.ones((5, 2, 3), np.float32))
    g = layer.backward(tape, y)
    assert g.params
    (twin,) = COPIES[way]((g,))
    twin.flat[:] = 7
    assert all((p == 7).all() for p in twin.params.values())


def test_a_map_of_a_file_is_not_taken_for_the_buffer(tmp_path: Path) -> None:
    """As joblib hands over large arrays: parameters must stay writeable."""
    np.save(tmp_path / "flat.npy", fastrnn.GRU(3, 4, rng=0).flat)
    layer = fastrnn.GRU(3, 4, rng=1)
    state = layer.__getstate__() | {"_flat": np.load(tmp_path / "flat.npy", mmap_mode="r")}
    layer.__setstate__(state)
    layer.flat[:] = 0
    assert not layer(np.ones((2, 1, 3), np.float32))[0].any()


def test_assigned_numbers_reach_the_buffer() -> None:
    layer, other = fastrnn.GRU(3, 4, rng=0), fastrnn.GRU(3, 4, rng=1)
    x = np.ones((5, 2, 3), np.float32)
    buffer = layer.flat
    layer.flat = other.flat * 1.0
    assert layer.flat is buffer
    assert_same_bits(layer(x)[0], other(x)[0])
    other.params["weight_ih_l0"] *= 2
    layer.params["weight_ih_l0"] = layer.params["weight_ih_l0"] * 2
    assert_same_bits(layer(x)[0], other(x)[0])
    layer.params.update(bias_ih_l0=np.zeros(12))
    other.params |= {"bias_ih_l0": 0.0}
    assert_same_bits(layer(x)[0], other(x)[0])
    with pytest.raises(KeyError, match="bias_ih_l1"):
        layer.params["bias_ih_l1"] = np.zeros(12)
    assert type(copy.deepcopy(layer.params)) is dict


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


# -- parts of a model -------------------------------------------------------------------------------------------


def model(prefix: str = "gru.") -> tuple[Any, dict[str, Any]]:
    gru = fastrnn.GRU(2, 3, rng=1)
    return gru, {prefix + name: a for name, a in gru.state_dict().items()}


@pytest.mark.parametrize("prefix", ["gru.", "module.", "encoder.layers.0."])
def test_a_prefix_is_named_and_taken(prefix: str) -> None:
    gru, state = model(prefix)
    layer = fastrnn.GRU(2, 3, rng=0)
    with pytest.raises(
        ValueError, match=rf"^state_dict: .* that all begin with '{prefix}': prefix='{prefix}'$"
    ):
        layer.load_state_dict(state)
    layer.load_state_dict(state, prefix=prefix)
    assert_same_bits(layer.flat, gru.flat)


def test_a_prefix_among_other_names() -> None:
    gru, state = model()
    layer = fastrnn.GRU(2, 3, rng=0)
    state |= {"head.weight": np.ones((2, 3))}
    with pytest.raises(ValueError, match=r" that begin with 'gru\.': prefix='gru\.'$"):
        layer.load_state_dict(state)
    with pytest.raises(ValueError, match=r"after 'rnn\.', got names that begin with 'gru\.'"):
        layer.load_state_dict(state, prefix="rnn.")
    layer.load_state_dict(state, prefix="gru.")
    assert_same_bits(layer.flat, gru.flat)
    state |= {f"decoder.{name}": a for name, a in gru.state_dict().items()}
    with pytest.raises(ValueError, match=r" that begin with one of 'gru\.', 'decoder\.'"):
        layer.load_state_dict(state)
    with pytest.raises(ValueError, match=r"missing bias_hh_l0"):
        layer.load_state_dict({n: a for n, a in state.items() if n != "gru.bias_hh_l0"}, prefix="gru.")
    with pytest.raises(TypeError, match=r"^prefix: expected a str, got int"):
        layer.load_state_dict(state, prefix=3)  # type: ignore[arg-type]


def test_not_strict_takes_what_is_there() -> None:
    gru, _ = model()
    layer = fastrnn.GRU(2, 3, rng=0)
    before = layer.state_dict()
    part = {"weight_ih_l0": gru.params["weight_ih_l0"], "more": np.ones(3)}
    layer.load_state_dict(part, strict=False)
    assert_same_bits(layer.params["weight_ih_l0"], gru.params["weight_ih_l0"])
    assert_same_bits(layer.params["bias_hh_l0"], before["bias_hh_l0"])
    with pytest.raises(ValueError, match=r"expected some of the names weight_ih_l0, .* got other"):
        layer.load_state_dict({"other": np.ones(3)}, strict=False)
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected shape \(9, 3\)"):
        layer.load_state_dict({"weight_hh_l0": np.ones(3, np.float32)}, strict=False)


def test_modules_and_cells_take_a_prefix_too() -> None:
    linear, cell = fastrnn.Linear(2, 3, rng=0), fastrnn.GRUCell(2, 3, rng=0)
    for part in (linear, cell):
        other = {f"net.{name}": a + 1 for name, a in part.state_dict().items()}
        want = part.flat + 1
        part.load_state_dict(other, prefix="net.")
        assert_same_bits(part.flat, want)
    assert_same_bits(cell._layer.flat, cell.flat)
