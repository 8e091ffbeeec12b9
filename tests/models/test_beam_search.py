"""Sequences that models write: greedy, and by beam search."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from small_tasks import make

from fastrnn.losses import log_softmax


def written(model: Any, rows: list[np.ndarray]) -> tuple[Any, Any]:
    from fastrnn.models._run import Run

    return model._read(Run(model.modules_, train=False), rows)


def next_log_p(model: Any, source: np.ndarray, prefix: list[int]) -> np.ndarray:
    """log p of every token after a prefix, with the whole prefix read at once."""
    from fastrnn.models._run import Run

    state, memory = written(model, [source])
    x = np.array([[1, *prefix]]).T
    z, _ = model._decode(Run(model.modules_, train=False), x, state, memory)
    return np.asarray(log_softmax(z[-1, 0].astype(np.float64)))


@pytest.mark.parametrize("name", ["seq2seq", "plain seq2seq", "captioner"])
def test_beam_of_width_one_is_greedy(name: str) -> None:
    model, X, y = make(name, epochs=8)
    model.fit(X, y)
    sources = model._sources(X, model.config_)
    for source, got in zip(sources, model.predict(X, beam=1), strict=True):
        want: list[int] = []
        for _ in range(model.config_["longest"]):
            token = 2 + int(np.argmax(next_log_p(model, source, want)[2:]))
            if token == 2:
                break
            want.append(token)
        assert list(got) == [model.config_["target"][i] for i in want]


@pytest.mark.parametrize("name", ["seq2seq", "captioner"])
def test_beam_search_finds_the_most_probable(name: str) -> None:
    model, X, _ = make(name, epochs=2)
    y = ["ab", "bba", "a", "b", "ba", "aab"][: len(X)]
    model.fit(X, y)
    tokens = model.config_["target"]
    totals: dict[int, list[float]] = {1: [], 3: [], 40: []}
    for i, source in enumerate(model._sources(X, model.config_)):
        scores: dict[str, float] = {}
        for n in range(4):  # at most three tokens: the end is written only where there is room for it
            for row in product((3, 4), repeat=n):
                path = [*row, 2][:3]
                log_p = sum(next_log_p(model, source, path[:k])[path[k]] for k in range(len(path)))
                scores["".join(tokens[c] for c in row)] = log_p / (n + 1) ** 0.6
        for beam, total in totals.items():
            total.append(scores[model.predict(X[i : i + 1], beam=beam)[0]])
        assert totals[40][-1] == pytest.approx(max(scores.values()))
        assert totals[40][-1] >= totals[1][-1]
    assert np.mean(totals[3]) >= np.mean(totals[1])


def test_a_row_is_written_alike_alone_and_in_a_batch() -> None:
    model, X, y = make("seq2seq", epochs=10, batch_size=4)
    model.fit(X, y)
    for beam in (1, 4):
        assert model.predict(X, beam=beam) == [model.predict([row], beam=beam)[0] for row in X]
    assert model.predict([]) == []
    assert model.predict([""], max_length=0) == [""]
    assert max(map(len, model.predict(X, max_length=2))) <= 2
