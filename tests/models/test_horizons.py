"""Forecasts of a whole horizon at once: known covariates, losses, intervals, scales, strides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tasks import SINE

from fastrnn.models import Forecaster, load
from fastrnn.models._outputs import Gaussian, Point, Quantiles

KW: dict[str, Any] = {"hidden_size": 16, "steps": 20, "lr": 0.02, "batch_size": 8, "verbose": False}


def driven(n: int = 600, seed: int = 0) -> np.ndarray:
    """A wave, moved by a covariate of the same step that cannot be forecast: [n, 2]."""
    drive = np.random.default_rng(seed).choice([-1.0, 1.0], n)
    return np.stack([10 + np.sin(np.arange(n) * 2 * np.pi / 12) + drive, drive], axis=1)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_horizon_reads_what_is_known_of_it(cell: str, tmp_path: Path) -> None:
    both = driven()
    model = Forecaster(
        **KW, cell=cell, horizon=12, known=1, target=0, epochs=15, stride=1, schedule="cosine"
    ).fit(both[:500])
    future = both[500:512, 1]
    forecast = model.predict(both[:500], future=future)
    assert forecast.shape == (12,)
    np.testing.assert_allclose(forecast, both[500:512, 0], atol=0.6)
    other = model.predict(both[:500], future=-future)
    np.testing.assert_allclose(other - forecast, -2 * future, atol=0.8)
    assert model.score(both[500:]) > 0.9
    np.testing.assert_array_equal(model.predict(both[:500], 5, future=future[:5]), forecast[:5])
    low, high = model.predict_interval(both[:500], future=future)
    assert (low < forecast).all()
    assert (forecast < high).all()
    model.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(load(tmp_path / "model.npz").predict(both[:500], future=future), forecast)  # type: ignore[attr-defined]


def test_one_step_ahead_too_reads_what_is_known_of_it() -> None:
    both = driven()
    model = Forecaster(**KW, known=1, epochs=40).fit(both[:500])
    assert model.predict(both[:500], 3, future=both[500:503, 1]).shape == (3, 1)
    forecast = model.predict(both[:500], 12, future=both[500:512, 1])[:, 0]
    np.testing.assert_allclose(forecast, both[500:512, 0], atol=0.8)
    assert model.score(both[500:]) > 0.9
    assert Forecaster(**KW, target=0, epochs=40).fit(both[:500]).score(both[500:]) < 0.7  # cannot know
    low, high = model.predict_interval(both[:500], 4, future=both[500:504, 1], samples=50)
    assert (low < high).all()


@pytest.mark.parametrize("loss", ["gaussian", "quantile", "mae", "mse"])
def test_every_loss_learns(loss: str) -> None:
    series = np.sin(np.arange(400) * 2 * np.pi / 20)
    model = Forecaster(**KW, horizon=10, loss=loss, epochs=20, stride=2, schedule="cosine").fit(series)
    want = np.sin(np.arange(400, 410) * 2 * np.pi / 20)
    np.testing.assert_allclose(model.predict(series), want, atol=0.25)
    if loss != "quantile":
        alone = Forecaster(**KW, loss=loss, epochs=60, schedule="cosine").fit(series)
        assert alone.score(series) > 0.97


@pytest.mark.parametrize("loss", ["gaussian", "quantile"])
def test_intervals_cover_what_they_say(loss: str) -> None:
    rng = np.random.default_rng(0)
    spread = np.tile([0.2, 1.0, 3.0], 700)
    series = spread * rng.standard_normal(2100)
    X = np.stack([series, np.arange(2100) % 3 == 1, np.arange(2100) % 3 == 2], axis=1)
    model = Forecaster(
        **KW | {"hidden_size": 8},
        horizon=3,
        known=[1, 2],
        target=0,
        loss=loss,
        epochs=25,
        stride=3,
        schedule="cosine",
        scaling="fit",
    ).fit(X[:1500])
    middle, low, high = model.backtest(X, 1500, 3, level=0.8)
    truth = np.lib.stride_tricks.sliding_window_view(series, 3)[1500::3]
    assert middle.shape == low.shape == truth.shape == (200, 3)
    covered = ((low <= truth) & (truth <= high)).mean(axis=0)
    assert (covered > 0.65).all()
    assert (covered < 0.93).all()
    width = (high - low).mean(axis=0)
    np.testing.assert_allclose(width, 2 * 1.2816 * np.array([0.2, 1.0, 3.0]), rtol=0.35, atol=0.3)
    narrow = model.backtest(X, 1500, 3, level=0.5)
    assert (narrow[2] - narrow[1] < high - low).all()


def test_losses_by_hand() -> None:
    rng = np.random.default_rng(0)
    raw, base, target = (
        rng.standard_normal((4, 2, 9)),
        rng.standard_normal((4, 2, 3)),
        rng.standard_normal((4, 2, 3)),
    )
    weights = rng.random((4, 2, 3)) > 0.3
    output = Quantiles((0.1, 0.5, 0.9))
    loss, _ = output.loss(raw, base, target, weights)
    errors = [target - base - part for part in np.split(raw, 3, axis=-1)]
    each = [
        np.where(e > 0, q * e, (q - 1) * e)[weights].mean()
        for q, e in zip(output.levels, errors, strict=True)
    ]
    assert loss == pytest.approx(np.mean(each))
    loss, _ = Point("mae").loss(raw[..., :3], base, target, weights)
    assert loss == pytest.approx(np.abs(errors[0])[weights].mean())
    loss, _ = Point("mse").loss(raw[..., :3], base, target, weights)
    assert loss == pytest.approx(np.square(errors[0])[weights].mean())


def test_quantiles_do_not_cross_and_are_interpolated() -> None:
    output, base = Quantiles((0.1, 0.5, 0.9)), np.zeros((1, 1))
    raw = np.array([[3.0, 1.0, 2.0]])  # out of order
    assert output.point(raw, base).tolist() == [[2.0]]
    assert [b.item() for b in output.bounds(raw, base, 0.8)] == pytest.approx([1.0, 3.0])
    assert [b.item() for b in output.bounds(raw, base, 0.4)] == pytest.approx([1.5, 2.5])
    with pytest.raises(
        ValueError, match=r"level: expected at most 0.8, since quantiles are \(0.1, 0.5, 0.9\)"
    ):
        output.bounds(raw, base, 0.9)
    low, high = Gaussian().bounds(np.zeros((1, 2)), base, 0.9)
    assert (low.item(), high.item()) == pytest.approx((-1.6449, 1.6449), abs=1e-4)


def test_windows_have_a_scale_of_their_own() -> None:
    """A series whose level and size drift: what the training part looked like does not matter."""
    t = np.arange(900)
    series = np.exp(t / 100) * (3 + np.sin(t * 2 * np.pi / 20))
    errors = {}
    for scaling in ("window", "fit"):
        model = Forecaster(
            **KW | {"steps": 40}, horizon=10, scaling=scaling, epochs=60, schedule="cosine", n_estimators=2
        ).fit(series[:600])
        forecast = model.backtest(series, 700, 10)
        truth = np.lib.stride_tricks.sliding_window_view(series, 10)[700::10]
        errors[scaling] = float(np.mean(np.abs(forecast / truth - 1)))
    assert errors["window"] < 0.1 < errors["fit"]
    shifted = 1e4 + 7 * series[:500]
    own, moved = (
        model.set_params(scaling="window").fit(series[:600]).predict(series[:500]),
        model.predict(shifted),
    )
    np.testing.assert_allclose(moved, 1e4 + 7 * own, rtol=1e-4)


def test_horizons_in_training_begin_where_they_are_told_to() -> None:
    series = np.arange(103.0)
    origins: list[int] = []

    class Watched(Forecaster):
        def _plan(self, data: Any, rng: Any) -> Any:
            plan = super()._plan(data, rng)
            if rng is not None:
                origins.extend(t for batch in plan for _, t in batch)
            return plan

    Watched(**KW, horizon=6, stride=8, epochs=2).fit(series)
    assert {(103 - t) % 8 for t in origins} == {
        6
    }  # horizons end at the end of the series, or 8 or 16 before it
    assert min(origins) >= 20
    origins.clear()
    Watched(**KW, horizon=6, epochs=6).fit(series)
    assert len({t % 6 for t in origins}) > 2
    assert max(origins) <= 97
    model = Watched(**KW, horizon=6, stride=8, epochs=1)
    (train, _, _), ends = model._hold_out(series, None, None, 0.1)
    assert (103 - len(train)) % 8 == 0  # so that horizons of both parts begin alike
    data = model.fit(series, validation=0.1)._prepare(ends, None, model.config_)
    assert [t + 103 - len(data[0]) for batch in model._plan(data, None) for _, t in batch] == [89, 97]


def test_a_season_is_read_one_season_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rhythm whose shape differs from season to season: the last one is the best guess."""
    rng = np.random.default_rng(0)
    shapes = np.cumsum(0.3 * rng.standard_normal((120, 12)), axis=0)
    series = (np.sin(np.arange(12) / 2) + shapes).reshape(-1)
    truth, errors = np.lib.stride_tricks.sliding_window_view(series, 12)[1200::12], []
    for season in (None, 12):
        model = Forecaster(**KW, horizon=12, stride=12, season=season, epochs=40, schedule="cosine").fit(
            series[:1200]
        )
        errors.append(float(np.abs(model.backtest(series, 1200, 12) - truth).mean()))
    assert errors[1] < 0.8 * errors[0]

    read: list[np.ndarray] = []
    call = type(model.modules_["decoder"]).__call__

    def watched(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(np.array(x))
        return call(self, x, *args, **kwargs)

    monkeypatch.setattr(type(model.modules_["decoder"]), "__call__", watched)
    longer = Forecaster(**KW, horizon=7, season=3, scaling="fit", epochs=1).fit(series)
    for t in (30, 2):
        longer.predict(series[:t])
        want = series[[max(t - 3 + k % 3, 0) for k in range(7)]]
        scaled = (want - longer.config_["mean"][0]) / longer.config_["scale"][0]
        np.testing.assert_allclose(read[-1][:, 0, 1], scaled, rtol=1e-5, atol=1e-6)


def test_columns_by_name() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        np.random.default_rng(0).standard_normal((90, 4)),
        columns=["load", "temp", "wind", "holiday"],
        index=pandas.date_range("2024-01-01", periods=90, freq="h"),
    )
    model = Forecaster(**KW, epochs=1, horizon=5, target="load", known=["holiday", "temp"]).fit(frame[:80])
    future = frame[80:85]
    got = model.predict(frame[:80], future=future)  # its other columns are left out
    assert got.name == "load"
    assert got.index.equals(frame.index[80:85])
    array = model.predict(frame[:80], future=future[["holiday", "temp"]].to_numpy())
    pandas.testing.assert_series_equal(got, array)
    low, _ = model.predict_interval(frame[:80], future=future)
    assert low.index.equals(got.index)
    every = Forecaster(**KW, epochs=1, horizon=5, known="temp").fit(frame).predict(frame, future=future)
    assert list(every.columns) == ["load", "wind", "holiday"]


def test_bad_arguments_of_horizons() -> None:
    both = driven(80)
    for options, message in (
        ({"loss": "quantile"}, r"horizon: expected a number of steps, for loss='quantile', got None"),
        ({"scaling": "window"}, "horizon: expected a number of steps, for scaling='window'"),
        ({"stride": 3}, "horizon: expected a number of steps, for a stride"),
        ({"horizon": 0}, "horizon: expected an integer of at least 1, got 0"),
        ({"season": 3}, "horizon: expected a number of steps, for a season"),
        ({"horizon": 3, "season": 21}, "season: expected at most the 20 steps of a history, got 21"),
        ({"known": 2}, r"known: expected a column among \[0, 1\], got 2"),
        ({"known": [0, 1]}, "known: expected a column that is left to forecast"),
        ({"known": 0, "target": 0}, "known: expected columns that are no target"),
        ({"horizon": 80}, "X: expected at least 81 steps"),
        ({"horizon": 3, "loss": "huber"}, "loss: expected one of"),
        (
            {"quantiles": (0.1, 0.9)},
            "quantiles: expected numbers between 0 and 1 in ascending order, with 0.5",
        ),
        ({"quantiles": (0.5, 0.1)}, "quantiles: expected numbers"),
        ({"quantiles": (0.0, 0.5)}, "quantiles: expected numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            Forecaster(**KW | options).fit(both)
    model = Forecaster(**KW, epochs=1, horizon=4, known=1, loss="mae").fit(both)
    for call, message in (
        (lambda: model.predict(both), "future: expected the known columns of the next 4 steps, got None"),
        (
            lambda: model.predict(both, 5, future=np.ones(5)),
            "horizon: expected at most 4, that of the model, got 5",
        ),
        (lambda: model.predict(both, future=np.ones(5)), r"future: expected shape \(4, 1\), got \(5, 1\)"),
        (lambda: model.predict_interval(both, future=np.ones(4)), "loss: expected 'gaussian' or 'quantile'"),
        (lambda: model.predict(both[:, :1], future=np.ones(4)), "X: expected 2 values a step"),
        (lambda: model.stream(both), "horizon: expected None, for a stream"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    plain = Forecaster(**KW, epochs=1, horizon=4, target=0).fit(both)
    with pytest.raises(ValueError, match="future: expected None, since there are no covariates"):
        plain.predict(both, future=np.ones(4))
    with pytest.raises(
        ValueError, match="loss: expected 'gaussian' for intervals without a horizon, got 'mae'"
    ):
        Forecaster(**KW, epochs=1, loss="mae").fit(SINE).predict_interval(SINE)


def test_short_series_and_histories() -> None:
    model = Forecaster(**KW, epochs=1, horizon=5).fit([SINE, SINE[:4], SINE[:6]])
    assert np.isfinite(model.predict(SINE[:1])).all()
    assert np.isfinite(model.score(SINE[:6]))
    with pytest.raises(ValueError, match="X: expected at least 6 steps, got 5"):
        model.score(SINE[:5])
    for validation in (0.3, SINE[:6]):
        fitted = Forecaster(**KW, epochs=1, horizon=5).fit([SINE, SINE[:4]], validation=validation)
        assert np.isfinite(fitted.history_[0]["val_loss"])
    with pytest.raises(ValueError, match="validation: expected a series with 6 steps to train on"):
        model.fit(SINE[:9], validation=0.2)
