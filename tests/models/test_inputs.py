"""What models take: scales, tokens and numbers, kinds that fit has seen, arrays of every library."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits
from small_tasks import LISTS, SINE, TASKS, WORDS, bits, make

from fastrnn import Ragged
from fastrnn.models import Captioner, Forecaster, LanguageModel, Seq2Seq, SequenceClassifier, SequenceTagger
from fastrnn.models._data import Vocabulary, encode, mean_and_scale

KW: dict[str, Any] = {"hidden_size": 8, "epochs": 1, "verbose": False}


@pytest.mark.parametrize("n", [1, 3, 60, 1000])
def test_a_constant_feature_has_scale_one(n: int) -> None:
    values = np.concatenate([np.linspace(0.01, 20, 200), [1e-9, 1e9, -0.1, 0.0, 1e300]])
    for value in values:
        steps = np.stack([np.full(n, value), np.arange(n) * 1e-3], axis=1)
        _, scale = mean_and_scale(steps)
        assert scale[0] == 1
        assert n < 2 or scale[1] == pytest.approx(np.std(steps[:, 1]))


def test_scales_are_those_of_scikit_learn() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    spread = 10.0 ** rng.integers(-18, 3, 200)
    steps = 10.0 ** rng.integers(-3, 6, 200) + spread * rng.standard_normal((50, 200))
    mean, scale = mean_and_scale(steps)
    fitted = preprocessing.StandardScaler().fit(steps)
    assert 20 < (scale == 1).sum() < 180
    np.testing.assert_array_equal(scale == 1, fitted.scale_ == 1)
    np.testing.assert_allclose(scale, fitted.scale_, rtol=1e-2)
    np.testing.assert_allclose(mean, fitted.mean_)


@pytest.mark.parametrize("value", [0.1, 0.7, 3.3, 19.9])
def test_a_constant_feature_does_no_harm_in_float32(value: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 6, 2))
    y = (X[:, :, 0].sum(axis=1) > 0).astype(int)
    X[:, :, 1] = value
    model = SequenceClassifier(hidden_size=8, epochs=20, lr=0.02, verbose=False).fit(X, y)
    assert model.score(X.astype("f"), y) == model.score(X, y) > 0.9
    np.testing.assert_allclose(model.predict_proba(X.astype("f")), model.predict_proba(X), atol=1e-4)


def test_masked_arrays_are_refused_everywhere() -> None:
    series = np.ma.masked_equal(np.where(SINE > 0.9, -999.0, SINE), -999.0)
    flags = np.ma.masked_equal([0, 0, 1, 1, 0, 1], 0)
    ids = np.ma.masked_equal([1, 2, 3] * 20, 3)
    rows = np.ma.masked_equal(np.ones((4, 3)) * [1.0, 2.0, 3.0], 2.0)
    fitted = {name: make(name, epochs=1)[0].fit(*make(name)[1:]) for name in TASKS}
    calls: list[Any] = [
        lambda: Forecaster(**KW).fit(series),
        lambda: Forecaster(**KW).fit([SINE, series]),
        lambda: Forecaster(**KW).fit(SINE, validation=series),
        lambda: fitted["forecaster"].predict(series),
        lambda: fitted["forecaster"].predict_interval(list(series)),
        lambda: fitted["forecaster"].score([[v] for v in series]),
        lambda: SequenceClassifier(**KW).fit(rows, [0, 1, 0, 1]),
        lambda: SequenceClassifier(**KW).fit(list(rows), [0, 1, 0, 1]),
        lambda: SequenceClassifier(**KW).fit([list(rows)] * 2, [0, 1]),
        lambda: SequenceClassifier(**KW).fit(WORDS, flags),
        lambda: SequenceClassifier(**KW).fit(WORDS, [0, 0, 1, 1, 0, 1], sample_weight=flags),
        lambda: SequenceClassifier(**KW, inputs="tokens").fit([ids, ids], [0, 1]),
        lambda: fitted["classifier"].score(WORDS, flags),
        lambda: SequenceTagger(**KW).fit(["abc"], [np.ma.masked_equal([1, 2, 3], 2)]),
        lambda: LanguageModel(**KW).fit(ids),
        lambda: LanguageModel(**KW).fit(list(ids)),
        lambda: Seq2Seq(**KW).fit([ids], [ids]),
        lambda: Captioner(**KW).fit(rows, ["a"] * 4),
        lambda: fitted["captioner"].predict(rows),
        lambda: fitted["captioner"].partial_fit(rows[:3], TASKS["captioner"][3]),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="masked"):
            call()


def test_integers_are_not_guessed_to_be_tokens_or_numbers() -> None:
    for X in ([[3, 1, 2], [5, 4]] * 8, np.arange(48).reshape(16, 3), [np.array([1, 2]), [3]] * 8):
        with pytest.raises(
            ValueError, match=r"inputs='tokens' if integers are token ids, or inputs='numbers'"
        ):
            SequenceClassifier(**KW).fit(X, [0, 1] * 8)
    for X in ([[3, 1, 2.5], [5, 4]] * 8, np.ones((16, 3, 2), int), [[(1, 0), (2, 0)], [(3, 0)]] * 8):
        assert "mean" in SequenceClassifier(**KW).fit(X, [0, 1] * 8).config_
    for X in (np.ones((16, 3), bool), [[], [0.5]] * 8):
        assert "mean" in SequenceClassifier(**KW).fit(X, [0, 1] * 8).config_
    with pytest.raises(
        ValueError, match=r"inputs: expected one of .*'auto', 'tokens', 'numbers'.*, got 'ids'"
    ):
        SequenceClassifier(**KW, inputs="ids").fit(WORDS, [0, 1] * 3)


@pytest.mark.parametrize("kind", [list, np.array])
def test_token_ids_are_as_good_as_words(kind: Any) -> None:
    rng = np.random.default_rng(0)
    ids = [rng.permutation(20)[: rng.integers(3, 8)] for _ in range(80)]
    y = [int(3 in row) for row in ids]
    options: dict[str, Any] = {"hidden_size": 16, "epochs": 25, "lr": 0.02, "verbose": False}
    model = SequenceClassifier(**options, inputs="tokens").fit([kind(row) for row in ids], y)
    words = SequenceClassifier(**options).fit([[f"{i:02}" for i in row] for row in ids], y)
    assert model.score(ids, y) >= words.score([[f"{i:02}" for i in row] for row in ids], y) == 1
    numbers = SequenceClassifier(**options, inputs="numbers").fit(ids, y)
    assert numbers.config_["kind"] == "numbers"
    with pytest.raises(ValueError, match=r"X: expected sequences of tokens, as in fit, got numbers"):
        model.predict([row + 0.5 for row in ids])


def test_another_kind_of_input_than_in_fit_is_refused() -> None:
    words, ids = [w.split() for w in ("it was good", "it was bad")], [[1, 2], [3, 4]]
    cases: list[tuple[Any, Any, Any, Any, str]] = [
        (SequenceClassifier, {}, words, ["it was good"], "a list of str, as in fit, got a str"),
        (SequenceClassifier, {}, words, ["it", "was", "not", "good"], "a list of str, as in fit, got a str"),
        (SequenceClassifier, {}, ["abc", "cde"], words, "a str, as in fit, got a list of str"),
        (SequenceClassifier, {}, ["abc", "cde"], "abc", "got one str, which is a single sequence"),
        (SequenceClassifier, {"inputs": "tokens"}, ids, words, "a list of int, as in fit, got a list of str"),
        (Seq2Seq, {}, words, ["it was good"], "a list of str, as in fit, got a str"),
        (Seq2Seq, {}, ["ab", "cd"], words, "a str, as in fit, got a list of str"),
        (Seq2Seq, {}, ids, words, "a list of int, as in fit, got a list of str"),
        (Seq2Seq, {}, words, "it was good", "got one str, which is a single sequence"),
    ]
    for kind, options, X, other, message in cases:
        y = X if kind is Seq2Seq else [0, 1]
        model = kind(**KW, **options).fit(X, y)
        model.predict(X)
        model.predict([X[0], X[0][:0]])  # an empty sequence is of any kind
        with pytest.raises((ValueError, TypeError), match=message):
            model.predict(other)
        with pytest.raises((ValueError, TypeError), match=message):
            kind(**KW, **options).fit(X, y, validation=(other, [y[0]] * len(other)))
    model = LanguageModel(**KW).fit(["the", "cat", "sat"] * 20)
    for call in (model.predict, model.predict_proba, model.score, lambda text: model.generate(3, text)):
        with pytest.raises(ValueError, match=r"expected a list of str, as in fit, got a str"):
            call("the cat")
    with pytest.raises(
        ValueError, match=r"X: expected sequences of one kind, got a str at X.0. and a list of str"
    ):
        SequenceClassifier(**KW).fit(["ab", ["a", "b"]], [0, 1])


def test_targets_of_another_kind_than_in_fit_are_refused() -> None:
    model = Seq2Seq(**KW).fit(WORDS, [[1, 2]] * 6)
    with pytest.raises(ValueError, match=r"y\[0\]: expected a list of int, as in fit, got a str"):
        model.score(WORDS, WORDS)
    caption = Captioner(**KW).fit(np.eye(2), [["a", "cat"], ["dogs"]])
    with pytest.raises(ValueError, match=r"y\[0\]: expected a list of str, as in fit, got a str"):
        caption.partial_fit(np.eye(2), ["a cat", "dogs"])


@pytest.mark.parametrize("kind", [Captioner, LanguageModel, Seq2Seq, SequenceClassifier, SequenceTagger])
def test_the_first_line_says_that_a_str_is_a_sequence_of_characters(kind: Any) -> None:
    assert "a sequence of characters" in kind.__doc__.splitlines()[0]


def test_arguments_are_not_dropped() -> None:
    model, X, _ = make("forecaster")
    text, _, _ = make("language")
    for call in (
        lambda: model.fit(X, X),
        lambda: model.fit(X, X, validation=0.2),
        lambda: text.fit("abcd" * 30, "abcd"),
        lambda: make("forecaster")[0].fit(X).score(X, X),
        lambda: make("language")[0].fit("abcd" * 30).score("abcd", "abcd"),
    ):
        with pytest.raises(TypeError, match=r"y: expected None, got .*: this model learns from X alone"):
            call()


def test_numpy_integers_are_tokens() -> None:
    ids = np.array([1, 2, 3, 4] * 50)
    model = LanguageModel(hidden_size=16, epochs=6, batch_size=4, lr=0.02, verbose=False).fit(ids)
    same = LanguageModel(hidden_size=16, epochs=6, batch_size=4, lr=0.02, verbose=False).fit(ids.tolist())
    assert_same_bits(bits(model), bits(same))
    assert model.predict(ids[:3].astype(np.uint8)) == 4
    assert all(type(t) is int for t in model.generate(9, ids[:2]))
    assert model.config_["vocabulary"] == [None, 1, 2, 3, 4]
    pairs = Seq2Seq(**KW).fit([ids[:4], ids[:3]], ids[:6].reshape(2, 3))
    assert all(type(t) is int for row in pairs.predict([ids[:4], list(ids[:2])]) for t in row)
    LanguageModel(**KW).fit(np.array(["a", "b"] * 20)).predict(["a"])
    with pytest.raises(TypeError, match=r"X: expected tokens that are str or int, got float"):
        LanguageModel(**KW).fit(ids.astype(float))
    with pytest.raises(TypeError, match=r"X: expected tokens that are str or int, got bool"):
        LanguageModel(**KW).fit(ids > 1)


def test_a_ragged_batch_is_a_list_of_sequences() -> None:
    X, y = LISTS, ["up", "down", "up", "down"]
    model = SequenceClassifier(**KW).fit(Ragged.from_list(X), y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(Ragged.from_list(X)))
    series = [SINE[:, None], SINE[:100, None]]
    assert_same_bits(bits(Forecaster(**KW).fit(Ragged.from_list(series))), bits(Forecaster(**KW).fit(series)))


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_taggers_take_sequences_without_steps(batch_size: int) -> None:
    X, y = ["", "ab", "b"], [[], ["x", "y"], ["y"]]
    for n in (2, 3):
        model = SequenceTagger(**KW, batch_size=batch_size).fit(X[:n], y[:n], validation=(X[:n], y[:n]))
        assert [len(row) for row in model.predict([*X, ""])] == [0, 2, 1, 0]
        assert np.isfinite(model.history_[0]["val_loss"])
    both = SequenceClassifier(**KW, batch_size=batch_size).fit(["", "ab"], [0, 1])
    assert both.predict_proba(["", ""]).shape == (2, 2)


def test_encoding_makes_its_dict_once() -> None:
    known = Vocabulary([None, *[f"w{i}" for i in range(30_000)]])
    assert encode(["w7", "?"], known).tolist() == [8, 0]
    began = time.perf_counter()
    for _ in range(2000):
        encode(["w1", "w2"], known)
    assert time.perf_counter() - began < 1  # a dict of 30,000 words for each of them takes two seconds
    assert known.places is known.places


def test_messages_are_short_and_name_the_argument() -> None:
    labels = [f"label {i}" for i in range(2000)]
    many = SequenceClassifier(**KW).fit(["ab"] * 2000, labels)
    model, X, y = make("classifier")
    cases: list[tuple[Any, str]] = [
        (lambda: many.score(["ab"], ["?"]), ""),
        (lambda: SequenceClassifier(**KW).fit(WORDS, [0, 1] * 3, validation=(["a"], ["?"])), "validation: y: exp"),
        (lambda: many.fit(["ab"] * 2000, labels, validation=(["ab"], ["?"])), "y: expected labels among"),
        (lambda: model.fit(X, "001101"), "y: expected a list of labels, got one str"),
        (lambda: model.fit(X, y, validation=X), r"validation: expected a pair \(X, y\), or a fraction such as"),
        (lambda: model.fit(X, y, validation=1.5), "validation: expected a fraction between 0 and 1, or data, got 1.5"),
        (lambda: model.fit(X, [0, 1, "a", 1, 0, 0]), "y: expected labels of one kind, got str and numbers"),
        (lambda: model.fit(X, y, callbacks=[3]), r"callbacks: expected functions \(model, log\), got \['int'\]"),
        (lambda: make("tagger")[0].fit(["ab", "c"], ["xy", "z"]), "y: expected a list of labels for each sequence"),
        (lambda: Forecaster(**KW).fit(np.ones((3, 2, 2))), r"got shape \(3, 2, 2\). list\(X\) is a list of series"),
        (lambda: SequenceClassifier(5), r"SequenceClassifier.__init__\(\) takes 1 positional"),
        (lambda: SequenceTagger(units=5), r"SequenceTagger.__init__\(\) got an unexpected keyword"),
    ]  # fmt: skip
    for call, message in cases:
        if not message:
            call()
            continue
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            call()
        assert len(str(caught.value)) < 300
        assert "Reshape" not in str(caught.value)


def test_set_params_with_an_unknown_name_sets_nothing() -> None:
    model = SequenceClassifier(**KW)
    with pytest.raises(ValueError, match=r"units: expected one of"):
        model.set_params(hidden_size=77, units=3)
    assert model.hidden_size == 8


def test_numpy_alone_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("tqdm", "tqdm.auto", "sklearn", "pandas", "safetensors", "matplotlib", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in TASKS:
        model, X, y = make(name, verbose=True, epochs=1)
        model.fit(X, y).save(tmp_path / "model.npz")
        type(model).load(tmp_path / "model.npz").score(X, y)
