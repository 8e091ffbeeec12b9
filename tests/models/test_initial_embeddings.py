"""Vectors and layers with which a model begins, dropped words, and batches of like lengths."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastrnn.models import Forecaster, LanguageModel, SequenceClassifier, SequenceTagger, load
from fastrnn.models._data import bucketed
from fastrnn.nn import Dropout, Embedding

KW: dict[str, Any] = {"hidden_size": 8, "epochs": 1, "lr": 0.0, "verbose": False}
X, Y = [["a", "b"], ["c"], ["b", "c", "c"]], [0, 1, 0]
VECTORS = {"a": [1.0, 2.0, 3.0], "c": [0.0, -1.0, 2.0], "far": [5.0, 5.0, 5.0]}


def row(model: Any, token: str) -> np.ndarray:
    return np.asarray(model.modules_["embedding"].params["weight"][model.config_["vocabulary"].index(token)])


FORMS: dict[str, Any] = {
    "dict": VECTORS,
    "pair": (np.array(list(VECTORS.values())), list(VECTORS)),
    "keyed vectors": SimpleNamespace(
        index_to_key=list(VECTORS), vectors=np.array(list(VECTORS.values()), "f")
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_tokens_begin_with_their_vectors(form: str, tmp_path: Any) -> None:
    model = SequenceClassifier(**KW, embedding=FORMS[form]).fit(X, Y)
    for token, vector in VECTORS.items():
        np.testing.assert_array_equal(row(model, token), np.float32(vector))
    assert row(model, "b").shape == (3,)  # has none: drawn, in the spread of the others
    assert np.abs(row(model, "b")).max() < 5 * np.std(list(VECTORS.values()))
    model.save(tmp_path / "model.npz")
    other = load(tmp_path / "model.npz")
    np.testing.assert_array_equal(other.predict_proba([["far", "a"]]), model.predict_proba([["far", "a"]]))  # type: ignore[attr-defined]
    assert other.get_params()["embedding"] is None


def test_a_word_that_training_did_not_have_is_known_by_its_vector() -> None:
    vectors = {
        "good": [1.0, 0.0],
        "bad": [-1.0, 0.0],
        "superb": [1.1, 0.1],
        "awful": [-1.1, 0.1],
        "film": [0.0, 1.0],
    }
    texts, labels = [["good", "film"], ["bad", "film"]] * 20, [1, 0] * 20
    model = SequenceClassifier(**KW | {"epochs": 15, "lr": 0.02}, embedding=vectors).fit(texts, labels)
    assert model.predict([["superb", "film"], ["awful", "film"]]).tolist() == [1, 0]


def test_training_goes_on_from_the_vectors() -> None:
    model = SequenceClassifier(**KW | {"epochs": 3, "lr": 0.01}, embedding=VECTORS).fit(X, Y)
    assert 0 < np.abs(row(model, "a") - VECTORS["a"]).max() < 0.5
    np.testing.assert_array_equal(row(model, "far"), np.float32(VECTORS["far"]))  # got no gradient


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_language_model_to_start_from(bidirectional: bool) -> None:
    texts = [text for text in X for _ in range(5)]
    first = LanguageModel(**KW | {"epochs": 2, "lr": 0.01}, texts=True, embedding_size=5).fit(texts)
    kept = {n: a.copy() for n, a in first.modules_["rnn"].params.items()}
    model = SequenceTagger(**KW, embedding=first, bidirectional=bidirectional).fit(X, [list(x) for x in X])
    for token in "abc":
        np.testing.assert_array_equal(row(model, token), row(first, token))
    for name, weights in kept.items():
        np.testing.assert_array_equal(model.modules_["rnn"].params[name], weights)
        np.testing.assert_array_equal(first.modules_["rnn"].params[name], weights)  # a copy was taken
    base = pytest.importorskip("sklearn.base")
    assert base.clone(model).embedding is first  # still fitted


def test_bad_embeddings() -> None:
    language = LanguageModel(**KW, embedding_size=5).fit("abcabcabc")
    words = LanguageModel(**KW | {"hidden_size": 4}, embedding_size=5).fit(["a", "b", "c"] * 5)
    for embedding, error, message in (
        (3, ValueError, r"embedding: expected None, a dict of vectors by token"),
        (LanguageModel(), ValueError, "embedding: expected None, a dict"),
        ({"a": [1.0], "b": [1.0, 2.0]}, TypeError, "embedding: expected vectors"),
        ({"a": [np.nan]}, ValueError, "embedding: expected finite numbers"),
        ({}, ValueError, r"embedding: expected vectors \[V, E\]"),
        ((np.ones((2, 3)), ["a"]), ValueError, "embedding: expected a token for each of 2 vectors, got 1"),
        ((np.ones((2, 3)), ["a", "a"]), ValueError, "embedding: expected every token once"),
        ((np.ones(2), ["a", "b"]), ValueError, r"embedding: expected vectors \[V, E\]"),
        (language, ValueError, "expected a LanguageModel of a list of str, as X is, got one of a str"),
        (words, ValueError, "layers of LSTM, hidden_size=8, num_layers=1, got LSTM, 4, 1"),
        (Forecaster(**KW).fit(np.arange(9.0)), TypeError, "embedding: expected a dict .* got a Forecaster"),
    ):
        model = SequenceClassifier(**KW, embedding=embedding)
        with pytest.raises(error, match=message):
            model.fit(X, Y)
        assert "modules_" not in vars(model)
    with pytest.raises(ValueError, match="embedding: expected None, since X has numbers"):
        SequenceClassifier(**KW, embedding=VECTORS).fit([[0.5], [0.1, 0.2]], [0, 1])


@pytest.mark.parametrize(
    "data", [X, [np.full((n, 1), 3.0 + n) for n in (2, 1, 3)]], ids=["tokens", "numbers"]
)
def test_words_are_dropped_in_training_only(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    kind = Embedding if data is X else Dropout
    forward = kind.forward

    def watched(self: Any, x: Any) -> Any:
        if len(x) == 6 and (kind is Embedding or np.ndim(x) == 2) and np.shape(x)[-1] in (1, 6):
            seen.append(np.array(x))
        return forward(self, x)

    monkeypatch.setattr(kind, "forward", watched)
    model = SequenceClassifier(**KW | {"epochs": 200}, word_dropout=0.3, batch_size=9).fit(data, Y)
    dropped = np.mean([x.reshape(6, -1)[:, 0] == 0 for x in seen])
    assert len(seen) == 200
    assert abs(dropped - 0.3) < 0.05
    p = model.predict_proba(data)
    np.testing.assert_array_equal(p, model.predict_proba(data))
    assert all(np.all(x.reshape(6, -1)[:, 0] != 0) for x in seen[200:])
    with pytest.raises(ValueError, match=r"word_dropout: expected 0 <= word_dropout < 1, got 1\.0"):
        SequenceClassifier(word_dropout=1.0).fit(data, Y)


def test_batches_of_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000).tolist()
    rng = np.random.default_rng(1)
    first, second = (bucketed(rng.permutation(1000), lengths, 8, rng) for _ in range(2))
    for batches in (first, second):
        assert sorted(i for batch in batches for i in batch) == list(range(1000))
        assert max(map(len, batches)) == 8
        spread = [np.ptp([lengths[i] for i in batch]) for batch in batches]
        assert np.mean(spread) < 3  # of 100
    assert any(a.tolist() != b.tolist() for a, b in zip(first, second, strict=True))


def test_bucketing_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["a" * n for n in (1, 9, 2, 8, 1, 9, 2, 8)]
    plans: list[Any] = []
    plan = SequenceClassifier._plan

    def watched(self: Any, data: Any, rng: Any) -> Any:
        batches = plan(self, data, rng)
        plans.append([sorted(len(data[0][i]) for i in batch) for batch in batches])
        return batches

    monkeypatch.setattr(SequenceClassifier, "_plan", watched)
    SequenceClassifier(**KW, batch_size=2, bucketing=True).fit(words, [0, 1] * 4)
    assert sorted(plans[-1]) == [[1, 1], [2, 2], [8, 8], [9, 9]]
