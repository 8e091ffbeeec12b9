"""Losses: finite differences in float64, closed forms, PyTorch, bad calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient, numeric_gradient

from fastrnn import losses


@pytest.mark.parametrize("name", ["prediction", "target", "weights"])
def test_losses_refuse_masked_elements(name: str) -> None:
    hidden = np.ma.masked_array(np.zeros(2), mask=[True, False])
    arguments: dict[str, Any] = {"prediction": np.zeros(2), "target": np.zeros(2), "weights": None} | {
        name: hidden
    }
    with pytest.raises(TypeError, match=f"^{name}: expected an array without masked elements"):
        losses.mse(**arguments)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_softmax_cross_entropy_gradient(reduction: Any, weighted: bool, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4, 2, 5))
    t = rng.integers(0, 5, (4, 2))
    w = rng.uniform(0, 2, (4, 2)) * (rng.random((4, 2)) > 0.3) if weighted else None

    def f() -> float:
        return losses.softmax_cross_entropy(z, t, w, label_smoothing=smoothing, reduction=reduction)[0]

    g = losses.softmax_cross_entropy(z, t, w, label_smoothing=smoothing, reduction=reduction)[1]
    assert_gradient(g, numeric_gradient(f, z))


def test_softmax_cross_entropy_closed_forms() -> None:
    loss, g = losses.softmax_cross_entropy(np.zeros((3, 8), np.float32), [0, 1, 2])
    assert loss == pytest.approx(np.log(8))
    assert g.dtype == np.float32
    np.testing.assert_allclose(g.sum(axis=1), 0, atol=1e-7)
    loss, g = losses.softmax_cross_entropy(np.array([[1e30, 0], [-1e30, 0]], np.float32), [0, 0])
    assert loss == pytest.approx(5e29)
    np.testing.assert_allclose(g, [[0, 0], [-0.5, 0.5]])
    assert losses.softmax_cross_entropy(np.zeros((0, 3)), np.zeros(0, int))[0] == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy_zero_weight_counts_nothing(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((3, 4)), np.array([1, -100, 2])
    w = np.array([1, 0, 1])
    expected, g = losses.softmax_cross_entropy(z[[0, 2]], t[[0, 2]], label_smoothing=smoothing)
    z[1] = [np.nan, np.inf, 0, -np.inf]
    loss, dz = losses.softmax_cross_entropy(z, t, w, label_smoothing=smoothing)
    assert loss == pytest.approx(expected)
    np.testing.assert_allclose(dz[[0, 2]], g)
    np.testing.assert_array_equal(dz[1], 0)
    loss, dz = losses.softmax_cross_entropy(z, t, np.zeros(3))
    assert (loss, float(np.abs(dz).sum())) == (0, 0)


@pytest.mark.parametrize("name", ["mse", "huber", "gaussian_nll"])
def test_gradients_have_the_dtype_of_their_arguments(name: str) -> None:
    y, other = np.ones(2, np.float32), np.zeros(2)
    options = {"delta": np.float64(1)} if name == "huber" else {}
    for a, b in ((y, other), (other, y)):
        args = (a, b) if name == "gaussian_nll" else (a,)
        for weights in (None, [0.5, 2.0]):
            _, g = getattr(losses, name)(*args, other, weights, **options)
            gradients = g if name == "gaussian_nll" else (g,)
            assert [d.dtype for d in gradients] == [x.dtype for x in args]


@pytest.mark.parametrize("weighted", [None, "element", "step"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", ["mse", "huber", "gaussian_nll"])
def test_regression_gradients(name: str, reduction: Any, weighted: str | None) -> None:
    rng = np.random.default_rng(0)
    y, v, t = rng.standard_normal((3, 5, 2, 3))
    w = None if weighted is None else rng.integers(0, 3, y.shape if weighted == "element" else y.shape[:-1])
    args = (y, v) if name == "gaussian_nll" else (y,)
    options = {"delta": 0.7} if name == "huber" else {}

    def f() -> Any:
        return getattr(losses, name)(*args, t, w, reduction=reduction, **options)

    gradients = f()[1] if name == "gaussian_nll" else (f()[1],)
    for g, x in zip(gradients, args, strict=True):
        assert_gradient(g, numeric_gradient(lambda: f()[0], x))
    if w is not None:
        before = f()[0]
        for x in (*args, t):
            x[w == 0] = np.nan
        assert f()[0] == before


def test_losses_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    y, v, t = rng.standard_normal((3, 6, 4)).astype(np.float32)
    ids = rng.integers(0, 4, 6)
    functional = torch.nn.functional
    peers = {
        "softmax_cross_entropy": lambda a: functional.cross_entropy(
            a, torch.from_numpy(ids), label_smoothing=0.1
        ),
        "mse": lambda a: functional.mse_loss(a, torch.from_numpy(t)),
        "huber": lambda a: functional.huber_loss(a, torch.from_numpy(t), delta=0.5),
        "gaussian_nll": lambda a: functional.gaussian_nll_loss(
            a, torch.from_numpy(t), torch.from_numpy(np.exp(v)), full=True
        ),
    }
    got = {
        "softmax_cross_entropy": losses.softmax_cross_entropy(y, ids, label_smoothing=0.1),
        "mse": losses.mse(y, t),
        "huber": losses.huber(y, t, delta=0.5),
        "gaussian_nll": losses.gaussian_nll(y, v, t),
    }
    for name, peer in peers.items():
        a = torch.from_numpy(y.copy()).requires_grad_()
        expected = peer(a)
        expected.backward()
        loss, g = got[name]
        g = g[0] if isinstance(g, tuple) else g
        assert loss == pytest.approx(expected.item(), rel=1e-5), name
        np.testing.assert_allclose(g, a.grad.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_log_softmax() -> None:
    z = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_allclose(losses.log_softmax(z), np.log(np.exp(z) / np.exp(z).sum(-1, keepdims=True)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: losses.softmax_cross_entropy([[1]], [0]),
            TypeError,
            "logits: expected real floats, got int64",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((2, 3)), [0.5, 1]),
            TypeError,
            "targets: expected integers",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((2, 3)), [0]),
            ValueError,
            r"targets: expected shape \(2,\)",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((1, 3)), [3]),
            ValueError,
            "expected 0 <= target < 3, got 3",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((1, 3)), [-1]),
            ValueError,
            "expected 0 <= target < 3, got -1",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((1, 3)), [0], [-1.0]),
            ValueError,
            "weights: expected no neg",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((1, 3)), [0], [1, 1]),
            ValueError,
            r"weights: expected shape",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.zeros((2, 2, 3)), np.zeros((2, 2), int), [1, 0]),
            ValueError,
            r"weights: expected shape \(2, 2\), got \(2,\)",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((1, 3)), [0], [np.inf]),
            ValueError,
            "weights: expected no negative weight, NaN or infinity, got inf",
        ),
        (
            lambda: losses.mse(np.ones((2, 3)), np.ones((2, 3)), [1, 2, 3]),
            ValueError,
            r"weights: expected shape \(2, 3\) or \(2,\), got \(3,\)",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((1, 3)), [0], label_smoothing=2),
            ValueError,
            "label_smoothing",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.ones((1, 3)), [0], label_smoothing="a"),
            TypeError,
            "label_smoothing: expected a number, got str",
        ),
        (
            lambda: losses.log_softmax(np.ones((2, 0))),
            ValueError,
            r"logits: expected shape \[..., C\] with C >= 1, got \(2, 0\)",
        ),
        (lambda: losses.huber([1.0], [1.0], delta="1"), TypeError, "delta: expected a number, got str"),
        (lambda: losses.mse([1.0], [1.0, 2.0]), ValueError, r"target: expected shape \(1,\), got \(2,\)"),
        (
            lambda: losses.mse([1.0], [1.0], reduction="max"),
            ValueError,
            "reduction: expected 'mean' or 'sum'",
        ),
        (lambda: losses.huber([1.0], [1.0], delta=0), ValueError, "delta: expected more than 0, got 0"),
        (
            lambda: losses.gaussian_nll([1.0], [1.0, 2.0], [1.0]),
            ValueError,
            r"log_variance: expected shape \(1,\)",
        ),
    ],
)
def test_bad_losses(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
