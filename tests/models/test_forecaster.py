"""Forecasters: intervals that cover what they say, several series, several values."""

from __future__ import annotations

import numpy as np
import pytest
from small_tasks import SINE, make

from fastrnn.models import Forecaster
from fastrnn.models._data import r_squared


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


def test_each_series_has_its_own_scale() -> None:
    low, high = 1 + 0.1 * SINE, 1000 + 100 * SINE
    model, _, _ = make("forecaster", epochs=150, schedule="cosine")
    model.fit([low, high])
    want = np.sin(np.arange(240, 250) * 2 * np.pi / 20)
    np.testing.assert_allclose(model.predict(low, 10), 1 + 0.1 * want, atol=0.03)
    np.testing.assert_allclose(model.predict(high, 10), 1000 + 100 * want, atol=30)
    np.testing.assert_allclose(model.predict(-7e5 + 3e4 * SINE, 10), -7e5 + 3e4 * want, atol=9e3)
    for series in (low, high):
        assert model.score(series) > 0.9
        (a, b), size = model.predict_interval(series, 3), np.ptp(series)
        assert (b - a).max() < size


def test_one_scale_of_fit_where_it_is_asked_for() -> None:
    low, high = 1 + 0.1 * SINE, 1000 + 100 * SINE
    model, _, _ = make("forecaster", scaling="fit")
    model.fit([low, high])
    both = np.concatenate([low, high])
    assert model.config_["mean"] == pytest.approx([both.mean()])
    assert model.config_["scale"] == pytest.approx([both.std()])
    end, _, _ = make("forecaster", scaling="fit", epochs=5)
    end.fit(high)
    np.testing.assert_array_equal(end.predict(high[-40:], 3), end.predict(high, 3))  # steps is 40


@pytest.mark.parametrize("value", [0.1, 3.3, 0.0, 1e6])
def test_scores_of_constant_series_are_those_of_scikit_learn(value: float) -> None:
    model, X, _ = make("forecaster")
    constant = np.full(50, value)
    assert model.fit(X).score(constant) in (0.0, 1.0)
    assert model.fit(constant).score(constant) in (0.0, 1.0)
    both = np.stack([SINE[:50], constant], axis=1)
    assert -1 < model.fit(both).score(both) <= 1
    forecast = model.fit([constant, 100 * SINE]).predict(constant, 3)
    assert abs(forecast - value).max() < 100


def test_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    right = rng.standard_normal((30, 4)) * [1, 10, 0, 0] + [0, 5, 0.1, 0.5]
    said = right + rng.standard_normal((30, 4)) * [0.1, 1, 0.1, 0]
    assert r_squared(right, said) == pytest.approx(metrics.r2_score(right[:, :2], said[:, :2]) / 2 + 0.25)
    w = rng.random(30)
    want = metrics.r2_score(right[:, :2], said[:, :2], sample_weight=w)
    assert r_squared(right[:, :2], said[:, :2], w) == pytest.approx(want)


def test_the_end_of_each_series_is_held_out() -> None:
    trend = np.arange(200.0)
    model, _, _ = make("forecaster")
    model.fit([trend, SINE], validation=0.25)
    assert all(np.isfinite(log["val_loss"]) for log in model.history_)
    held = model._hold_out([trend, SINE], None, None, 0.25)
    (train, _, _), ends = held
    assert [len(s) for s in train] == [150, 180]
    first = model._prepare(ends, None, model.config_)[0]
    assert len(first) == 51
    scale = trend[:150].std()
    assert first.x[1:, 0] == pytest.approx(
        (trend[150:] - trend[:150].mean()) / scale
    )  # that of the training part


def test_the_spread_of_a_constant_is_not_what_rounding_makes_of_it() -> None:
    for value in np.linspace(0.01, 20, 200):
        right = np.full((50, 1), value)
        assert r_squared(right, right + 0.1) == 0
        assert r_squared(right, right) == 1
