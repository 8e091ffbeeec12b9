"""Tapes: what they keep alive, and which layer they belong to."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from conftest import KIND, Variant, make_case, make_layer

import fastrnn


@KIND
def test_a_tape_lets_go_of_its_arrays_when_it_has_served(kind: str) -> None:
    """Whoever keeps a list of served tapes does not keep the data of all those calls."""
    v = Variant(kind, 2)
    case = make_case(v)
    layer = make_layer(v, case.params)
    x = case.x.copy()
    y, _, tape = layer.forward(x)
    kept = weakref.ref(x), weakref.ref(y)
    del x, y
    gc.collect()
    assert all(ref() is not None for ref in kept)  # BPTT reads both
    layer.backward(tape, case.dy)
    gc.collect()
    assert all(ref() is None for ref in kept)
    assert tape.nbytes == 0


def test_a_tape_lets_go_of_its_state_when_it_has_served() -> None:
    layer, h = fastrnn.GRU(3, 4, rng=0), np.ones((1, 2, 4), np.float32)
    y, _, tape = layer.forward(np.ones((5, 2, 3), np.float32), h)
    kept = weakref.ref(h)
    del h
    layer.backward(tape, np.ones_like(y))
    gc.collect()
    assert kept() is None


def test_a_tape_keeps_what_it_needs_where_a_backward_fails() -> None:
    layer = fastrnn.GRU(3, 4, rng=0)
    y, _, tape = layer.forward(np.ones((5, 2, 3), np.float32))
    want = layer.backward(layer.forward(np.ones((5, 2, 3), np.float32))[2], np.ones_like(y)).flat
    with pytest.raises(ValueError, match="dy: expected shape"):
        layer.backward(tape, np.ones((7, 2, 4), np.float32))
    gc.collect()
    np.testing.assert_array_equal(layer.backward(tape, np.ones_like(y)).flat, want)


@pytest.mark.parametrize("size", [5, 4], ids=["square", "oblong"])
@KIND
def test_a_tape_of_the_other_layout_is_refused(kind: str, size: int) -> None:
    """The layers are alike but for ``batch_first``; with as many steps as sequences even the shapes agree."""
    v = Variant(kind)
    params = make_case(v).params
    for batch_first in (False, True):
        one, other = (make_layer(v, params, batch_first=first) for first in (batch_first, not batch_first))
        y, _, tape = one.forward(np.ones((5, size, v.I), np.float32))
        with pytest.raises(
            ValueError, match="tape: expected a tape of this layer, got one of another network"
        ):
            other.backward(tape, np.ones_like(y))
        one.backward(tape, np.ones_like(y))  # it was not used up


def test_a_tape_without_a_batch_serves_either_layout() -> None:
    v = Variant("gru")
    params = make_case(v).params
    one, other = make_layer(v, params), make_layer(v, params, batch_first=True)
    x = np.ones((5, v.I), np.float32)
    y, _, tape = one.forward(x)
    got, want = other.backward(tape, np.ones_like(y)), one.backward(one.forward(x)[2], np.ones_like(y))
    np.testing.assert_array_equal(got.flat, want.flat)


def test_wrapped_tapes_tell_what_they_hold() -> None:
    """Those of a Ragged, of a cell and of a function say as much as the core's tape within."""
    x = np.ones((4, 3), np.float32)
    _, _, ragged = fastrnn.GRU(3, 4, rng=0).forward(fastrnn.Ragged(x, [3, 1]))
    _, cell = fastrnn.GRUCell(3, 4, rng=0).forward(x)
    _, _, function = fastrnn.functional.gru_forward(x[:, None], None, fastrnn.GRU(3, 4, rng=0).params)
    for tape in (ragged, cell, function):
        assert tape.nbytes == tape.tape.nbytes > 0
        assert repr(tape) == f"{type(tape).__name__}(nbytes={tape.nbytes})"
