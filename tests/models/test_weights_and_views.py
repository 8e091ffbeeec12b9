"""Class and sample weights, validation as a fraction, and ways to look at a model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits
from small_tasks import TASKS, WORDS, bits, make

from fastrnn.models import Forecaster, LanguageModel, Model, SequenceClassifier, SequenceTagger, load
from fastrnn.models._run import Run


def gradient(model: Any, X: Any, y: Any, weight: Any = None) -> tuple[float, np.ndarray]:
    """Return the loss and the gradients of one batch of all the data."""
    data = model._prepare(X, y, model.config_, weight)
    run = Run(model.modules_, train=True)
    loss, _ = model._step(run, data, np.arange(len(X)))
    return loss, np.concatenate([run.grads[name].flat for name in model.modules_])


@pytest.mark.parametrize("name", ["classifier", "ragged", "regressor", "tagger"])
def test_a_weight_of_two_is_a_sequence_twice(name: str) -> None:
    model, X, y = make(name, dtype="float64", epochs=1)
    model.fit(X, y)
    twice = [*range(len(X)), 0, 0, 2]
    weights = np.bincount(twice).astype(float)
    X2, y2 = [X[i] for i in twice], [y[i] for i in twice]
    if name == "tagger":  # the mean is over steps, of which sequences have different numbers
        counts = np.array(list(map(len, X)))
        share = (weights * counts).sum() / counts.sum() / weights.mean()
    else:
        share = 1.0
    for got, want in zip(gradient(model, X, y, weights), gradient(model, X2, y2), strict=True):
        np.testing.assert_allclose(got / share, want, rtol=1e-9, atol=1e-12)
    zero = np.where(np.arange(len(X)) < 2, 3.0, 0.0)
    loss, _ = gradient(model, X, y, zero)
    n = [len(row) if name == "tagger" else 1 for row in X]
    assert loss * sum(n) / sum(n[:2]) * 2 / len(X) == pytest.approx(gradient(model, X[:2], y[:2])[0])


def test_class_weights() -> None:
    X, y = ["ab", "ba", "aa", "bb", "cc"], [0, 0, 0, 0, 1]
    options: dict[str, Any] = {"hidden_size": 8, "epochs": 1, "verbose": False, "dtype": "float64"}
    plain = SequenceClassifier(**options).fit(X, y)
    balanced = SequenceClassifier(**options, class_weight="balanced").fit(X, y)
    assert balanced.config_["class_weights"] == [5 / 8, 5 / 2]
    by_hand = SequenceClassifier(**options, class_weight={1: 2.5, 0: 0.625}).fit(X, y)
    by_sample = SequenceClassifier(**options).fit(X, y, sample_weight=[1, 1, 1, 1, 4])
    for model in (by_hand, by_sample):
        assert_same_bits(bits(model), bits(balanced))
    assert any((a != bits(plain)[k]).any() for k, a in bits(balanced).items())
    assert SequenceClassifier(**options, class_weight={1: 3}).fit(X, y).config_["class_weights"] == [1.0, 3.0]
    for odd, message in (
        ("even", "class_weight: expected None, 'balanced' or a dict of finite numbers >= 0, got 'even'"),
        ({0: -1.0}, "class_weight: expected None, 'balanced' or a dict"),
        ({7: 1.0}, r"class_weight: expected labels among \[0, 1\], got \[7\]"),
    ):
        with pytest.raises(ValueError, match=message):
            SequenceClassifier(**options, class_weight=odd).fit(X, y)


def test_class_weights_find_a_rare_class() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4, 1))
    y = (rng.random(300) < 1 / (1 + np.exp(4 - 2 * X[:, :, 0].sum(axis=1)))).astype(int)
    recall = []
    for weight in (None, "balanced"):
        model = SequenceClassifier(hidden_size=4, epochs=8, lr=0.01, verbose=False, class_weight=weight).fit(
            X, y
        )
        recall.append(np.mean(model.predict(X)[y == 1]))
    assert recall[1] > recall[0] + 0.1


def test_class_weights_are_kept_in_files(tmp_path: Path) -> None:
    for kind, y in ((SequenceClassifier, [0, 0, 1, 1, 0, 1]), (SequenceTagger, [list(w) for w in WORDS])):
        model = kind(
            hidden_size=8,
            epochs=1,
            verbose=False,
            class_weight={y[0][0] if kind is SequenceTagger else 0: 2.0},
        )
        model.fit(WORDS, y, resume=tmp_path / "run.npz").save(tmp_path / "model.npz")
        assert Model.load(tmp_path / "model.npz").get_params() == model.get_params()
        model.set_params(epochs=2).fit(WORDS, y, resume=tmp_path / "run.npz")
        assert len(model.history_) == 2
        (tmp_path / "run.npz").unlink()


@pytest.mark.parametrize(
    "weight", [[1.0], [-1.0] * 6, [math.nan] * 6, [0.0] * 6, ["a"] * 6, np.ones((6, 2)), 3.0]
)
def test_bad_sample_weights(weight: Any) -> None:
    model, X, y = make("classifier")
    with pytest.raises((ValueError, TypeError), match=r"^sample_weight: expected"):
        model.fit(X, y, sample_weight=weight)


@pytest.mark.parametrize("name", TASKS)
def test_validation_as_a_fraction(name: str, tmp_path: Path) -> None:
    model, X, y = make(name, epochs=4)
    if name not in ("language", "forecaster"):
        X, y = [*X] * 3, [*y] * 3
        X = np.array(X) if name == "captioner" else X
    model.fit(X, y, validation=0.2)
    assert all(np.isfinite(log["val_loss"]) for log in model.history_)
    part, _, _ = make(name, epochs=4)
    for _ in range(4):
        part.fit(X, y, validation=0.2, resume=tmp_path / "run.npz", callbacks=[lambda m, log: True])
    assert part.history_ == model.history_
    assert_same_bits(bits(part), bits(model))
    for fraction in (0, 1, -0.1, 1.0, 2):
        with pytest.raises(ValueError, match="validation: expected a fraction between 0 and 1"):
            model.fit(X, y, validation=fraction)


def test_what_a_fraction_holds_out() -> None:
    X = np.arange(40.0).reshape(20, 2)
    y = [0] * 18 + [1, 2]
    model = SequenceClassifier(hidden_size=4, epochs=1, verbose=False)
    (train, labels, weight), (held, held_labels) = model._hold_out(X, y, np.arange(20), 0.25)
    assert sorted([*train[:, 0], *held[:, 0]]) == X[:, 0].tolist()
    assert (len(train), len(held), set(labels), held_labels) == (15, 5, {0, 1, 2}, [0] * 5)
    np.testing.assert_array_equal(weight, train[:, 0] / 2)
    model.fit(X, y, validation=0.25, sample_weight=np.arange(20))
    with pytest.raises(
        ValueError, match="validation: expected a class of which one sequence can be held out"
    ):
        model.fit(X[:2], [0, 1], validation=0.5)
    with pytest.raises(ValueError, match="y: expected one for each of the 20 of X, got 3"):
        model.fit(X, [0, 1, 2], validation=0.5)
    text, rest = LanguageModel()._hold_out("abcdefghij", None, None, 0.3)
    assert (text[0], rest) == ("abcdefg", "hij")
    with pytest.raises(ValueError, match="validation: expected 2 tokens to train on"):
        LanguageModel().fit("abc", validation=0.5)
    with pytest.raises(ValueError, match="validation: expected a series with 2 steps to train on"):
        Forecaster().fit([1.0, 2.0], validation=0.5)
    early = SequenceClassifier(hidden_size=4, epochs=200, patience=2, lr=0.1, verbose=False)
    noise = np.random.default_rng(0).integers(0, 2, 20)
    assert len(early.fit(X, noise, validation=0.3).history_) < 200


@pytest.mark.parametrize("name", TASKS)
def test_summary_counts_all_parameters(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, X, y = make(name, epochs=1)
    model.fit(X, y).summary()
    first, *rows, total = capsys.readouterr().out.splitlines()
    assert first == type(model).__name__
    assert [row.split()[0] for row in rows] == list(model.modules_)
    assert total.split() == ["total", f"{sum(a.size for a in bits(model).values()):,}"]


def test_history_is_kept_in_the_file_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    model, X, y = make("classifier")
    odd = object()
    model.fit(X, y, validation=0.4, callbacks=[lambda m, log: log.update(when="12:30", odd=odd)])
    model.save(tmp_path / "model.npz")
    kept = [{k: v for k, v in log.items() if k != "odd"} for log in model.history_]
    other = load(tmp_path / "model.npz")
    assert other.history_ == kept
    for m in (model, other):
        ax = m.plot_history()
        lines = {line.get_label(): line for line in ax.get_lines()}
        assert set(lines) == {"training", "validation"}
        for label, key in (("training", "loss"), ("validation", "val_loss")):
            assert lines[label].get_xdata().tolist() == [1, 2, 3]
            assert lines[label].get_ydata().tolist() == [log[key] for log in kept]
        assert m.plot_history(ax=ax) is ax


def test_load_takes_a_model_of_any_class(tmp_path: Path) -> None:
    for name in TASKS:
        model, X, y = make(name, epochs=1)
        model.fit(X, y).save(tmp_path / "model.npz")
        assert type(load(tmp_path / "model.npz")) is type(model)
    assert load(tmp_path / "model.npz").get_params() == model.get_params()
