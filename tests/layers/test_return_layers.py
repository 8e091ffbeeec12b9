"""Outputs of every layer, and their gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import (
    KINDS,
    Variant,
    assert_close,
    assert_same_bits,
    both_dtypes,
    make_case,
    make_layer,
    named,
    run_layer,
)

import fastrnn
from fastrnn import functional, reference

TABLE = [
    Variant(kind, layers, proj_size=4 if kind == "lstm" and layers == 3 else 0, **options)
    for kind in KINDS
    for layers in (2, 3)
    for options in ({}, {"bidirectional": True}, {"bidirectional": True, "merge": "mul"}, {"reverse": True})
]
LENGTHS = pytest.mark.parametrize("with_lengths", [False, True])


def truncated(v: Variant, params: Any, state: Any, layers: int) -> tuple[Any, Any]:
    """Return the first layers as a layer of their own, and their state."""
    lower = replace(v, num_layers=layers)
    layer = make_layer(lower, {name: params[name] for name in lower.shapes()})
    first = tuple(s[: layers * v.D] for s in (state if v.states == 2 else (state,)))
    return layer, first if v.states == 2 else first[0]


@LENGTHS
@pytest.mark.parametrize("v", both_dtypes(TABLE), ids=str)
def test_outputs_are_those_of_the_layers_below(v: Variant, with_lengths: bool) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    kwargs = {"lengths": case.lengths} if with_lengths else {}
    y, last, layers = layer(case.x, case.state, **kwargs, return_layers=True)
    want, want_last = layer(case.x, case.state, **kwargs)
    assert_same_bits(y, want)
    assert_same_bits(last, want_last)
    assert len(layers) == v.num_layers
    assert layers[-1] is y
    for n in range(1, v.num_layers):
        below, state = truncated(v, case.params, case.state, n)
        assert_same_bits(layers[n - 1], below(case.x, state, **kwargs)[0], f"layer {n}")
    trained = layer.forward(case.x, case.state, **kwargs, return_layers=True)
    for got, expected in zip(trained[3], layers, strict=True):
        assert_same_bits(got, expected)
    ragged = fastrnn.Ragged.from_padded(case.x, case.lengths)
    _, _, of_ragged = layer(ragged, case.state, return_layers=True)
    padded = layer(case.x, case.state, lengths=case.lengths, return_layers=True)[2]
    for one, other in zip(of_ragged, padded, strict=True):
        assert_same_bits(one.values, fastrnn.Ragged.from_padded(other, case.lengths).values)
    first = make_layer(v, case.params, batch_first=True)
    _, _, turned = first(case.x.swapaxes(0, 1), case.state, **kwargs, return_layers=True)
    for one, other in zip(turned, layers, strict=True):
        assert_same_bits(np.ascontiguousarray(one.swapaxes(0, 1)), other)


@LENGTHS
@pytest.mark.parametrize("v", both_dtypes(TABLE), ids=str)
def test_gradients_equal_reference(v: Variant, with_lengths: bool) -> None:
    case = make_case(v)
    kwargs = {"lengths": case.lengths} if with_lengths else {}
    rng = np.random.default_rng(0)
    dlayers = [rng.uniform(-1, 1, case.dy.shape).astype(v.dtype) for _ in range(v.num_layers - 1)]
    params = {name: a.astype(np.float64) for name, a in case.params.items()}

    def wide(state: Any) -> Any:
        return (
            tuple(s.astype(np.float64) for s in state)
            if isinstance(state, tuple)
            else state.astype(np.float64)
        )

    options = dict(reverse=v.reverse, merge=v.merge)
    y, last, tape = reference.forward(v.kind, wide(case.x), wide(case.state), params, **kwargs, **options)
    want = named(
        y, last, *reference.backward(tape, wide(case.dy), wide(case.dstate), [wide(d) for d in dlayers])
    )
    layer = make_layer(v, case.params)
    for checkpoint in (None, 2):
        y, last, tape = layer.forward(case.x, case.state, **kwargs, checkpoint=checkpoint)
        g = layer.backward(tape, case.dy, case.dstate, dlayers=[*dlayers, None])
        assert_close(named(y, last, g.x, g.state, g.params), want, v.dtype)
        y, last, tape = layer.forward(case.x, case.state, **kwargs)
        g = layer.backward(tape, None, case.dstate, dlayers=[*dlayers, case.dy])
        assert_close(named(y, last, g.x, g.state, g.params), want, v.dtype)


@pytest.mark.parametrize("v", [v for v in TABLE if v.num_layers == 3], ids=str)
def test_threads_and_long_sequences(v: Variant) -> None:
    v = replace(v, I=8, H=64, T=200, B=2, proj_size=0)
    case = make_case(v)
    layer = make_layer(v, case.params)
    dlayers = [np.ones_like(case.dy), None, case.dy]
    before = fastrnn.get_num_threads()
    results = []
    try:
        for n in (1, 2, 4):
            fastrnn.set_num_threads(n)
            layers = layer(case.x, case.state, return_layers=True)[2]
            _, _, tape = layer.forward(case.x, case.state)
            g = layer.backward(tape, dlayers=dlayers)
            results.append((*layers, g.x, g.flat))
    finally:
        fastrnn.set_num_threads(before)
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


def test_outputs_are_those_before_dropout() -> None:
    layer = fastrnn.GRU(3, 40, 2, dropout=0.5, rng=0)
    x = np.ones((5, 2, 3), np.float32)
    _, _, tape, layers = layer.forward(x, return_layers=True)
    assert_same_bits(layers[0], layer(x, return_layers=True)[2][0])
    lower = fastrnn.GRU(3, 40)
    lower.load_state_dict({name: layer.params[name] for name in lower.params})
    dy = np.ones_like(layers[0])
    g = layer.backward(tape, dlayers=[dy, None])
    want = lower.backward(lower.forward(x)[2], dy)
    np.testing.assert_allclose(g.x, want.x, rtol=1e-5, atol=1e-6)


def test_one_layer_and_functions() -> None:
    layer = fastrnn.LSTM(3, 4, rng=0)
    x = np.ones((5, 2, 3), np.float32)
    y, _, layers = layer(x, return_layers=True)
    assert layers == [y] or layers[0] is y
    case = make_case(Variant("gru", 2, I=3, H=4))
    y, _, tape, layers = functional.gru_forward(case.x, None, case.params, return_layers=True)
    assert len(layers) == 2
    g = functional.gru_backward(tape, dlayers=[np.ones_like(layers[0]), None])
    assert g.params["weight_ih_l0"].any()
    assert not g.params["weight_ih_l1"].any()
    assert len(functional.gru(case.x, None, case.params, return_layers=True)[2]) == 2


X = np.ones((4, 2, 3), np.float32)
D = np.ones((4, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dlayers": [D]}, ValueError, "dlayers: expected a list of 2, one for each layer, got 1 entries"),
        ({"dlayers": D}, ValueError, "dlayers: expected a list of 2, one for each layer, got ndarray"),
        (
            {"dlayers": [D[:3], None]},
            ValueError,
            r"dlayers\[0\]: expected shape \(4, 2, 4\), got \(3, 2, 4\)",
        ),
        ({"dlayers": [D > 0, None]}, TypeError, r"dlayers\[0\]: expected an array of real floats"),
        (
            {"dlayers": [None, D], "dy": D},
            ValueError,
            "dlayers: expected None for the last layer where dy is",
        ),
        ({"dlayers": [None, D], "dy_last": D[0]}, ValueError, "where dy_last is given"),
        ({"dlayers": [None, None]}, ValueError, "dy: expected a gradient in dy, dy_last"),
    ],
)
def test_errors_leave_the_tape(arguments: Any, error: type[Exception], message: str) -> None:
    layer = fastrnn.GRU(3, 4, 2, rng=0)
    y, _, tape = layer.forward(X)
    with pytest.raises(error, match=message):
        layer.backward(tape, **arguments)
    layer.backward(tape, y)


@pytest.mark.parametrize("need_dx", [False, True])
def test_of_a_ragged(need_dx: bool) -> None:
    v = Variant("gru", 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    x, dy = (fastrnn.Ragged.from_padded(a, case.lengths) for a in (case.x, case.dy))
    _, _, tape = layer.forward(x, case.state)
    g = layer.backward(tape, dlayers=[dy, None], need_dx=need_dx)
    _, _, tape = layer.forward(case.x, case.state, lengths=case.lengths)
    want = layer.backward(tape, dlayers=[case.dy, None], need_dx=need_dx)
    assert_same_bits(g.flat, want.flat)
    assert (g.x is None) == (not need_dx)
    assert run_layer(layer, case)["dx"].any()
