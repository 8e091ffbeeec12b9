"""Every public object says what it is: its class and its main sizes."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import functional, losses, models, nn, optim, reference
from fastrnn._deprecated import renamed
from fastrnn.layers import Parameters

X = np.ones((5, 2, 3), np.float32)
PARAMS = {"weight_ih_l0": np.ones((4, 3), np.float32), "weight_hh_l0": np.eye(4, dtype=np.float32)}


def tape_of(layer: Any, x: Any) -> Any:
    return layer.forward(x)[2]


def gradients_of(layer: Any, x: Any) -> fastrnn.Gradients:
    y, _, tape = layer.forward(x)
    gradients: fastrnn.Gradients = layer.backward(tape, y)
    return gradients


def ragged() -> fastrnn.Ragged:
    return fastrnn.Ragged.from_list([X[:, 0], X[:2, 1]])


EXACT: list[tuple[Any, str]] = [
    (lambda: fastrnn.RNN(3, 4, nonlinearity="relu"), "RNN(3, 4, nonlinearity='relu')"),
    (lambda: fastrnn.LSTM(3, 4, 2, proj_size=2), "LSTM(3, 4, num_layers=2, proj_size=2)"),
    (lambda: fastrnn.GRU(3, 4, dtype=np.float64), "GRU(3, 4, dtype=np.float64)"),
    (lambda: fastrnn.RNNCell(3, 4, nonlinearity="relu"), "RNNCell(3, 4, nonlinearity='relu')"),
    (lambda: fastrnn.LSTMCell(3, 4, bias=False), "LSTMCell(3, 4, bias=False)"),
    (lambda: fastrnn.GRUCell(3, 4, reset_after=False), "GRUCell(3, 4, reset_after=False)"),
    (lambda: fastrnn.LSTM(3, 4).stream(2), "Stream(LSTM(3, 4), batch_size=2)"),
    (ragged, "Ragged(B=2, total=7, features=3, float32)"),
    (lambda: Parameters({"a": (2, 3)}, np.dtype(np.float32)), "Parameters(a (2, 3); float32)"),
    (
        lambda: gradients_of(fastrnn.LSTM(3, 4, bias=False), X),
        "Gradients(x=array(5, 2, 3), state=(array(1, 2, 4), array(1, 2, 4)), "
        "params=[weight_ih_l0 (16, 3), weight_hh_l0 (16, 4)], flat[112])",
    ),
    (
        lambda: gradients_of(fastrnn.RNN(3, 4, bias=False), ragged()),
        "Gradients(x=Ragged(B=2, total=7, features=3, float32), state=array(1, 2, 4), "
        "params=[weight_ih_l0 (4, 3), weight_hh_l0 (4, 4)], flat[28])",
    ),
    (lambda: nn.Embedding(10, 4), "Embedding(10, 4)"),
    (lambda: nn.Linear(4, 2, False, activation="tanh"), "Linear(4, 2, bias=False, activation='tanh')"),
    (lambda: nn.Linear(4, 2, dtype=np.float64), "Linear(4, 2, dtype=np.float64)"),
    (lambda: nn.Dropout(0.3), "Dropout(0.3)"),
    (lambda: nn.DotAttention(), "DotAttention()"),
    (
        lambda: optim.SGD([np.ones(3)], 0.5, 0.9, nesterov=True),
        "SGD(sizes=[3], lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.0)",
    ),
    (
        lambda: optim.Adam([np.ones(3), np.ones(4)], optim.cosine(0.1, 9)),
        "Adam(sizes=[3, 4], lr=cosine(0.1, 9), betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)",
    ),
    (
        lambda: optim.AdamW([np.ones(3)], 0.5),
        "AdamW(sizes=[3], lr=0.5, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)",
    ),
    (
        lambda: optim.RMSprop([np.ones(3)], 0.5),
        "RMSprop(sizes=[3], lr=0.5, alpha=0.99, eps=1e-08, momentum=0.0, weight_decay=0.0)",
    ),
    (lambda: optim.cosine(0.1, 9, warmup=2, floor=0.01), "cosine(0.1, 9, warmup=2, floor=0.01)"),
    (lambda: optim.linear(0.1, 9), "linear(0.1, 9)"),
    (lambda: optim.exponential(0.1, 0.5), "exponential(0.1, 0.5, every=1)"),
    (lambda: optim.step_decay(0.1, 0.5, every=3), "step_decay(0.1, 0.5, every=3)"),
    (
        lambda: reference.forward("rnn_relu", X, None, PARAMS)[2],
        "Tape('rnn_relu', T=5, B=2, passes=1)",
    ),
]


@pytest.mark.parametrize(("make", "text"), EXACT, ids=[text.partition("(")[0] for _, text in EXACT])
def test_repr(make: Any, text: str) -> None:
    assert repr(make()) == text


TAPES: list[Any] = [
    lambda: tape_of(fastrnn.LSTM(3, 4), X),
    lambda: tape_of(fastrnn.LSTM(3, 4), ragged()),
    lambda: fastrnn.GRUCell(3, 4).forward(X[0])[1],
    lambda: functional.rnn_forward(X, None, PARAMS)[2],
]


@pytest.mark.parametrize("make", TAPES)
def test_tapes_tell_their_size(make: Any) -> None:
    tape = make()
    assert tape.nbytes >= 0
    assert repr(tape) == f"{type(tape).__name__}(nbytes={tape.nbytes})"


@pytest.mark.parametrize("name", sorted(set(models.__all__) - {"Model", "NotFittedError", "load"}))
def test_models_tell_their_hyperparameters(name: str) -> None:
    text = repr(getattr(models, name)(hidden_size=17, lr=0.5))
    assert text.startswith(f"{name}(")
    assert "hidden_size=17" in text
    assert "lr=0.5" in text


@pytest.mark.parametrize("module", [fastrnn, functional, losses, models, nn, optim, reference])
def test_no_public_class_has_the_repr_of_object(module: Any) -> None:
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, type) and not issubclass(thing, Exception) and name != "Schedule":
            assert thing.__repr__ is not object.__repr__, name


def test_schedules_can_be_pickled() -> None:
    for schedule in (optim.cosine(0.1, 9, warmup=2), optim.exponential(0.1, 0.5)):
        copy = pickle.loads(pickle.dumps(schedule))
        assert [copy(t) for t in range(12)] == [schedule(t) for t in range(12)]


def test_renamed_arguments() -> None:
    @renamed(old="new")
    def f(new: int = 0) -> int:
        return new

    assert f(1) == f(new=1) == 1
    with pytest.warns(DeprecationWarning, match="the argument old is called new now"):
        assert f(**{"old": 2}) == 2
    with pytest.warns(DeprecationWarning, match="old"), pytest.raises(TypeError, match="new: expected once"):
        f(**{"new": 1, "old": 2})
