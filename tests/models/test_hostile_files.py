"""Files of whole models, damaged and hostile: a ValueError, and no more memory than the file's size explains.

`tests/training/test_io.py` has the same for files of plain weights.
"""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import mutate

from fastrnn import io, models
from fastrnn.models._base import FORMAT, Model

COUNTS = pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow, id="1000")])
RNG = np.random.default_rng(0)
SERIES = [RNG.standard_normal((30, 2)) for _ in range(4)]
WORDS = [["a", "b"], ["b", "c", "a"], ["c"], ["a"]]
FITTED: dict[str, Callable[[], Any]] = {
    "LanguageModel": lambda: models.LanguageModel(**small(), embedding_size=3, steps=5).fit("abcabcabd" * 5),
    "SequenceClassifier": lambda: models.SequenceClassifier(**small()).fit(SERIES, [0, 1, 0, 1]),
    "SequenceTagger": lambda: models.SequenceTagger(**small(), embedding_size=3).fit(WORDS, WORDS),
    "Seq2Seq": lambda: models.Seq2Seq(**small(), embedding_size=3).fit(WORDS, WORDS),
    "Captioner": lambda: models.Captioner(**small(), embedding_size=3).fit(np.ones((4, 2)), WORDS),
    "Forecaster": lambda: models.Forecaster(**small()).fit(SERIES),
}


def small() -> dict[str, Any]:
    return {"hidden_size": 4, "epochs": 1, "batch_size": 2, "verbose": False}


@pytest.fixture(scope="module", params=FITTED)
def fitted(request: pytest.FixtureRequest) -> Any:
    return FITTED[request.param]()


@pytest.fixture
def watched() -> Iterator[None]:
    """Memory is traced."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def attempt(load: Callable[[Any], Any], path: Path) -> bool:
    """Load a file; anything but success or a ValueError fails, and so does memory out of proportion."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        load(path)
        sound = True
    except ValueError:
        sound = False
    used = tracemalloc.get_traced_memory()[1] - before
    assert used < 20 * path.stat().st_size + 1_000_000, used
    return sound


@COUNTS
def test_mutated_models_are_value_errors(fitted: Any, path: Path, watched: None, count: int) -> None:
    fitted.save(path)
    assert attempt(type(fitted).load, path)
    data = path.read_bytes()
    rng = np.random.default_rng(2)
    sound = 0
    for _ in range(count):
        path.write_bytes(mutate(data, rng))
        sound += attempt(Model.load, path)
    assert sound < count


HUGE = [
    2**31,
    2**63,
    10**30,
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    True,
    None,
    "",
    "x",
    [],
    {},
    [[]],
    {"a": 1},
]


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        found.append((value, key))
        places(value[key], found)
    return found


@COUNTS
def test_hostile_headers_are_value_errors(fitted: Any, path: Path, watched: None, count: int) -> None:
    """Sound files with sound weights, whose description of the model has values nobody would write."""
    fitted.save(path)
    arrays, metadata = io.read(path)
    header = json.loads(metadata[FORMAT])
    rng = np.random.default_rng(3)
    for _ in range(count):
        changed = copy.deepcopy(header)
        for _ in range(int(rng.integers(1, 3))):
            found = places(changed, [])
            container, key = found[int(rng.integers(len(found)))]
            if rng.random() < 0.2:
                del container[key]
            else:
                container[key] = HUGE[int(rng.integers(len(HUGE)))]
            if not places(changed, []):
                break
        io.save(path, arrays, {FORMAT: json.dumps(changed)})
        attempt(Model.load, path)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("params", "num_layers", 2**31),
        ("params", "num_layers", 2**60),
        ("params", "hidden_size", 2**31),
        ("params", "hidden_size", 2**63),
        ("params", "bidirectional", -1),
        ("params", "bidirectional", 2**40),
        ("params", "bidirectional", float("nan")),
        ("params", "verbose", "x"),
        ("params", "dropout", float("nan")),
        ("params", "cell", ["lstm"]),
        ("params", "unknown", 1),
        ("config", "n_features", 2**40),
        ("config", "n_features", -(2**40)),
        ("config", "n_features", float("nan")),
        ("config", "classes", "x" * 1000),
        ("config", "classes", {"a": 1}),
        ("config", "classes", None),
    ],
    ids=str,
)
def test_a_hostile_value_is_a_value_error(part: str, key: str, value: Any, path: Path, watched: None) -> None:
    model = FITTED["SequenceClassifier"]()
    model.save(path)
    arrays, metadata = io.read(path)
    header = json.loads(metadata[FORMAT])
    header[part][key] = value
    io.save(path, arrays, {FORMAT: json.dumps(header)})
    assert not attempt(models.SequenceClassifier.load, path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", "[" * 100_000, '{"class": 1}', '{"class": [], "params": [], "config": []}'],
)
def test_a_hostile_description_is_a_value_error(text: str, path: Path, watched: None) -> None:
    io.save(path, {"a": np.zeros(3)}, {FORMAT: text})
    assert not attempt(Model.load, path)
    assert not attempt(models.SequenceClassifier.load, path)


def test_a_model_of_another_class_is_a_value_error(path: Path) -> None:
    FITTED["Forecaster"]().save(path)
    with pytest.raises(ValueError, match="not a sound SequenceTagger file"):
        models.SequenceTagger.load(path)
    assert isinstance(Model.load(path), models.Forecaster)
