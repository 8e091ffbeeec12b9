"""Options of cells that draw something in training: zoneout, recurrent dropout, noise; and leaky integrators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import (
    Variant,
    as_tuple,
    assert_close,
    assert_same_bits,
    check_gradients,
    make_case,
    make_layer,
    run_layer,
    run_reference,
)

import fastrnn
from fastrnn.reference import Given

DRAWN: list[tuple[str, dict[str, Any]]] = [
    ("rnn_tanh", {"leak": 0.3}),
    ("rnn_relu", {"leak": 0.6, "noise": 0.4, "nonlinearity": "relu"}),
    ("rnn_tanh", {"zoneout": 0.4, "recurrent_dropout": 0.3, "leak": 0.7, "noise": 0.1}),
    ("lstm", {"zoneout": 0.3}),
    ("lstm", {"zoneout": (0.0, 0.5), "recurrent_dropout": 0.4}),
    ("lstm", {"recurrent_dropout": 0.4, "peepholes": True}),
    ("lstm", {"zoneout": (0.4, 0.2), "peepholes": True, "input_forget": True}),
    ("gru", {"zoneout": 0.3, "recurrent_dropout": 0.3}),
    ("gru", {"recurrent_dropout": 0.5}),
    ("gru_before", {"zoneout": 0.3, "recurrent_dropout": 0.3, "clip": 0.5}),
    ("gru_before", {"recurrent_dropout": 0.5}),
]
TABLE = [Variant(kind, 2, True, options=tuple(options.items())) for kind, options in DRAWN]
TABLE += [replace(v, num_layers=1, bidirectional=False) for v in TABLE[::2]]
TABLE += [
    Variant("lstm", 2, True, proj_size=3, options=tuple(options.items()))
    for options in (
        {"recurrent_dropout": 0.4},
        {"zoneout": (0, 0.4), "recurrent_dropout": 0.3, "peepholes": True},
    )
]
VARIANTS = pytest.mark.parametrize("v", TABLE, ids=lambda v: f"{v}-{'-'.join(dict(v.options))}")
ROWS = pytest.mark.parametrize("rows", ["dense", "lengths and reset"])
SEED = 7


def seeded(layer: Any) -> Any:
    layer.rng = np.random.default_rng(SEED)
    return layer


def training(layer: Any, case: Any, **kwargs: Any) -> dict[str, np.ndarray]:
    """One training pass with the same draws each time."""
    return run_layer(seeded(layer), case, **kwargs)


def given(v: Variant, layer: Any) -> list[Given]:
    """What `training` draws, as the reference takes it."""
    n = v.num_layers * v.D
    drawn = layer._chosen.draw(np.random.default_rng(SEED), n, v.T * v.B, v.B, v.H, v.out, np.dtype(v.dtype))

    def of(i: int, array: Any, default: float) -> Any:
        return default if array is None else array[i].reshape(v.T, v.B, v.H).astype(float)

    return [
        Given(
            of(i, drawn[0], 0.0),
            of(i, drawn[1], 0.0),
            1.0 if drawn[3] is None else drawn[3][i].astype(float),
            of(i, drawn[2], 0.0),
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@ROWS
@VARIANTS
def test_training_equals_the_reference(v: Variant, rows: str, dtype: Any) -> None:
    v = replace(v, dtype=dtype, H=19, B=5, proj_size=v.proj_size and 6)
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    layer = make_layer(v, case.params)
    want = run_reference(v, case, given=given(v, layer), **kwargs)
    assert_close(training(layer, case, **kwargs), want, dtype)


@ROWS
@VARIANTS
def test_inference_is_what_is_expected(v: Variant, rows: str) -> None:
    v = replace(v, dtype=np.float64)
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    layer = make_layer(v, case.params)
    expected = Given(k_h=layer._chosen.zoneout_h, k_c=layer._chosen.zoneout_c)
    want = run_reference(v, case, given=[expected] * v.num_layers * v.D, **kwargs)
    y, last = layer(case.x, case.state, **kwargs)
    got = {"y": y} | dict(zip(("h_n", "c_n"), as_tuple(last), strict=False))
    assert_close(got, {key: want[key] for key in got}, np.float64)
    assert_same_bits(layer.freeze()(case.x, case.state, **kwargs)[0], y)
    if not v.bidirectional and not kwargs:
        stream = layer.stream(v.B)
        stream.state = case.state
        assert_same_bits(np.stack([stream.step(x) for x in case.x]), y)


@ROWS
@VARIANTS
def test_gradcheck(v: Variant, rows: str) -> None:
    v = replace(v, I=2, H=3, T=4, B=3, dtype=np.float64, proj_size=v.proj_size and 2)
    case = make_case(v, seed=4)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    layer = make_layer(v, case.params)
    got = training(layer, case, **kwargs)
    check_gradients(v, layer, case, got, lambda: seeded(layer).forward(case.x, case.state, **kwargs)[:2])


@pytest.mark.parametrize(
    ("T", "B", "I", "H"), [(60, 1, 8, 8), (6, 24, 33, 48), (9, 2, 32, 160), (12, 16, 48, 96)]
)
@pytest.mark.parametrize(("kind", "options"), DRAWN[2::2])
def test_threads_and_checkpoints_change_no_bit(
    kind: str, options: Any, T: int, B: int, I: int, H: int
) -> None:
    v = Variant(kind, 2, True, I=I, H=H, T=T, B=B, options=tuple(options.items()))
    case = make_case(v)
    layer = make_layer(v, case.params)
    kwargs = {"lengths": case.lengths, "reset": case.reset} if B > 1 else {}
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(1)
        want = training(layer, case, **kwargs)
        for n in (1, 2, 3):
            fastrnn.set_num_threads(n)
            for checkpoint in (None, 3):
                assert_same_bits(training(layer, case, **kwargs, checkpoint=checkpoint), want, f"{n} threads")
        assert_same_bits(training(layer.freeze(), case, **kwargs), want, "frozen")
    finally:
        fastrnn.set_num_threads(before)


@VARIANTS
def test_draws_of_a_ragged(v: Variant) -> None:
    """One sequence draws as much as a dense call of it."""
    v = replace(v, B=1)
    case = make_case(v)
    layer = make_layer(v, case.params)
    dense, last, _ = seeded(layer).forward(case.x, case.state)
    y, last_ragged, _ = seeded(layer).forward(fastrnn.Ragged.from_list([case.x[:, 0]]), case.state)
    assert_same_bits(y.values, dense[:, 0])
    assert_same_bits(last_ragged, last)


def test_zoneout_keeps_the_old_values() -> None:
    lstm = fastrnn.LSTM(3, 400, zoneout=(0.25, 0.5), rng=0)
    rng = np.random.default_rng(1)
    state = tuple(rng.uniform(-1, 1, (1, 1, 400)).astype(np.float32) for _ in range(2))
    _, after, _ = lstm.forward(np.ones((1, 1, 3), np.float32), state)
    kept = [float((new == old).mean()) for new, old in zip(after, state, strict=True)]
    np.testing.assert_allclose(kept, [0.25, 0.5], atol=0.08)


def test_recurrent_dropout_has_one_mask_for_each_sequence() -> None:
    """An RNN that adds up what it sees of its state: a unit is dropped in all steps or in none."""
    rnn = fastrnn.RNN(1, 300, nonlinearity="linear", recurrent_dropout=0.5, bias=False, rng=0)
    rnn.flat = np.zeros_like(rnn.flat)
    rnn.params["weight_hh_l0"][...] = np.eye(300)
    y, _, _ = rnn.forward(np.zeros((3, 2, 1), np.float32), np.ones((1, 2, 300), np.float32))
    assert set(np.unique(y[0])) == {0.0, 2.0}
    np.testing.assert_array_equal(y, [y[0], y[0] * 2, y[0] * 4])
    assert (y[0, 0] != y[0, 1]).any()
    assert 0.4 < (y[0] > 0).mean() < 0.6
    assert (rnn(np.zeros((3, 2, 1), np.float32), np.ones((1, 2, 300), np.float32))[0] == 1).all()


@pytest.mark.parametrize(("kind", "options"), DRAWN)
def test_diagnostics_show_what_is_expected(kind: str, options: dict[str, Any]) -> None:
    v = Variant(kind, 2, True, options=tuple(options.items()))
    case = make_case(v)
    layer = make_layer(v, case.params)
    shown = fastrnn.diagnostics.hidden_states(layer, case.x, state=case.state)
    y = layer(case.x, case.state)[0]
    np.testing.assert_allclose(np.concatenate([*shown[-2:]], axis=-1), y, rtol=1e-4, atol=1e-5)
    assert np.isfinite(fastrnn.diagnostics.gradient_flow(layer, case.x, case.dy, state=case.state)).all()


def test_nothing_is_drawn_for_plain_layers() -> None:
    rnn = fastrnn.RNN(3, 4, leak=0.5, rng=0)
    state = rnn.rng.bit_generator.state
    rnn.forward(np.ones((2, 1, 3), np.float32))
    assert rnn.rng.bit_generator.state == state


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastrnn.LSTM(3, 4, zoneout=1.0), "zoneout: expected at least 0 and less than 1, got 1.0"),
        (lambda: fastrnn.GRU(3, 4, zoneout=-0.1), "zoneout: expected at least 0 and less than 1, got -0.1"),
        (lambda: fastrnn.LSTM(3, 4, proj_size=2, zoneout=0.1), "zoneout: expected (0, p) with proj_size"),
        (
            lambda: fastrnn.GRU(3, 4, recurrent_dropout=1),
            "recurrent_dropout: expected at least 0 and less than 1",
        ),
        (lambda: fastrnn.RNN(3, 4, leak=0), "leak: expected more than 0 and at most 1, got 0"),
        (lambda: fastrnn.RNN(3, 4, leak=1.5), "leak: expected more than 0 and at most 1, got 1.5"),
        (lambda: fastrnn.RNN(3, 4, noise=-1), "noise: expected a number of at least 0, got -1"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)


def test_the_core_checks_what_is_drawn() -> None:
    x = np.ones((2, 3, 3), np.float32)
    flags, every, rows = (
        np.ones((0, 6, 4), bool),
        np.zeros((1, 6, 4), np.float32),
        np.ones((1, 3, 4), np.float32),
    )
    for layer, bad in [
        (fastrnn.LSTM(3, 4, zoneout=0.1), (None, every[:, :5], None, None, None)),
        (fastrnn.LSTM(3, 4, zoneout=0.1), (None, every.astype(float), None, None, None)),
        (fastrnn.LSTM(3, 4, zoneout=0.1), (None, None, None, every, None)),
        (fastrnn.LSTM(3, 4, zoneout=0.1), (None, every)),
        (fastrnn.GRU(3, 4, zoneout=0.1), (None, None, every, None, None)),
        (fastrnn.GRU(3, 4, zoneout=0.1), (None, every, None, None, rows[:, :2])),
        (fastrnn.GRU(3, 4), (flags, every, None, None, None)),
    ]:
        with pytest.raises(ValueError, match="masks: expected"):
            layer._network.forward(
                layer._weights, x, None, None, None, None, False, True, 0, lambda *_, bad=bad: bad, 1.0
            )
