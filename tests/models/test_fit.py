"""Training, the same for every model: they learn, with every cell, schedule and way of stopping."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits, numeric_gradient
from small_tasks import TASKS, WORDS, bits, make

from fastrnn.models import Captioner, Forecaster, LanguageModel, SequenceClassifier


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
    from fastrnn.models._run import Run

    for name in TASKS:
        model, X, y = make(name, hidden_size=4, dtype="float64", epochs=1, num_layers=2)
        model.fit(X, y)
        data = model._prepare(X, y, model.config_)
        batch = model._plan(data, None)[0]

        def loss(model: Any = model, data: Any = data, batch: Any = batch) -> float:
            whole = ([None], *batch[1:]) if isinstance(model, LanguageModel) else batch
            return float(model._step(Run(model.modules_, train=False), data, whole)[0])

        run = Run(model.modules_, train=True)
        model._step(run, data, ([None], *batch[1:]) if isinstance(model, LanguageModel) else batch)
        assert not run.tapes
        assert set(run.grads) == set(model.modules_)
        for piece_name, piece in model.modules_.items():
            some = slice(None, None, max(1, piece.flat.size // 7))
            got, want = run.grads[piece_name].flat[some], numeric_gradient(loss, piece.flat[some])
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-7, err_msg=f"{name} {piece_name}")


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


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    model, X, y = make("classifier", verbose=True, epochs=2)
    model.fit(X, y, validation=(X, y))
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert "val_loss=" in shown
    assert "loss=" in shown
    assert "tokens_per_s=" in shown


def test_without_tqdm_there_is_one_plain_line_an_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)
    model, X, y = make("classifier", verbose=True, epochs=2)
    model.fit(X, y, validation=(X, y))
    lines = capsys.readouterr().err.splitlines()
    assert [line[:12] for line in lines] == ["epoch 1/2: l", "epoch 2/2: l"]
    for line, log in zip(lines, model.history_, strict=True):
        assert f"loss={log['loss']:.4f}, val_loss={log['val_loss']:.4f}, tokens_per_s=" in line


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


def test_callbacks_may_be_any_iterable() -> None:
    model, X, y = make("classifier")
    epochs: list[float] = []
    model.fit(X, y, callbacks=(lambda m, log: epochs.append(log["epoch"]) for _ in range(1)))
    assert epochs == [1, 2, 3]
    with pytest.raises(TypeError, match="callbacks: expected a list, got function"):
        model.fit(X, y, callbacks=lambda m, log: None)


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


def test_the_norm_of_the_gradient_is_told_without_clip() -> None:
    model, X, y = make("classifier", clip=None)
    assert all(0 < log["grad_norm"] < math.inf for log in model.fit(X, y).history_)


def test_divergence_is_an_error() -> None:
    model, X, y = make("ragged", cell="rnn_relu", optimizer="sgd", lr=1e30, clip=None, epochs=50)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"the loss became .* in epoch"):
        model.fit(X, y)


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
    assert not hasattr(model, "modules_")
    model.__setstate__(vars(fitted))
    weights = {name: array.copy() for name, array in bits(model).items()}
    with pytest.raises(FloatingPointError, match=f"the {what} became (nan|inf): lr too high"):
        model.partial_fit(X, y)
    assert_same_bits(bits(model), weights)


CASES: list[Any] = [
    (LanguageModel(steps=4, batch_size=2), ("abcd" * 30,)),
    (LanguageModel(steps=500, batch_size=1), ("abcd" * 700,)),
    (Forecaster(steps=8, batch_size=4), (np.sin(np.arange(200) / 5),)),
    (SequenceClassifier(batch_size=2), (["ab", "cd", "ba", "dc"], [0, 1, 0, 1])),
]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(("model", "data"), CASES)
def test_every_epoch_learns_and_the_last_one_ends_at_zero(model: Any, data: Any, schedule: str) -> None:
    seen: list[np.ndarray[Any, Any]] = []

    def keep(model: Any, log: dict[str, float]) -> None:
        seen.append(np.concatenate([piece.flat.copy() for piece in model.modules_.values()]))

    model.set_params(schedule=schedule, epochs=6, optimizer="sgd", lr=0.1, hidden_size=4, verbose=False)
    model.fit(*data, callbacks=[keep])
    moved = [float(np.abs(b - a).max()) for a, b in pairwise(seen)]
    assert min(moved) > 0
    assert moved[-1] < moved[0]
