"""Initialisation, pieces and losses: finite differences in float64, closed forms, PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import init, losses
from fastrnn.nn import Dropout, Embedding, Linear


def numerical(f: Any, x: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Central differences of the float `f()` with respect to `x`, which is changed in place and restored."""
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + eps
        up = f()
        x[i] = kept - eps
        out[i] = (up - f()) / (2 * eps)
        x[i] = kept
    return out


def assert_close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


# ---- pieces


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (0, 3)])
def test_linear_gradients(shape: tuple[int, ...], bias: bool) -> None:
    rng = np.random.default_rng(0)
    piece = Linear(3, 5, bias, dtype=np.float64, rng=rng)
    x = rng.standard_normal(shape)
    dy = rng.standard_normal((*shape[:-1], 5))
    y, tape = piece.forward(x)
    np.testing.assert_array_equal(y, piece(x))
    g = piece.backward(tape, dy)
    assert_close(g.x, numerical(lambda: float((piece(x) * dy).sum()), x))
    assert_close(g.flat, numerical(lambda: float((piece(x) * dy).sum()), piece.flat))
    assert set(g.params) == set(piece.params)
    assert all(np.shares_memory(a, g.flat) for a in g.params.values())


@pytest.mark.parametrize("shape", [(), (6,), (3, 2), (0, 2)])
def test_embedding_gradient(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    piece = Embedding(4, 3, dtype=np.float64, rng=rng)
    x = rng.integers(0, 4, shape)
    dy = rng.standard_normal((*shape, 3))
    y, tape = piece.forward(x)
    np.testing.assert_array_equal(y, piece.params["weight"][x])
    g = piece.backward(tape, dy)
    assert_close(g.flat, numerical(lambda: float((piece(x) * dy).sum()), piece.flat))
    assert g.x is None


def test_embedding_gradient_over_several_blocks() -> None:
    rng = np.random.default_rng(0)
    piece = Embedding(50, 64, rng=0)
    x = rng.integers(0, 50, 5000)
    dy = rng.standard_normal((5000, 64)).astype(np.float32)
    expected = np.zeros((50, 64))
    for i, d in zip(x, dy, strict=True):
        expected[i] += d
    np.testing.assert_allclose(piece.backward(piece.forward(x)[1], dy).params["weight"], expected, atol=1e-4)


def test_dropout() -> None:
    x = np.random.default_rng(1).standard_normal((100, 100)).astype(np.float32)
    piece = Dropout(0.25, rng=0)
    y, tape = piece.forward(x)
    again, _ = Dropout(0.25, rng=0).forward(x)
    np.testing.assert_array_equal(y, again)
    assert piece(x) is x
    kept = y != 0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(y[kept], x[kept] / 0.75, rtol=1e-6)
    np.testing.assert_array_equal(piece.backward(tape, np.ones_like(x)).x, kept / np.float32(0.75))
    y, tape = Dropout(0.0).forward(x)
    assert y is x
    assert piece.backward(tape, y).x is y


def test_pieces_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 11, (7, 3))
    embedding, linear = Embedding(11, 8, rng=1), Linear(8, 5, rng=2)
    peers = torch.nn.Embedding(11, 8), torch.nn.Linear(8, 5)
    for piece, peer in zip((embedding, linear), peers, strict=True):
        peer.load_state_dict({k: torch.from_numpy(v) for k, v in piece.state_dict().items()})
    e, tape_e = embedding.forward(ids)
    y, tape_y = linear.forward(e)
    expected = peers[1](peers[0](torch.from_numpy(ids)))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1.3e-6, atol=1e-5)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    expected.backward(torch.from_numpy(dy))
    g = linear.backward(tape_y, dy)
    ge = embedding.backward(tape_e, g.x)
    for got, peer in ((g, peers[1]), (ge, peers[0])):
        for name, p in peer.named_parameters():
            np.testing.assert_allclose(got.params[name], p.grad.numpy(), rtol=1.3e-6, atol=1e-5)


def test_state_dict_names_everything_wrong_and_changes_nothing() -> None:
    piece = Linear(3, 2, rng=0)
    before = piece.flat.copy()
    with pytest.raises(
        ValueError, match=r"missing bias; unexpected extra; weight: expected shape \(2, 3\), got \(3,"
    ):
        piece.load_state_dict({"weight": np.zeros((3, 2)), "extra": np.zeros(1)})
    np.testing.assert_array_equal(piece.flat, before)
    other = Linear(3, 2, rng=1)
    other.load_state_dict(piece.state_dict())
    np.testing.assert_array_equal(other.flat, before)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Linear(0, 3), ValueError, "in_features: expected at least 1, got 0"),
        (lambda: Linear(3, 2.5), TypeError, "out_features: expected an integer, got float"),
        (lambda: Linear(3, 2, dtype=np.int32), TypeError, "dtype: expected float32 or float64, got int32"),
        (lambda: Linear(3, 2)(np.ones((4, 2))), ValueError, r"x: expected shape \[..., 3\], got \(4, 2\)"),
        (lambda: Linear(3, 2)(np.ones(3, int)), TypeError, "x: expected real floats, got int64"),
        (
            lambda: Linear(3, 2).backward((np.ones((4, 3)), None), np.ones((5, 2))),
            ValueError,
            r"dy: expected shape \(4, 2\)",
        ),
        (lambda: Embedding(3, 0), ValueError, "embedding_dim: expected at least 1, got 0"),
        (lambda: Embedding(3, 2)([0.5]), TypeError, "x: expected integers, got float64"),
        (lambda: Embedding(3, 2)([0, 3]), ValueError, "x: expected 0 <= x < 3, got 0 to 3"),
        (lambda: Embedding(3, 2)([-1]), ValueError, "x: expected 0 <= x < 3, got -1 to -1"),
        (
            lambda: Embedding(3, 2).backward(np.ones(4, int), np.ones((3, 2))),
            ValueError,
            r"dy: expected shape \(4, 2\)",
        ),
        (lambda: Dropout(1.0), ValueError, "p: expected at least 0 and less than 1, got 1.0"),
        (lambda: Dropout(0.5).forward([1]), TypeError, "x: expected real floats, got int64"),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- losses


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
    assert_close(g, numerical(f, z))


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
        assert_close(g, numerical(lambda: f()[0], x))
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


# ---- initialisation


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
