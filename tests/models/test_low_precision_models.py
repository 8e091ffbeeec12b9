"""What small weights do to trained models: a language model, a tagger, a classifier; and beside PyTorch's int8."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Variant, as_tuple, make_case, make_layer, make_torch

import fastrnn
from fastrnn import demo, optim
from fastrnn.layers import Recurrent
from fastrnn.models import SequenceClassifier, SequenceTagger


def recurrent_layers(modules: dict[str, Any]) -> Iterator[Recurrent]:
    found = [module for module in modules.values() if isinstance(module, Recurrent)]
    assert found
    yield from found


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_language_model(cell: str) -> None:
    """Bits per character of held-out text: int8 within 0.5 %, bfloat16 within 0.05 %."""
    text = demo.read_text(None)[:220_000]
    characters = "".join(sorted({*text, demo.UNKNOWN}))
    ids = np.array([characters.index(c) for c in text])
    train, held_out = ids[:200_000], ids[200_000:]
    model = demo.CharacterModel(characters, cell, 256, 0)
    length = (len(train) - 1) // demo.STREAMS
    x, y = (train[i : i + demo.STREAMS * length].reshape(demo.STREAMS, length).T for i in (0, 1))
    starts = range(0, length, demo.STEPS)
    adam = optim.Adam(
        list(model.modules.values()), optim.cosine(demo.LEARNING_RATE, 3 * len(starts), warmup=20)
    )
    for _ in range(3):
        state = None
        for start in starts:
            part = slice(start, start + demo.STEPS)
            _, gradients, state = model.gradients(x[part], y[part], state)
            adam.step(gradients, clip_norm=demo.CLIP)
    exact = model.bits(held_out)
    assert exact < 3.0  # it has learned
    for weights, bound in (("int8", 0.005), ("bfloat16", 0.0005)):
        model.modules[cell].freeze(weights=weights)
        change = model.bits(held_out) / exact - 1
        print(f"{cell} {weights}: {exact:.4f} bits per character, {change:+.4%}")
        assert abs(change) < bound, weights


def noisy_words(rng: np.random.Generator, count: int) -> tuple[list[list[str]], list[list[str]]]:
    """Letters, each labelled by the last two vowels before it; some letters are read wrongly."""
    words, labels = [], []
    for _ in range(count):
        letters = rng.choice(list("aeiobcdfgh"), rng.integers(8, 20))
        seen, own = "..", []
        for letter in letters:
            seen = (seen + letter)[-2:] if letter in "aeio" else seen
            own.append(seen)
        wrong = rng.random(len(letters)) < 0.03
        words.append(np.where(wrong, rng.choice(list("aeiobcdfgh"), len(letters)), letters).tolist())
        labels.append(own)
    return words, labels


def accuracies(model: Any, X: Any, y: Any) -> dict[str, float]:
    scores = {"float32": model.score(X, y)}
    for weights in ("bfloat16", "int8"):
        for layer in recurrent_layers(model.modules_):
            layer.freeze(weights=weights)
        scores[weights] = model.score(X, y)
    print(scores)
    return scores


@pytest.mark.slow
def test_tagger() -> None:
    """Accuracy within 0.2 points."""
    rng = np.random.default_rng(0)
    model = SequenceTagger(cell="gru", hidden_size=64, epochs=12, lr=0.01, verbose=False, random_state=0)
    model.fit(*noisy_words(rng, 1500))
    scores = accuracies(model, *noisy_words(rng, 3000))
    assert 0.8 < scores["float32"] < 0.999
    assert max(abs(scores[w] - scores["float32"]) for w in scores) <= 0.002, scores


@pytest.mark.slow
def test_classifier() -> None:
    """Accuracy within 0.2 points."""
    rng = np.random.default_rng(1)

    def draw(count: int) -> tuple[list[np.ndarray], np.ndarray]:
        labels = rng.integers(0, 4, count)
        t = np.arange(60)
        waves = np.sin(t * (0.2 + 0.05 * labels[:, None]) + rng.uniform(0, 6, (count, 1)))
        return list((waves + rng.normal(0, 1.0, waves.shape))[..., None]), labels

    model = SequenceClassifier(
        cell="lstm", hidden_size=64, epochs=10, lr=0.005, verbose=False, random_state=0
    )
    model.fit(*draw(2000))
    scores = accuracies(model, *draw(10_000))
    assert 0.6 < scores["float32"] < 0.999
    assert max(abs(scores[w] - scores["float32"]) for w in scores) <= 0.002, scores


@pytest.mark.filterwarnings("ignore")  # PyTorch's quantization is deprecated
@pytest.mark.parametrize("H", [64, pytest.param(512, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_errors_are_at_most_those_of_pytorch(kind: str, H: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed, so nothing is compared with PyTorch")
    v = Variant(kind, 2, I=H, H=H, T=40, B=4)
    case = make_case(v)
    exact = make_layer(v, case.params)
    want, want_last = exact(case.x, case.state)
    got, got_last = copy.deepcopy(exact).freeze(weights="int8")(case.x, case.state)
    outer = torch.nn.Sequential(make_torch(v, case.params).eval())  # a module itself is not replaced
    net = torch.ao.quantization.quantize_dynamic(outer, {torch.nn.LSTM, torch.nn.GRU}, dtype=torch.qint8)[0]
    state = tuple(torch.from_numpy(s) for s in as_tuple(case.state))
    with torch.inference_mode():
        other, _ = net(torch.from_numpy(case.x), state if v.states == 2 else state[0])
    errors = abs(got - want), abs(other.numpy() - want)
    assert 0 < errors[0].max() <= errors[1].max()
    assert 0 < errors[0].mean() <= errors[1].mean()
    assert abs(as_tuple(got_last)[0] - as_tuple(want_last)[0]).max() < 0.1
    assert fastrnn.diagnostics.quantize_error(exact, case.x, case.state).largest == errors[0].max()
