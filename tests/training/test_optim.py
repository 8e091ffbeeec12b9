"""Optimisers against PyTorch and their equations, schedules, clipping, resuming."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import optim
from fastrnn.nn import Linear

PEERS: list[tuple[Any, str, dict[str, Any]]] = [
    (optim.SGD, "SGD", {"lr": 0.1}),
    (optim.SGD, "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    (optim.SGD, "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.Adam, "Adam", {"lr": 0.01}),
    (optim.Adam, "Adam", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.AdamW, "AdamW", {"lr": 0.01, "weight_decay": 0.3}),
    (optim.RMSprop, "RMSprop", {"lr": 0.01}),
    (optim.RMSprop, "RMSprop", {"lr": 0.01, "alpha": 0.5, "momentum": 0.8, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("ours", "name", "options"), PEERS)
def test_against_pytorch(ours: Any, name: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(n) for n in (23, 5)]
    peers = [torch.from_numpy(p.copy()).requires_grad_() for p in params]
    optimiser, peer = ours(params, **options), getattr(torch.optim, name)(peers, **options)
    for _ in range(100):
        grads = [rng.standard_normal(p.size) for p in params]
        for q, g in zip(peers, grads, strict=True):
            q.grad = torch.from_numpy(g.copy())
        before = [g.copy() for g in grads]
        optimiser.step(grads)
        peer.step()
        np.testing.assert_array_equal(np.concatenate(grads), np.concatenate(before))
    for p, q in zip(params, peers, strict=True):
        np.testing.assert_allclose(p, q.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize(("ours", "name", "options"), PEERS)
def test_resumes_bitwise(ours: Any, name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal(33).astype(np.float32)
    grads = rng.standard_normal((150, 33)).astype(np.float32)
    options = options | {"lr": optim.cosine(0.1, 150, warmup=10)}
    whole, cut = start.copy(), start.copy()
    a, b = ours([whole], **options), ours([cut], **options)
    for g in grads:
        a.step([g])
    for g in grads[:70]:
        b.step([g])
    c = ours([cut], **options)
    c.load_state_dict(b.state_dict())
    for g in grads[70:]:
        c.step([g])
    np.testing.assert_array_equal(whole, cut)


@pytest.mark.parametrize("ours", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop])
def test_trains(ours: Any) -> None:
    p = np.array([3.0, -2.0])
    optimiser = ours([p], lr=0.05)
    for _ in range(500):
        optimiser.step([2 * p])
    assert abs(p).max() < 0.1


def test_takes_modules_and_their_gradients() -> None:
    piece = Linear(2, 2, rng=0)
    before = piece.flat.copy()
    g = piece.backward(piece.forward(np.ones((1, 2)))[1], np.ones((1, 2)))
    optim.SGD([piece], lr=1.0).step([g])
    np.testing.assert_array_equal(piece.flat, before - g.flat)


def test_moments_never_stay_subnormal() -> None:
    p, g = np.ones(4, np.float32), np.ones(4, np.float32)
    optimiser = optim.Adam([p])
    optimiser.step([g])
    for _ in range(1200):
        optimiser.step([0 * g])
    assert optimiser.state_dict()["m.0"].max() == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-8, 1e-16, 1e-18])
@pytest.mark.parametrize("eps", [1e-8, 1e-16, 0.0])
@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_flushed_moments_are_not_missed(name: str, eps: float, scale: float, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    p = np.zeros(5, dtype)
    q = torch.from_numpy(p.copy()).requires_grad_()
    optimiser, peer = getattr(optim, name)([p], 1.0, eps=eps), getattr(torch.optim, name)([q], 1.0, eps=eps)
    for step in range(300):
        g = (rng.standard_normal(5) * scale * (step < 200)).astype(dtype)  # then the moments decay
        optimiser.step([g])
        q.grad = torch.from_numpy(g)
        peer.step()
    np.testing.assert_allclose(p, q.detach().numpy(), rtol=1e-4 if dtype == np.float32 else 1e-9)


def test_moments_below_any_effect_are_flushed() -> None:
    p = np.ones(1, np.float32)
    for eps, flushed in ((1e-8, True), (0.0, False)):
        optimiser = optim.Adam([p], eps=eps)
        for _ in range(64):
            optimiser.step([np.full(1, 1e-15, np.float32)])
        assert (optimiser.state_dict()["v.0"] == 0) == flushed
        assert optimiser.state_dict()["m.0"] > 0


def test_schedules() -> None:
    s = optim.cosine(2.0, 10, warmup=4, floor=0.5)
    assert [s(t) for t in (0, 3, 4, 7, 10, 99)] == pytest.approx([0.5, 2.0, 2.0, 1.25, 0.5, 0.5])
    s = optim.linear(2.0, 10, warmup=4, floor=0.5)
    assert [s(t) for t in (0, 3, 4, 7, 10, 99)] == pytest.approx([0.5, 2.0, 2.0, 1.25, 0.5, 0.5])
    assert optim.exponential(1.0, 0.5, every=2)(4) == 0.25
    assert [optim.step_decay(1.0, 0.1, every=3)(t) for t in (2, 3)] == pytest.approx([1.0, 0.1])
    p = np.zeros(1)
    optimiser = optim.SGD([p], lr=lambda step: float(step))
    for _ in range(3):
        optimiser.step([np.ones(1)])
    assert p[0] == -(0 + 1 + 2)


def test_clip_grad_norm() -> None:
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(n).astype(np.float32) for n in (100_000, 3)]
    expected = float(np.linalg.norm(np.concatenate(grads).astype(np.float64)))
    before = [g.copy() for g in grads]
    assert optim.clip_grad_norm(grads, 1e9) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(grads[0], before[0])
    assert optim.clip_grad_norm(grads, 2.0) == pytest.approx(expected, rel=1e-6)
    assert optim.clip_grad_norm(grads, 2.0) == pytest.approx(2.0, rel=1e-6)
    np.testing.assert_allclose(grads[1], before[1] * (2 / expected), rtol=1e-5)


def test_clip_grad_norm_beyond_the_range_of_squares() -> None:
    g = np.full(4, 1e30, np.float32)
    assert optim.clip_grad_norm([g], 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(g, 0.5, rtol=1e-6)
    for bad in (np.nan, np.inf):
        g = np.array([1.0, bad])
        assert not np.isfinite(optim.clip_grad_norm([g], 0.5))
        np.testing.assert_array_equal(g, [1.0, bad])


def test_clip_grad_value() -> None:
    g = [np.array([-5.0, 0.5]), np.array([5.0])]
    optim.clip_grad_value(g, 1.0)
    np.testing.assert_array_equal(np.concatenate(g), [-1, 0.5, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: optim.Adam(np.ones(3)),
            TypeError,
            "params: expected a list of flat arrays or of layers, got ndarray",
        ),
        (
            lambda: optim.Adam([np.ones((2, 2))]),
            TypeError,
            "params: expected one-dimensional arrays of floats",
        ),
        (
            lambda: optim.Adam([[1.0]]),
            TypeError,
            r"params\[0\]: expected a layer, its gradients or a flat array of floats, got list",
        ),
        (lambda: optim.Adam([np.ones(3)], lr=-1), ValueError, "lr: expected a number of at least 0, got -1"),
        (
            lambda: optim.Adam([np.ones(3)], betas=(1.0, 0.9)),
            ValueError,
            r"betas\[0\]: expected 0 <= betas\[0\] < 1",
        ),
        (
            lambda: optim.SGD([np.ones(3)], momentum=1),
            ValueError,
            "momentum: expected 0 <= momentum < 1, got 1",
        ),
        (lambda: optim.SGD([np.ones(3)], weight_decay=np.nan), ValueError, "weight_decay: expected a number"),
        (
            lambda: optim.SGD([np.ones(3)]).step([np.ones(2)]),
            ValueError,
            r"grads: expected flat arrays of sizes \[3\]",
        ),
        (
            lambda: optim.SGD([np.ones(3)]).step([]),
            ValueError,
            r"grads: expected flat arrays of sizes \[3\], got \[\]",
        ),
        (
            lambda: optim.Adam([np.ones(3)]).load_state_dict({}),
            ValueError,
            "missing steps; missing m.0; missing v.0",
        ),
        (lambda: optim.Adam([np.ones(3)], lr="a"), TypeError, "lr: expected a number, got str"),
        (lambda: optim.SGD([np.ones(3)], lr=None), TypeError, "lr: expected a number, got NoneType"),
        (lambda: optim.SGD([np.ones(3)], momentum="0"), TypeError, "momentum: expected a number, got str"),
        (lambda: optim.RMSprop([np.ones(3)], eps=True), TypeError, "eps: expected a number, got bool"),
        (
            lambda: optim.Adam([np.ones(3)], betas=0.9),
            TypeError,
            "betas: expected a pair of numbers, got float",
        ),
        (
            lambda: optim.Adam([np.ones(3)], betas=(0.9,)),
            ValueError,
            r"betas: expected a pair of numbers, got \(0.9,\)",
        ),
        (
            lambda: optim.Adam([np.ones(3)], betas=(0.9, "1")),
            TypeError,
            r"betas\[1\]: expected a number, got",
        ),
        (lambda: optim.cosine("1", 3), TypeError, "peak: expected a number, got str"),
        (lambda: optim.linear(1.0, -3), ValueError, "steps: expected a number of at least 0, got -3"),
        (lambda: optim.exponential(1.0, 0.5, every=0), ValueError, "every: expected more than 0, got 0"),
        (lambda: optim.step_decay(1.0, None, every=1), TypeError, "decay: expected a number, got NoneType"),
        (lambda: optim.clip_grad_norm([np.ones(3)], "1"), TypeError, "max_norm: expected a number, got str"),
        (lambda: optim.clip_grad_norm([np.ones(3)], 0), ValueError, "max_norm: expected more than 0, got 0"),
        (
            lambda: optim.clip_grad_value([np.ones(3)], -1),
            ValueError,
            "max_value: expected more than 0, got -1",
        ),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


READ_ONLY = (
    r": expected writeable arrays, got a read-only one at index 1 \(a frozen layer\? unfreeze\(\) it first\)"
)


def test_a_failed_step_changes_nothing() -> None:
    layers = [Linear(2, 2, rng=0), fastrnn.GRU(2, 2, rng=0)]
    optimiser = optim.Adam(layers, weight_decay=0.1)
    before = [layer.flat.copy() for layer in layers]
    grads = [np.ones_like(layer.flat) for layer in layers]
    layers[1].freeze()
    with pytest.raises(ValueError, match="params" + READ_ONLY):
        optimiser.step(grads)
    layers[1].unfreeze()
    for bad, error in ((lambda step: None, TypeError), (lambda step: np.nan, ValueError)):
        optimiser.lr = bad
        with pytest.raises(error, match="lr: expected a"):
            optimiser.step(grads)
    for layer, flat in zip(layers, before, strict=True):
        np.testing.assert_array_equal(layer.flat, flat)
    assert not any(array.any() for array in optimiser.state_dict().values())


def test_failed_clipping_changes_nothing() -> None:
    grads = [np.ones(3), np.ones(3)]
    grads[1].flags.writeable = False
    for clip in (optim.clip_grad_norm, optim.clip_grad_value):
        with pytest.raises(ValueError, match="grads" + READ_ONLY):
            clip(grads, 0.1)
    np.testing.assert_array_equal(grads[0], 1)


@pytest.mark.parametrize(
    ("steps", "message"),
    [(-1, "at least 0, got -1"), (2.7, "integers, got float64"), (np.nan, "integers, got float64")],
)
def test_steps_that_are_no_count_are_refused(steps: float, message: str) -> None:
    optimiser = optim.Adam([np.ones(3)])
    optimiser.step([np.ones(3)])
    before = optimiser.state_dict()
    state = {name: 2 * array for name, array in before.items()} | {"steps": np.array(steps)}
    with pytest.raises(ValueError, match=f"optimiser state: steps: expected {message}"):
        optimiser.load_state_dict(state)
    for name, array in optimiser.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
