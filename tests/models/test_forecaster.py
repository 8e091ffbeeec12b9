"""Forecasters: intervals that cover what they say, several series, several values."""

from __future__ import annotations

import numpy as np
import pytest
from small_tasks import SINE, make

from fastrnn.models import Forecaster


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
