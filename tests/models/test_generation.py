"""LanguageModel.generate: what the temperature does."""

from __future__ import annotations

from fastrnn.models import LanguageModel


def test_a_low_temperature_takes_the_most_probable_token_and_a_high_one_any() -> None:
    model = LanguageModel(hidden_size=8, epochs=1, batch_size=2, steps=10, lr=0.01, verbose=False)
    model.fit("abcdabdc" * 20)
    greedy = model.generate(60, "ab", temperature=0)
    assert model.generate(60, "ab", temperature=1e-6, rng=0) == greedy
    drawn = model.generate(400, "ab", temperature=1e6, rng=0)
    assert all(60 < drawn.count(token) < 140 for token in "abcd")
