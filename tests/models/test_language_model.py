"""Language models: drawn text, perplexity, and a state that goes on from step to step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_tasks import bits

from fastrnn.models import LanguageModel
from fastrnn.models.language import _nucleus


def test_generate() -> None:
    model = LanguageModel(hidden_size=16, epochs=4, batch_size=4, lr=0.02, verbose=False)
    model.fit("the cat sat on the mat. " * 30)
    greedy = model.generate(40, "the", temperature=0)
    assert {model.generate(40, "the", top_k=1, rng=seed) for seed in range(3)} == {greedy}
    assert model.generate(40, rng=1) == model.generate(40, rng=1) != model.generate(40, rng=2)
    assert len(model.generate(7)) == 7
    p = model.predict_proba("the c")
    likely = {model.config_["vocabulary"][i] for i in np.argsort(p[1:])[-2:] + 1}
    assert {model.generate(1, "the c", top_k=2, temperature=3.0, rng=i) for i in range(60)} == likely
    assert len({model.generate(1, "the c", temperature=100.0, rng=i) for i in range(200)}) > 5
    words = LanguageModel(hidden_size=8, epochs=1, verbose=False, min_count=2)
    words.fit(["one", "two", "one", "two", "three", "one", "two"])
    assert None not in words.generate(50, temperature=10.0)
    assert set(words.generate(50, temperature=10.0)) <= {"one", "two"}


def test_perplexity_of_a_model_that_knows_nothing() -> None:
    model = LanguageModel(hidden_size=4, epochs=1, verbose=False).fit("abcab")
    model.modules_["head"].flat[...] = 0
    assert model.perplexity("abc" * 700) == pytest.approx(4)  # three tokens and the unknown one
    assert model.score("abc") == pytest.approx(-math.log(4))


def test_truncated_bptt_carries_the_state() -> None:
    """BPTT reaches 4 steps back, but to count to five the state must come from further."""
    text = "aaaaabcccccd" * 30
    model = LanguageModel(hidden_size=16, steps=4, batch_size=4, epochs=40, lr=0.02, verbose=False).fit(text)
    four_tokens_know = -4 * math.log(2) / 12  # what follows aaaa and cccc is a coin toss
    assert model.score(text) > four_tokens_know / 2


def test_every_call_draws_another_text() -> None:
    model = LanguageModel(hidden_size=8, epochs=1, verbose=False).fit("abcd" * 50)
    assert len({model.generate(40) for _ in range(5)}) == 5
    assert model.generate(40, rng=3) == model.generate(40, rng=3)


def test_top_p_draws_among_the_most_probable() -> None:
    p = np.array([0.5, 0.05, 0.3, 0.15])
    assert _nucleus(p, 0.5).tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(_nucleus(p, 0.7), [0.625, 0, 0.375, 0])
    np.testing.assert_allclose(_nucleus(p, 0.8), [0.625, 0, 0.375, 0])
    np.testing.assert_allclose(_nucleus(p, 1.0), p)
    model = LanguageModel(hidden_size=8, epochs=1, verbose=False).fit("abcd" * 50)
    assert model.generate(30, "a", top_p=1e-9, rng=1) == model.generate(30, "a", temperature=0)
    assert model.generate(30, "a", top_p=1.0, rng=1) == model.generate(30, "a", rng=1)
    for odd in (0, 1.5, -1):
        with pytest.raises(ValueError, match="top_p: expected 0 < top_p <= 1"):
            model.generate(3, top_p=odd)


def test_stop_ends_the_text() -> None:
    model = LanguageModel(hidden_size=16, epochs=8, batch_size=4, lr=0.02, verbose=False).fit("abcd" * 200)
    assert model.generate(20, "ab", temperature=0) == "cdab" * 5
    assert model.generate(20, "ab", temperature=0, stop="b") == "cda"
    assert model.generate(20, "ab", temperature=0, stop=["x", "abc"]) == "cd"
    assert model.generate(4, "ab", temperature=0, stop="zz") == "cdab"
    ids = LanguageModel(hidden_size=16, epochs=8, batch_size=4, lr=0.02, verbose=False).fit(
        [1, 2, 3, 4] * 200
    )
    assert ids.generate(20, [1, 2], temperature=0, stop=1) == [3, 4]
    assert ids.generate(20, [1, 2], temperature=0, stop=np.array([9, 1])) == [3, 4]
    for odd in ("", ["a", ""]):
        with pytest.raises(ValueError, match="stop: expected str that are not empty"):
            model.generate(3, stop=odd)
    with pytest.raises(TypeError, match="stop: expected str, got int"):
        model.generate(3, stop=3)


def test_several_texts() -> None:
    texts = ["abc", "ba", "", "c", "cab" * 500]
    model = LanguageModel(hidden_size=8, epochs=2, texts=True, dtype="float64", verbose=False).fit(texts)
    one = LanguageModel(hidden_size=8, epochs=2, dtype="float64", verbose=False).fit("".join(texts))
    for name, array in bits(one).items():
        array[...] = bits(model)[name]
    for i in range(len(model.config_["vocabulary"])):
        assert model.config_["vocabulary"][i] == one.config_["vocabulary"][i]
    counts = [max(len(text) - 1, 0) for text in texts]
    nats = sum(one.score(text) * n for text, n in zip(texts, counts, strict=True) if n)
    assert model.score(texts) == pytest.approx(nats / sum(counts), rel=1e-12)
    assert isinstance(model.generate(5, "ab"), str)
    assert np.isfinite(model.fit(texts, validation=0.4).history_[-1]["val_loss"])
    words = LanguageModel(hidden_size=8, epochs=1, texts=True, verbose=False).fit(
        [["a", "cat"], ["a", "dog"]]
    )
    assert isinstance(words.predict(["a"]), str)
    with pytest.raises(TypeError, match=r"X: expected one text, got several: LanguageModel\(texts=True\)"):
        LanguageModel(verbose=False).fit([["a", "cat"], ["a", "dog"]])
    with pytest.raises(TypeError, match="got one str, which is a single sequence"):
        LanguageModel(texts=True, verbose=False).fit("abc")


def test_each_text_begins_anew() -> None:
    """The second token tells the first one of the text, which was another one before."""
    texts = ["aaxa", "bbxb"] * 60
    rng = np.random.default_rng(0)
    rng.shuffle(texts)
    options = {"hidden_size": 16, "epochs": 30, "batch_size": 4, "lr": 0.02, "verbose": False}
    model = LanguageModel(**options, texts=True).fit(texts)
    assert model.score(texts) > -0.05
    joined = LanguageModel(**options).fit("".join(texts))
    assert joined.score("".join(texts)) < -0.1
