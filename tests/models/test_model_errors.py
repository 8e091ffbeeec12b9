"""Bad calls of models: each names the argument, what was expected and what came, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits
from small_tasks import SINE, TASKS, WORDS, bits, make, state

BAD: list[tuple[str, dict[str, Any], Any, str]] = [
    ("classifier", {"cell": "transformer"}, None, "cell: expected one of .*, got 'transformer'"),
    ("classifier", {"hidden_size": 2.5}, None, "hidden_size: expected an integer of at least 1, got 2.5"),
    ("classifier", {"epochs": 0}, None, "epochs: expected an integer of at least 1, got 0"),
    ("classifier", {"dropout": 1.0}, None, "dropout: expected 0 <= dropout < 1, got 1.0"),
    ("classifier", {"lr": "fast"}, None, "lr: expected 0 <= lr < inf, got 'fast'"),
    ("classifier", {"clip": 0}, None, "clip: expected 0 < clip < inf, got 0"),
    ("classifier", {"clip": "1"}, None, "clip: expected 0 < clip < inf, got '1'"),
    ("classifier", {"verbose": "no"}, None, "verbose: expected True or False, got 'no'"),
    ("classifier", {"patience": 2}, None, "patience: expected validation data"),
    ("classifier", {"init": "forget_bias", "cell": "gru"}, None, "target: expected an LSTM"),
    ("seq2seq", {"hidden_size": 15}, None, "hidden_size: expected an even one .*, got 15"),
    ("classifier", {}, (WORDS, [0, 1]), "y: expected one label for each sequence, and 6 sequences, got 2"),
    ("classifier", {}, (WORDS, [0] * 6), "y: expected at least two classes, got 1 class"),
    ("classifier", {}, (WORDS, None), "y: requires y to be passed"),
    ("classifier", {}, ([], []), "X: expected at least 1 sequence"),
    (
        "classifier",
        {},
        ([np.ones((2, 3)), np.ones((2, 2))], [0, 1]),
        r"X: expected sequences \[T, D\] of one D, got \[2, 3\]",
    ),
    ("classifier", {}, ([[np.nan], [1.0]], [0, 1]), r"X\[0\]: expected finite numbers"),
    ("classifier", {}, (WORDS, [0.5] * 6), "y: Unknown label type"),
    (
        "tagger",
        {},
        (WORDS, [["a"]] * 3 + [["b"]] * 3),
        "y: expected one label for each step of each sequence",
    ),
    ("tagger", {}, (WORDS, [[]] * 6), "y: expected a list of labels"),
    ("tagger", {}, (WORDS, range(6)), "y: expected a list of labels for each sequence, got int"),
    ("language", {}, ("a", None), "X: expected at least 2 tokens, got 1"),
    ("language", {}, (None, None), "X: expected a sequence of tokens .*, got NoneType"),
    (
        "language",
        {"min_count": 1000},
        None,
        r"X: expected a token that is there at least 1000 times \(min_count\), got none",
    ),
    ("forecaster", {}, ([1e300, -1e300], None), "X: expected numbers whose variance is finite in float64"),
    ("seq2seq", {}, (WORDS, [1] * 6), r"y\[0\]: expected a sequence of tokens that are str or int, got int"),
    ("seq2seq", {}, (WORDS, [[1.5]] * 6), r"y\[0\]: expected tokens that are str or int, got float"),
    ("seq2seq", {}, (WORDS, zip(WORDS)), "y: expected an array or a list of sequences, got zip"),
    ("captioner", {}, (np.full((3, 2), np.nan), ["a"] * 3), "X: expected numbers that are finite in float32"),
    ("language", {}, ([1.5, 2.5], None), "expected tokens that are str or int, got float"),
    ("forecaster", {}, ([1.0], None), "X: expected at least 2 steps"),
    ("forecaster", {}, (np.ones((3, 2, 2)), None), r"X: expected numbers \[T\] or \[T, D\]"),
    (
        "forecaster",
        {},
        ([np.ones((3, 2)), np.ones((3, 1))], None),
        r"X: expected sequences \[T, D\] of one D",
    ),
    ("forecaster", {}, ([1.0, np.inf], None), "X: expected finite numbers"),
    ("seq2seq", {}, (WORDS, WORDS[:2]), "y: expected a sequence for each of X and at least one, got 6 and 2"),
    ("seq2seq", {}, ([], []), "y: expected a sequence for each of X and at least one"),
    ("seq2seq", {}, (WORDS, None), "y: expected a sequence for each of X and at least one, got None"),
    ("captioner", {}, (np.ones(3), ["a"] * 3), r"X: expected features \[n, F\], got shape \(3,\)"),
    ("captioner", {}, (np.array([["x"]]), ["a"]), r"X: expected numbers, got <U1"),
]


@pytest.mark.parametrize(("name", "options", "data", "message"), BAD)
def test_bad_fits(name: str, options: dict[str, Any], data: Any, message: str) -> None:
    model, X, y = make(name, **options)
    X, y = (X, y) if data is None else data
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(X, y)


def test_a_failed_fit_changes_nothing(tmp_path: Path) -> None:
    model, X, y = make("classifier")
    model.fit(X, y, resume=tmp_path / "run.npz")
    before, weights = state(model), {name: array.copy() for name, array in bits(model).items()}
    bad: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
        ({"clip": 0}, X, {}),
        ({"cell": "gru", "init": "forget_bias"}, X, {}),
        ({"num_layers": 20_000}, X, {}),
        ({"hidden_size": 99}, X, {"resume": tmp_path / "run.npz"}),
        ({}, X, {"resume": tmp_path / "missing" / "run.npz"}),
        ({}, X, {"validation": (X, [5] * 6)}),
        ({}, np.ones((5, 3, 2)), {}),
        ({}, X, {"callbacks": 3}),
    ]
    for params, data, options in bad:
        changed = {name: model.get_params()[name] for name in params}
        with pytest.raises((ValueError, TypeError, OSError)):
            model.set_params(**params).fit(data, y, **options)
        model.set_params(**changed)
        assert state(model) == before
        assert_same_bits(bits(model), weights)
    model, X, y = make("seq2seq")
    model.fit(X, y)
    before = state(model)
    with pytest.raises(ValueError, match="hidden_size: expected an even one"):
        model.set_params(hidden_size=15).fit(X[:2], y[:2])
    assert state(model) == before


def test_bad_validation_is_named() -> None:
    model, X, y = make("classifier")
    with pytest.raises(ValueError, match=r"validation: y: expected labels among \[0, 1\], got \[5\]"):
        model.fit(X, y, validation=(["a"], [5]))
    with pytest.raises(ValueError, match="validation: "):
        model.fit(X, y, validation=X)
    for name, argument in (("classifier", "X"), ("seq2seq", "y"), ("captioner", "y")):
        model, X, y = make(name)
        with pytest.raises(ValueError, match=f"validation: {argument}: expected .*at least (1|one)"):
            model.fit(X, y, validation=(X[:0], y[:0]))


def test_bad_calls() -> None:
    fitted = {name: make(name, epochs=1) for name in TASKS}
    for model, X, y in fitted.values():
        model.fit(X, y)
    one = {name: model for name, (model, _, _) in fitted.items()}
    for call, message in [
        (lambda: one["classifier"].predict([[1.0, 2.0]]), "X: expected sequences of tokens"),
        (lambda: one["ragged"].predict(["ab"]), "X: expected sequences of numbers, as in fit, got tokens"),
        (
            lambda: one["ragged"].predict([np.ones((3, 1))]),
            r"X: expected 2 values a step, as in fit, got \(3, 1\)",
        ),
        (lambda: one["classifier"].predict([]), "X: expected at least 1 sequence"),
        (lambda: one["language"].generate(3, temperature=-1), "temperature: expected at least 0, got -1"),
        (lambda: one["language"].generate(3, top_k=0), "top_k: expected at least 1, got 0"),
        (lambda: one["language"].predict(""), "X: expected at least 1 token, got 0"),
        (lambda: one["forecaster"].predict(SINE, 0), "horizon: expected at least 1, got 0"),
        (lambda: one["forecaster"].predict_interval(SINE, samples=0), "samples: expected at least 1, got 0"),
        (lambda: one["forecaster"].predict([]), "X: expected at least 1 step, got 0"),
        (lambda: one["forecaster"].predict([1e300, -1e300]), "X: expected numbers whose variance is finite"),
        (lambda: one["ragged"].predict([np.full((1, 2), 1e300)]), "X: expected numbers that are finite in"),
        (lambda: one["captioner"].predict(np.full((1, 3), np.nan)), "X: expected numbers that are finite in"),
        (lambda: one["captioner"].predict(np.full((1, 3), 1e300)), "X: expected numbers that are finite in"),
        (
            lambda: one["captioner"].partial_fit(np.ones((0, 3)), []),
            "y: expected .*at least one, got 0 and 0",
        ),
        (lambda: one["captioner"].partial_fit(np.eye(3), None), "y: expected .*at least one, got None"),
        (
            lambda: one["seq2seq"].score(WORDS, WORDS[:2]),
            "y: expected a sequence for each of X .* got 6 and 2",
        ),
        (lambda: one["seq2seq"].predict(WORDS, max_length=-1), "max_length: expected at least 0, got -1"),
        (lambda: one["language"].generate(-1), "length: expected at least 0, got -1"),
        (lambda: one["classifier"].score(WORDS, [0]), "y: expected one label for each sequence, and 6 seq"),
        (lambda: one["tagger"].score(["ab"], [["A"], ["B"]]), "y: expected one label for each step .* got 2"),
        (
            lambda: one["tagger"].score(["ab", "c"], [["A", "B"], ["C", "C"]]),
            r"got 2 labels for the 1 steps of X\[1\]",
        ),
        (lambda: one["forecaster"].predict(np.ones((5, 2))), "X: expected 1 values a step, as in fit, got"),
        (lambda: one["forecaster"].predict([SINE, SINE]), "X: expected one series, got 2"),
        (lambda: one["forecaster"].predict_interval(SINE, level=1.0), "level: expected 0 < level < 1, got 1"),
        (lambda: one["forecaster"].score(SINE[:1]), "X: expected at least 2 steps, got 1"),
        (lambda: one["seq2seq"].predict(WORDS, beam=0), "beam: expected at least 1, got 0"),
        (lambda: one["captioner"].predict(np.ones((2, 4))), r"X: expected shape \[n, 3\], got \(2, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in [
        (lambda: one["language"].generate(2.5), "length: expected an integer, got float"),
        (lambda: one["language"].generate(2, temperature="1"), "temperature: expected a number, got str"),
        (lambda: one["language"].generate(2, 3), "prompt: expected a sequence of tokens .*, got int"),
        (lambda: one["language"].score(None), "X: expected a sequence of tokens .*, got NoneType"),
        (lambda: one["forecaster"].predict(SINE, 2.5), "horizon: expected an integer, got float"),
        (lambda: one["forecaster"].predict_interval(SINE, level="1"), "level: expected a number, got str"),
        (lambda: one["seq2seq"].predict(WORDS, beam=1.5), "beam: expected an integer, got float"),
        (
            lambda: one["seq2seq"].predict([1]),
            r"X\[0\]: expected a sequence of tokens that are str or int, got int",
        ),
        (lambda: one["seq2seq"].predict(3), "X: expected an array or a list of sequences, got int"),
        (lambda: one["tagger"].score(["ab"], [1]), "y: expected a list of labels for each sequence, got int"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()
