"""The models: they learn, resume to the same bits, save and load, search and draw, and refuse what is bad."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits, numeric_gradient

from fastrnn import io, models
from fastrnn.losses import log_softmax
from fastrnn.models import (
    Captioner,
    Forecaster,
    LanguageModel,
    Model,
    NotFittedError,
    Seq2Seq,
    SequenceClassifier,
    SequenceTagger,
)
from fastrnn.models._base import FORMAT

SINE = np.sin(np.arange(240) * 2 * np.pi / 20)
WORDS = ["abba", "aab", "ccd", "dcdd", "ba", "cdc"]
LISTS = [np.full((n, 2), v) for n, v in ((3, 1.0), (5, -1.0), (1, 1.0), (2, -1.0))]  # of unequal length
# model, hyperparameters, X, y, least score after training
TASKS: dict[str, tuple[Any, dict[str, Any], Any, Any, float]] = {
    "language": (LanguageModel, {"steps": 10, "batch_size": 4}, "abcd" * 50, None, -0.1),
    "classifier": (SequenceClassifier, {}, WORDS, [0, 0, 1, 1, 0, 1], 1.0),
    "ragged": (SequenceClassifier, {"cell": "gru"}, LISTS, ["up", "down", "up", "down"], 1.0),
    "tagger": (SequenceTagger, {"cell": "gru"}, WORDS, [[c.upper() for c in w] for w in WORDS], 1.0),
    "forecaster": (Forecaster, {"steps": 40, "batch_size": 2}, SINE, None, 0.95),
    "seq2seq": (Seq2Seq, {"embedding_size": 16}, WORDS, [w[::-1] for w in WORDS], 1.0),
    "plain seq2seq": (
        Seq2Seq,
        {"attention": False, "bidirectional": False, "cell": "gru"},
        WORDS,
        WORDS,
        1.0,
    ),
    "captioner": (Captioner, {}, np.eye(3), [["a", "cat"], ["dogs"], ["a", "dog"]], 1.0),
}


def make(name: str, **options: Any) -> tuple[Any, Any, Any]:
    """A model that is not fitted yet, and its data."""
    kind, own, X, y, _ = TASKS[name]
    common = {"hidden_size": 16, "lr": 0.02, "epochs": 3, "batch_size": 3, "verbose": False}
    return kind(**common | own | options), X, y


def bits(model: Any) -> dict[str, np.ndarray]:
    return {f"{n}.{k}": a for n, piece in model.modules_.items() for k, a in piece.params.items()}


def said(model: Any, X: Any) -> Any:
    """Everything a model predicts, in one array or list."""
    if isinstance(model, Forecaster):
        return np.concatenate([model.predict(X, 5), *model.predict_interval(X, 3, samples=20)])
    if isinstance(model, LanguageModel):
        return np.append(model.predict_proba(X), model.score(X))
    if isinstance(model, (SequenceClassifier, SequenceTagger)):
        return np.concatenate(model.predict_proba(X))
    return [*model.predict(X), *model.predict(X, beam=3)]


# ---- learning


@pytest.mark.parametrize("name", TASKS)
def test_learns(name: str) -> None:
    model, X, y = make(name, epochs=120, schedule="cosine")
    logs: list[dict[str, float]] = []
    model.fit(X, y, callbacks=[lambda m, log: logs.append(log)])
    assert [log["epoch"] for log in logs] == list(range(1, 121))
    assert logs[-1]["loss"] < min(0.3, logs[0]["loss"] / 2)
    assert model.score(X, y) >= TASKS[name][4]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("name", TASKS)
def test_every_cell_stacked_with_dropout(name: str, cell: str) -> None:
    model, X, y = make(
        name, cell=cell, num_layers=2, dropout=0.2, epochs=8, dtype="float64", optimizer="adamw"
    )
    model.fit(X, y)
    losses = [log["loss"] for log in model.history_]
    assert min(losses[-3:]) < losses[0]
    assert all(array.dtype == np.float64 for array in bits(model).values())


def test_gradients_of_every_model_by_finite_differences() -> None:
    """Loss against weights, so that no piece's gradient is forgotten or scaled."""
    from fastrnn.models._base import Run

    for name in TASKS:
        model, X, y = make(name, hidden_size=4, dtype="float64", epochs=1, num_layers=2)
        model.fit(X, y)
        data = model._prepare(X, y, model.config_)
        batch = model._plan(data, None)[0]

        def loss(model: Any = model, data: Any = data, batch: Any = batch) -> float:
            fresh = ([None], *batch[1:]) if isinstance(model, LanguageModel) else batch
            return float(model._step(Run(model.modules_, train=False), data, fresh)[0])

        run = Run(model.modules_, train=True)
        model._step(run, data, ([None], *batch[1:]) if isinstance(model, LanguageModel) else batch)
        assert not run.tapes
        assert set(run.grads) == set(model.modules_)
        for piece_name, piece in model.modules_.items():
            part = piece.flat[:: max(1, piece.flat.size // 7)]  # a view: some of the weights
            got = run.grads[piece_name].flat[:: max(1, piece.flat.size // 7)]
            want = np.array([_slope(loss, part, i) for i in range(part.size)])
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-7, err_msg=f"{name} {piece_name}")


def _slope(f: Any, a: np.ndarray, i: int, eps: float = 1e-6) -> float:
    old = a[i]
    a[i] = old + eps
    above = f()
    a[i] = old - eps
    below = f()
    a[i] = old
    return float((above - below) / (2 * eps))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_captioner_gradient_to_the_features(cell: str) -> None:
    rng = np.random.default_rng(0)
    features, captions = rng.standard_normal((3, 5)), ["ab", "b", "aab"]
    model = Captioner(
        cell=cell, hidden_size=4, num_layers=2, optimizer="sgd", lr=0.0, dtype="float64", verbose=False
    )
    _, gradient = model.partial_fit(features, captions)
    want = numeric_gradient(lambda: model.partial_fit(features, captions)[0], features)
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-9)
    assert abs(gradient).max() > 1e-6


def test_captioner_trains_what_makes_the_features() -> None:
    """A linear map in front, trained through the gradient to its output, beats training the captioner only."""
    from fastrnn import optim
    from fastrnn.nn import Linear

    rng = np.random.default_rng(0)
    images, captions = rng.standard_normal((8, 6)).astype(np.float32), [f"{i:03b}" for i in range(8)]
    final = []
    for lr in (0.0, 0.05):
        front = Linear(6, 2, rng=1)
        optimiser = optim.Adam([front], lr=lr)
        model = Captioner(hidden_size=16, lr=0.01, verbose=False)
        for _ in range(60):
            features, tape = front.forward(images)
            loss, gradient = model.partial_fit(features, captions)
            optimiser.step([front.backward(tape, gradient)])
        final.append(loss)
    assert final[1] < 0.7 * final[0]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_partial_fit_has_no_end_for_a_schedule(schedule: str) -> None:
    """The rate would be 0 from the second step on."""
    model = Captioner(schedule=schedule, verbose=False)
    with pytest.raises(ValueError, match=r"^schedule: expected 'constant', since steps have no end, got"):
        model.partial_fit(np.eye(2), ["ab", "cd"])
    assert not hasattr(model, "modules_")


def test_partial_fit_goes_on_after_fit() -> None:
    model, X, y = make("captioner")
    for _ in range(2):  # the second fit makes new weights: they are what the next step changes
        model.fit(X, y)
        before = {name: array.copy() for name, array in bits(model).items()}
        model.partial_fit(X, y)
        assert all((array != before[name]).any() for name, array in bits(model).items())


def test_forecaster_intervals_cover_what_they_say() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(3000)
    series = np.zeros(3000)
    for t in range(1, 3000):
        series[t] = 0.8 * series[t - 1] + noise[t]
    model = Forecaster(hidden_size=16, steps=50, epochs=15, batch_size=8, lr=0.01, verbose=False)
    model.fit(series[:2000])
    horizon, hits = 3, []
    for start in range(2000, 2990, 8):
        low, high = model.predict_interval(series[:start], horizon, 0.8, samples=200)
        assert (low < high).all()
        hits.append((low <= series[start : start + horizon]) & (series[start : start + horizon] <= high))
    covered = np.mean(hits, axis=0)
    assert (covered > 0.68).all()
    assert (covered < 0.92).all()
    low, high = model.predict_interval(series, 30, 0.8)
    assert (high - low)[20:].mean() == pytest.approx(2 * 1.2816 * series.std(), rel=0.25)
    assert (high - low)[0] == pytest.approx(2 * 1.2816, rel=0.25)  # that of the noise


# ---- drawing and searching


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
    assert model.perplexity("abc" * 700) == pytest.approx(4)  # three symbols and the unknown one
    assert model.score("abc") == pytest.approx(-math.log(4))


def written(model: Any, rows: list[np.ndarray]) -> tuple[Any, Any]:
    from fastrnn.models._base import Run

    return model._read(Run(model.modules_, train=False), rows)


def next_log_p(model: Any, source: np.ndarray, prefix: list[int]) -> np.ndarray:
    """log p of every symbol after a prefix, with the whole prefix read at once."""
    from fastrnn.models._base import Run

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
            symbol = 2 + int(np.argmax(next_log_p(model, source, want)[2:]))
            if symbol == 2:
                break
            want.append(symbol)
        assert list(got) == [model.config_["target"][i] for i in want]


@pytest.mark.parametrize("name", ["seq2seq", "captioner"])
def test_beam_search_finds_the_most_probable(name: str) -> None:
    model, X, _ = make(name, epochs=2)
    y = ["ab", "bba", "a", "b", "ba", "aab"][: len(X)]
    model.fit(X, y)
    symbols = model.config_["target"]
    totals: dict[int, list[float]] = {1: [], 3: [], 40: []}
    for i, source in enumerate(model._sources(X, model.config_)):
        scores: dict[str, float] = {}
        for n in range(4):  # at most three symbols: the end is written only where there is room for it
            for row in product((3, 4), repeat=n):
                path = [*row, 2][:3]
                log_p = sum(next_log_p(model, source, path[:k])[path[k]] for k in range(len(path)))
                scores["".join(symbols[c] for c in row)] = log_p / (n + 1) ** 0.6
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


# ---- the training loop


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    model, X, y = make("classifier", verbose=True, epochs=2)
    model.fit(X, y)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert "loss=" in shown
    assert "tokens_per_s=" in shown


def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    model, X, y = make("classifier")
    model.fit(X, y)
    with pytest.raises(ImportError, match="fit needs tqdm for verbose=True: pip install"):
        model.set_params(verbose=True).fit(X, y)


def test_early_stopping_keeps_the_best_weights() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 6)), rng.integers(0, 2, 20)  # nothing to learn but by heart
    model = SequenceClassifier(hidden_size=16, epochs=100, lr=0.03, patience=3, verbose=False)
    model.fit(X, y, validation=(X[:10], 1 - y[:10]))
    losses = [log["val_loss"] for log in model.history_]
    assert len(losses) < 50
    assert len(losses) - 1 - int(np.argmin(losses)) == 3
    held_out = model._prepare(X[:10], 1 - y[:10], model.config_)
    assert model._mean_loss(held_out) == min(losses)


def test_callback_ends_training() -> None:
    model, X, y = make("classifier", epochs=9)
    model.fit(X, y, callbacks=[lambda m, log: log["epoch"] == 2, lambda m, log: None])
    assert len(model.history_) == 2


def test_truncated_bptt_carries_the_state() -> None:
    """BPTT reaches 4 steps back, but to count to five the state must come from further."""
    text = "aaaaabcccccd" * 30
    model = LanguageModel(hidden_size=16, steps=4, batch_size=4, epochs=40, lr=0.02, verbose=False).fit(text)
    four_symbols_know = -4 * math.log(2) / 12  # what follows aaaa and cccc is a coin toss
    assert model.score(text) > four_symbols_know / 2


def test_schedules_and_clipping_take_effect() -> None:
    ends = {}
    for options in (
        {},
        {"schedule": "cosine"},
        {"schedule": "linear"},
        {"clip": 1e-3},
        {"weight_decay": 1.0},
    ):
        model, X, y = make("classifier", optimizer="sgd", lr=1.0, epochs=4, **options)
        model.fit(X, y)
        ends[str(options)] = model.modules_["rnn"].flat.copy()
        if "clip" in options:
            start, _, _ = make("classifier", optimizer="sgd", lr=0.0, epochs=1)
            moved = np.linalg.norm(ends[str(options)] - start.fit(X, y).modules_["rnn"].flat)
            assert 0 < moved <= 4 * 2 * 1e-3 * 1.001  # epochs x batches x clip
    assert len({end.tobytes() for end in ends.values()}) == 5


@pytest.mark.parametrize("name", TASKS)
def test_the_learning_rate_falls_to_the_end_and_no_further(name: str) -> None:
    kept: list[Any] = []

    class Watched(TASKS[name][0]):  # type: ignore[misc, name-defined]
        def _optimiser(self, steps: int) -> Any:
            kept.append((super()._optimiser(steps), steps))
            return kept[-1][0]

    model, X, y = make(name, schedule="linear", epochs=20)
    Watched(**model.get_params()).fit(X, y)
    optimiser, steps = kept[0]
    assert optimiser.steps == pytest.approx(steps, rel=0.25)  # a forecaster's windows begin anywhere
    assert optimiser.lr(0) == pytest.approx(0.02)
    assert optimiser.lr(steps) == 0


def test_divergence_is_an_error() -> None:
    model, X, y = make("ragged", cell="rnn_relu", optimizer="sgd", lr=1e30, clip=None, epochs=50)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"the loss became .* in epoch"):
        model.fit(X, y)


def test_initialisations() -> None:
    eye = np.eye(8, dtype=np.float32)

    def layer(**options: Any) -> Any:
        model = SequenceClassifier(hidden_size=8, epochs=1, lr=0.0, verbose=False, **options)
        return model.fit(WORDS, [0, 0, 1, 1, 0, 1]).modules_["rnn"].params

    np.testing.assert_array_equal(layer(cell="rnn_relu", init="identity")["weight_hh_l0_reverse"], eye)
    for gate in np.split(layer(cell="gru", init="orthogonal")["weight_hh_l0"], 3):
        np.testing.assert_allclose(gate @ gate.T, eye, atol=1e-5)
    for init in (None, "forget_bias"):
        params = layer(init=init)
        np.testing.assert_array_equal((params["bias_ih_l0"] + params["bias_hh_l0"])[8:16], 1)
    assert (layer(init="xavier")["bias_ih_l0"] == 0).all()


# ---- interruptions


@pytest.mark.parametrize("name", TASKS)
def test_resumes_to_the_same_bits_after_every_epoch(name: str, tmp_path: Path) -> None:
    options = {"epochs": 4, "dropout": 0.1, "schedule": "cosine", "patience": 3}
    whole, X, y = make(name, **options)
    validation = X if y is None else (X, y)
    whole.fit(X, y, validation=validation)
    path = tmp_path / "run.npz"
    for _ in range(4):  # a new process each time would do the same
        part, _, _ = make(name, **options)
        part.fit(X, y, validation=validation, resume=path, callbacks=[lambda m, log: True])
    assert len(part.history_) == 4
    again, _, _ = make(name, **options)
    again.fit(X, y, validation=validation, resume=path, callbacks=[lambda m, log: pytest.fail("more epochs")])
    for model in (part, again):
        assert_same_bits(bits(model), bits(whole))
        assert model.history_ == whole.history_
    assert list(tmp_path.iterdir()) == [path]


CHILD = """
import sys, time
from fastrnn.models import LanguageModel
slow = lambda model, log: print(log["epoch"], flush=True) or time.sleep(float(sys.argv[2]))
model = LanguageModel(hidden_size=16, epochs=6, batch_size=4, steps=20, dropout=0.1, verbose=False)
model.fit("the cat sat on the mat. " * 40, resume=sys.argv[1], callbacks=[slow])
model.save(sys.argv[3])
"""


def test_killed_run_loses_at_most_one_epoch(tmp_path: Path) -> None:
    def start(run: str, pause: float) -> Any:
        arguments = [
            sys.executable,
            "-c",
            CHILD,
            str(tmp_path / run),
            str(pause),
            str(tmp_path / f"end-{run}"),
        ]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=env)

    whole, killed = start("a.npz", 0), start("b.npz", 60)
    with killed.stdout as printed:
        assert printed.readline() == "1\n"  # the checkpoint of an epoch stands before its callback
        killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    again = start("b.npz", 0)
    assert again.communicate(timeout=60)[0].split() == list("23456")
    assert whole.communicate(timeout=60)[0].split() == list("123456")
    assert_same_bits(io.load(tmp_path / "end-b.npz"), io.load(tmp_path / "end-a.npz"))


@pytest.mark.slow
def test_killed_anywhere_resumes_to_the_same_bits(tmp_path: Path) -> None:
    model = LanguageModel(hidden_size=16, epochs=6, batch_size=4, steps=20, dropout=0.1, verbose=False)
    want = bits(model.fit("the cat sat on the mat. " * 40))
    rng = np.random.default_rng(0)
    arguments = [sys.executable, "-c", CHILD, str(tmp_path / "run.npz"), "0", str(tmp_path / "end.npz")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    kills = 0
    for _ in range(20):  # each of them gets one epoch further at least
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=env)
        with child.stdout as printed:
            printed.readline()
            time.sleep(rng.uniform(0, 0.03))
            child.kill()
        kills += child.wait() != 0
        if (tmp_path / "end.npz").exists():
            break
    assert kills > 1
    assert_same_bits(io.load(tmp_path / "end.npz"), want)


def test_checkpoints_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    model, X, y = make("classifier")
    model.fit(X, y, resume=path)
    with pytest.raises(ValueError, match=r"resume: .*run.npz: expected a checkpoint of this run.*'lr'"):
        make("classifier", lr=0.1)[0].fit(X, y, resume=path)
    with pytest.raises(ValueError, match="'classes', 'vocabulary'"):
        make("classifier")[0].fit(["ab", "e"], ["x", "y"], resume=path)
    with pytest.raises(ValueError, match="class"):
        make("tagger")[0].fit(*make("tagger")[1:], resume=path)
    with pytest.raises(ValueError, match="missing best"):
        make("classifier")[0].fit(X, y, resume=path, validation=(X, y))
    more = make("classifier", epochs=5)[0].fit(X, y, resume=path)
    assert len(more.history_) == 5
    model.save(path)
    with pytest.raises(ValueError, match=r"resume: .*history"):
        make("classifier")[0].fit(X, y, resume=path)
    with pytest.raises(ValueError, match=r"path: expected a name ending in"):
        make("classifier")[0].fit(X, y, resume=tmp_path / "run.pt")


# ---- files


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
    message = "class: expected a file of a SequenceClassifier, got one of a LanguageModel"
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
    ("ragged", "config", "n_features", 2**40),
    ("ragged", "params", "random_state", 10**400),
    ("classifier", "config", "vocabulary", None),
    ("classifier", "config", "classes", [0]),
    ("classifier", "config", "classes", 3),
    ("ragged", "config", "mean", ["a", "b"]),
    ("ragged", "config", "scale", [1.0]),
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


# ---- scikit-learn's conventions


@pytest.mark.parametrize("name", TASKS)
def test_params_and_clone(name: str) -> None:
    model, X, y = make(name)
    assert model.set_params(epochs=1, lr=0.5) is model
    assert (model.get_params()["epochs"], model.get_params()["lr"]) == (1, 0.5)
    with pytest.raises(ValueError, match="units: expected one of"):
        model.set_params(units=3)
    assert type(model)(**model.get_params()).get_params() == model.get_params()
    base = pytest.importorskip("sklearn.base")
    copy = base.clone(model.fit(X, y))
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "modules_")
    assert "lr=0.5" in repr(model)


@pytest.mark.parametrize("name", TASKS)
def test_not_fitted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, X, y = make(name)
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    calls = [lambda: model.predict(X), lambda: model.score(X, y), lambda: model.save(tmp_path / "m.npz")]
    for call in calls:
        with pytest.raises(NotFittedError, match=f"this {type(model).__name__} is not fitted yet"):
            call()


FIXED = "a sample is a sequence of any length: its number of features is not fixed"
TIME = "rows are the steps of one series: their order is what is learned"
ONE = "one series [T] is welcome"
EXCLUDED: dict[str, dict[str, str]] = {
    "classifier": dict.fromkeys(["check_n_features_in_after_fitting", "check_classifiers_train"], FIXED)
    | {"check_supervised_y_2d": "a column of labels is taken without a warning"},
    "forecaster": dict.fromkeys(
        ["check_n_features_in", "check_n_features_in_after_fitting"], "has no such attribute"
    )
    | dict.fromkeys(["check_methods_sample_order_invariance", "check_methods_subset_invariance"], TIME)
    | {"check_fit1d": ONE},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EXCLUDED)
def test_estimator_checks_of_scikit_learn(name: str) -> None:
    pytest.importorskip("sklearn", minversion="1.6")
    from sklearn.utils.estimator_checks import check_estimator

    model, _, _ = make(name, epochs=15, lr=0.03)
    results = check_estimator(model, expected_failed_checks=EXCLUDED[name], on_skip=None, on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(EXCLUDED[name])
    assert sum(r["status"] == "passed" for r in results) > 30


@pytest.mark.parametrize("name", ["language", "tagger", "seq2seq", "captioner"])
def test_estimator_checks_that_need_no_array(name: str) -> None:
    """The others take no [n, features]: what scikit-learn checks of parameters and copies applies."""
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    model, _, _ = make(name)
    title = type(model).__name__
    for check in ("no_attributes_set_in_init", "get_params_invariance", "set_params"):
        getattr(checks, f"check_{check}")(title, model)
    checks.check_parameters_default_constructible(title, type(model)())


def test_cross_validation_and_search() -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5, 1))
    y = (X[:, :, 0].sum(axis=1) > 0).astype(int)
    model = SequenceClassifier(hidden_size=8, epochs=15, lr=0.02, verbose=False)
    search = selection.GridSearchCV(model, {"lr": [0.0, 0.02]}, cv=2).fit(X, y)
    assert search.best_params_ == {"lr": 0.02}
    assert search.best_score_ > 0.8


# ---- what comes in


def test_kinds_of_sequences() -> None:
    kinds: list[tuple[Any, Any]] = [
        (np.array([[0.0, 1.0], [1.0, 0.0]] * 3), np.array([0, 1] * 3)),
        ([[0, 1, 2], [1, 0]] * 3, [True, False] * 3),
        ([np.ones(3), np.zeros((0,)), -np.ones(2)] * 2, ["a", "b", "c"] * 2),
        ([["the", "cat"], [], ["a", "dog"]] * 2, ["a", "b", "c"] * 2),
        (np.array(["ab", "cd"] * 3), [3, 7] * 3),
    ]
    for X, y in kinds:
        model = SequenceClassifier(hidden_size=8, epochs=60, lr=0.03, verbose=False).fit(X, y)
        assert model.predict(X).tolist() == list(y)
        p = model.predict_proba(X)
        assert p.shape == (6, len(model.classes_))
        np.testing.assert_allclose(p.sum(axis=1), 1)


def test_taggers_give_a_label_a_step() -> None:
    model, X, y = make("tagger", epochs=2)
    model.fit(X, y)
    p = model.predict_proba([*X, ""])
    assert [row.shape for row in p] == [(len(row), 4) for row in [*X, ""]]
    assert model.predict(["unknown"])[0].shape == (7,)


def test_forecasts_of_several_series_and_values() -> None:
    both = np.stack([SINE, 10 + 5 * SINE], axis=1)
    model, _, _ = make("forecaster", epochs=150, schedule="cosine")
    model.fit([both, both[:90]])
    forecast = model.predict(both, 5)
    assert forecast.shape == (5, 2)
    want = np.sin(np.arange(240, 245) * 2 * np.pi / 20)
    np.testing.assert_allclose(forecast[:, 1], 10 + 5 * want, atol=2)
    low, high = model.predict_interval(both, 5, 0.5)
    assert low.shape == high.shape == (5, 2)


BAD: list[tuple[str, dict[str, Any], Any, str]] = [
    ("classifier", {"cell": "transformer"}, None, "cell: expected one of .*, got 'transformer'"),
    ("classifier", {"hidden_size": 2.5}, None, "hidden_size: expected an integer of at least 1, got 2.5"),
    ("classifier", {"epochs": 0}, None, "epochs: expected an integer of at least 1, got 0"),
    ("classifier", {"dropout": 1.0}, None, "dropout: expected 0 <= dropout < 1, got 1.0"),
    ("classifier", {"lr": "fast"}, None, "lr: expected 0 <= lr < inf, got 'fast'"),
    ("classifier", {"clip": 0}, None, "clip: expected 0 < clip < inf, got 0"),
    ("classifier", {"clip": "1"}, None, "clip: expected 0 < clip < inf, got '1'"),
    ("classifier", {"verbose": "no"}, None, "verbose: expected True or False, got 'no'"),
    ("classifier", {"patience": 2}, None, "patience: expected validation data"),
    ("classifier", {"init": "forget_bias", "cell": "gru"}, None, "target: expected an LSTM"),
    ("seq2seq", {"hidden_size": 15}, None, "hidden_size: expected an even one .*, got 15"),
    ("classifier", {}, (WORDS, [0, 1]), "y: expected one label for each sequence, and 6 sequences, got 2"),
    ("classifier", {}, (WORDS, [0] * 6), "y: expected at least two classes, got 1 class"),
    ("classifier", {}, (WORDS, None), "y: requires y to be passed"),
    ("classifier", {}, ([], []), "X: expected at least 1 sequence"),
    (
        "classifier",
        {},
        ([np.ones((2, 3)), np.ones((2, 2))], [0, 1]),
        r"X: expected sequences \[T, D\] of one D, got \[2, 3\]",
    ),
    ("classifier", {}, ([[np.nan], [1.0]], [0, 1]), r"X\[0\]: expected finite numbers"),
    ("classifier", {}, (WORDS, [0.5] * 6), "y: Unknown label type"),
    (
        "tagger",
        {},
        (WORDS, [["a"]] * 3 + [["b"]] * 3),
        "y: expected one label for each step of each sequence",
    ),
    ("tagger", {}, (WORDS, [[]] * 6), "y: expected a list of labels"),
    ("tagger", {}, (WORDS, range(6)), "y: expected a list of labels for each sequence, got int"),
    ("language", {}, ("a", None), "X: expected at least 2 tokens, got 1"),
    ("language", {}, (None, None), "X: expected a sequence, got NoneType"),
    (
        "language",
        {"min_count": 1000},
        None,
        r"X: expected a token that is there at least 1000 times \(min_count\), got none",
    ),
    ("forecaster", {}, ([1e300, -1e300], None), "X: expected numbers whose variance is finite in float64"),
    ("seq2seq", {}, (WORDS, [1] * 6), "y: expected sequences of tokens that are str or int, got 'int'"),
    ("seq2seq", {}, (WORDS, [[1.5]] * 6), "y: expected tokens that are str or int, got float"),
    ("seq2seq", {}, (WORDS, zip(WORDS)), "y: expected a sequence, got zip"),
    ("captioner", {}, (np.full((3, 2), np.nan), ["a"] * 3), "X: expected numbers that are finite in float32"),
    ("language", {}, ([1.5, 2.5], None), "expected tokens that are str or int, got float"),
    ("forecaster", {}, ([1.0], None), "X: expected at least 2 steps"),
    ("forecaster", {}, (np.ones((3, 2, 2)), None), r"X: expected numbers \[T\] or \[T, D\]"),
    (
        "forecaster",
        {},
        ([np.ones((3, 2)), np.ones((3, 1))], None),
        r"X: expected sequences \[T, D\] of one D",
    ),
    ("forecaster", {}, ([1.0, np.inf], None), "X: expected finite numbers"),
    ("seq2seq", {}, (WORDS, WORDS[:2]), "y: expected a sequence for each of X and at least one, got 6 and 2"),
    ("seq2seq", {}, ([], []), "y: expected a sequence for each of X and at least one"),
    ("seq2seq", {}, (WORDS, None), "y: expected a sequence for each of X and at least one, got None"),
    ("captioner", {}, (np.ones(3), ["a"] * 3), r"X: expected features \[n, F\], got shape \(3,\)"),
    ("captioner", {}, (np.array([["x"]]), ["a"]), r"X: expected numbers, got <U1"),
]


@pytest.mark.parametrize(("name", "options", "data", "message"), BAD)
def test_bad_fits(name: str, options: dict[str, Any], data: Any, message: str) -> None:
    model, X, y = make(name, **options)
    X, y = (X, y) if data is None else data
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(X, y)


def state(model: Any) -> dict[str, Any]:
    """All that a model is, but for its hyperparameters."""
    return {name: value for name, value in vars(model).items() if name not in model.get_params()}


def test_a_failed_fit_changes_nothing(tmp_path: Path) -> None:
    model, X, y = make("classifier")
    model.fit(X, y, resume=tmp_path / "run.npz")
    before, weights = state(model), {name: array.copy() for name, array in bits(model).items()}
    bad: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
        ({"clip": 0}, X, {}),
        ({"cell": "gru", "init": "forget_bias"}, X, {}),
        ({"num_layers": 20_000}, X, {}),
        ({"hidden_size": 99}, X, {"resume": tmp_path / "run.npz"}),
        ({}, X, {"resume": tmp_path / "missing" / "run.npz"}),
        ({}, X, {"validation": (X, [5] * 6)}),
        ({}, np.ones((5, 3, 2)), {}),
        ({}, X, {"callbacks": 3}),
    ]
    for params, data, options in bad:
        changed = {name: model.get_params()[name] for name in params}
        with pytest.raises((ValueError, TypeError, OSError)):
            model.set_params(**params).fit(data, y, **options)
        model.set_params(**changed)
        assert state(model) == before
        assert_same_bits(bits(model), weights)
    model, X, y = make("seq2seq")
    model.fit(X, y)
    before = state(model)
    with pytest.raises(ValueError, match="hidden_size: expected an even one"):
        model.set_params(hidden_size=15).fit(X[:2], y[:2])
    assert state(model) == before


def test_callbacks_may_be_any_iterable() -> None:
    model, X, y = make("classifier")
    epochs: list[float] = []
    model.fit(X, y, callbacks=(lambda m, log: epochs.append(log["epoch"]) for _ in range(1)))
    assert epochs == [1, 2, 3]
    with pytest.raises(TypeError, match="callbacks: expected a list, got function"):
        model.fit(X, y, callbacks=lambda m, log: None)


def test_captions_to_features_that_are_not_finite_change_nothing() -> None:
    model, X, y = make("captioner")
    bad = X.copy()
    bad[0, 0] = np.nan
    with pytest.raises(
        ValueError, match="X: expected numbers that are finite in float32, got NaN or infinity"
    ):
        model.partial_fit(bad, y)
    assert not state(model)
    with pytest.raises(ValueError, match="captions: expected at least 1 sequence, got 0"):
        model.partial_fit(X, y, captions=[])
    model.partial_fit(X, y)
    weights = {name: array.copy() for name, array in bits(model).items()}
    with pytest.raises(ValueError, match="X: expected numbers that are finite"):
        model.partial_fit(bad, y)
    assert_same_bits(bits(model), weights)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("what", ["loss", "norm of the gradient"])
def test_no_step_makes_weights_that_are_not_finite(what: str, clip: float | None) -> None:
    class Exploding(Captioner):
        def _step(self, run: Any, data: Any, batch: Any) -> tuple[float, int]:
            loss, n = super()._step(run, data, batch)
            run.grads["head"].flat[0] = np.inf
            return (math.nan if what == "loss" else loss), n

    fitted, X, y = make("captioner", clip=clip)
    fitted.fit(X, y)
    model = Exploding(**fitted.get_params())
    with pytest.raises(FloatingPointError, match=f"the {what} became (nan|inf) in epoch 1: lr too high"):
        model.fit(X, y)
    assert all(np.isfinite(array).all() for array in bits(model).values())
    weights = {name: array.copy() for name, array in bits(model).items()}
    with pytest.raises(FloatingPointError, match=f"the {what} became (nan|inf): lr too high"):
        model.partial_fit(X, y)
    assert_same_bits(bits(model), weights)


def test_the_norm_of_the_gradient_is_told_without_clip() -> None:
    model, X, y = make("classifier", clip=None)
    assert all(0 < log["grad_norm"] < math.inf for log in model.fit(X, y).history_)


def test_bad_validation_is_named() -> None:
    model, X, y = make("classifier")
    with pytest.raises(ValueError, match=r"validation: y: expected labels among \[0, 1\], got \[5\]"):
        model.fit(X, y, validation=(["a"], [5]))
    with pytest.raises(ValueError, match="validation: "):
        model.fit(X, y, validation=X)
    for name, argument in (("classifier", "X"), ("seq2seq", "y"), ("captioner", "y")):
        model, X, y = make(name)
        with pytest.raises(ValueError, match=f"validation: {argument}: expected .*at least (1|one)"):
            model.fit(X, y, validation=(X[:0], y[:0]))


def test_bad_calls() -> None:
    fitted = {name: make(name, epochs=1) for name in TASKS}
    for model, X, y in fitted.values():
        model.fit(X, y)
    one = {name: model for name, (model, _, _) in fitted.items()}
    for call, message in [
        (lambda: one["classifier"].predict([[1.0, 2.0]]), "X: expected sequences of tokens"),
        (lambda: one["ragged"].predict(["ab"]), "X: expected sequences of numbers, as in fit, got tokens"),
        (
            lambda: one["ragged"].predict([np.ones((3, 1))]),
            r"X: expected 2 values a step, as in fit, got \(3, 1\)",
        ),
        (lambda: one["classifier"].predict([]), "X: expected at least 1 sequence"),
        (lambda: one["language"].generate(3, temperature=-1), "temperature: expected at least 0, got -1"),
        (lambda: one["language"].generate(3, top_k=0), "top_k: expected at least 1, got 0"),
        (lambda: one["language"].predict(""), "X: expected at least 1 token, got 0"),
        (lambda: one["forecaster"].predict(SINE, 0), "horizon: expected at least 1, got 0"),
        (lambda: one["forecaster"].predict_interval(SINE, samples=0), "samples: expected at least 1, got 0"),
        (lambda: one["forecaster"].predict([]), "X: expected at least 1 step, got 0"),
        (lambda: one["forecaster"].predict([1e300]), "X: expected numbers that are finite in float32"),
        (lambda: one["ragged"].predict([np.full((1, 2), 1e300)]), "X: expected numbers that are finite in"),
        (lambda: one["captioner"].predict(np.full((1, 3), np.nan)), "X: expected numbers that are finite in"),
        (lambda: one["captioner"].predict(np.full((1, 3), 1e300)), "X: expected numbers that are finite in"),
        (
            lambda: one["captioner"].partial_fit(np.ones((0, 3)), []),
            "y: expected .*at least one, got 0 and 0",
        ),
        (lambda: one["captioner"].partial_fit(np.eye(3), None), "y: expected .*at least one, got None"),
        (
            lambda: one["seq2seq"].score(WORDS, WORDS[:2]),
            "y: expected a sequence for each of X .* got 6 and 2",
        ),
        (lambda: one["seq2seq"].predict(WORDS, max_length=-1), "max_length: expected at least 0, got -1"),
        (lambda: one["language"].generate(-1), "length: expected at least 0, got -1"),
        (lambda: one["classifier"].score(WORDS, [0]), "y: expected one label for each sequence, and 6 seq"),
        (lambda: one["tagger"].score(["ab"], [["A"], ["B"]]), "y: expected one label for each step .* got 2"),
        (
            lambda: one["tagger"].score(["ab", "c"], [["A", "B"], ["C", "C"]]),
            r"got 2 labels for the 1 steps of X\[1\]",
        ),
        (lambda: one["forecaster"].predict(np.ones((5, 2))), "X: expected 1 values a step, as in fit, got"),
        (lambda: one["forecaster"].predict([SINE, SINE]), "X: expected one series, got 2"),
        (lambda: one["forecaster"].predict_interval(SINE, level=1.0), "level: expected 0 < level < 1, got 1"),
        (lambda: one["forecaster"].score(SINE[:1]), "X: expected at least 2 steps, got 1"),
        (lambda: one["seq2seq"].predict(WORDS, beam=0), "beam: expected at least 1, got 0"),
        (lambda: one["captioner"].predict(np.ones((2, 4))), r"X: expected shape \[n, 3\], got \(2, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in [
        (lambda: one["language"].generate(2.5), "length: expected an integer, got float"),
        (lambda: one["language"].generate(2, temperature="1"), "temperature: expected a number, got str"),
        (lambda: one["language"].generate(2, 3), "prompt: expected a sequence, got int"),
        (lambda: one["language"].score(None), "X: expected a sequence, got NoneType"),
        (lambda: one["forecaster"].predict(SINE, 2.5), "horizon: expected an integer, got float"),
        (lambda: one["forecaster"].predict_interval(SINE, level="1"), "level: expected a number, got str"),
        (lambda: one["seq2seq"].predict(WORDS, beam=1.5), "beam: expected an integer, got float"),
        (
            lambda: one["seq2seq"].predict([1]),
            "X: expected sequences of tokens that are str or int, got 'int'",
        ),
        (lambda: one["seq2seq"].predict(3), "X: expected a sequence, got int"),
        (lambda: one["tagger"].score(["ab"], [1]), "y: expected a list of labels for each sequence, got int"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()


def test_everything_is_exported() -> None:
    assert set(models.__all__) >= {c.__name__ for c in (Model, *[task[0] for task in TASKS.values()])}
