"""Linear layers, embeddings and dropout: finite differences in float64, PyTorch, bad calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient, numeric_gradient

from fastrnn.nn import Dropout, Embedding, Linear


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
    assert_gradient(g.x, numeric_gradient(lambda: float((piece(x) * dy).sum()), x))
    assert_gradient(g.flat, numeric_gradient(lambda: float((piece(x) * dy).sum()), piece.flat))
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
    assert_gradient(g.flat, numeric_gradient(lambda: float((piece(x) * dy).sum()), piece.flat))
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


def test_modules_against_pytorch() -> None:
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
            lambda: Linear(3, 2).backward((np.ones((4, 3)), None, 0), np.ones((5, 2))),
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
