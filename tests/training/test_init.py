"""Initialisation: what each scheme promises, gate by gate, and bad calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import init
from fastrnn.nn import Linear


class Layer:
    """Parameters named and shaped as those of a layer."""

    def __init__(self, gates: int, size: int = 6, inputs: int = 4, proj: int = 0) -> None:
        self.params = {
            "weight_ih_l0": np.full((gates * size, inputs), np.nan),
            "weight_hh_l0": np.full((gates * size, proj or size), np.nan),
            "bias_ih_l0": np.full(gates * size, np.nan),
            "bias_hh_l0": np.full(gates * size, np.nan),
        }
        if proj:
            self.params["weight_hr_l0"] = np.full((proj, size), np.nan)


def test_torch_uniform() -> None:
    layer = init.torch_uniform(Layer(4, 100, 9, proj=7), rng=0)
    for array in layer.params.values():
        assert 0.05 < abs(array).max() <= 0.1
    linear = Linear(25, 400, rng=0)
    assert 0.19 < abs(linear.flat).max() <= 0.2
    np.testing.assert_array_equal(
        init.torch_uniform(np.zeros((3, 4)), 5), init.torch_uniform(np.zeros((3, 4)), 5)
    )


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_orthogonal_gate_by_gate(gates: int) -> None:
    layer = init.orthogonal(init.torch_uniform(Layer(gates), rng=1), rng=0, gain=2.0)
    for gate in np.split(layer.params["weight_hh_l0"], gates):
        np.testing.assert_allclose(gate @ gate.T, 4 * np.eye(6), atol=1e-12)
    assert abs(layer.params["weight_ih_l0"]).max() < 1
    for shape in ((3, 5), (5, 3)):
        q = init.orthogonal(np.empty(shape), rng=0)
        np.testing.assert_allclose(q @ q.T if shape[0] == 3 else q.T @ q, np.eye(3), atol=1e-12)


def test_identity() -> None:
    layer = init.identity(Layer(1), scale=0.5)
    np.testing.assert_array_equal(layer.params["weight_hh_l0"], 0.5 * np.eye(6))
    assert layer.params["bias_ih_l0"].sum() == 0
    assert np.isnan(layer.params["weight_ih_l0"]).all()


def test_xavier_uses_the_fans_of_one_gate() -> None:
    layer = init.xavier(Layer(4, 50, 25), rng=0)
    bounds = np.sqrt(6 / 75), np.sqrt(6 / 100)
    for name, bound in zip(("weight_ih_l0", "weight_hh_l0"), bounds, strict=True):
        assert 0.98 * bound < abs(layer.params[name]).max() <= bound
    assert layer.params["bias_hh_l0"].sum() == 0


def test_forget_bias() -> None:
    layer = init.forget_bias(init.torch_uniform(Layer(4), rng=0), 1.5)
    total = layer.params["bias_ih_l0"] + layer.params["bias_hh_l0"]
    np.testing.assert_array_equal(total[6:12], 1.5)
    assert abs(total[:6]).max() < 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.orthogonal(np.zeros(3)), ValueError, r"target: expected a matrix, got shape \(3,\)"),
        (lambda: init.orthogonal(Linear(2, 2)), ValueError, "target: expected a parameter named weight_hh"),
        (
            lambda: init.xavier([1.0]),
            TypeError,
            "target: expected an array, a dict of parameters or a layer, got list",
        ),
        (
            lambda: init.identity(np.zeros((2, 2), int)),
            TypeError,
            "target: expected an array of floats, got int64",
        ),
        (lambda: init.forget_bias(Layer(3)), ValueError, "target: expected an LSTM with biases"),
        (lambda: init.forget_bias(Linear(4, 4)), ValueError, "target: expected an LSTM with biases"),
        (lambda: init.xavier({"weight": [1.0]}), TypeError, "target: expected an array of floats, got list"),
        (lambda: init.xavier({"weight": np.zeros((2, 2), int)}), TypeError, "target: expected .* got int64"),
        (lambda: init.xavier(np.zeros((2, 2)), gain="1"), TypeError, "gain: expected a number, got str"),
        (
            lambda: init.orthogonal(np.zeros((2, 2)), gain=None),
            TypeError,
            "gain: expected a number, got None",
        ),
        (lambda: init.identity(np.zeros((2, 2)), scale=[1]), TypeError, "scale: expected a number, got list"),
        (lambda: init.forget_bias(np.zeros(8), True), TypeError, "value: expected a number, got bool"),
    ],
)
def test_bad_initialisation(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["torch_uniform", "xavier", "orthogonal", "identity", "forget_bias"])
def test_frozen_layers_are_not_initialised(name: str) -> None:
    layer = fastrnn.LSTM(3, 4, rng=0)
    before = layer.flat.copy()
    layer.freeze()
    message = r"target: expected writeable arrays, got a read-only one at weight_ih_l0 \(a frozen layer\?"
    with pytest.raises(ValueError, match=message):
        getattr(init, name)(layer)
    layer.unfreeze()
    layer.params["bias_hh_l0"].flags.writeable = False  # the last one
    with pytest.raises(ValueError, match=r"target: .* at bias_hh_l0"):
        getattr(init, name)(layer)
    np.testing.assert_array_equal(layer.flat, before)


def test_a_failed_initialisation_changes_nothing() -> None:
    for last in (np.zeros(3), np.zeros((5, 3))):  # no matrix; no whole number of gates
        params = {"weight_hh_l0": np.zeros((6, 3)), "weight_ih_l0": last}
        with pytest.raises(ValueError, match=r"weight_ih_l0: expected (a matrix|gates of 3 rows)"):
            init.xavier(params)
        assert not params["weight_hh_l0"].any()


def test_peepholes_stay_as_they_are() -> None:
    lstm = fastrnn.LSTM(3, 4, peepholes=True, rng=0)
    before = {name: lstm.params[name].copy() for name in ("weight_ci_l0", "weight_cf_l0", "weight_co_l0")}
    for fill in (init.xavier, init.orthogonal):
        fill(lstm, rng=1)
    init.forget_bias(lstm)
    for name, value in before.items():
        np.testing.assert_array_equal(lstm.params[name], value)
