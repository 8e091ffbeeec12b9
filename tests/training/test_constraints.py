"""Constraints of parameters hold through everything in this package that changes numbers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import init, io, nn, optim

H = 6
SPARSE = np.random.default_rng(0).random((H, H)) < 0.5
SIGN = np.array([1, 1, 1, -1, -1, 0])


def constrained(kind: str = "rnn", dtype: Any = np.float32) -> Any:
    layer = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}[kind](3, H, dtype=dtype, rng=0)
    return layer.constrain("weight_hh_l0", mask=SPARSE, sign=SIGN)


def holds(w: np.ndarray) -> bool:
    """Whether every gate of W_hh obeys SPARSE and SIGN, and has something left of both signs."""
    gates = w.reshape(-1, H, H)
    obeys = not gates[:, ~SPARSE].any() and (gates * SIGN >= 0).all()
    return bool(obeys and (gates[..., :3] > 0).any() and (gates[..., 3:5] < 0).any())


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, 0.5),
        lambda p: optim.SGD(p, 0.5, momentum=0.9),
        lambda p: optim.Adam(p, 0.1),
        lambda p: optim.AdamW(p, 0.1),
        lambda p: optim.RMSprop(p, 0.1),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_optimisers_keep_them(kind: str, dtype: Any, make: Callable[[Any], Any]) -> None:
    layer = constrained(kind, dtype)
    free = {name: a.copy() for name, a in layer.params.items()}
    optimiser = make([layer])
    rng = np.random.default_rng(1)
    for _ in range(5):
        optimiser.step([rng.standard_normal(layer.flat.shape).astype(dtype)])
        assert holds(layer.params["weight_hh_l0"])
    assert all((layer.params[name] != a).all() for name, a in free.items() if name != "weight_hh_l0")


CHANGES: list[tuple[str, Callable[[Any, Any], object]]] = [
    ("xavier", lambda layer, path: init.xavier(layer, 1)),
    ("orthogonal", lambda layer, path: init.orthogonal(layer, 1)),
    ("torch_uniform", lambda layer, path: init.torch_uniform(layer, 1)),
    ("of one array", lambda layer, path: init.xavier(layer.params["weight_hh_l0"], 1)),
    ("load_state_dict", lambda layer, path: layer.load_state_dict(fastrnn.RNN(3, H, rng=2).state_dict())),
    ("flat", lambda layer, path: setattr(layer, "flat", fastrnn.RNN(3, H, rng=2).flat)),
    (
        "params",
        lambda layer, path: layer.params.update(weight_hh_l0=fastrnn.RNN(3, H, rng=2).params["weight_hh_l0"]),
    ),
    ("a file", lambda layer, path: io.restore(path, {"rnn": layer})),
    ("a chain", lambda layer, path: nn.Sequential({"rnn": layer}).load_state_dict(
        {f"rnn.{k}": a for k, a in fastrnn.RNN(3, H, rng=2).state_dict().items()}
    )),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[name for name, _ in CHANGES])
def test_changes_keep_them(name: str, change: Callable[[Any, Any], object], tmp_path: Any) -> None:
    path = tmp_path / "weights.npz"
    io.save(path, {"rnn": fastrnn.RNN(3, H, rng=2)})
    layer = constrained()
    before = layer.params["weight_hh_l0"].copy()
    change(layer, path)
    after = layer.params["weight_hh_l0"]
    assert holds(after)
    assert not np.array_equal(before, after)


def test_copies_and_pickles_keep_them() -> None:
    layer = constrained()
    chain = nn.Sequential({"rnn": constrained()})
    found = [copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    found.append(pickle.loads(pickle.dumps(chain))["rnn"])
    for other in found:
        optim.SGD([other], 1.0).step([np.random.default_rng(0).standard_normal(other.flat.shape).astype("f")])
        assert holds(other.params["weight_hh_l0"])
    layer.constrain("weight_hh_l0")
    assert copy.copy(layer)._constraints == {}


def test_they_can_be_lifted_and_replaced() -> None:
    layer = constrained()
    layer.constrain("weight_ih_l0", sign=np.ones((H, 1), int))
    layer.constrain("weight_hh_l0", mask=~np.eye(H, dtype=bool))
    layer.flat = np.full_like(layer.flat, -1.0)
    w = layer.params["weight_hh_l0"]
    np.testing.assert_array_equal(w, np.eye(H) - 1)
    assert not layer.params["weight_ih_l0"].any()
    layer.constrain("weight_hh_l0")
    layer.flat = np.full_like(layer.flat, -1.0)
    assert (layer.params["weight_hh_l0"] == -1).all()
    assert not layer.params["weight_ih_l0"].any()


def test_numbers_written_into_an_array_are_seen_at_the_next_assignment() -> None:
    layer = constrained()
    layer.flat[...] = 1
    assert not holds(layer.params["weight_hh_l0"])
    layer.params["weight_hh_l0"] *= 1
    gates = layer.params["weight_hh_l0"]
    assert not gates[~SPARSE].any()
    assert not gates[:, 3:5].any()


def test_a_training_loop_learns_within_them() -> None:
    layer, head = constrained(), nn.Linear(H, 1, rng=1)
    adam = optim.Adam([layer, head], 0.02)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(150):
        x = rng.standard_normal((8, 16, 3)).astype(np.float32)
        y, _, tape = layer.forward(x)
        out, tape_head = head.forward(y[-1])
        error = out[:, 0] - x[-2:, :, 0].sum(axis=0)
        losses.append(float((error**2).mean()))
        g_head = head.backward(tape_head, (2 * error / 16)[:, None])
        adam.step([layer.backward(tape, dy_last=g_head.x), g_head], clip_norm=1.0)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert holds(layer.params["weight_hh_l0"])


def test_a_tape_from_before_is_refused() -> None:
    layer = fastrnn.RNN(3, H, rng=0)
    y, _, tape = layer.forward(np.ones((2, 1, 3), np.float32))
    layer.constrain("weight_hh_l0", mask=SPARSE)
    with pytest.raises(ValueError, match="they were changed since by constrain"):
        layer.backward(tape, y)


def test_cells_and_modules() -> None:
    cell = fastrnn.GRUCell(3, H, rng=0).constrain("weight_hh", mask=SPARSE, sign=SIGN)
    for other in (cell, pickle.loads(pickle.dumps(cell))):
        optim.SGD([other], 1.0).step([np.random.default_rng(0).standard_normal(other.flat.shape).astype("f")])
        assert holds(other.params["weight_hh"])
    head = nn.Linear(2, 3, rng=0).constrain("weight", sign=np.ones((3, 2)))
    optim.SGD([head], 10.0).step([np.ones_like(head.flat)])
    assert not head.params["weight"].any()
    assert (head.params["bias"] < 0).all()


def test_a_nan_stays_and_infinities_do_not_warn() -> None:
    layer = fastrnn.RNN(1, 2, rng=0).constrain("weight_hh_l0", sign=[1, 0])
    layer.params["weight_hh_l0"] = np.array([[np.nan, np.inf], [-np.inf, -np.inf]])
    w = layer.params["weight_hh_l0"]
    assert np.isnan(w[0, 0])
    assert w[1, 0] == 0
    assert np.isinf(w[:, 1]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("weight_hh_l1", {"mask": SPARSE}), ValueError, "name: expected one of weight_ih_l0, weight_hh_l0"),
        (("weight_hh_l0", {"mask": SPARSE * 1.0}), TypeError, "mask: expected an array of bool, got float64"),
        (("weight_hh_l0", {"mask": SPARSE[:2]}), ValueError, r"mask: expected a shape .* got \(2, 6\)"),
        (("weight_hh_l0", {"sign": [1, 2, 1, 1, 1, 1]}), ValueError, r"sign: expected .* got one with \[2\]"),
        (("weight_hh_l0", {"sign": SPARSE}), TypeError, "sign: expected an array of -1, 0 and 1, got bool"),
        (("weight_hh_l0", {"sign": [1, -1]}), ValueError, r"\(18, 6\), or to \(6, 6\), that of a gate, got"),
    ],
)
def test_errors_change_nothing(arguments: Any, error: type[Exception], message: str) -> None:
    name, options = arguments
    layer = fastrnn.GRU(3, H, rng=0)
    before = layer.flat.copy()
    with pytest.raises(error, match=message):
        layer.constrain(name, **options)
    assert layer._constraints == {}
    assert (layer.flat == before).all()


def test_a_frozen_layer_is_refused() -> None:
    layer = fastrnn.GRU(3, H, rng=0).freeze()
    with pytest.raises(ValueError, match="constrain: the layer is frozen"):
        layer.constrain("weight_hh_l0", mask=SPARSE)
    frozen = constrained("gru").freeze()
    assert holds(pickle.loads(pickle.dumps(frozen)).unfreeze().params["weight_hh_l0"])
