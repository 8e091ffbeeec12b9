"""Whole models that run step by step: they say what they would say of the steps so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_tasks import SINE, WORDS

from fastrnn.models import Forecaster, LanguageModel, SequenceClassifier, SequenceRegressor, SequenceTagger

KW: dict[str, Any] = {"hidden_size": 8, "epochs": 2, "lr": 0.02, "batch_size": 3, "verbose": False}
Y = [0, 0, 1, 1, 0, 1]
ARRAYS = [np.random.default_rng(n).standard_normal((n + 2, 3)) for n in range(6)]


@pytest.mark.parametrize("pooling", ["last", "max", "mean", "attention"])
@pytest.mark.parametrize("X", [WORDS, [list(w) for w in WORDS], ARRAYS], ids=["str", "words", "numbers"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_classifier_of_the_steps_so_far(pooling: str, X: Any, cell: str) -> None:
    options: dict[str, Any] = {"pooling": pooling, "bidirectional": False, "cell": cell, "num_layers": 2}
    model = SequenceClassifier(**KW, **options, n_estimators=2).fit(X, Y)
    numbers = SequenceRegressor(**KW, **options).fit(X, [[y, 2.0 * y] for y in Y])
    stream, values = model.stream(), numbers.stream()
    for x in X[:3]:
        for t, step in enumerate(x):
            p = stream.step(step)
            np.testing.assert_allclose(p, model.predict_proba([x[: t + 1]])[0], rtol=1e-5)
            np.testing.assert_allclose(
                values.step(step), numbers.predict([x[: t + 1]])[0], rtol=1e-4, atol=1e-6
            )
        stream.reset()
        values.reset()
    if pooling == "last":
        for step in X[3]:
            p = stream.step(step)
        np.testing.assert_array_equal(p, model.predict_proba([X[3]])[0])  # bit for bit


def test_sequences_side_by_side() -> None:
    model = SequenceClassifier(**KW, pooling="mean", bidirectional=False).fit(WORDS, Y)
    stream = model.stream(batch_size=2)
    assert stream.step(["a", "c"]).shape == (2, 2)
    p = stream.step(["b", "d"])
    np.testing.assert_allclose(p, model.predict_proba(["ab", "cd"]), rtol=1e-6)
    stream.reset([1])
    p = stream.step("ab")
    np.testing.assert_allclose(p, model.predict_proba(["aba", "b"]), rtol=1e-6)
    stream.reset(np.array([True, False]))
    np.testing.assert_allclose(stream.step("cc"), model.predict_proba(["c", "bc"]), rtol=1e-6)
    assert repr(stream) == "ModelStream(SequenceClassifier, batch_size=2)"


def test_a_tagger_tags_each_step() -> None:
    model = SequenceTagger(**KW, bidirectional=False).fit(WORDS, [list(w) for w in WORDS])
    stream = model.stream()
    got = np.array([stream.step(c) for c in "abcd"])
    np.testing.assert_array_equal(got, model.predict_proba(["abcd"])[0])


def test_a_language_model_reads_on() -> None:
    model = LanguageModel(**KW, steps=10).fit("abcd" * 40)
    stream = model.stream(2)
    for n in range(1, 5):
        np.testing.assert_array_equal(
            stream.step(["abcd"[n - 1], "b"]), [model.predict_proba(x) for x in ("abcd"[:n], "b" * n)]
        )
    words = LanguageModel(**KW, steps=5).fit(["to", "be", "or"] * 20)
    np.testing.assert_array_equal(words.stream().step("be"), words.predict_proba(["be"]))


def test_a_forecaster_forecasts_after_each_step() -> None:
    fit = Forecaster(**KW, scaling="fit", steps=300, n_estimators=2).fit(SINE)
    stream = fit.stream()
    got = [stream.step(x) for x in SINE[:30]]
    want = [fit.predict(SINE[: t + 1], 1)[0] for t in range(30)]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    both = np.stack([SINE, np.cos(np.arange(240.0))], axis=1)
    own = Forecaster(**KW, steps=300, target=[1]).fit(both)
    stream = own.stream(both[:100])
    m, s = own._scale(both[:100], own.config_)
    own.config_["scaling"], own.config_["mean"], own.config_["scale"] = "fit", m.tolist(), s.tolist()
    np.testing.assert_allclose(stream.step(both[100]), own.predict(both[:101])[0], rtol=1e-5)
    gaps = np.where(np.arange(240) % 5 == 2, np.nan, SINE)
    masked = Forecaster(**KW, scaling="fit", steps=300, missing="mask").fit(gaps)
    stream = masked.stream()
    got = [stream.step(x) for x in gaps[:20]]
    np.testing.assert_allclose(got, [masked.predict(gaps[: t + 1])[0] for t in range(20)], rtol=1e-6)


def test_what_cannot_be_streamed() -> None:
    both = SequenceClassifier(**KW).fit(WORDS, Y)
    with pytest.raises(
        ValueError, match="bidirectional: expected False, for a stream, got True: it reads what is to come"
    ):
        both.stream()
    one = SequenceClassifier(**KW, bidirectional=False).fit(WORDS, Y)
    for step, error, message in (
        ("ab", ValueError, "x: expected one step of each sequence, got 2"),
        (3, ValueError, r"X\[0\]: expected a str, as in fit, got a list of int"),
        (0.5, ValueError, "X: expected sequences of tokens, as in fit, got numbers"),
    ):
        with pytest.raises(error, match=message):
            one.stream().step(step)
    with pytest.raises(ValueError, match="x: expected a step for each of 2 sequences, got 3"):
        one.stream(2).step("abc")
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        one.stream(0)
    numbers = SequenceClassifier(**KW, bidirectional=False).fit(ARRAYS, Y)
    with pytest.raises(ValueError, match="X: expected 3 values a step"):
        numbers.stream().step([1.0, 2.0])
    with pytest.raises(ValueError, match="X: expected the series so far, whose scale is used"):
        Forecaster(**KW).fit(SINE).stream()
    with pytest.raises(ValueError, match="is not fitted"):
        SequenceTagger().stream()
    series = np.stack([SINE, SINE], axis=1)
    with pytest.raises(ValueError, match="known: expected None, for a stream"):
        Forecaster(**KW, known=1).fit(series).stream(series)
    with pytest.raises(ValueError, match="x: expected finite numbers"):
        Forecaster(**KW).fit(SINE).stream(SINE).step(np.nan)
