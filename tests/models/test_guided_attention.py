"""Attention: pulled to alignments in training, looked at, and used to copy; and how beams are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_gradient, numeric_gradient
from small_tasks import make

from fastrnn.losses import log_softmax
from fastrnn.models import LanguageModel, Seq2Seq
from fastrnn.models._alignment import ibm1
from fastrnn.models._run import Run
from fastrnn.models._writer import _coverage

KW: dict[str, Any] = {"hidden_size": 16, "embedding_size": 8, "lr": 0.02, "batch_size": 8, "verbose": False}


def numbers(n: int = 60, seed: int = 0) -> tuple[list[list[str]], list[list[str]], list[np.ndarray]]:
    """Sequences, the same in capitals and backwards, and which token comes from which."""
    rng = np.random.default_rng(seed)
    X = [[str(c) for c in rng.choice(list("abcdefgh"), int(k))] for k in rng.integers(2, 7, n)]
    return X, [[c.upper() for c in x[::-1]] for x in X], [np.eye(len(x))[::-1] for x in X]


def looked(model: Seq2Seq, X: Any) -> float:
    """The mean share of attention that the right token gets, where as many tokens are written as there are."""
    written, looks = model.predict(X, return_attention=True)
    pairs = [(w, a) for x, w, a in zip(X, written, looks, strict=True) if len(x) == len(w)]
    assert all(
        a.shape[1] == len(w) and len(a) - len(w) in (0, 1) for w, a in pairs
    )  # with the end, if it came
    return float(np.mean([np.diag(a[: len(w)][::-1]).mean() for w, a in pairs]))


def test_guided_attention_looks_where_the_tokens_come_from() -> None:
    X, y, alignments = numbers()
    guided = Seq2Seq(**KW, epochs=12, guided_attention=2.0, guided_epochs=1.0).fit(
        X, y, alignments=alignments
    )
    free = Seq2Seq(**KW, epochs=12).fit(X, y)
    assert looked(guided, X) > 0.6
    assert looked(guided, X) > looked(free, X) + 0.15


def test_no_guide_changes_nothing() -> None:
    X, y, alignments = numbers(20)
    plain = Seq2Seq(**KW, epochs=2).fit(X, y)
    never = Seq2Seq(**KW, epochs=2, guided_attention=1.0, guided_epochs=0.0).fit(X, y, alignments=alignments)
    once = Seq2Seq(**KW, epochs=2, guided_attention=1.0, guided_epochs=0.5).fit(X, y, alignments=alignments)
    losses = [[log["loss"] for log in model.history_] for model in (plain, never, once)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_the_gradient_of_guided_attention() -> None:
    """That of the loss plus the weighted cross-entropy of attention with the alignments, by central differences."""
    X, y, alignments = numbers(3)
    options: dict[str, Any] = {"dtype": "float64", "epochs": 1, "guided_attention": 0.7, "guided_epochs": 2.0}
    model = Seq2Seq(**KW | options).fit(X, y, alignments=alignments)
    data, batch = model._prepare(X, y, model.config_, alignments), np.arange(3)

    def loss() -> float:
        run = Run(model.modules_, train=False)
        total, count = model._step(run, data, batch)
        for b, alignment in enumerate(alignments):
            p = run.looks[b, : alignment.shape[0], : alignment.shape[1]]
            total -= 0.7 / count * (alignment * np.log(p)).sum()
        return total

    trained = Run(model.modules_, train=True)
    model._step(trained, data, batch)
    rng = np.random.default_rng(0)
    for name in ("encoder", "decoder", "source", "target", "mix"):
        flat, got = model.modules_[name].flat, trained.grads[name].flat
        for i in rng.permutation(flat.size)[:8]:
            assert_gradient(got[i : i + 1], numeric_gradient(loss, flat[i : i + 1]), f"{name} {i}")


def test_ibm_model_1_by_hand() -> None:
    """The tables of expectation and maximisation in plain loops."""
    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(0, 4, n), rng.integers(0, 3, m))
        for n, m in ((3, 2), (2, 4), (4, 1), (1, 3), (0, 2), (2, 0))
    ]
    table: dict[tuple[int, int], float] = {}
    posteriors: list[np.ndarray] = []
    for _ in range(4):
        counts: dict[tuple[int, int], float] = {}
        posteriors = []
        for source, target in pairs:
            padded = [-1, *source.tolist()]
            p = np.array([[table.get((s, t), 1.0) for s in padded] for t in target.tolist()]).reshape(
                -1, len(padded)
            )
            p /= p.sum(axis=1, keepdims=True)
            for i, t in enumerate(target.tolist()):
                for j, s in enumerate(padded):
                    counts[s, t] = counts.get((s, t), 0.0) + p[i, j]
            posteriors.append(p[:, 1:])
        totals: dict[int, float] = {}
        for (s, _), count in counts.items():
            totals[s] = totals.get(s, 0.0) + count
        table = {(s, t): count / totals[s] for (s, t), count in counts.items()}
    got = ibm1([s for s, _ in pairs], [t for _, t in pairs], rounds=3)
    for one, other in zip(got, posteriors, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert one.dtype == np.float32
    assert [a.shape for a in ibm1([np.array([1, 2])], [np.array([], int)])] == [(0, 2)]


def test_the_built_in_alignment_is_used() -> None:
    X, y, _ = numbers()
    model = Seq2Seq(**KW, epochs=12, guided_attention=2.0, guided_epochs=1.0).fit(X, y, validation=0.2)
    assert looked(model, X) > 0.5
    own = Seq2Seq(**KW, epochs=3, guided_attention=1.0).fit(X, y)
    data = own._prepare(X, y, own.config_)
    given = Seq2Seq(**KW, epochs=3, guided_attention=1.0).fit(X, y, alignments=ibm1(*data))
    assert [log["loss"] for log in own.history_] == [log["loss"] for log in given.history_]


def test_unknown_tokens_are_copied() -> None:
    rng = np.random.default_rng(0)
    X = [
        [*rng.choice(list("abcd"), int(n)), f"name{i}", *rng.choice(list("abcd"), 2)]
        for i, n in enumerate([1, 2, 3] * 40)
    ]
    y = [[t if t.startswith("name") else t.upper() for t in x] for x in X]
    alignments = [np.eye(len(x)) for x in X]
    model = Seq2Seq(**KW, epochs=40, min_count=3, guided_attention=1.0, guided_epochs=1.0).fit(
        X, y, alignments=alignments
    )
    test = [["a", "b", "Ferdinand", "c", "d"], ["c", "Schmidt", "a", "a"]]
    copied = model.predict(test, copy_unknown=True)
    assert [t for x in copied for t in x if t in ("Ferdinand", "Schmidt")] == ["Ferdinand", "Schmidt"]
    assert copied == model.predict(test, copy_unknown=True, beam=3)
    assert not any(t in x for x in model.predict(test) for t in ("Ferdinand", "Schmidt", None))


def test_scores_are_the_log_probabilities_by_length() -> None:
    model, X, y = make("seq2seq", epochs=8)
    model.fit(X, y)
    written, scores = model.predict(X, beam=3, length_penalty=0.0, return_scores=True)
    assert written == model.predict(X, beam=3, length_penalty=0.0)
    places = {t: i for i, t in enumerate(model.config_["target"])}
    for source, target, score in zip(model._sources(X, model.config_), written, scores, strict=True):
        ids = [places[t] for t in target]
        ended = len(ids) < model.config_["longest"]
        run = Run(model.modules_, train=False)
        state, memory = model._read(run, [source])
        z, _ = model._decode(run, np.array([[1, *ids]]).T, state, memory)
        log_p = log_softmax(z[:, 0].astype(np.float64))
        want = sum(log_p[t, i] for t, i in enumerate([*ids, 2] if ended else ids))
        assert score == pytest.approx(want, rel=1e-5)
    _, by_length = model.predict(X, return_scores=True, length_penalty=1.0)
    alone, greedy = model.predict(X, return_scores=True, length_penalty=0.0)
    n = np.array([len(w) + 1 for w in alone])
    np.testing.assert_allclose(by_length, greedy / n)


def test_length_and_coverage_penalties_choose_others() -> None:
    rng = np.random.default_rng(1)
    X = ["".join(rng.choice(list("abc"), 6)) for _ in range(30)]
    y = [x[: int(rng.integers(1, 7))] for x in X]
    model = Seq2Seq(**KW, epochs=6).fit(X, y)

    def mean_length(**options: Any) -> float:
        return float(np.mean([len(w) for w in model.predict(X, beam=8, **options)]))

    assert mean_length(length_penalty=0.0) < mean_length(length_penalty=2.0)
    assert mean_length(length_penalty=0.0) < mean_length(length_penalty=0.0, coverage_penalty=5.0)


def test_coverage_by_hand() -> None:
    looks = np.zeros((1, 2, 3, 3))
    looks[0, 0] = [[0.5, 0.5, 0.0], [0.8, 0.2, 0.0], [9.0, 9.0, 0.0]]  # of which two steps count
    looks[0, 1] = [[0.1, 0.1, 0.8], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    got = _coverage(looks, np.array([[2, 1]]), np.array([[2, 3]]))
    assert got[0].tolist() == pytest.approx([np.log(0.7), 2 * np.log(0.1) + np.log(0.8)])


def test_bad_arguments() -> None:
    X, y, alignments = numbers(4)
    plain, guided = Seq2Seq(**KW, epochs=1), Seq2Seq(**KW, epochs=1, guided_attention=1.0)
    for model, options, error, message in (
        (
            plain,
            {"alignments": alignments},
            ValueError,
            "guided_attention: expected above 0 to go with alignments",
        ),
        (
            guided,
            {"alignments": alignments[:3]},
            ValueError,
            "alignments: expected one for each of 4 pairs, got 3",
        ),
        (
            guided,
            {"alignments": [a[1:] for a in alignments]},
            ValueError,
            r"alignments\[0\]: expected numbers of shape",
        ),
        (
            guided,
            {"alignments": [-a for a in alignments]},
            ValueError,
            r"alignments\[0\]: expected rows of numbers",
        ),
        (guided, {"alignments": [2 * a for a in alignments]}, ValueError, r"alignments\[0\]: expected rows"),
        (
            guided,
            {"alignments": [a * np.nan for a in alignments]},
            ValueError,
            r"alignments\[0\]: expected rows",
        ),
        (
            guided,
            {"alignments": alignments[:3], "validation": 0.5},
            ValueError,
            "alignments: expected one for each",
        ),
        (
            Seq2Seq(**KW, guided_attention=1.0, attention=False),
            {},
            ValueError,
            "guided_attention: expected attention=True",
        ),
        (
            Seq2Seq(**KW, guided_attention=-1.0),
            {},
            ValueError,
            "guided_attention: expected 0 <= guided_attention",
        ),
    ):
        with pytest.raises(error, match=message):
            model.fit(X, y, **options)
    half = guided.fit(X, y, alignments=alignments, validation=0.5)
    assert np.isfinite(half.history_[0]["val_loss"])
    without = Seq2Seq(**KW, epochs=1, attention=False).fit(X, y)
    for options in ({"copy_unknown": True}, {"return_attention": True}, {"coverage_penalty": 1.0}):
        with pytest.raises(
            ValueError, match=f"{next(iter(options))}: expected attention=True to go with it, got False"
        ):
            without.predict(X, **options)
    with pytest.raises(ValueError, match="length_penalty: expected a number of at least 0"):
        half.predict(X, length_penalty=-1.0)
    with pytest.raises(ValueError, match="coverage_penalty: expected a number of at least 0"):
        half.predict(X, coverage_penalty=-1.0)
    assert half.predict([], return_scores=True, return_attention=True)[0] == []


def test_unequal_sources_keep_their_order() -> None:
    model, X, y = make("seq2seq", epochs=10, batch_size=2)
    model.fit(X, y)
    assert model.predict(X) == [model.predict([x])[0] for x in X]
    captions, features, sentences = make("captioner", epochs=3)
    written, scores = captions.fit(features, sentences).predict(features, beam=2, return_scores=True)
    assert (len(written), scores.shape) == (3, (3,))


def test_bits_and_iterators_of_a_language_model() -> None:
    model = LanguageModel(hidden_size=16, epochs=8, batch_size=4, lr=0.02, steps=10, verbose=False)
    model.fit("the cat sat on the mat. " * 30)
    text = "the cat sat on the mat. "
    assert 2 ** model.bits_per_token(text) == pytest.approx(model.perplexity(text))
    for options in (
        {"temperature": 0},
        {"rng": 3, "top_k": 4},
        {"rng": 1, "stop": ["mat", "at s"]},
        {"rng": 1, "top_p": 0.8},
    ):
        pieces = model.iter_generate(60, "the ", **options)
        assert iter(pieces) is pieces
        assert "".join(pieces) == model.generate(60, "the ", **options)
    with pytest.raises(ValueError, match="length: expected at least 0"):
        model.iter_generate(-1)  # at once, not when it is read


def test_tokens_come_as_soon_as_they_cannot_begin_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LanguageModel(hidden_size=16, epochs=20, batch_size=4, lr=0.02, steps=10, verbose=False)
    model.fit("abcdef" * 60)
    reads: list[int] = []
    read = LanguageModel._read
    monkeypatch.setattr(
        LanguageModel, "_read", lambda self, x, state=None: (reads.append(1), read(self, x, state))[1]
    )
    seen = [(token, len(reads)) for token in model.iter_generate(8, "f", temperature=0, stop=["cdx", "eff"])]
    assert [token for token, _ in seen] == list("abcdefab")
    assert [n for _, n in seen] == [1, 2, 5, 5, 7, 7, 7, 8]  # c and d wait for what follows, e and f too
    assert list(model.iter_generate(9, "f", temperature=0, stop="de")) == list("abc")
    assert list(model.iter_generate(4, "f", temperature=0, stop="dex")) == list(
        "abcd"
    )  # the end, in the midst
