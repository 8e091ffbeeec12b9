"""Modules and losses on a Ragged: as on its values, with the lengths kept; what has no gradient or does not count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits

import fastrnn
from fastrnn import losses, nn
from fastrnn.ragged import Ragged

LENGTHS = [3, 0, 2]
RNG = np.random.default_rng(0)
IDS = np.array([1, 2, 3, 4, 0])
X = RNG.standard_normal((5, 4)).astype(np.float32)


def ragged(values: Any) -> Ragged:
    return Ragged(values, LENGTHS)


def module_of(name: str) -> tuple[Any, Any, int]:
    return {
        "embedding": (lambda: nn.Embedding(5, 3, rng=0), IDS, 3),
        "linear": (lambda: nn.Linear(4, 3, activation="tanh", rng=0), X, 3),
        "dropout": (lambda: nn.Dropout(0.5, rng=0), X, 4),
        "no dropout": (lambda: nn.Dropout(0.0), X, 4),
    }[name]


@pytest.mark.parametrize("name", ["embedding", "linear", "dropout", "no dropout"])
def test_modules_take_a_ragged(name: str) -> None:
    make, x, width = module_of(name)
    dy = RNG.standard_normal((5, width)).astype(np.float32)
    plain = make()
    want, tape = plain.forward(x)
    want_g = plain.backward(tape, dy)
    for d in (ragged(dy), dy):
        module = make()
        y, tape = module.forward(ragged(x))
        assert isinstance(y, Ragged)
        assert y.lengths.tolist() == LENGTHS
        assert_same_bits(y.values, want)
        g = module.backward(tape, d)
        assert_same_bits(g.flat, want_g.flat)
        if want_g.x is None:
            assert g.x is None
        else:
            assert_same_bits(g.x.values, want_g.x)
            assert g.x.lengths.tolist() == LENGTHS
        assert isinstance(module(ragged(x)), Ragged)
        with pytest.raises(ValueError, match=r"^dy: expected sequences of the lengths that x had"):
            module.backward(tape, Ragged(dy, [5]))
        _, plain_tape = make().forward(x)
        with pytest.raises(TypeError, match=r"^dy: expected an array, as x was one, got a Ragged"):
            module.backward(plain_tape, ragged(dy))


def test_embedding_of_ids_in_a_column() -> None:
    embedding = nn.Embedding(5, 3, rng=0)
    assert_same_bits(embedding(ragged(IDS[:, None])).values, embedding(IDS))
    with pytest.raises(TypeError, match=r"^x: expected integers, got float32"):
        embedding(ragged(X[:, 0]))
    with pytest.raises(
        ValueError, match=r"^x: expected a Ragged of one integer a step, got one of 4 numbers"
    ):
        embedding(ragged(X))


def test_a_whole_network_of_ragged() -> None:
    """The gradients are those of the padded batch with its lengths."""
    net = nn.Sequential([nn.Embedding(5, 3, rng=0), fastrnn.GRU(3, 4, rng=0), nn.Linear(4, 2, rng=0)])
    ids, targets = ragged(IDS), ragged(np.array([0, 1, 1, 0, 1]))
    logits, _, tape = net.forward(ids)
    loss, d = losses.softmax_cross_entropy(logits, targets)
    g = net.backward(tape, d)
    mask = fastrnn.length_mask(LENGTHS)
    logits, _, tape = net.forward(ids.to_padded(), lengths=LENGTHS)
    want, d = losses.softmax_cross_entropy(logits, targets.to_padded(), mask)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    for a, b in zip(g.flats, net.backward(tape, d).flats, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


TARGET = RNG.standard_normal((5, 4)).astype(np.float32)
CLASSES = np.array([0, 1, 2, 3, 1])
LOSSES: dict[str, Any] = {
    "mse": (lambda x, t, w: losses.mse(x, t, w), TARGET),
    "huber": (lambda x, t, w: losses.huber(x, t, w), TARGET),
    "gaussian": (lambda x, t, w: losses.gaussian_nll(x, x, t, w), TARGET),
    "softmax": (lambda x, t, w: losses.softmax_cross_entropy(x, t, w), CLASSES),
    "ignore": (lambda x, t, w: losses.softmax_cross_entropy(x, t, w, ignore_index=1), CLASSES),
    "linear": (lambda x, t, w: fused(x, t, w), CLASSES),
}


def fused(x: Any, t: Any, w: Any) -> tuple[float, Any]:
    loss, g = losses.linear_softmax_cross_entropy(nn.Linear(4, 6, rng=0), x, t, w)
    assert g is not None
    return loss, g.x


def parts(gradient: Any) -> tuple[Any, ...]:
    return gradient if isinstance(gradient, tuple) else (gradient,)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_take_a_ragged(name: str, weighted: bool) -> None:
    call, target = LOSSES[name]
    w = np.array([1.0, 0, 2, 1, 3]) if weighted else None
    want, gradient = call(X, target, w)
    weights: list[Any] = [w] if w is None else [w, ragged(w), ragged(w[:, None])]
    targets = [target, ragged(target)] + ([ragged(target[:, None])] if target.ndim == 1 else [])
    for t in targets:
        for weight in weights:
            loss, g = call(ragged(X), t, weight)
            assert loss == want
            for got, d in zip(parts(g), parts(gradient), strict=True):
                assert isinstance(got, Ragged)
                assert got.lengths.tolist() == LENGTHS
                assert_same_bits(got.values, d)
    with pytest.raises(TypeError, match=r"^targets?: expected an array, as \w+ is one, got a Ragged"):
        call(X, ragged(target), None)
    with pytest.raises(ValueError, match=r"^targets?: expected sequences of the lengths of \w+, got other"):
        call(ragged(X), Ragged(target, [5]), None)


def test_log_softmax_takes_a_ragged() -> None:
    assert_same_bits(losses.log_softmax(ragged(X)).values, losses.log_softmax(X))


@pytest.mark.parametrize("weighted", [False, True])
def test_ignore_index_against_pytorch(weighted: bool) -> None:
    torch = pytest.importorskip("torch")
    targets = np.array([0, -100, 2, -100, 1])
    z = torch.from_numpy(X).requires_grad_()
    want = torch.nn.functional.cross_entropy(z, torch.from_numpy(targets), label_smoothing=0.1)
    want.backward()
    weights = np.ones(5) if weighted else None
    options: Any = {"ignore_index": -100, "label_smoothing": 0.1}
    loss, g = losses.softmax_cross_entropy(X, targets, weights, **options)
    np.testing.assert_allclose(loss, want.item(), rtol=1e-6)
    np.testing.assert_allclose(g, z.grad, rtol=1e-5, atol=1e-7)
    eye = nn.Linear(4, 4, bias=False)
    eye.params["weight"] = np.eye(4)
    loss, fused_g = losses.linear_softmax_cross_entropy(eye, X, targets, weights, **options)
    assert fused_g is not None
    np.testing.assert_allclose(loss, want.item(), rtol=1e-6)
    np.testing.assert_allclose(fused_g.x, z.grad, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match=r"^weights: expected shape \(5,\), got \(4,\)"):
        losses.softmax_cross_entropy(X, targets, np.ones(4), **options)
    with pytest.raises(TypeError, match=r"^ignore_index: expected an integer, got float"):
        losses.softmax_cross_entropy(X, targets, ignore_index=-100.0)  # type: ignore[arg-type]


def test_ignored_targets_are_as_those_of_weight_zero() -> None:
    weights = np.array([1.0, 2, 3, 4, 5])
    want = losses.softmax_cross_entropy(X, CLASSES, np.where(CLASSES == 1, 0, weights))
    got = losses.softmax_cross_entropy(X, CLASSES, weights, ignore_index=1)
    assert got[0] == want[0]
    assert_same_bits(got[1], want[1])


def test_fused_loss_without_dx() -> None:
    head = nn.Linear(4, 6, rng=0)
    _, want = losses.linear_softmax_cross_entropy(head, X, CLASSES)
    _, got = losses.linear_softmax_cross_entropy(head, X, CLASSES, need_dx=False)
    assert want is not None
    assert got is not None
    assert got.x is None
    assert_same_bits(got.flat, want.flat)
    y, tape = head.forward(X)
    assert_same_bits(head.backward(tape, y, need_dx=False).flat, head.backward(tape, y).flat)


@pytest.mark.parametrize("index", [0, 3, -1])
def test_padding_idx_as_in_pytorch(index: int) -> None:
    torch = pytest.importorskip("torch")
    embedding = nn.Embedding(5, 3, padding_idx=index, rng=0)
    assert not embedding.params["weight"][index].any()
    assert embedding.params["weight"].any(axis=1).sum() == 4
    other = torch.nn.Embedding(5, 3, padding_idx=index)
    other.load_state_dict({"weight": torch.from_numpy(embedding.params["weight"].copy())})
    assert embedding.padding_idx == other.padding_idx
    dy = RNG.standard_normal((5, 3)).astype(np.float32)
    (other(torch.from_numpy(IDS)) * torch.from_numpy(dy)).sum().backward()
    _, tape = embedding.forward(IDS)
    np.testing.assert_allclose(embedding.backward(tape, dy).params["weight"], other.weight.grad)
    for bad in (5, -6):
        with pytest.raises(ValueError, match=r"^padding_idx: expected"):
            nn.Embedding(5, 3, bad)


def test_what_is_no_array_is_named() -> None:
    masked = np.ma.masked_equal(X, X[0, 0])
    dropout, attention = nn.Dropout(0.5, rng=0), nn.DotAttention()
    _, tape = dropout.forward(X)
    layer = fastrnn.GRU(4, 4)
    grads = np.ma.masked_equal(layer.flat, layer.flat[0])
    calls: list[Any] = [
        lambda: nn.Linear(4, 2)(masked),
        lambda: nn.Linear(2, 2)([1.0, np.ma.masked]),
        lambda: dropout(masked),
        lambda: dropout.forward(masked),
        lambda: dropout.backward(tape, masked),
        lambda: losses.mse(masked, X),
        lambda: losses.mse(X, masked),
        lambda: losses.mse(X, X, masked > 0),
        lambda: losses.log_softmax(masked),
        lambda: nn.Embedding(5, 3)(np.ma.masked_equal(IDS, 0)),
        lambda: nn.Embedding(5, 3)([[np.ma.masked_equal(IDS, 0)]]),
        lambda: attention(masked[None], X[None]),
        lambda: fastrnn.optim.SGD([layer]).step([grads]),
        lambda: fastrnn.optim.SGD([grads]),
        lambda: fastrnn.optim.clip_grad_norm([grads], 1.0),
        lambda: fastrnn.init.xavier(np.ma.masked_equal(np.eye(3), 0)),
        lambda: layer.params.update(weight_hh_l0=np.ma.masked_equal(np.ones((12, 4)), 1)),
        lambda: layer.load_state_dict(
            layer.state_dict() | {"weight_hh_l0": np.ma.masked_equal(np.ones((12, 4)), 1)}
        ),
        lambda: Ragged.from_list([X, masked]),
        lambda: fastrnn.length_mask(np.ma.masked_equal([1, 2], 2)),
        lambda: layer.final_hidden_backward(masked),
        lambda: fastrnn.diagnostics.plot_hidden_states(masked, ax=object()),
        lambda: fastrnn.diagnostics.plot_gradient_flow(masked, ax=object()),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"expected an array without masked elements, got a masked array"):
            call()
    with pytest.raises(TypeError, match=r"^query: expected real floats, got Ragged"):
        attention(ragged(X), X)


def test_tensors_that_numpy_cannot_take() -> None:
    torch = pytest.importorskip("torch")
    leaf, half = torch.ones(5, 4, requires_grad=True), torch.ones(5, 4, dtype=torch.bfloat16)
    gru, linear = fastrnn.GRU(4, 4), nn.Linear(4, 2)
    _, _, tape = gru.forward(X)
    calls: list[tuple[str, Any]] = [
        ("x", gru),
        ("x", gru.forward),
        ("x", gru.stream(5).step),
        ("state", lambda x: gru(X, x)),
        ("dy", lambda x: gru.backward(tape, x)),
        ("dy_last", lambda x: gru.backward(tape, dy_last=x)),
        ("x", linear),
        ("logits", lambda x: losses.softmax_cross_entropy(x, IDS)),
        ("state_dict: weight", lambda x: linear.load_state_dict({"weight": x, "bias": X[0, :2]})),
        ("weight", lambda x: linear.params.update(weight=x)),
        ("a", lambda x: fastrnn.io.save("a.npz", {"a": x})),
        ("x", lambda x: next(fastrnn.chunks(x, 2))),
        ("x", lambda x: gru([x, x])),
    ]
    for name, call in calls:
        with pytest.raises(
            TypeError, match=rf"^{name}: expected .* that requires grad: detach\(\) it first$"
        ):
            call(leaf)
        with pytest.raises(TypeError, match=rf"^{name}: expected .* of bfloat16.*: make it float32 first$"):
            call(half)


def test_streams_are_not_pickled() -> None:
    import copy
    import pickle

    stream = fastrnn.GRU(4, 4).stream()
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^Stream: cannot be copied or pickled\. Keep the layer and"):
            call(stream)
