"""What backward is given: a gradient at all, that of the last step, and parameters that are those of the forward."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits

import fastrnn
from fastrnn import functional, init, io, nn, optim

f32 = np.float32
X = np.random.default_rng(0).standard_normal((5, 2, 3), f32)
LENGTHS = [5, 2]
LAYERS: dict[str, Callable[..., Any]] = {
    "rnn": fastrnn.RNN,
    "lstm": fastrnn.LSTM,
    "gru": fastrnn.GRU,
}
KINDS = pytest.mark.parametrize("kind", list(LAYERS))
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True])


def layer_of(kind: str, **options: Any) -> Any:
    return LAYERS[kind](3, 4, rng=0, **options)


def ragged() -> fastrnn.Ragged:
    return fastrnn.Ragged.from_padded(X, LENGTHS)


# -- a gradient is needed ---------------------------------------------------------------------------------------


@KINDS
def test_backward_needs_a_gradient_and_keeps_the_tape(kind: str) -> None:
    layer = layer_of(kind)
    y, _, tape = layer.forward(X)
    for nothing in ({}, {"dstate": (None, None)} if kind == "lstm" else {"dstate": None}):
        with pytest.raises(ValueError, match=r"^dy: expected a gradient in dy, dy_last or dstate, got none"):
            layer.backward(tape, **nothing)
    assert layer.backward(tape, np.ones_like(y)).flat.any()


def test_functions_and_cells_need_a_gradient_too() -> None:
    gru = layer_of("gru")
    y, _, tape = functional.gru_forward(X, None, gru.params)
    with pytest.raises(ValueError, match="got none"):
        functional.gru_backward(tape)
    assert functional.gru_backward(tape, y).flat.any()
    for cell, nothing in ((fastrnn.GRUCell(3, 4), None), (fastrnn.LSTMCell(3, 4), (None, None))):
        _, saved = cell.forward(X[0])
        with pytest.raises(TypeError, match=r"^dstate: expected dL/dh of the next state, got None"):
            cell.backward(saved, nothing)


# -- the last step ----------------------------------------------------------------------------------------------


def whole(last: np.ndarray, lengths: list[int]) -> np.ndarray:
    dy = np.zeros((*X.shape[:2], last.shape[1]), f32)
    dy[np.array(lengths) - 1, np.arange(2)] = last
    return dy


@KINDS
@DIRECTIONS
def test_dy_last_is_the_gradient_of_the_last_step(kind: str, bidirectional: bool) -> None:
    layer = layer_of(kind, bidirectional=bidirectional)
    last = np.random.default_rng(1).standard_normal((2, 4 + 4 * bidirectional), f32)
    y, _, tape = layer.forward(X, lengths=LENGTHS)
    got = layer.backward(tape, dy_last=last)
    want = layer.backward(layer.forward(X, lengths=LENGTHS)[2], whole(last, LENGTHS))
    np.testing.assert_allclose(got.flat, want.flat, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.x, want.x, rtol=1e-5, atol=1e-6)
    with pytest.warns(DeprecationWarning, match="is called dy_last now") as caught:
        old = layer.backward(layer.forward(X, lengths=LENGTHS)[2], last)
    assert caught[0].filename == __file__
    assert_same_bits(old.flat, got.flat)
    with pytest.raises(ValueError, match=r"^dy_last: expected None where dy is given"):
        layer.backward(layer.forward(X)[2], y, dy_last=last)


def test_the_old_way_warns_in_functions_too() -> None:
    gru = layer_of("gru")
    _, _, tape = functional.gru_forward(X, None, gru.params)
    with pytest.warns(DeprecationWarning, match="is called dy_last now") as caught:
        functional.gru_backward(tape, np.ones((2, 4), f32))
    assert caught[0].filename == __file__
    _, _, tape = functional.gru_forward(X, None, gru.params)
    assert functional.gru_backward(tape, dy_last=np.ones((2, 4), f32), need_dx=False).x is None


def test_a_warning_that_is_an_error_leaves_the_tape() -> None:
    gru = layer_of("gru")
    _, _, tape = gru.forward(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning):
            gru.backward(tape, np.ones((2, 4), f32))
    assert gru.backward(tape, dy_last=np.ones((2, 4), f32)).flat.any()


def test_dy_last_of_all_steps_is_refused() -> None:
    """[T, output] of an unbatched sequence has the dimensions of [B, output]."""
    gru = layer_of("gru")
    y, _, tape = gru.forward(X[:, 0])
    with pytest.raises(ValueError, match=r"^dy_last: expected shape \(4,\), got \(5, 4\)"):
        gru.backward(tape, dy_last=y)
    assert gru.backward(tape, dy_last=y[-1]).flat.any()


@DIRECTIONS
def test_dy_last_of_a_ragged(bidirectional: bool) -> None:
    """Also where there are as many steps as sequences, so that the shape says nothing."""
    gru = layer_of("gru", bidirectional=bidirectional)
    width = 4 + 4 * bidirectional
    for lengths in ([2, 0, 1], [3, 1, 1]):
        x = fastrnn.Ragged(np.ones((sum(lengths), 3), f32), lengths)
        last = np.random.default_rng(2).standard_normal((3, width), f32)
        values = np.zeros((sum(lengths), width), f32)
        for b, end in enumerate(np.cumsum(lengths)):
            if lengths[b]:
                values[end - 1] = last[b]
        got = gru.backward(gru.forward(x)[2], dy_last=last)
        want = gru.backward(gru.forward(x)[2], fastrnn.Ragged(values, lengths))
        np.testing.assert_allclose(got.flat, want.flat, rtol=1e-5, atol=1e-6)


# -- the final state --------------------------------------------------------------------------------------------


@KINDS
@DIRECTIONS
def test_final_hidden_and_its_gradient(kind: str, bidirectional: bool) -> None:
    layer = layer_of(kind, bidirectional=bidirectional, num_layers=2, dtype=np.float64)
    x = X.astype(np.float64)

    def loss() -> float:
        h = layer.final_hidden(layer(x, lengths=LENGTHS)[1])
        return float((h * direction).sum())

    _, state, tape = layer.forward(x, lengths=LENGTHS)
    h = layer.final_hidden(state)
    h_n = state[0] if kind == "lstm" else state
    assert_same_bits(h, np.concatenate(h_n[-1 - bidirectional :], axis=1))
    direction = np.random.default_rng(3).standard_normal(h.shape)
    g = layer.backward(tape, dstate=layer.final_hidden_backward(direction))
    for i in range(0, layer.flat.size, 17):
        old, step = layer.flat[i], 1e-6
        layer.flat[i] = old + step
        above = loss()
        layer.flat[i] = old - step
        below = loss()
        layer.flat[i] = old
        np.testing.assert_allclose(g.flat[i], (above - below) / (2 * step), rtol=1e-5, atol=1e-8)


def test_final_hidden_is_not_the_last_step_of_two_directions() -> None:
    gru = layer_of("gru", bidirectional=True)
    y, state = gru(X)
    assert not np.allclose(gru.final_hidden(state), y[-1])
    assert_same_bits(gru.final_hidden(state)[:, 4:], y[0, :, 4:])


def test_final_hidden_checks_what_it_is_given() -> None:
    gru = layer_of("gru", bidirectional=True)
    y, state = gru(X)
    with pytest.raises(ValueError, match=r"^state: expected h of shape \(2, B, 4\), got shape \(5, 2, 8\)"):
        gru.final_hidden(y)
    with pytest.raises(ValueError, match=r"^dh: expected shape \(B, 8\), got \(2, 2, 4\)"):
        gru.final_hidden_backward(state)
    assert gru.final_hidden(gru(X[:, 0])[1]).shape == (8,)


# -- dL/dx ------------------------------------------------------------------------------------------------------


@KINDS
@DIRECTIONS
def test_without_dx_the_rest_has_the_same_bits(kind: str, bidirectional: bool) -> None:
    layer = layer_of(kind, bidirectional=bidirectional, num_layers=2)
    for x in (X, X[:, 0], ragged()):
        y, _, tape = layer.forward(x)
        want = layer.backward(tape, y)
        got = layer.backward(layer.forward(x)[2], y, need_dx=False)
        assert want.x is not None
        assert got.x is None
        assert_same_bits(got.flat, want.flat)
        assert_same_bits(got.state, want.state)


def test_cells_without_dx() -> None:
    cell = fastrnn.GRUCell(3, 4, rng=0)
    h, tape = cell.forward(X[0])
    got = cell.backward(tape, h, need_dx=False)
    assert got.x is None
    assert_same_bits(got.flat, cell.backward(cell.forward(X[0])[1], h).flat)


# -- parameters that were changed meanwhile ---------------------------------------------------------------------


def step(layer: Any) -> None:
    optim.SGD([layer], 0.1).step([np.ones_like(layer.flat)])


def step_of_the_buffer(layer: Any) -> None:
    optim.Adam([layer.flat], 0.1).step([np.ones_like(layer.flat)])


def assign_flat(layer: Any) -> None:
    layer.flat = np.zeros_like(layer.flat)


def subtract_flat(layer: Any) -> None:
    layer.flat -= 0.5


def assign_params(layer: Any) -> None:
    layer.params[next(iter(layer.params))] = 0.5


def subtract_params(layer: Any) -> None:
    layer.params[next(iter(layer.params))] -= 0.5


def load(layer: Any) -> None:
    layer.load_state_dict(copy.deepcopy(layer).state_dict())


def restore(layer: Any) -> None:
    io.copy_into(layer.params, layer.state_dict())


CHANGES = [
    (step, "an optimiser's step"),
    (step_of_the_buffer, "an optimiser's step"),
    (assign_flat, "an assignment to flat"),
    (subtract_flat, "an assignment to flat"),
    (assign_params, "an assignment to params"),
    (subtract_params, "an assignment to params"),
    (load, "load_state_dict"),
    (restore, "weights that were read"),
    (init.xavier, "a function of fastrnn.init"),
]


@pytest.mark.parametrize(("change", "how"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_changed_parameters_are_noticed(change: Callable[[Any], Any], how: str) -> None:
    message = f"^tape: expected the parameters to be those of its forward.* changed since by {how}"
    for x in (X, ragged()):
        layer = layer_of("lstm")
        y, _, tape = layer.forward(x)
        change(layer)
        with pytest.raises(ValueError, match=message):
            layer.backward(tape, y)
        y, _, tape = layer.forward(x)
        assert layer.backward(tape, y).x is not None
    cell = fastrnn.LSTMCell(3, 4, rng=0)
    state, saved = cell.forward(X[0])
    change(cell)
    with pytest.raises(ValueError, match=message):
        cell.backward(saved, state)
    linear = nn.Linear(3, 2, rng=0)
    out, kept = linear.forward(X)
    change(linear)
    with pytest.raises(ValueError, match=message):
        linear.backward(kept, out)
    assert (
        linear.backward(kept, out, need_dx=False).x is None
    )  # the other gradients do not depend on the weights


def test_copies_notice_their_own_changes_only() -> None:
    layer = layer_of("gru")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        y, _, tape = layer.forward(X)
        y_other, _, tape_other = other.forward(X)
        step(other)
        assert layer.backward(tape, y).flat.any()
        with pytest.raises(ValueError, match="changed since"):
            other.backward(tape_other, y_other)


def test_a_copied_cell_notices_changes() -> None:
    cell = pickle.loads(pickle.dumps(fastrnn.GRUCell(3, 4, rng=0)))
    state, tape = cell.forward(X[0])
    step(cell)
    with pytest.raises(ValueError, match="changed since by an optimiser's step"):
        cell.backward(tape, state)


def test_an_optimiser_and_its_layer_copied_together() -> None:
    layer = layer_of("gru")
    adam = optim.Adam([layer])
    layer, adam = pickle.loads(pickle.dumps((layer, adam)))
    y, _, tape = layer.forward(X)
    adam.step([np.ones_like(layer.flat)])
    with pytest.raises(ValueError, match="changed since by an optimiser's step"):
        layer.backward(tape, y)


def test_a_step_that_is_not_taken_changes_nothing() -> None:
    layer = layer_of("gru")
    y, _, tape = layer.forward(X)
    adam = optim.Adam([layer])
    assert adam.step([np.full_like(layer.flat, np.nan)], clip_norm=1.0) is not None
    with pytest.raises(ValueError, match="grads"):
        adam.step([np.ones(3, f32)])
    assert layer.backward(tape, y).flat.any()


def test_the_tape_of_a_frozen_layer_has_its_own_weights() -> None:
    layer = layer_of("gru").freeze()
    y, _, tape = layer.forward(X)
    want = layer.backward(layer.forward(X)[2], y).flat
    step(layer.unfreeze())
    assert_same_bits(layer.backward(tape, y).flat, want)


def test_freezing_is_no_change() -> None:
    layer = layer_of("gru")
    y, _, tape = layer.forward(X)
    assert layer.freeze() is layer
    assert layer.frozen
    assert layer.freeze().stream().step(X[0, 0]).shape == (4,)
    assert layer.backward(tape, y).flat.any()
    y, _, tape = layer.unfreeze().forward(X)
    assert not layer.frozen
    assert layer.freeze().unfreeze() is layer
    assert layer.backward(tape, y).flat.any()


# -- dropout ----------------------------------------------------------------------------------------------------


@KINDS
def test_dropout_of_one_layer_warns(kind: str) -> None:
    with pytest.warns(UserWarning, match=r"^dropout: expected num_layers of at least 2 .*got 1") as caught:
        layer_of(kind, dropout=0.9)
    assert caught[0].filename.endswith("test_backward.py")
    layer_of(kind, dropout=0.9, num_layers=2)
    with pytest.warns(UserWarning, match=r"^dropout: expected num_layers of at least 2") as caught:
        getattr(functional, f"{kind}_forward")(X, None, layer_of(kind).params, dropout=0.9)
    assert caught[0].filename == __file__
