"""Weights of 8 and 16 bits: integers and bits against NumPy, in every form of a call."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import (
    KIND,
    KINDS,
    Case,
    Variant,
    as_tuple,
    assert_same_bits,
    make_case,
    make_layer,
    run_threads,
    same_structure,
    take_rows,
    variants,
)
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference
from fastrnn.reference.low_precision import dequantize, quantize, round_to_bfloat16

SMALL = ("bfloat16", "int8")
WEIGHTS = pytest.mark.parametrize("weights", SMALL)
TABLE = [replace(v, proj_size=v.proj_size and 10) for v in variants(I=11, H=19, T=9, B=7) if not v.options]
# Sizes around a word of bytes, a register and a tile, and work that threads share in different ways: T, B, I, H
SIZES = [
    (3, 1, 1, 1),
    (3, 2, 3, 5),
    (4, 3, 4, 8),
    (3, 5, 5, 15),
    (4, 7, 8, 16),
    (3, 9, 17, 17),
    (2, 100, 33, 31),
    (2, 205, 6, 64),
    (3, 1, 70, 130),
    (60, 1, 8, 8),
    (8, 1, 32, 160),
    (15, 6, 20, 112),
    (300, 1, 64, 64),
]


def run_all(layer: Any, case: Case, **kwargs: Any) -> dict[str, np.ndarray]:
    y, last = layer(case.x, case.state, **kwargs)
    return {"y": y} | dict(zip("hc", as_tuple(last), strict=False))


# -- the rounding itself --------------------------------------------------------------------------------------------


def test_scales_and_integers() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((500, 40)).astype(np.float32) * np.exp2(rng.integers(-90, 90, (500, 1))).astype(
        "f4"
    )
    q, scale = quantize(a)
    assert abs(q.astype(int)).max(axis=1).tolist() == [127] * 500
    assert (abs(a.astype(float) - q * scale[:, None].astype(float)) <= 0.50001 * scale[:, None]).all()
    back = dequantize(q, scale)
    assert (back == q * scale[:, None].astype(float)).all()  # exact
    again = quantize(back)
    assert_same_bits(again[0], q)
    assert_same_bits(again[1], scale)


def test_rows_that_have_no_scale() -> None:
    tiny = np.float32(2.0**-101)
    q, scale = quantize(np.array([[0, 0], [tiny, -tiny], [1, np.nan], [np.inf, 1]], np.float32))
    assert scale[:2].tolist() == [1, 1]
    assert np.isnan(scale[2:]).all()
    assert (q[:2] == 0).all()


def bfloat16_cases() -> np.ndarray:
    """Numbers of every exponent and sign: exact ones, ties to either side, and their neighbours."""
    sign, exponent = np.meshgrid([0, 1], np.arange(256), indexing="ij")
    high = (sign << 31) | (exponent << 23)
    parts = [0, 1, 0x7FFF, 0x8000, 0x8001, 0x18000, 0x17FFF, 0x18001, 0x7F7FFF, 0x7F8000, 0x7FFFFF]
    return (high[..., None] | np.array(parts)).astype(np.uint32).reshape(-1).view(np.float32)


def test_bfloat16_rounds_to_nearest_even() -> None:
    a = bfloat16_cases()
    finite = a[np.isfinite(a)]
    got = round_to_bfloat16(finite)
    bits = got.view(np.uint32)
    assert (bits & 0xFFFF == 0).all()
    below = (finite.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(float)
    step = (
        ((finite.view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32).astype(float)
    )
    step = np.where(np.isfinite(step), step, np.sign(step) * 2.0**128)
    down, up = abs(finite.astype(float) - below), abs(step - finite.astype(float))
    wide = np.where(np.isfinite(got), got.astype(float), np.sign(got).astype(float) * 2.0**128)
    even = (below.astype(np.float32).view(np.uint32) >> 16) & 1 == 0
    want = np.where((down < up) | ((down == up) & even), below, step)
    assert (wide == want).all()
    assert np.isnan(round_to_bfloat16(a[np.isnan(a)])).all()
    assert_same_bits(round_to_bfloat16(a[np.isinf(a)]), a[np.isinf(a)])


def test_the_core_rounds_bfloat16_alike() -> None:
    """A rectified network with x = 1 shows the weights of W, one for each unit."""
    a = bfloat16_cases()
    smallest = np.finfo(np.float32).tiny
    a = a[np.isnan(a) | (abs(a) >= smallest)]  # a call flushes subnormal numbers
    shown = np.concatenate([a, -a])
    layer = fastrnn.RNN(1, shown.size, nonlinearity="relu", bias=False)
    weight_hh = layer.params["weight_hh_l0"]
    weight_hh[...] = 0
    layer.params["weight_ih_l0"][:, 0] = shown
    y, _ = layer.freeze(weights="bfloat16")(np.ones((1, 1, 1), np.float32))
    want = round_to_bfloat16(shown)
    np.testing.assert_array_equal(y[0, 0], np.where(want <= 0, 0, want))


# -- the core against NumPy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES)
def test_integer_products_are_exact(T: int, B: int, I: int, H: int) -> None:
    """All operations of a rectified network are exact or rounded once, so NumPy gets the same numbers."""
    v = Variant("rnn_relu", 2, True, I=I, H=H, T=min(T, 20), B=B)
    case = make_case(v, seed=1)
    layer = make_layer(v, case.params).freeze(weights="int8")
    got = run_all(layer, case, lengths=case.lengths, reset=case.reset)
    y, h = reference.infer(
        v.kind, case.x, case.state, case.params, weights="int8", lengths=case.lengths, reset=case.reset
    )
    np.testing.assert_array_equal(got["y"], y)
    np.testing.assert_array_equal(got["h"], h)


@pytest.mark.parametrize("depth", [1, 4, 63, 64, 65, 1000, 20_000])
@pytest.mark.parametrize("signs", ["equal", "opposite", "alternating", "random"])
def test_extremes_do_not_saturate(depth: int, signs: str) -> None:
    """Every integer is -127 or 127, and every sum as large as it can be."""
    rng = np.random.default_rng(depth)
    w = np.ones((5, depth), np.float32)
    if signs == "alternating":
        w[:, ::2] = -1
    elif signs == "random":
        w = rng.choice([-1, 1], w.shape).astype(np.float32)
    x = np.where(rng.random((1, 3, 1)) < 0.5, 1, -1).astype(np.float32) * np.ones((1, 3, depth), np.float32)
    if signs == "opposite":
        x = -x
    x[0, 2] = np.where(w[0] > 0, 1, -1)
    layer = fastrnn.RNN(depth, 5, nonlinearity="relu", bias=False)
    layer.params["weight_ih_l0"][...] = w
    layer.params["weight_hh_l0"][...] = 0
    params = layer.state_dict()
    y, _ = layer.freeze(weights="int8")(x)
    np.testing.assert_array_equal(y, reference.infer("rnn_relu", x, None, params, weights="int8")[0])
    assert np.isclose(y[0, 2, 0], depth, rtol=1e-3)


@pytest.mark.parametrize("v", [replace(v, B=4, T=1) for v in TABLE if not v.bidirectional], ids=str)
@pytest.mark.parametrize("H", [1, 7, 16, 33])
def test_one_step_of_every_cell(v: Variant, H: int) -> None:
    """The cells round elsewhere than NumPy, and a last bit may change an integer of the layer above: 1 of 127."""
    v = replace(v, H=H, proj_size=H // 2 if v.proj_size else 0)
    case = make_case(v)
    y, last = make_layer(v, case.params).freeze(weights="int8")(case.x, case.state)
    want_y, want_last = reference.infer(v.kind, case.x, case.state, case.params, weights="int8")
    tight = v.num_layers == 1 and not v.proj_size
    for got, want in zip((y, *as_tuple(last)), (want_y, *as_tuple(want_last)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 if tight else 0.02)


@KIND
def test_many_steps(kind: str) -> None:
    """Each step from the state that the core had before it."""
    v = Variant(kind, I=9, H=40, T=25, B=3)
    case = make_case(v)
    layer = make_layer(v, case.params).freeze(weights="int8")
    state = case.state
    steps = []
    for t in range(v.T):
        y, after = layer(case.x[t : t + 1], state)
        want = reference.infer(kind, case.x[t : t + 1], state, case.params, weights="int8")[1]
        for one, other in zip(as_tuple(after), as_tuple(want), strict=True):
            # r * h of the GRU that resets first is rounded to an integer within the step
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6 if kind != "gru_before" else 5e-3)
        steps.append(y)
        state = after
    assert_same_bits(layer(case.x, case.state)[0], np.concatenate(steps))


@pytest.mark.parametrize("rows", ["dense", "lengths and reset"])
@pytest.mark.parametrize("v", [*TABLE, *(Variant(k, I=33, H=130, T=4, B=40) for k in KINDS)], ids=str)
def test_bfloat16_equals_rounded_weights(v: Variant, rows: str) -> None:
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    rounded = {k: round_to_bfloat16(a) if k.startswith("weight") else a for k, a in case.params.items()}
    want = run_all(make_layer(v, rounded), case, **kwargs)
    assert_same_bits(run_all(make_layer(v, case.params).freeze(weights="bfloat16"), case, **kwargs), want)


@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES)
@KIND
def test_bfloat16_of_every_size(kind: str, T: int, B: int, I: int, H: int) -> None:
    v = Variant(kind, I=I, H=H, T=min(T, 20), B=B)
    case = make_case(v)
    rounded = {k: round_to_bfloat16(a) if k.startswith("weight") else a for k, a in case.params.items()}
    want = run_all(make_layer(v, rounded), case)
    assert_same_bits(run_all(make_layer(v, case.params).freeze(weights="bfloat16"), case), want)


# -- the same bits in every form of a call --------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "B", "I", "H"), SIZES)
@KIND
@WEIGHTS
def test_any_number_of_threads(weights: str, kind: str, T: int, B: int, I: int, H: int) -> None:
    v = Variant(kind, 2, True, I=I, H=H, T=T, B=B)
    case = make_case(v)
    layer = make_layer(v, case.params).freeze(weights=weights)
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(1)
        want = run_all(layer, case, lengths=case.lengths, reset=case.reset)
        for n in (2, 3):
            fastrnn.set_num_threads(n)
            assert_same_bits(
                run_all(layer, case, lengths=case.lengths, reset=case.reset), want, f"{n} threads"
            )
    finally:
        fastrnn.set_num_threads(before)


@pytest.mark.parametrize("v", TABLE, ids=str)
@WEIGHTS
def test_rows_alone_in_chunks_and_ragged(weights: str, v: Variant) -> None:
    case = make_case(v)
    layer = make_layer(v, case.params).freeze(weights=weights)
    whole = run_all(layer, case, lengths=case.lengths)
    for r, length in enumerate(case.lengths):
        one = take_rows(case, slice(r, r + 1))
        one.x = one.x[:length]
        alone = run_all(layer, one)
        assert_same_bits(whole["y"][:length, r : r + 1], alone["y"])
        assert_same_bits(whole["h"][:, r : r + 1], alone["h"])
    x = fastrnn.Ragged.from_list([case.x[:n, r] for r, n in enumerate(case.lengths)])
    y, _ = layer(x, case.state)
    for r, sequence in enumerate(y):
        assert_same_bits(sequence, whole["y"][: case.lengths[r], r])
    if not v.bidirectional:
        whole = run_all(layer, case, reset=case.reset)
        y_1, state = layer(case.x[:4], case.state, reset=case.reset[:4])
        y_2, _ = layer(case.x[4:], state, reset=case.reset[4:])
        assert_same_bits(np.concatenate([y_1, y_2]), whole["y"])


@pytest.mark.parametrize("v", [v for v in TABLE if not v.bidirectional], ids=str)
@pytest.mark.parametrize("B", [1, 2, 7])
@WEIGHTS
def test_streams(weights: str, v: Variant, B: int) -> None:
    v = replace(v, B=B)
    case = make_case(v)
    layer = make_layer(v, case.params).freeze(weights=weights)
    want = run_all(layer, case)
    stream = layer.stream(B)
    stream.state = case.state
    out = np.empty((B, v.out), np.float32)
    assert_same_bits(np.stack([stream.step(x, out=out).copy() for x in case.x[:5]]), want["y"][:5])
    assert_same_bits(stream.run(case.x[5:]), want["y"][5:])
    assert_same_bits(as_tuple(stream.state)[0], want["h"])


@WEIGHTS
@KIND
def test_without_input_and_without_state(kind: str, weights: str) -> None:
    v = Variant(kind, 2, T=5, B=2, I=3, H=21)
    case = make_case(v)
    layer = make_layer(v, case.params).freeze(weights=weights)
    y, _ = layer(None, case.state, steps=5)
    zeros = layer(np.zeros_like(case.x), case.state)[0]
    assert_same_bits(y, zeros)
    no_state = same_structure(v, [np.zeros_like(s) for s in as_tuple(case.state)])
    assert_same_bits(layer(case.x)[0], layer(case.x, no_state)[0])


@given(st.data())
def test_any_options(data: Any) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    H = data.draw(st.integers(1, 40))
    v = Variant(
        kind,
        num_layers=data.draw(st.integers(1, 3)),
        bidirectional=data.draw(st.booleans()),
        bias=data.draw(st.booleans()),
        proj_size=data.draw(st.integers(0, H - 1)) if kind == "lstm" else 0,
        I=data.draw(st.integers(1, 40)),
        H=H,
        T=data.draw(st.integers(0, 6)),
        B=data.draw(st.integers(1, 12)),
    )
    case = make_case(v, seed=data.draw(st.integers(0, 5)))
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if data.draw(st.booleans())}
    exact = run_all(make_layer(v, case.params), case, **kwargs)
    for weights, bound in (("bfloat16", 0.1), ("int8", 0.2)):
        layer = make_layer(v, case.params).freeze(weights=weights)
        got = run_all(layer, case, **kwargs)
        if kind != "rnn_relu":  # which has no bound
            assert max((abs(got[k] - exact[k]).max(initial=0) for k in exact), default=0) < bound
        order = np.arange(v.B)[::-1]
        turned = {key: value[..., order] for key, value in kwargs.items()}
        other = run_all(layer, take_rows(case, order), **turned)
        assert_same_bits(other["y"], got["y"][:, order])


@WEIGHTS
@KIND
def test_nan_and_infinity_stay_in_their_row(kind: str, weights: str) -> None:
    v = Variant(kind, 2, I=20, H=30, T=6, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params).freeze(weights=weights)
    clean = layer(case.x, case.state)[0]
    case.x[2, 1, 3], case.x[1, 3, 0] = np.nan, np.inf
    y = layer(case.x, case.state)[0]
    assert_same_bits(y[:, [0, 2, 4]], clean[:, [0, 2, 4]])
    assert np.isnan(y[2:, 1]).all()
    if weights == "int8":
        assert np.isnan(y[1:, 3]).all()
        assert_same_bits(y[:1, 3], clean[:1, 3])


@WEIGHTS
def test_threads_share_a_frozen_layer(weights: str) -> None:
    v = Variant("lstm", 2, I=30, H=40, T=20, B=6)
    case = make_case(v)
    layer = make_layer(v, case.params).freeze(weights=weights)
    want = run_all(layer, case)
    results: list[Any] = [None] * 8

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = run_all(layer, case)

    run_threads(work, 8)
    for got in results:
        assert_same_bits(got, want)


# -- freezing, copies and refusals ----------------------------------------------------------------------------------


def test_freeze_and_unfreeze() -> None:
    v = Variant("gru")
    case = make_case(v)
    layer = make_layer(v, case.params)
    exact = run_all(layer, case)
    assert (layer.weights_dtype, layer.frozen) == ("float32", False)
    seen = {}
    for weights in ("int8", "bfloat16", "float32", "int8"):
        assert layer.freeze(weights=weights) is layer
        assert (layer.weights_dtype, layer.frozen) == (weights, True)
        assert not layer.flat.flags.writeable
        assert_same_bits(layer.params, case.params)
        got = run_all(layer, case)
        assert_same_bits(got, seen.setdefault(weights, got))
    assert_same_bits(seen["float32"], exact)
    assert abs(seen["int8"]["y"] - exact["y"]).max() > abs(seen["bfloat16"]["y"] - exact["y"]).max() > 0
    layer.unfreeze()
    assert layer.weights_dtype == "float32"
    assert_same_bits(run_all(layer, case), exact)
    assert fastrnn.GRU(2, 3, dtype=np.float64).freeze().weights_dtype == "float64"


@WEIGHTS
def test_copies_are_frozen_alike(weights: str) -> None:
    v = Variant("lstm", 2)
    case = make_case(v)
    layer = make_layer(v, case.params).freeze(weights=weights)
    want = run_all(layer, case)
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.weights_dtype == weights
        assert_same_bits(run_all(other, case), want)
        assert other.unfreeze().flat.flags.writeable
    assert layer.frozen


def test_packed_weights_are_smaller() -> None:
    layer = fastrnn.LSTM(512, 512)
    sizes = {w: layer.freeze(weights=w)._weights.nbytes for w in ("float32", "bfloat16", "int8")}
    assert sizes["bfloat16"] < 0.3 * sizes["float32"]  # float32 is packed for the backward pass too
    assert sizes["int8"] < 0.16 * sizes["float32"]


@WEIGHTS
def test_refusals(weights: str) -> None:
    layer = fastrnn.LSTM(3, 4)
    with pytest.raises(ValueError, match="weights: expected 'float32', 'bfloat16', 'int8', got 'int4'"):
        layer.freeze(weights="int4")
    with pytest.raises(ValueError, match="weights: expected 'float32' for a layer of float64"):
        fastrnn.GRU(3, 4, dtype=np.float64).freeze(weights=weights)
    general = fastrnn.GRU(3, 4, clip=1.0)
    with pytest.raises(ValueError, match='weights: expected "float32" for a layer whose cells have options'):
        general.freeze(weights=weights)
    assert not general.frozen
    assert general.flat.flags.writeable
    layer.freeze(weights=weights)
    x = np.ones((2, 1, 3), np.float32)
    with pytest.raises(
        ValueError, match=rf'forward: .* training pass, got one frozen with weights="{weights}"'
    ):
        layer.forward(x)
    layer.unfreeze().forward(x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_have_no_scale(value: float) -> None:
    layer = fastrnn.GRU(3, 4, num_layers=2)
    layer.params["weight_hh_l1"][2, 1] = value
    with pytest.raises(
        ValueError, match="weight_hh_l1: expected finite numbers for weights of int8, got NaN or inf"
    ):
        layer.freeze(weights="int8")
    assert not layer.frozen
    assert layer.flat.flags.writeable
    layer.params["weight_hh_l1"][2, 1] = 0
    layer.params["bias_hh_l1"][0] = value  # a bias stays float32
    layer.freeze(weights="int8")


def test_products_deeper_than_32_bits_are_refused() -> None:
    layer = fastrnn.RNN(140_000, 1)
    with pytest.raises(ValueError, match="weights: expected at most 132096 input and hidden features"):
        layer.freeze(weights="int8")
    assert layer.flat.flags.writeable


def test_rows_of_zeros() -> None:
    layer = fastrnn.LSTM(5, 6)
    layer.flat[...] = 0
    y, _ = layer.freeze(weights="int8")(np.ones((3, 2, 5), np.float32))
    assert_same_bits(y, np.zeros((3, 2, 6), np.float32))


def test_quantize_error() -> None:
    v = Variant("gru", 2, I=20, H=50, T=15, B=4)
    case = make_case(v)
    layer = make_layer(v, case.params)
    exact = layer(case.x, case.state, lengths=case.lengths)[0]
    for weights in SMALL:
        rounded = copy.deepcopy(layer).freeze(weights=weights)(case.x, case.state, lengths=case.lengths)[0]
        error = fastrnn.diagnostics.quantize_error(
            layer, case.x, case.state, weights=weights, lengths=case.lengths
        )
        difference = abs(rounded.astype(float) - exact)
        assert error == (difference.max(), difference.mean())
    assert not layer.frozen
    assert fastrnn.diagnostics.quantize_error(layer.freeze(weights="bfloat16"), case.x) == (
        fastrnn.diagnostics.quantize_error(layer.unfreeze(), case.x, weights="bfloat16")
    )
    with pytest.raises(TypeError, match="layer: expected an RNN, LSTM or GRU"):
        fastrnn.diagnostics.quantize_error(fastrnn.Linear(2, 3), case.x)
