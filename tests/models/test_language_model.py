"""Language models: drawn text, perplexity, and a state that goes on from step to step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastrnn.models import LanguageModel


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
