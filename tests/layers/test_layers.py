"""Every variant of the layers against the reference: outputs, states and all gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import (
    KINDS,
    TOLERANCE,
    Variant,
    assert_close,
    assert_gradient,
    assert_same_bits,
    both_dtypes,
    make_case,
    make_layer,
    numeric_gradient,
    run_layer,
    run_reference,
    variants,
)

import fastrnn

ROWS = ["dense", "lengths", "reset", "lengths and reset"]


def rows_of(rows: str, case: Any) -> dict[str, Any]:
    """Keywords of a call."""
    return {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("v", both_dtypes(variants(B=5)), ids=str)
def test_training_pass(v: Variant, rows: str) -> None:
    case = make_case(v)
    kwargs = rows_of(rows, case)
    got = run_layer(make_layer(v, case.params), case, **kwargs)
    assert_close(got, run_reference(v, case, **kwargs), v.dtype)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("v", both_dtypes(variants()), ids=str)
def test_inference_pass(v: Variant, rows: str) -> None:
    case = make_case(v)
    kwargs = rows_of(rows, case)
    y, last = make_layer(v, case.params)(case.x, case.state, **kwargs)
    want = run_reference(v, case, **kwargs)
    np.testing.assert_allclose(y, want["y"], **TOLERANCE[np.dtype(v.dtype)])
    for state, key in zip(last if v.states == 2 else [last], ["h_n", "c_n"], strict=False):
        np.testing.assert_allclose(state, want[key], **TOLERANCE[np.dtype(v.dtype)])


@pytest.mark.parametrize("v", variants(I=40, H=36, T=21, B=13), ids=str)
def test_larger_than_one_tile(v: Variant) -> None:
    """Several register tiles, several chunks of time."""
    v = replace(v, proj_size=v.proj_size and 20)
    # With this seed no pre-activation of a rectifier is so near 0 that rounding decides on which side it lies.
    case = make_case(v, seed=11)
    got = run_layer(make_layer(v, case.params), case, lengths=case.lengths)
    want = run_reference(v, case, lengths=case.lengths)
    for key, value in want.items():
        # weight gradients sum T B terms, so their rounding grows with the size of the sums
        atol = 1e-5 * max(1.0, np.abs(value).max()) if key.startswith(("dweight", "dbias")) else 1e-5
        np.testing.assert_allclose(got[key], value, rtol=1.3e-6, atol=atol, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_first_is_a_transposition(kind: str) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    want_y, want_last = make_layer(v, case.params)(case.x, case.state)
    layer = make_layer(v, case.params, batch_first=True)
    x = np.ascontiguousarray(case.x.transpose(1, 0, 2))
    y, last = layer(x, case.state)
    assert y.flags.c_contiguous
    assert_same_bits(y.transpose(1, 0, 2), want_y)
    assert_same_bits(last, want_last)
    want = run_layer(make_layer(v, case.params), case)
    _, _, tape = layer.forward(x, case.state)
    g = layer.backward(tape, np.ascontiguousarray(case.dy.transpose(1, 0, 2)), case.dstate)
    assert_same_bits(g.x.transpose(1, 0, 2), want["dx"])
    for key, value in g.params.items():
        assert_same_bits(value, want["d" + key], key)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_unbatched_is_a_batch_of_one(kind: str, batch_first: bool) -> None:
    v = Variant(kind, 2, True, B=1)
    case = make_case(v)
    want = run_layer(make_layer(v, case.params), case)
    layer = make_layer(v, case.params, batch_first=batch_first)

    def one(state: Any) -> Any:
        return tuple(s[:, 0] for s in state) if v.states == 2 else state[:, 0]

    y, last, tape = layer.forward(case.x[:, 0], one(case.state))
    g = layer.backward(tape, case.dy[:, 0], one(case.dstate))
    assert_same_bits(y, want["y"][:, 0])
    assert_same_bits(g.x, want["dx"][:, 0])
    h_n = last[0] if v.states == 2 else last
    assert_same_bits(h_n, want["h_n"][:, 0])
    y, _ = layer(case.x[:, 0], one(case.state))
    assert_same_bits(y, want["y"][:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_no_state_is_a_state_of_zeros(kind: str) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    case.state = tuple(np.zeros_like(s) for s in case.state) if v.states == 2 else np.zeros_like(case.state)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    y, last = layer(case.x)
    assert_same_bits(y, want["y"])
    y, last, tape = layer.forward(case.x)
    assert_same_bits(y, want["y"])
    assert_same_bits(last[0] if v.states == 2 else last, want["h_n"])
    g = layer.backward(tape, case.dy, case.dstate)
    assert_same_bits(g.x, want["dx"])
    for key, value in g.params.items():
        assert_same_bits(value, want["d" + key], key)


@pytest.mark.parametrize("v", variants(), ids=str)
def test_parameters_are_views_of_one_buffer(v: Variant) -> None:
    layer = make_layer(v)
    assert list(layer.params) == list(v.shapes())
    assert {key: p.shape for key, p in layer.params.items()} == v.shapes()
    assert layer.flat.flags.c_contiguous
    assert layer.flat.ndim == 1
    assert layer.flat.dtype == v.dtype
    np.testing.assert_array_equal(np.concatenate([p.ravel() for p in layer.params.values()]), layer.flat)
    layer.flat[:] = 0
    assert not any(p.any() for p in layer.params.values())
    layer.params["weight_hh_l0"][...] = 1
    assert layer.flat.sum() == layer.params["weight_hh_l0"].size


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_views_of_one_buffer(kind: str) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    _, _, tape = layer.forward(case.x)
    g = layer.backward(tape, case.dy)
    assert list(g.params) == list(layer.params)
    assert g.flat.shape == layer.flat.shape
    assert g.flat.dtype == layer.flat.dtype
    assert all(np.shares_memory(p, g.flat) for p in g.params.values())
    np.testing.assert_array_equal(np.concatenate([p.ravel() for p in g.params.values()]), g.flat)


@pytest.mark.parametrize("kind", KINDS)
def test_changed_parameters_are_seen_by_the_next_call(kind: str) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    layer(case.x)
    layer.flat *= 0.5
    want, _ = make_layer(v, {key: p * np.float32(0.5) for key, p in case.params.items()})(case.x)
    assert_same_bits(layer(case.x)[0], want)


@pytest.mark.parametrize("kind", KINDS)
def test_any_strides_and_any_float_are_cast(kind: str) -> None:
    v = Variant(kind)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want, _ = layer(case.x)
    wide = np.zeros((2 * v.T, v.B, v.I + 3), np.float64)
    wide[::2, :, 3:] = case.x
    inputs = {
        "float64": case.x.astype(np.float64),
        "strided": wide[::2, :, 3:],
        "fortran": np.asfortranarray(case.x),
        "big endian": case.x.astype(">f4"),
        "flipped": np.ascontiguousarray(case.x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        "lists": case.x.tolist(),
    }
    for name, x in inputs.items():
        assert_same_bits(layer(x)[0], want, name)
    assert layer(case.x.astype(np.float16))[0].dtype == np.float32
    unaligned = np.frombuffer(b"\0" + case.x.tobytes(), np.float32, offset=1).reshape(case.x.shape)
    assert_same_bits(layer(unaligned)[0], want, "unaligned")


def test_torch_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed, so no tensor is passed")
    v = Variant("gru")
    case = make_case(v)
    layer = make_layer(v, case.params)
    assert_same_bits(layer(torch.from_numpy(case.x))[0], layer(case.x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_fresh_and_inputs_stay(kind: str) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    before = [case.x.copy(), layer.flat.copy()]
    one = layer(case.x, case.state)
    two = layer(case.x, case.state)
    h_n = [state[0] if v.states == 2 else state for _, state in (one, two)]
    assert not np.shares_memory(one[0], two[0])
    assert not np.shares_memory(h_n[0], h_n[1])
    assert not np.shares_memory(h_n[0], one[0])
    assert one[0].flags.c_contiguous
    assert one[0].flags.owndata
    assert one[0].flags.writeable
    run_layer(layer, case)
    assert_same_bits(case.x, before[0])
    assert_same_bits(layer.flat, before[1])


@pytest.mark.parametrize("kind", KINDS)
def test_many_tapes_are_alive_at_once(kind: str) -> None:
    v = Variant(kind, 2, True)
    cases = [make_case(v, seed) for seed in range(3)]
    layer = make_layer(v, cases[0].params)
    want = []
    for case in cases:
        case.params = cases[0].params
        want.append(run_layer(layer, case))
    calls = [layer.forward(case.x, case.state) for case in cases]
    for case, (_, _, tape), expected in reversed(list(zip(cases, calls, want, strict=True))):
        g = layer.backward(tape, case.dy, case.dstate)
        assert_same_bits(g.x, expected["dx"])
        for key, value in g.params.items():
            assert_same_bits(value, expected["d" + key], key)


@pytest.mark.parametrize("kind", KINDS)
def test_tape_serves_one_backward_and_y_is_read_only(kind: str) -> None:
    v = Variant(kind)
    case = make_case(v)
    layer = make_layer(v, case.params)
    y, _, tape = layer.forward(case.x)
    assert not y.flags.writeable
    layer.backward(tape, case.dy)
    with pytest.raises(ValueError, match=r"^tape: "):
        layer.backward(tape, case.dy)


@pytest.mark.parametrize("kind", KINDS)
def test_either_gradient_may_be_missing(kind: str) -> None:
    v = Variant(kind, 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    for dy, dstate in [(None, case.dstate), (case.dy, None)]:
        got = run_layer(layer, case, dy, dstate)
        assert_close(got, run_reference(v, case, dy, dstate), np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout(kind: str) -> None:
    """Zeros and scales what passes between layers, in training only, the same way in both passes."""
    v = Variant(kind, 3, True, T=4, B=3, dtype=np.float64)
    case = make_case(v)

    def layer(dropout: float, seed: int = 7) -> Any:
        return make_layer(v, case.params, dropout=dropout, rng=np.random.default_rng(seed))

    plain = make_layer(v, case.params)(case.x)[0]
    assert_same_bits(layer(0.5)(case.x)[0], plain)
    assert_same_bits(layer(0.0).forward(case.x)[0], plain)
    one, same, other = (layer(0.5, seed).forward(case.x)[0] for seed in (7, 7, 8))
    assert_same_bits(one, same)
    assert (one != plain).any()
    assert (one != other).any()
    twice = layer(0.5)
    assert (twice.forward(case.x)[0] != twice.forward(case.x)[0]).any(), "one mask for every call"

    def loss() -> float:
        return float((layer(0.5).forward(case.x)[0] * case.dy).sum())

    net = layer(0.5)
    _, _, tape = net.forward(case.x)
    g = net.backward(tape, case.dy)
    assert_gradient(g.x, numeric_gradient(loss, case.x))
    key = "weight_ih_l2"
    assert_gradient(g.params[key], numeric_gradient(loss, case.params[key]))


@pytest.mark.parametrize(
    "how", ["lengths", "reset", "batch_first", "ragged", "no input", "checkpoint", "unbatched"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_in_every_layout(kind: str, how: str) -> None:
    """Finite differences with one seed: a mask laid out otherwise in backward than in forward would show."""
    v = Variant(kind, 2, True, I=2, H=4, T=5, B=1 if how == "unbatched" else 3, dtype=np.float64)
    case = make_case(v)
    x, dy, kwargs = case.x, case.dy, {}
    state = case.state
    if how in ("lengths", "reset"):
        kwargs[how] = getattr(case, how)
    elif how == "batch_first":
        x, dy = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, dy))
    elif how == "ragged":
        x, dy = (fastrnn.Ragged.from_padded(a, case.lengths) for a in (x, dy))
    elif how == "no input":
        x, kwargs["steps"] = None, v.T
    elif how == "unbatched":
        x, dy = x[:, 0].copy(), dy[:, 0]
        state = tuple(s[:, 0] for s in state) if v.states == 2 else state[:, 0]

    def run() -> Any:
        net = make_layer(v, case.params, dropout=0.5, rng=7, batch_first=how == "batch_first")
        return net, *net.forward(x, state, checkpoint=2 if how == "checkpoint" else None, **kwargs)

    def loss() -> float:
        y = run()[1]
        pair = (y.values, dy.values) if how == "ragged" else (y, dy)
        return float((pair[0] * pair[1]).sum())

    net, _, _, tape = run()
    g = net.backward(tape, dy)
    for key in ("weight_ih_l1_reverse", "weight_hh_l0", "bias_hh_l1"):
        want = numeric_gradient(loss, case.params[key])
        assert_gradient(g.params[key], want, key)
    if how == "ragged":
        assert_gradient(g.x.values, numeric_gradient(loss, x.values))
    elif x is not None:
        assert_gradient(g.x, numeric_gradient(loss, x))


def test_half_of_an_lstm_gradient_may_be_missing() -> None:
    v = Variant("lstm", 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    for dstate in [(case.dstate[0], None), (None, case.dstate[1])]:
        whole = tuple(np.zeros_like(case.dstate[0]) if d is None else d for d in dstate)
        assert_same_bits(run_layer(layer, case, dstate=dstate), run_layer(layer, case, dstate=whole))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_any_strides_and_any_float_are_cast(kind: str) -> None:
    v = Variant(kind)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    for dy in (
        case.dy.astype(np.float64),
        np.asfortranarray(case.dy),
        np.repeat(case.dy, 2, axis=1)[:, ::2],
        case.dy.tolist(),
        case.dy[::-1].copy()[::-1],
    ):
        got = run_layer(layer, case, dy=dy)
        assert_same_bits(got, want)
    y, _, tape = layer.forward(case.x, case.state)
    g = layer.backward(tape, np.broadcast_to(np.float32(0.5), y.shape))
    _, _, tape = layer.forward(case.x, case.state)
    assert_same_bits(g.x, layer.backward(tape, np.full_like(y, 0.5)).x)


def test_dropout_keeps_the_mean() -> None:
    """A linear second layer (relu, identity weights) shows the mask: values are 0 or x / (1 - p)."""
    v = Variant("rnn_relu", 2, bias=False, I=64, H=64, T=10, B=8)
    params = {key: np.zeros(shape, np.float32) for key, shape in v.shapes().items()}
    params["weight_ih_l0"][...] = params["weight_ih_l1"][...] = np.eye(64)
    net = make_layer(v, params, dropout=0.25, rng=np.random.default_rng(0))
    y, _, _ = net.forward(np.full((10, 8, 64), 0.75, np.float32))
    assert set(np.unique(y)) == {0.0, 1.0}
    assert abs(y.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / y.size)


@pytest.mark.parametrize("kind", KINDS)
def test_default_initialisation(kind: str) -> None:
    """Uniform in +-1 / sqrt(H), as torch's; the seed decides."""
    v = Variant(kind, 2, I=20, H=16)
    one, same, other = (make_layer(v, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert_same_bits(one.flat, same.flat)
    assert (one.flat != other.flat).all()
    assert 0.24 < np.abs(one.flat).max() <= 0.25
    assert abs(one.flat.mean()) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_repr_names_the_layer(kind: str) -> None:
    text = repr(make_layer(Variant(kind, 2, True)))
    assert {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}[kind.split("_")[0]] in text
    assert "5, 7" in text


def test_nan_in_one_row_stays_in_that_row() -> None:
    for kind in KINDS:
        v = Variant(kind, 2, True, B=5, H=17)
        case = make_case(v)
        layer = make_layer(v, case.params)
        want = run_layer(layer, case)
        case.x[2, 3] = np.nan
        got = run_layer(layer, case)
        clean = [0, 1, 2, 4]
        assert np.isnan(got["y"][:, 3]).any(), kind
        assert np.isnan(got["h_n"][:, 3]).any(), kind
        for key in ("y", "h_n", "dx", "dh_0"):
            assert_same_bits(got[key][:, clean], want[key][:, clean], f"{kind} {key}")
