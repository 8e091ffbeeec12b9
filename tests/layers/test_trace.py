"""Traces: states, gates and pre-activations of every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import KINDS, TOLERANCE, Variant, as_tuple, both_dtypes, make_case, make_layer

import fastrnn

TABLE = [
    Variant(kind, layers, proj_size=4 if kind == "lstm" and layers == 2 else 0, **options)
    for kind in KINDS
    for layers in (1, 2)
    for options in ({}, {"bidirectional": True}, {"bidirectional": True, "merge": "sum"}, {"reverse": True})
]
ENDS = {
    (1, False): ["l0"],
    (1, True): ["l0", "l0_reverse"],
    (2, False): ["l0", "l1"],
    (2, True): ["l0", "l0_reverse", "l1", "l1_reverse"],
}


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def check_equations(v: Variant, inside: dict[str, Any], end: str) -> None:
    """The gates follow from the pre-activations."""
    a = {name: value for name, value in inside.items() if name.endswith("_" + end)}
    close = TOLERANCE[np.dtype(v.dtype)]

    def same(name: str, value: np.ndarray) -> None:
        np.testing.assert_allclose(a[f"{name}_{end}"], value, err_msg=name, **close)

    if v.kind == "lstm":
        for gate in "ifo":
            same(gate, sigmoid(a[f"a_{gate}_{end}"]))
        same("g", np.tanh(a[f"a_g_{end}"]))
        if not v.proj_size:
            same("h", a[f"o_{end}"] * np.tanh(a[f"c_{end}"]))
    elif v.kind.startswith("gru"):
        for gate in "rz":
            same(gate, sigmoid(a[f"a_{gate}_{end}"]))
        same("n", np.tanh(a[f"a_n_{end}"]))
    else:
        f = np.tanh if v.kind == "rnn_tanh" else lambda z: np.maximum(z, 0)
        same("h", f(a[f"a_{end}"]))


@pytest.mark.parametrize("rows", ["dense", "reset"])
@pytest.mark.parametrize("v", both_dtypes(TABLE), ids=str)
def test_states_are_those_of_calls(v: Variant, rows: str) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    kwargs = {"reset": case.reset} if rows == "reset" else {}
    inside = layer.trace(case.x, case.state, **kwargs)
    y, last = layer(case.x, case.state, **kwargs)
    close = TOLERANCE[np.dtype(v.dtype)]
    ends = ENDS[v.num_layers, v.bidirectional]
    top = [inside["h_" + end] for end in ends[-v.D :]]
    want = np.concatenate(top, axis=2) if v.merge == "concat" else top[0] + top[1]
    np.testing.assert_allclose(y, want, **close)
    for i, end in enumerate(ends):
        step = 0 if v.reverse or end.endswith("reverse") else -1
        for letter, state in zip("hc", as_tuple(last), strict=False):
            np.testing.assert_allclose(inside[f"{letter}_{end}"][step], state[i], **close)
        check_equations(v, inside, end)
        if v.kind == "lstm" and not v.reverse and end == "l0" and rows == "dense":
            c = inside["c_l0"]
            again = inside["f_l0"][1:] * c[:-1] + inside["i_l0"][1:] * inside["g_l0"][1:]
            np.testing.assert_allclose(c[1:], again, **close)
    assert all(a.dtype == v.dtype for a in inside.values())


def test_pre_activations_by_hand() -> None:
    v = Variant("gru", dtype=np.float64)
    case = make_case(v)
    layer = make_layer(v, case.params)
    inside = layer.trace(case.x, case.state)
    p = case.params
    h = np.concatenate([case.state, inside["h_l0"][:-1]])
    a = case.x @ p["weight_ih_l0"].T + p["bias_ih_l0"]
    u = h @ p["weight_hh_l0"].T + p["bias_hh_l0"]
    H = v.H
    np.testing.assert_allclose(inside["a_r_l0"], (a + u)[..., :H], rtol=1e-12)
    np.testing.assert_allclose(
        inside["a_n_l0"], a[..., 2 * H :] + inside["r_l0"] * u[..., 2 * H :], rtol=1e-12
    )


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_layouts(v: Variant) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = layer.trace(case.x, case.state, lengths=case.lengths, reset=case.reset)
    for b, n in enumerate(case.lengths):
        assert all(not a[n:, b].any() for a in want.values())
    first = make_layer(v, case.params, batch_first=True)
    turned = first.trace(case.x.swapaxes(0, 1), case.state, lengths=case.lengths, reset=case.reset.T)
    ragged = fastrnn.Ragged.from_padded(case.x, case.lengths)
    flags = fastrnn.Ragged.from_padded(case.reset, case.lengths).values
    joined = layer.trace(ragged, case.state, reset=flags)
    b = int(np.argmax(case.lengths))
    state = tuple(s[:, b] for s in as_tuple(case.state))
    alone = layer.trace(case.x[:, b], state if v.states == 2 else state[0], reset=case.reset[:, b])
    for name, a in want.items():
        np.testing.assert_array_equal(turned[name].swapaxes(0, 1), a)
        np.testing.assert_array_equal(joined[name].values, fastrnn.Ragged.from_padded(a, case.lengths).values)
        # a product of one row need not have the bits of a product of many
        np.testing.assert_allclose(alone[name], a[:, b], rtol=1e-5, atol=1e-6)


def test_a_learned_state_is_where_a_trace_begins() -> None:
    v = Variant("lstm", learned_state=True, dtype=np.float64)
    case = make_case(v)
    layer = make_layer(v, case.params)
    np.testing.assert_allclose(layer.trace(case.x)["h_l0"], layer(case.x)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda n: n.trace(np.ones((4, 2, 2))), ValueError, "x: expected shape"),
        (lambda n: n.trace(np.ones((4, 2, 3)), lengths=[1]), ValueError, "lengths: expected shape"),
        (
            lambda n: n.trace(np.ones((4, 2, 3)), np.ones((1, 2, 4))),
            TypeError,
            r"state: expected a pair \(h, c\)",
        ),
        (
            lambda n: n.trace(np.ones((4, 3)), lengths=[4]),
            ValueError,
            "lengths: expected None for an unbatched",
        ),
        (lambda n: n.trace(np.ones((4, 2, 3)), reset=np.ones(4, bool)), ValueError, "reset: expected"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fastrnn.LSTM(3, 4, rng=0))


def test_padding_is_not_read() -> None:
    v = replace(Variant("gru", 2, True), dtype=np.float64)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = layer.trace(case.x, lengths=case.lengths)
    case.x[np.arange(v.T)[:, None] >= case.lengths] = np.nan
    for name, a in layer.trace(case.x, lengths=case.lengths).items():
        np.testing.assert_array_equal(a, want[name])
