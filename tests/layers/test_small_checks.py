"""Checks that no other test needs, each of which could be lost without anybody noticing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import functional


@pytest.mark.parametrize("wrong", [True, False, np.True_, 2.0, "2", None])
def test_a_number_of_threads_is_an_integer(wrong: object) -> None:
    before = fastrnn.get_num_threads()
    with pytest.raises(TypeError, match=r"^n: expected an integer, got "):
        fastrnn.set_num_threads(wrong)
    assert fastrnn.get_num_threads() == before


def test_an_argument_has_one_of_its_two_names() -> None:
    stream = fastrnn.GRU(3, 4, rng=0).stream(2)
    both = pytest.raises(TypeError, match="sequences: expected once, got it by its old name rows too")
    with pytest.warns(DeprecationWarning, match="rows is called sequences now"), both:
        stream.reset(sequences=[0], rows=[1])


@pytest.mark.parametrize("odd", ["weight_ih_l0", "bias_hh_l0"])
def test_functions_take_parameters_of_one_dtype(odd: str) -> None:
    params = fastrnn.GRU(3, 4, rng=0).state_dict()
    params[odd] = params[odd].astype(np.float64)
    with pytest.raises(ValueError, match=rf"^params: {odd}: expected float32, got float64$"):
        functional.gru(np.ones((2, 1, 3), np.float32), None, params)


def test_a_cell_and_its_layer_have_one_buffer_wherever_it_comes_from(tmp_path: Path) -> None:
    """joblib hands over large arrays as maps of a file, each reference by itself."""
    cell = fastrnn.GRUCell(3, 4, rng=0)
    np.save(tmp_path / "flat.npy", cell.flat)
    cell.__setstate__(cell.__getstate__() | {"_flat": np.load(tmp_path / "flat.npy", mmap_mode="r")})
    cell.flat[:] = 0
    cell.params["bias_ih"][8:] = 100  # n is 1, z a half
    np.testing.assert_array_equal(cell(np.ones((1, 3), np.float32)), np.full((1, 4), 0.5, np.float32))
