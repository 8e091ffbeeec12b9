"""Tools around text: words, vocabularies, alignments, word vectors, sub-words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn import text
from fastrnn.models import Seq2Seq, SequenceClassifier


def test_words_and_vocabularies() -> None:
    assert text.words("A well-known name, isn't it? 3.5") == [
        "A",
        "well-known",
        "name",
        ",",
        "isn't",
        "it",
        "?",
        "3",
        ".",
        "5",
    ]
    assert text.words("ÄRGER", lower=True) == ["ärger"]
    assert text.words("  \n") == []
    texts = [["b", "a", "a"], ["c", "b", "a"]]
    assert text.vocabulary(texts) == ["a", "b", "c"]
    assert text.vocabulary(texts, min_count=2, max_size=1) == ["a"]
    assert text.vocabulary(["abca"]) == ["a", "b", "c"]
    for call, error, message in (
        (lambda: text.words(["a"]), TypeError, "text: expected a str, got list"),  # type: ignore[arg-type]
        (lambda: text.vocabulary("abc"), TypeError, "texts: expected a list of texts, got one str"),
        (lambda: text.vocabulary(texts, min_count=0), ValueError, "min_count: expected at least 1"),
        (lambda: text.vocabulary(texts, max_size=0), ValueError, "max_size: expected at least 1"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_alignments_of_words() -> None:
    rng = np.random.default_rng(0)
    german, english = ["haus", "buch", "mann", "frau", "kind"], ["house", "book", "man", "woman", "child"]
    ids = [rng.permutation(5)[: rng.integers(2, 5)] for _ in range(200)]
    X, y = [[german[i] for i in row] for row in ids], [[english[i] for i in row[::-1]] for row in ids]
    found = text.align(X, y)
    assert all(a.shape == (len(row), len(row)) for a, row in zip(found, ids, strict=True))
    assert np.mean([(a.argmax(axis=1) == np.arange(len(a))[::-1]).mean() for a in found]) > 0.95
    model = Seq2Seq(hidden_size=8, epochs=1, guided_attention=1.0, verbose=False).fit(X, y, alignments=found)
    assert len(model.predict(X[:2])) == 2
    with pytest.raises(ValueError, match="y: expected one for each of the 200 of X, got 199"):
        text.align(X, y[1:])


def topics(n: int = 300) -> list[list[str]]:
    """Texts of one of two topics, whose words occur together, and words that belong to none."""
    rng = np.random.default_rng(0)
    sides = [["cat", "dog", "bird", "fish", "cow"], ["red", "green", "blue", "pink", "grey"]]
    return [[*rng.choice(sides[i % 2], 6), *rng.choice(["the", "a"], 3)] for i in range(n)]


def test_word_vectors_of_one_topic_are_alike() -> None:
    pytest.importorskip("sklearn")
    texts = topics()
    vectors = text.word_vectors(texts, 4, window=8)
    assert repr(vectors) == "WordVectors(12 tokens, 4 values each)"
    assert {token for token, _ in vectors.most_similar("cat", 4)} == set(["dog", "bird", "fish", "cow"])
    assert vectors.vectors.dtype == np.float32
    assert "cat" in vectors
    assert "unknown" not in vectors
    assert sorted(vectors) == sorted({t for x in texts for t in x})
    np.testing.assert_array_equal(vectors["red"], vectors.vectors[vectors.key_to_index["red"]])
    again = text.word_vectors(texts, 4, window=8)
    np.testing.assert_array_equal(again.vectors, vectors.vectors)
    model = SequenceClassifier(hidden_size=8, epochs=5, lr=0.02, embedding=vectors, verbose=False)
    model.fit([["cat"], ["dog"], ["red"], ["green"]] * 8, [0, 0, 1, 1] * 8)
    assert model.predict([["cow"], ["grey"]]).tolist() == [0, 1]  # never seen with a label


def test_the_matrix_behind_word_vectors() -> None:
    """Positive pointwise mutual information by loops; with all singular values, its square is what vectors give."""
    pytest.importorskip("sklearn")
    texts = [["a", "b", "c", "a"], ["b", "c", "b"], ["c"], ["x", "a", "a"]]
    vectors = text.word_vectors(texts, 99, window=2, min_count=2, smoothing=1.0)
    tokens = vectors.index_to_key
    assert set(tokens) == set("abc")
    counts = np.zeros((3, 3))
    for words in texts:
        for i, a in enumerate(words):
            for j, b in enumerate(words):
                if 0 < abs(i - j) <= 2 and a in tokens and b in tokens:
                    counts[tokens.index(a), tokens.index(b)] += 1
    with np.errstate(divide="ignore"):
        ppmi = np.maximum(np.log(counts * counts.sum() / np.outer(counts.sum(axis=1), counts.sum(axis=0))), 0)
    left, values, _ = np.linalg.svd(ppmi)
    np.testing.assert_allclose(vectors.vectors @ vectors.vectors.T, (left * values) @ left.T, atol=1e-5)


def test_bad_word_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    for options, message in (
        ({"size": 0}, "size: expected at least 1"),
        ({"window": 0}, "window: expected at least 1"),
        ({"smoothing": 0}, "smoothing: expected 0 < smoothing <= 1, got 0"),
        ({"min_count": 1000}, "texts: expected a token that is there at least 1000 times"),
    ):
        with pytest.raises(ValueError, match=message):
            text.word_vectors(topics(20), **options)
    with pytest.raises(TypeError, match="texts: expected an array or a list of sequences, got one str"):
        text.word_vectors("abc")
    vectors = text.WordVectors(["a", "b"], np.eye(2))
    with pytest.raises(ValueError, match="token: expected one that has a vector, got 'c'"):
        vectors.most_similar("c")
    with pytest.raises(ValueError, match="vectors: expected one for each of 1 tokens, got 2"):
        text.WordVectors(["a"], np.eye(2))
    monkeypatch.setitem(sys.modules, "sklearn.utils.extmath", None)
    with pytest.raises(ImportError, match=r"pip install 'fastrnn\[text\]'"):
        text.word_vectors(topics(20))


SENTENCES = ["The lower house sits lower, in 2024.", "New houses: newer and lower; isn't it?"] * 30


def test_subwords_cut_and_join(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    tool = text.Subwords.train(SENTENCES, 60)
    assert repr(tool) == f"Subwords({len(tool.vocabulary)})"
    assert len(tool.vocabulary) <= 60
    for sentence in (*SENTENCES[:2], "The newest house, 42."):
        tokens = tool.encode(sentence)
        assert tool.decode(tokens) == sentence
        assert all(isinstance(t, str) for t in tokens)
    assert "▁lower" in tool.encode("a lower one")
    assert tool.encode("2024")[-4:] == ["2", "0", "2", "4"]
    assert text.UNKNOWN in tool.encode("Ж")
    tool.save(tmp_path / "tool.json")
    assert text.Subwords.load(tmp_path / "tool.json").encode(SENTENCES[0]) == tool.encode(SENTENCES[0])
    model = Seq2Seq(hidden_size=16, epochs=1, verbose=False).fit(
        *[[tool.encode(s) for s in SENTENCES[:4]]] * 2
    )
    assert isinstance(tool.decode(model.predict([tool.encode("new house")])[0]), str)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad\.json: not a file of tokenizers"):
        text.Subwords.load(tmp_path / "bad.json")


def test_bad_subwords(monkeypatch: pytest.MonkeyPatch) -> None:
    def package(call: Any) -> Any:
        with pytest.raises((TypeError, ValueError, ImportError)) as caught:
            call()
        return str(caught.value)

    assert "texts: expected a list of str, got one str" in package(lambda: text.Subwords.train("abc"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert "pip install 'fastrnn[text]'" in package(lambda: text.Subwords.train(["abc"]))
