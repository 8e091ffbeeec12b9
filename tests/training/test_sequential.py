"""A chain of modules: forward in order, backward in reverse, with optimisers, files and state."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits

import fastrnn
from fastrnn import losses, nn, optim

IDS = np.array([[1, 2], [3, 4], [0, 2], [4, 4]])  # [T, B]


def tagger(dtype: Any = np.float32, **options: Any) -> nn.Sequential:
    width = 8 if options.get("bidirectional") else 4
    return nn.Sequential(
        {
            "embedding": nn.Embedding(5, 3, rng=0, dtype=dtype),
            "lstm": fastrnn.LSTM(3, 4, rng=0, dtype=dtype, **options),
            "gru": fastrnn.GRU(width, 3, rng=1, dtype=dtype),
            "head": nn.Linear(3, 2, activation="tanh", rng=0, dtype=dtype),
        }
    )


def classifier(dtype: Any = np.float32) -> nn.Sequential:
    return nn.Sequential(
        {
            "embedding": nn.Embedding(5, 3, rng=0, dtype=dtype),
            "lstm": fastrnn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0, dtype=dtype),
            "last": nn.Last(),
            "head": nn.Linear(8, 2, rng=0, dtype=dtype),
        }
    )


def test_the_chain_is_its_modules() -> None:
    net = tagger(bidirectional=True)
    embedding, lstm, gru, head = net
    y, states, tape = net.forward(IDS, lengths=[4, 2])
    e, tape_e = embedding.forward(IDS)
    h, s_lstm, tape_h = lstm.forward(e, lengths=[4, 2])
    k, s_gru, tape_k = gru.forward(h, lengths=[4, 2])
    want, tape_y = head.forward(k)
    assert_same_bits(y, want)
    assert_same_bits(states["lstm"], s_lstm)
    assert_same_bits(states["gru"], s_gru)
    assert_same_bits(net(IDS, lengths=[4, 2])[0], want)
    g = net.backward(tape, np.ones_like(y))
    g_head = head.backward(tape_y, np.ones_like(y))
    g_gru = gru.backward(tape_k, g_head.x)
    g_lstm = lstm.backward(tape_h, g_gru.x)
    g_embedding = embedding.backward(tape_e, g_lstm.x)
    for a, b in zip(g.flats, (g_embedding, g_lstm, g_gru, g_head), strict=True):
        assert_same_bits(a, b.flat)
    assert g.x is None
    assert_same_bits(g.states["lstm"], g_lstm.state)
    assert list(g.params) == list(net.params)
    assert_same_bits(g.params["gru.weight_hh_l0"], g_gru.params["weight_hh_l0"])


@pytest.mark.parametrize("make", [tagger, classifier])
def test_gradients_against_differences(make: Any) -> None:
    net = make(np.float64)
    y, states, tape = net.forward(IDS, lengths=[4, 2])
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(y.shape)
    dstate = tuple(rng.standard_normal(s.shape) for s in states["lstm"])

    def loss() -> float:
        y, states = net(IDS, lengths=[4, 2])
        total = (y * direction).sum() + sum(
            (a * b).sum() for a, b in zip(states["lstm"], dstate, strict=True)
        )
        return float(total)

    g = net.backward(tape, direction, {"lstm": dstate})
    for name, p in net.params.items():
        flat = p.reshape(-1)
        for i in range(0, flat.size, 7):
            old = flat[i]
            flat[i] = old + 1e-6
            above = loss()
            flat[i] = old - 1e-6
            below = loss()
            flat[i] = old
            want = (above - below) / 2e-6
            np.testing.assert_allclose(
                g.params[name].reshape(-1)[i], want, rtol=1e-5, atol=1e-8, err_msg=name
            )


def test_states_are_carried_over_chunks() -> None:
    net = tagger()
    want, want_states = net(IDS)
    states, pieces = None, []
    for chunk, _ in fastrnn.chunks(IDS, 3):
        y, states = net(chunk, states)
        pieces.append(y)
    assert states is not None
    assert_same_bits(np.concatenate(pieces), want)
    assert_same_bits(states["lstm"], want_states["lstm"])
    reset = np.zeros(IDS.shape, bool)
    reset[2] = True
    assert_same_bits(net(IDS, reset=reset)[0][2:], net(IDS[2:])[0])


def test_the_final_state_of_a_ragged() -> None:
    net = classifier()
    ids = fastrnn.Ragged(np.array([1, 2, 3, 4, 0]), [3, 2])
    y, _, tape = net.forward(ids)
    assert y.shape == (2, 2)
    assert_same_bits(y, net(ids.to_padded(), lengths=[3, 2])[0])
    assert net.backward(tape, np.ones_like(y)).modules["lstm"].flat.any()


@pytest.mark.parametrize("optimiser", [optim.SGD, optim.Adam])
def test_optimisers_take_a_chain(optimiser: Any) -> None:
    net, other = classifier(), classifier()
    a, b = optimiser([net], lr=0.05), optimiser(list(other), lr=0.05)
    for _ in range(3):
        for chain, opt in ((net, a), (other, b)):
            y, _, tape = chain.forward(IDS)
            _, d = losses.softmax_cross_entropy(y, [0, 1])
            g = chain.backward(tape, d)
            opt.step([g] if chain is net else list(g.modules.values()), clip_norm=1.0)
    for one, two in zip(net.flats, other.flats, strict=True):
        assert_same_bits(one, two)
    y, _, tape = net.forward(IDS)
    g = net.backward(tape, np.ones_like(y))
    before = [flat.copy() for flat in g.flats]
    norm = optim.clip_grad_norm([g], 1e-3)
    assert norm > 1e-3
    np.testing.assert_allclose(g.flats[1], before[1] * 1e-3 / norm, rtol=1e-5)
    y, _, tape = net.forward(IDS)
    a.step([g])
    with pytest.raises(ValueError, match="changed since by an optimiser's step"):
        net.backward(tape, np.ones_like(y))


def test_without_dx() -> None:
    net = nn.Sequential([fastrnn.GRU(3, 4, rng=0), nn.Dropout(0.5, rng=0), nn.Linear(4, 2, rng=0)])
    x = np.ones((5, 2, 3), np.float32)
    y, _, tape = net.forward(x)
    assert list(net.modules) == ["0", "1", "2"]
    assert net.backward(tape, y, need_dx=False).x is None
    y, _, tape = net.forward(x)
    assert net.backward(tape, y).x.shape == x.shape
    assert_same_bits(net(x)[0], net(x)[0])  # no dropout in inference


def test_a_chain_that_ends_in_a_layer() -> None:
    net = nn.Sequential({"embedding": nn.Embedding(5, 3, rng=0), "gru": fastrnn.GRU(3, 4, rng=0)})
    _, states, tape = net.forward(IDS)
    g = net.backward(tape, None, {"gru": np.ones_like(states["gru"])})
    assert g.modules["embedding"].flat.any()


def test_copies_and_weights() -> None:
    net = classifier()
    adam = optim.Adam([net])
    for other, opt in (copy.deepcopy((net, adam)), pickle.loads(pickle.dumps((net, adam)))):
        opt.step([np.ones_like(flat) for flat in other.flats])
        assert (other.flats[1] != net.flats[1]).any()
        assert_same_bits(net(IDS)[0], classifier()(IDS)[0])
    other = classifier()
    for flat in other.flats:
        flat[...] = 0
    state = {f"model.{name}": a for name, a in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"all begin with 'model\.': prefix='model\.'"):
        other.load_state_dict(state)
    other["head"].flat.flags.writeable = True
    other.load_state_dict(state, prefix="model.")
    assert_same_bits(other(IDS)[0], net(IDS)[0])
    other["lstm"].freeze()
    with pytest.raises(ValueError, match="load_state_dict: the layer is frozen"):
        other.load_state_dict(net.state_dict())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Sequential({}), ValueError, "modules: expected at least one module, got none"),
        (lambda: nn.Sequential(nn.Linear(2, 3)), TypeError, "modules: expected a dict or list of modules"),  # type: ignore[arg-type]
        (lambda: nn.Sequential({"a.b": nn.Linear(2, 3)}), ValueError, "modules: expected names that are str"),
        (
            lambda: nn.Sequential([3]),
            TypeError,
            "modules: 0: expected a recurrent layer or a module, got int",
        ),
        (
            lambda: nn.Sequential([nn.DotAttention()]),
            TypeError,
            "modules: 0: expected a recurrent layer or a",
        ),
        (lambda: nn.Sequential([fastrnn.GRUCell(2, 3)]), TypeError, "modules: 0: expected a recurrent layer"),
        (
            lambda: nn.Sequential([nn.Last()]),
            ValueError,
            "modules: 0: expected a recurrent layer before Last",
        ),
        (lambda: nn.Sequential([m := nn.Dropout(), m]), ValueError, "modules: expected every module once"),
        (lambda: nn.Last()(np.ones(3)), TypeError, "Last: expected to stand behind a recurrent layer"),
        (
            lambda: tagger()(IDS, {"head": 1}),
            ValueError,
            r"states: expected names of recurrent layers, got \['head'\]",
        ),
        (lambda: tagger()(IDS, [1]), TypeError, "states: expected a dict of states, got list"),  # type: ignore[arg-type]
        (lambda: tagger().backward(3, IDS), TypeError, "tape: expected a tape of forward, got int"),  # type: ignore[arg-type]
        (
            lambda: tagger().backward(tagger().forward(IDS)[2]),
            TypeError,
            "dy: expected the gradient of y, got None",
        ),
        (
            lambda: classifier().backward(tagger().forward(IDS)[2], np.ones((2, 2))),
            ValueError,
            "tape: expected a tape of these modules",
        ),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=r"^" + message):
        call()


def test_repr() -> None:
    net = nn.Sequential([fastrnn.GRU(3, 4), nn.Last(), nn.Linear(4, 2)])
    assert repr(net) == "Sequential(0=GRU(3, 4), 1=Last(), 2=Linear(4, 2))"
    y, _, tape = net.forward(np.ones((5, 2, 3), np.float32))
    assert repr(tape) == "ChainTape(0, 2)"
    assert repr(net.backward(tape, y)) == "ChainGradients(0, 1, 2, sizes=[108, 0, 10])"
