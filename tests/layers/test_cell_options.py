"""Options of cells: numbers, gradients and errors. That they keep every bit, the tests of all layers say too."""
# ruff: noqa: E501

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import (
    GENERAL,
    KINDS,
    Variant,
    assert_close,
    assert_same_bits,
    check_gradients,
    make_case,
    make_layer,
    numeric_gradient,
    run_layer,
    run_reference,
)

import fastrnn
from fastrnn._cell_options import FUNCTIONS
from fastrnn.reference.activations import ACTIVATIONS, activate

ENTRIES: list[Any] = [
    *FUNCTIONS,
    "identity",
    ("hard_sigmoid", 1 / 6, 0.5),
    ("leaky_relu", -0.3),
    ("thresholded_relu", -0.2),
    ("scaled_tanh", 1.7159, 2 / 3),
    ("affine", 0.5, -0.1),
    ("elu", 1.5),
]


def name_of(entry: Any) -> str:
    return entry if isinstance(entry, str) else "-".join(map(str, entry))


def through_an_rnn(entry: Any, a: np.ndarray, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    """f(a) and f'(a), from a layer of one unit whose pre-activation is its input."""
    layer = fastrnn.RNN(1, 1, nonlinearity=entry, dtype=a.dtype, **kwargs)
    layer.flat = np.zeros_like(layer.flat)
    layer.params["weight_ih_l0"][...] = 1
    y, _, tape = layer.forward(a.reshape(1, -1, 1))
    return y.ravel(), layer.backward(tape, np.ones_like(y)).x.ravel()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("entry", ENTRIES, ids=name_of)
def test_activations_and_their_slopes(entry: Any, dtype: Any) -> None:
    a = np.concatenate([np.linspace(-30, 30, 2000), np.linspace(-2.9, 2.9, 2000), [0.0, -0.0]]).astype(dtype)
    name, *numbers = (entry,) if isinstance(entry, str) else entry
    name = "linear" if name == "identity" else name
    numbers = [dtype(n) for n in (*numbers, *FUNCTIONS[name][len(numbers) :])]
    alpha, beta = (*map(float, numbers), 0.0, 0.0)[:2]
    y, slope = ACTIVATIONS[name](a.astype(np.float64), alpha, beta)
    got_y, got_slope = through_an_rnn(entry, a)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got_y, y, rtol=8 * eps, atol=4 * eps)
    np.testing.assert_allclose(got_slope, slope, rtol=16 * eps, atol=8 * eps)


@pytest.mark.parametrize("entry", ENTRIES, ids=name_of)
def test_extreme_pre_activations(entry: Any) -> None:
    """Infinities have the reference's result, and NaN stays NaN."""
    a = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30])
    name, *numbers = (entry,) if isinstance(entry, str) else entry
    name = "linear" if name == "identity" else name
    alpha, beta = (*numbers, *FUNCTIONS[name][len(numbers) :], 0.0, 0.0)[:2]
    with np.errstate(all="ignore"):
        want, _ = ACTIVATIONS[name](a, alpha, beta)
    np.testing.assert_allclose(through_an_rnn(entry, a)[0], want, rtol=1e-12)


def test_activations_equal_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    a = np.linspace(-8, 8, 400)
    functional = torch.nn.functional
    for entry, function in [
        (("hard_sigmoid", 1 / 6, 0.5), functional.hardsigmoid),
        (("leaky_relu", 0.01), functional.leaky_relu),
        (("elu", 0.7), lambda t: functional.elu(t, 0.7)),
        ("softsign", functional.softsign),
        ("softplus", functional.softplus),
        ("relu", torch.relu),
    ]:
        t = torch.tensor(a, requires_grad=True)
        y = function(t)
        y.sum().backward()
        got = through_an_rnn(entry, a)
        np.testing.assert_allclose(got[0], y.detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=str(entry))
        np.testing.assert_allclose(got[1], t.grad.numpy(), rtol=1e-7, atol=1e-9, err_msg=str(entry))


def test_clipping_bounds_the_pre_activation_and_stops_its_gradient() -> None:
    a = np.array([-5.0, -2.0, -1.0, 0.5, 2.0, 2.5])
    y, slope = through_an_rnn("linear", a, clip=2.0)
    np.testing.assert_array_equal(y, [-2, -2, -1, 0.5, 2, 2])
    np.testing.assert_array_equal(slope, [0, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(activate(("linear", 0, 0), a, 2.0), [y, slope])


# -- drawn pairwise: every two settings of different columns meet in some row

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "rnn_tanh": [
        GENERAL["rnn_tanh"],
        {"nonlinearity": "sigmoid"},
        {"nonlinearity": ("elu", 0.5), "clip": 0.4},
        {"nonlinearity": "softsign"},
    ],
    "lstm": [
        {"peepholes": True},
        {"input_forget": True},
        {"clip": 0.3},
        {"activations": ("tanh", "sigmoid", "softplus")},
        {"peepholes": True, "input_forget": True, "clip": 0.5},
        {"activations": ("sigmoid", ("leaky_relu", 0.1), "softsign", "hard_sigmoid", ("affine", 0.7, 0.1))},
        GENERAL["lstm"],
    ],
    "gru": [
        {"clip": 0.4},
        {"activations": (("hard_sigmoid", 1 / 6, 0.5), "linear")},
        {"activations": ("softsign", "sigmoid", ("scaled_tanh", 1.1, 0.8))},
    ],
    "gru_before": [
        {"clip": 0.4},
        {"activations": ("softplus", ("thresholded_relu", 0.1)), "clip": 0.9},
        {"activations": ("hard_sigmoid", "tanh", "elu")},
    ],
}


def pairwise(columns: list[list[Any]], seed: int = 0) -> list[tuple[Any, ...]]:
    """Rows that hold every pair of settings of two columns, found greedily."""
    rng = np.random.default_rng(seed)
    places = [range(len(column)) for column in columns]
    missing = {
        (i, a, j, b)
        for i, j in itertools.combinations(range(len(columns)), 2)
        for a in places[i]
        for b in places[j]
    }
    rows = []
    while missing:
        i, a, j, b = min(missing)
        tries = []
        for _ in range(30):
            row = [int(rng.integers(len(column))) for column in columns]
            row[i], row[j] = a, b
            met = {(p, row[p], q, row[q]) for p, q in itertools.combinations(range(len(columns)), 2)}
            tries.append((len(met & missing), row, met))
        _, row, met = max(tries, key=lambda t: t[0])
        missing -= met
        rows.append(tuple(column[k] for column, k in zip(columns, row, strict=True)))
    return rows


def table() -> list[tuple[Variant, str]]:
    rows = []
    for kind, options in OPTIONS.items():
        drawn = pairwise([options, [1, 2], [False, True], [False, True], [0, 2] if kind == "lstm" else [0],
                          ["", "lengths", "reset", "lengths and reset"]])  # fmt: skip
        for chosen, layers, bidirectional, bias, proj, how in drawn:
            v = Variant(kind, layers, bidirectional, bias, proj, options=tuple(chosen.items()))
            rows.append((v, how))
    return rows


TABLE = table()
IDS = [f"{v}-{'-'.join(dict(v.options))}-{how}" for v, how in TABLE]


@pytest.mark.parametrize(("v", "how"), TABLE, ids=IDS)
def test_gradcheck(v: Variant, how: str) -> None:
    v = replace(v, I=2, H=3, T=4, B=3, dtype=np.float64)
    case = make_case(v, seed=5)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in how}
    layer = make_layer(v, case.params)
    got = run_layer(layer, case, **kwargs)
    check_gradients(v, layer, case, got, lambda: layer(case.x, case.state, **kwargs))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("v", "how"), TABLE, ids=IDS)
def test_equals_the_reference(v: Variant, how: str, dtype: Any) -> None:
    v = replace(v, dtype=dtype, H=19, B=5, proj_size=v.proj_size and 6)
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in how}
    assert_close(
        run_layer(make_layer(v, case.params), case, **kwargs), run_reference(v, case, **kwargs), dtype
    )


# sequences, units, layers and directions, or nothing is shared by the threads
SIZES = [(60, 1, 8, 8), (8, 1, 32, 160), (6, 40, 33, 48), (12, 16, 48, 96), (300, 1, 64, 64)]


@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_threads_checkpoints_and_freezing_change_no_bit(kind: str, T: int, B: int, I: int, H: int) -> None:
    v = Variant(kind, 2, True, I=I, H=H, T=T, B=B, options=tuple(GENERAL[kind].items()))
    case = make_case(v)
    layer = make_layer(v, case.params)
    kwargs = {"lengths": case.lengths, "reset": case.reset} if B > 1 else {}
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(1)
        want = run_layer(layer, case, **kwargs)
        for n in (1, 2, 3):
            fastrnn.set_num_threads(n)
            got = run_layer(layer, case, **kwargs, checkpoint=None if n == 2 else 3)
            assert_same_bits(got, want, f"{n} threads")
            assert_same_bits(layer(case.x, case.state, **kwargs)[0], want["y"], f"{n} threads")
        layer.freeze()
        assert_same_bits(run_layer(layer, case, **kwargs), want, "frozen")
    finally:
        fastrnn.set_num_threads(before)


# -- single options by hand

S = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731


@pytest.mark.parametrize("input_forget", [False, True])
def test_peepholes_of_one_step(input_forget: bool) -> None:
    v = Variant("lstm", H=3, T=1, B=1, dtype=np.float64)
    v = replace(v, options=(("peepholes", True), ("input_forget", input_forget)))
    case = make_case(v)
    p = {name.removesuffix("_l0"): value for name, value in case.params.items()}
    h, c = (s[0, 0] for s in case.state)
    a = p["weight_ih"] @ case.x[0, 0] + p["bias_ih"] + p["weight_hh"] @ h + p["bias_hh"]
    a_i, a_f, a_g, a_o = np.split(a, 4)
    i = S(a_i + p["weight_ci"] * c)
    f = 1 - i if input_forget else S(a_f + p["weight_cf"] * c)
    after = f * c + i * np.tanh(a_g)
    want = S(a_o + p["weight_co"] * after) * np.tanh(after)
    y, (_, c_n) = make_layer(v, case.params)(case.x, case.state)
    np.testing.assert_allclose(y[0, 0], want, rtol=1e-12)
    np.testing.assert_allclose(c_n[0, 0], after, rtol=1e-12)


def test_the_forget_gate_of_coupled_gates_gets_no_gradient() -> None:
    v = Variant("lstm", options=(("input_forget", True), ("peepholes", True)))
    case = make_case(v)
    got = run_layer(make_layer(v, case.params), case)
    for name in ("dweight_ih_l0", "dweight_hh_l0", "dbias_ih_l0"):
        assert not got[name][v.H : 2 * v.H].any()
    assert not got["dweight_cf_l0"].any()
    assert got["dweight_ci_l0"].all()


@pytest.mark.parametrize("kind", ["rnn_tanh", "lstm", "gru", "gru_before"])
def test_activations_of_each_direction(kind: str) -> None:
    """A bidirectional layer is two layers, the second of which reads the sequence backwards."""
    each = {
        "rnn_tanh": (("sigmoid",), ("softsign",)),
        "lstm": (("tanh", "sigmoid", "relu"), ("sigmoid", "relu", "linear")),
        "gru": (("hard_sigmoid", "tanh"), ("sigmoid", "softsign")),
        "gru_before": (("sigmoid", "tanh"), ("sigmoid", ("leaky_relu", 0.2))),
    }[kind]
    v = Variant(kind, 1, True, options=(("activations", each),))
    case = make_case(v)
    got = make_layer(v, case.params)(case.x)[0]
    for d, end in enumerate(("", "_reverse")):
        one = Variant(kind, options=(("activations", each[d]),))
        params = {name: case.params[name + end] for name in one.shapes()}
        y = make_layer(one, params)(case.x[::-1] if d else case.x)[0]
        assert_same_bits(got[..., d * v.H : (d + 1) * v.H], y[::-1] if d else y)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_in_its_sequence(kind: str) -> None:
    v = Variant(kind, 2, True, B=4, H=17, options=tuple(GENERAL[kind].items()))
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    case.x[2, 1, 0] = np.nan
    got = run_layer(layer, case)
    others = [0, 2, 3]
    for key in ("y", "h_n", "dx", "dh_0"):
        assert_same_bits(got[key][:, others], want[key][:, others], key)
    assert np.isnan(got["y"][2:, 1, : v.H]).all()


def test_gradient_flow_of_c_with_options() -> None:
    """dL/dc_t by finite differences: through h_t, whose output gate sees c_t, and through the later steps."""
    options = {"peepholes": True, "activations": ("sigmoid", "tanh", "softsign"), "clip": 2.0}
    v = Variant("lstm", T=4, B=1, dtype=np.float64, options=tuple(options.items()))
    case = make_case(v)
    layer = make_layer(v, case.params)
    got = fastrnn.diagnostics.gradient_flow(layer, case.x, case.dy, wrt="c").ravel()
    p = {name.removesuffix("_l0"): value for name, value in case.params.items()}
    o = slice(3 * v.H, None)
    state: Any = None
    for t in range(v.T):
        h_prev = np.zeros(v.H) if state is None else state[0][0, 0]
        a = (p["weight_ih"] @ case.x[t, 0] + p["bias_ih"] + p["weight_hh"] @ h_prev + p["bias_hh"])[o]
        _, state = layer(case.x[t : t + 1], state)
        c = state[1].copy()

        def loss(t: int = t, a: Any = a, c: Any = c) -> float:
            out = activate(("sigmoid", 0, 0), a + p["weight_co"] * c[0, 0], 2.0)[0]
            h = out * activate(("softsign", 0, 0), c[0, 0])[0]
            later = layer(case.x[t + 1 :], (h[None, None], c))[0]
            return float(h @ case.dy[t, 0] + (later * case.dy[t + 1 :]).sum())

        np.testing.assert_allclose(got[t], np.linalg.norm(numeric_gradient(loss, c)), rtol=1e-5)


def test_default_options_are_the_plain_cell() -> None:
    for layer in (
        fastrnn.LSTM(3, 4, activations=("sigmoid", "tanh", "tanh"), clip=None, peepholes=False),
        fastrnn.LSTM(3, 4, activations=["sigmoid", "sigmoid", "tanh", "sigmoid", "tanh"]),
        fastrnn.GRU(3, 4, bidirectional=True, activations=(("sigmoid", "tanh"), ("sigmoid", "tanh"))),
        fastrnn.RNN(3, 4, activations=("relu",)),
    ):
        assert layer._chosen.core() is None
    rnn = fastrnn.RNN(3, 4, activations=("relu",), rng=0)
    x = np.ones((2, 1, 3), np.float32)
    assert_same_bits(rnn(x)[0], fastrnn.RNN(3, 4, nonlinearity="relu", rng=0)(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_cells_take_options_too(kind: str) -> None:
    v = Variant(
        kind, options=tuple(GENERAL[kind].items()) if kind != "rnn_tanh" else (("leak", 0.4), ("clip", 0.5))
    )
    case = make_case(v)
    layer = make_layer(v, case.params)
    kwargs = dict(v.options) | ({"reset_after": kind == "gru"} if kind.startswith("gru") else {})
    make = getattr(fastrnn, kind.split("_")[0].upper() + "Cell")
    cell = make(v.I, v.H, **kwargs)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in case.params.items()})
    state = tuple(s[0] for s in case.state) if v.states == 2 else case.state[0]
    for t in range(v.T):
        state = cell(case.x[t], state)
    want = layer(case.x, case.state)[1]
    assert_same_bits(state, tuple(s[0] for s in want) if v.states == 2 else want[0])


def test_copies_keep_options() -> None:
    layer = fastrnn.LSTM(3, 4, peepholes=True, clip=0.5, activations=("sigmoid", "relu", "tanh"), rng=0)
    text = "LSTM(3, 4, peepholes=True, activations=('sigmoid', 'relu', 'tanh'), clip=0.5)"
    x = np.ones((3, 2, 3), np.float32)
    for other in (
        layer,
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        copy.deepcopy(layer.freeze()),
    ):
        assert repr(other) == text
        assert_same_bits(other(x)[0], layer(x)[0])
    assert list(layer.state_dict())[-3:] == ["weight_ci_l0", "weight_cf_l0", "weight_co_l0"]
    assert repr(fastrnn.RNN(3, 4, nonlinearity="elu")) == "RNN(3, 4, nonlinearity='elu')"
    assert repr(fastrnn.RNN(3, 4, activations=("elu",))) == "RNN(3, 4, activations=('elu',))"


GOOD = "sigmoid, tanh, relu, linear, affine, leaky_relu, thresholded_relu, scaled_tanh, hard_sigmoid, elu, softsign, "
GOOD += "softplus, or one of them with numbers"
LSTM_WANTS = (
    "3 entries (gates, candidate, output) or 5 (i, f, g, o, output), or such a tuple for each direction"
)
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: fastrnn.LSTM(3, 4, activations=("sigmoid", "tanh")), ValueError, f"activations: expected {LSTM_WANTS}, got ('sigmoid', 'tanh')"),
    (lambda: fastrnn.LSTM(3, 4, activations="tanh"), TypeError, f"activations: expected {LSTM_WANTS}, got 'tanh'"),
    (lambda: fastrnn.LSTM(3, 4, activations=(("sigmoid", "tanh", "tanh"),) * 2), ValueError, f"activations: expected {LSTM_WANTS}"),
    (lambda: fastrnn.LSTM(3, 4, bidirectional=True, activations=(("sigmoid", "tanh", "tanh"), ("tanh",))), ValueError, f"activations: expected {LSTM_WANTS}"),
    (lambda: fastrnn.GRU(3, 4, activations=("swish", "tanh")), ValueError, f"activations: expected one of {GOOD}, got 'swish'"),
    (lambda: fastrnn.GRU(3, 4, activations=(("tanh", 1.0), "tanh")), ValueError, "activations: expected no numbers for tanh, got 1"),
    (lambda: fastrnn.GRU(3, 4, activations=(("elu", 1.0, 2.0), "tanh")), ValueError, "activations: expected at most 1 numbers for elu, got 2"),
    (lambda: fastrnn.GRU(3, 4, activations=(("elu", np.nan), "tanh")), ValueError, "activations: expected finite numbers, got nan"),
    (lambda: fastrnn.RNN(3, 4, nonlinearity="relu", activations=("tanh",)), ValueError, "activations: expected None where nonlinearity is given, got ('tanh',)"),
    (lambda: fastrnn.RNN(3, 4, nonlinearity=3), TypeError, f"nonlinearity: expected one of {GOOD}, got 3"),
    (lambda: fastrnn.LSTM(3, 4, clip=0), ValueError, "clip: expected None or a positive number, got 0"),
    (lambda: fastrnn.LSTM(3, 4, clip=np.inf), ValueError, "clip: expected None or a positive number, got inf"),
    (lambda: fastrnn.LSTM(3, 4, clip="1"), TypeError, "clip: expected a number, got str"),
    (lambda: fastrnn.LSTM(3, 4, peepholes="yes"), TypeError, "peepholes: expected True or False, got 'yes'"),
    (lambda: fastrnn.LSTM(3, 4, input_forget=2), TypeError, "input_forget: expected True or False, got 2"),
    (lambda: fastrnn.GRU(3, 4, clip=1.0).backward(fastrnn.GRU(3, 4).forward(np.ones((1, 1, 3)))[2], np.ones((1, 1, 4))), ValueError, "tape: expected a tape of this layer, got one of another network"),
    (lambda: fastrnn.functional.lstm(np.ones((1, 1, 3), np.float32), None, {"weight_ci_l0": np.ones(4, np.float32)}), ValueError, "params: expected a matrix weight_ih_l0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=range(len(ERRORS)))
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_the_core_checks_options() -> None:
    core = fastrnn._core.Network
    sizes = (3, 4, 0, 1, False, True, False, False)
    good = {"activations": [[("tanh", 0.0, 0.0)] * 5]}
    core("lstm", *sizes, options=good)
    for cell, bad in [
        ("lstm", {"activations": []}),
        ("lstm", {"activations": [[("tanh", 0.0, 0.0)] * 4]}),
        ("lstm", {"activations": [[("swish", 0.0, 0.0)] * 5]}),
        ("lstm", good | {"leak": 0.5}),
        ("lstm", good | {"clip": -1.0}),
        ("lstm", good | {"clip": float("nan")}),
        ("gru", {"peepholes": True}),
        ("lstm", good | {"unknown": 1}),
    ]:
        with pytest.raises(ValueError, match="options: expected"):
            core(cell, *sizes, options=bad)
    network, packed = (
        core("lstm", *sizes, options=good),
        core("lstm", *sizes).pack(fastrnn.LSTM(3, 4)._arrays),
    )
    with pytest.raises(ValueError, match="packed weights of this network"):
        network.infer(packed, np.ones((1, 1, 3), np.float32), None, None, None)


def test_a_trace_needs_plain_cells() -> None:
    with pytest.raises(ValueError, match="trace: expected a layer whose cells have no options"):
        fastrnn.GRU(3, 4, clip=1.0).trace(np.ones((2, 1, 3), np.float32))
