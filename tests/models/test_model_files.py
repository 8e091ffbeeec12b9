"""Models in files: saved, loaded, and refused where a file lies or is damaged."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits
from small_tasks import TASKS, bits, make

from fastrnn import io
from fastrnn.models import (
    Captioner,
    Forecaster,
    LanguageModel,
    Model,
    Seq2Seq,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
)
from fastrnn.models._base import FORMAT


def said(model: Any, X: Any) -> Any:
    """Everything a model predicts, in one array or list."""
    if isinstance(model, Forecaster):
        return np.concatenate([model.predict(X, 5), *model.predict_interval(X, 3, samples=20)])
    if isinstance(model, LanguageModel):
        return np.append(model.predict_proba(X), model.score(X))
    if isinstance(model, (SequenceClassifier, SequenceTagger)):
        return np.concatenate(model.predict_proba(X))
    if isinstance(model, SequenceRegressor):
        return model.predict(X)
    return [*model.predict(X), *model.predict(X, beam=3)]


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("name", TASKS)
def test_save_and_load(name: str, suffix: str, tmp_path: Path) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    model, X, y = make(name, epochs=2)
    model.fit(X, y)
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    for cls in (type(model), Model):
        other = cls.load(path)
        assert type(other) is type(model)
        assert other.get_params() == model.get_params()
        assert_same_bits(bits(other), bits(model))
        one, two = said(model, X), said(other, X)
        assert one == two if isinstance(one, list) else assert_same_bits(two, one) is None
    assert b"pickle" not in path.read_bytes()
    with pytest.raises(ValueError, match=r"not a sound"):
        (Captioner if name != "captioner" else Seq2Seq).load(path)


def test_what_is_saved_is_the_fitted_network(tmp_path: Path) -> None:
    model, X, y = make("classifier")
    made_with = model.fit(X, y).get_params()
    model.set_params(hidden_size=99, cell="gru", bidirectional=False, epochs=7)
    model.save(tmp_path / "model.npz")
    other = SequenceClassifier.load(tmp_path / "model.npz")
    assert other.get_params() == made_with
    assert_same_bits(bits(other), bits(model))
    assert model.set_params(epochs=1).fit(X, y).hidden_size == 99
    model.save(tmp_path / "model.npz")
    assert SequenceClassifier.load(tmp_path / "model.npz").get_params() == model.get_params()


def test_a_file_of_another_model_is_named(tmp_path: Path) -> None:
    model, X, y = make("language")
    model.fit(X, y).save(tmp_path / "model.npz")
    message = "class: expected a file of a SequenceClassifier.*, got one of a LanguageModel"  # and of its subclasses
    with pytest.raises(ValueError, match=f"not a sound SequenceClassifier file: {message}"):
        SequenceClassifier.load(tmp_path / "model.npz")


def rewritten(path: Path, part: str, key: str, value: Any) -> None:
    """Change one entry of a file's header."""
    tensors, metadata = io.read(path)
    header = json.loads(metadata[FORMAT])
    if value is None:
        del header[part][key]
    else:
        header[part][key] = value
    io.save(path, tensors, {FORMAT: json.dumps(header)})


HUGE = 2**31 - 1
LIES = [
    ("seq2seq", "params", "hidden_size", HUGE - 1),
    ("seq2seq", "params", "hidden_size", 2**200),
    ("seq2seq", "params", "num_layers", HUGE),
    ("seq2seq", "params", "embedding_size", HUGE),
    ("seq2seq", "params", "embedding_size", 0),
    ("seq2seq", "params", "embedding_size", True),
    ("seq2seq", "params", "hidden_size", "16"),
    ("seq2seq", "params", "cell", "__class__"),
    ("seq2seq", "params", "cell", ["lstm"]),
    ("seq2seq", "params", "dropout", -1.0),
    ("seq2seq", "params", "dtype", "object"),
    ("seq2seq", "params", "bidirectional", 7),
    ("seq2seq", "params", "save", 1),
    ("seq2seq", "config", "target", ["x"]),
    ("seq2seq", "config", "target", [["x"]] * 7),
    ("seq2seq", "config", "text", None),
    ("seq2seq", "config", "longest", "3"),
    ("seq2seq", "config", "more", 1),
    ("forecaster", "config", "mean", [0.0] * 10**5),
    ("forecaster", "config", "mean", {"0": 0.0}),
    ("forecaster", "config", "scale", [1.0, 1.0]),
    ("forecaster", "config", "one_dimensional", None),
    ("forecaster", "config", "targets", [1]),
    ("forecaster", "config", "targets", 0),
    ("forecaster", "params", "target", 1.5),
    ("forecaster", "params", "n_estimators", HUGE),
    ("forecaster", "params", "n_estimators", 2**62),
    ("forecaster", "params", "horizon", 3),
    ("forecaster", "params", "missing", "mask"),
    ("forecaster", "params", "quantiles", [0.5, "x"]),
    ("forecaster", "params", "quantiles", 3),
    ("forecaster", "config", "known", [0]),
    ("forecaster", "config", "known", [7]),
    ("forecaster", "config", "known", ["a"]),
    ("classifier", "config", "embedding_size", HUGE),
    ("classifier", "config", "embedding_size", -5),
    ("classifier", "config", "embedding_size", [3]),
    ("classifier", "params", "pooling", "attention"),
    ("classifier", "params", "embedding", {"a": [1.0]}),
    ("classifier", "params", "embedding", [[[1.0]], ["a"]]),
    ("ragged", "config", "n_features", 2**40),
    ("ragged", "params", "random_state", 10**400),
    ("classifier", "config", "vocabulary", None),
    ("classifier", "config", "classes", [0]),
    ("classifier", "config", "classes", 3),
    ("ragged", "config", "mean", ["a", "b"]),
    ("ragged", "config", "scale", [1.0]),
    ("regressor", "config", "target_mean", [0.0] * 10**5),
    ("regressor", "config", "target_scale", [1.0, 1.0]),
    ("regressor", "config", "target_scale", None),
    ("regressor", "config", "kind", 3),
    ("classifier", "params", "class_weight", [["a"]]),
    ("classifier", "params", "class_weight", [["a", "b"]]),
    ("classifier", "params", "inputs", "ids"),
    ("captioner", "config", "n_features", HUGE),
    ("captioner", "config", "n_features", -1),
    ("language", "config", "vocabulary", [None, "a"]),
]


@pytest.mark.parametrize(("name", "part", "key", "value"), LIES)
def test_lying_headers_are_value_errors_and_allocate_nothing(
    name: str, part: str, key: str, value: Any, tmp_path: Path
) -> None:
    model, X, y = make(name, epochs=1)
    path = tmp_path / "model.npz"
    model.fit(X, y).save(path)
    rewritten(path, part, key, value)
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not a sound"):
            Model.load(path)
        assert tracemalloc.get_traced_memory()[1] < 12 * size + 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_are_value_errors(suffix: str, count: int, tmp_path: Path) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    model, X, y = make("captioner", hidden_size=2, embedding_size=2, epochs=1)
    path, run = tmp_path / f"model.{suffix}", tmp_path / f"run.{suffix}"
    model.fit(X, y, resume=run).save(path)
    rng = np.random.default_rng(0)
    for file in (path, run):
        data, sound = file.read_bytes(), 0
        for i in range(count):
            if i % 2:
                changed = bytearray(data)
                changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            else:
                changed = bytearray(data[: int(rng.integers(len(data)))])
            file.write_bytes(changed)
            try:
                if file is path:
                    Model.load(path).predict(X)
                else:
                    make("captioner", hidden_size=2, embedding_size=2, epochs=1)[0].fit(X, y, resume=run)
                sound += 1
            except ValueError:
                assert i >= 0
        assert sound < 0.75 * count  # what flips inside a weight is another weight
