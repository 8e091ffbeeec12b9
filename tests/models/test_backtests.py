"""Forecasts at many places of one series in one call: those that predict makes at each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_tasks import SINE

from fastrnn.models import Forecaster

KW: dict[str, Any] = {
    "hidden_size": 8,
    "steps": 20,
    "lr": 0.02,
    "batch_size": 8,
    "epochs": 2,
    "verbose": False,
}
BOTH = np.stack([SINE * np.arange(240), np.cos(np.arange(240.0))], axis=1)
MODELS: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "one step": ({}, SINE),
    "one step, scale of fit": ({"scaling": "fit", "n_estimators": 2}, BOTH),
    "one step, known": ({"known": 1}, BOTH),
    "one step, a target": ({"target": 1}, BOTH),
    "horizon": ({"horizon": 6}, SINE),
    "horizon, known": ({"horizon": 6, "known": [1], "target": 0, "n_estimators": 2}, BOTH),
    "horizon, window": ({"horizon": 6, "scaling": "window", "loss": "quantile", "target": [1]}, BOTH),
}


@pytest.mark.parametrize("name", MODELS)
def test_backtests_are_the_forecasts_of_predict(name: str) -> None:
    options, X = MODELS[name]
    model = Forecaster(**KW, **options).fit(X[:100])
    origins = [7, 60, 113, 166, 219]  # the first one has less than `steps` before it
    many = model.backtest(X, 7, 53, horizon=5, level=0.8, samples=9)
    alone = model.backtest(X, 7, 53, horizon=5)
    np.testing.assert_array_equal(many[0], alone)
    assert len(alone) == len(origins)
    for i, t in enumerate(origins):
        future = X[t : t + 5, 1:] if "known" in options else None
        np.testing.assert_array_equal(alone[i], model.predict(X[:t], 5, future=future))
        bounds = model.predict_interval(X[:t], 5, 0.8, samples=9, future=future)
        for got, want in zip(many[1:], bounds, strict=True):
            np.testing.assert_array_equal(got[i], want)


def test_more_places_than_a_batch_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({}, {"horizon": 3}):
        model = Forecaster(**KW, **options).fit(SINE[:100])
        whole = model.backtest(SINE, 30, 1, horizon=3, level=0.5, samples=10)
        assert whole[0].shape == (208, 3)
        with monkeypatch.context() as patch:
            patch.setattr("fastrnn.models.forecaster.MOST", 50)
            for a, b in zip(
                whole, model.backtest(SINE, 30, 1, horizon=3, level=0.5, samples=10), strict=True
            ):
                np.testing.assert_array_equal(a, b)


def test_nothing_after_the_origin_is_read() -> None:
    changed = SINE.copy()
    changed[150:] = 99.0
    for options in ({}, {"horizon": 4}, {"horizon": 4, "scaling": "window"}):
        model = Forecaster(**KW, **options).fit(SINE)
        one, other = (model.backtest(x, 30, 30, horizon=4) for x in (SINE, changed))
        np.testing.assert_array_equal(one[:5], other[:5])  # the fifth begins at 150
        assert (one[5:] != other[5:]).all()


def test_backtests_of_frames() -> None:
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2024-01-01", periods=240, freq="h", name="time")
    frame = pandas.DataFrame(BOTH, columns=["load", "temp"], index=index)
    model = Forecaster(**KW, horizon=3, target="load", known="temp").fit(frame)
    got = model.backtest(frame, 100, 70)
    assert list(got.index.names) == ["origin", "time"]
    assert got.name == "load"
    pandas.testing.assert_series_equal(
        got.xs(index[99], level="origin"), model.predict(frame[:100], future=frame[100:103]), check_freq=False
    )
    assert got.index[3] == (index[169], index[170])
    every = Forecaster(**KW, horizon=3).fit(frame).backtest(frame, 100, 70)
    assert list(every.columns) == ["load", "temp"]
    low = model.backtest(frame, 100, 70, level=0.5)[1]
    assert low.index.equals(got.index)
    alone = Forecaster(**KW).fit(frame["load"]).backtest(frame["load"], 200, 20, horizon=2)
    assert (alone.name, len(alone)) == ("load", 4)


def test_bad_backtests() -> None:
    model = Forecaster(**KW, horizon=4).fit(SINE)
    for arguments, error, message in (
        ((SINE, 0), ValueError, "start: expected at least 1"),
        ((SINE, 237), ValueError, "start: expected at most 236, so that 4 values follow, got 237"),
        ((SINE, 5, 0), ValueError, "step: expected at least 1"),
        ((SINE, 0.5), TypeError, "start: expected an integer"),
        (([SINE, SINE], 5), ValueError, "X: expected one series, got 2"),
    ):
        with pytest.raises(error, match=message):
            model.backtest(*arguments)
    with pytest.raises(ValueError, match="level: expected 0 < level < 1, got 1"):
        model.backtest(SINE, 5, level=1)
    with pytest.raises(ValueError, match="is not fitted"):
        Forecaster().backtest(SINE, 5)
