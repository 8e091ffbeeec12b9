"""NaN in series: refused, or left out of losses and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tasks import SINE

from fastrnn.models import Forecaster, load
from fastrnn.models._run import Run

KW: dict[str, Any] = {"hidden_size": 16, "steps": 30, "lr": 0.02, "batch_size": 4, "verbose": False}


def holes(series: np.ndarray, share: float = 0.3) -> np.ndarray:
    out = series.copy()
    out[np.random.default_rng(0).random(series.shape) < share] = np.nan
    return out


@pytest.mark.parametrize("options", [{}, {"horizon": 10, "stride": 2}], ids=str)
def test_series_with_holes(options: dict[str, Any], tmp_path: Path) -> None:
    series = np.sin(np.arange(500) * 2 * np.pi / 20)
    gaps = holes(series)
    gaps[:3] = np.nan  # nothing before them
    with pytest.raises(ValueError, match="X: expected finite numbers, got NaN"):
        Forecaster(**KW, **options).fit(gaps)
    model = Forecaster(**KW, **options, missing="mask", epochs=40, schedule="cosine").fit(gaps)
    want = np.sin(np.arange(500, 510) * 2 * np.pi / 20)
    np.testing.assert_allclose(model.predict(gaps, 10), want, atol=0.4)
    assert model.score(gaps) > 0.8
    low, high = model.predict_interval(gaps, 5, samples=50)
    assert (low < high).all()
    model.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(load(tmp_path / "model.npz").predict(gaps, 3), model.predict(gaps, 3))  # type: ignore[attr-defined]
    forecasts = model.backtest(gaps, 100, 100, horizon=10)
    np.testing.assert_array_equal(forecasts[2], model.predict(gaps[:300], 10))
    with pytest.raises(ValueError, match="X: expected finite numbers or NaN, got infinity"):
        model.predict(np.array([1.0, np.inf]))


@pytest.mark.parametrize("options", [{}, {"horizon": 5}], ids=str)
def test_what_is_missing_does_not_count_in_the_loss(options: dict[str, Any]) -> None:
    """With weights that do not change, the loss is the mean over what is there, whatever stands elsewhere."""
    whole = SINE.copy()
    gaps = whole.copy()
    gaps[180:], other = np.nan, np.append(whole[:180], 9 * whole[180:])
    still: dict[str, Any] = {"epochs": 1, "lr": 0.0, "missing": "mask", "scaling": "fit"}
    model = Forecaster(**KW | still, **options).fit(whole)
    model.config_["mean"], model.config_["scale"] = [0.0], [1.0]
    short, long, masked = (
        model._mean_loss(model._prepare(x, None, model.config_)) for x in (whole[:180], other, gaps)
    )
    if not options:  # one step ahead, the state goes on: the same windows
        assert masked == pytest.approx(short, rel=1e-6)
    assert masked != pytest.approx(long, rel=1e-4)
    assert np.isfinite(masked)


def test_scores_leave_out_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    both = np.stack([SINE, rng.standard_normal(240)], axis=1)
    gaps = both.copy()
    gaps[200:, 1] = np.nan
    model = Forecaster(**KW, missing="mask", epochs=20).fit(both)
    assert np.isfinite(model.score(gaps))
    first = Forecaster(**KW, missing="mask", epochs=20, target=0).fit(gaps)
    assert first.score(gaps) > 0.5


def test_covariates_must_be_there() -> None:
    both = np.stack([SINE, np.cos(np.arange(240.0))], axis=1)
    both[5, 1] = np.nan
    with pytest.raises(ValueError, match="X: expected known columns without NaN"):
        Forecaster(**KW, missing="mask", known=1, epochs=1).fit(both)
    with pytest.raises(ValueError, match="X: expected a value in every column, got NaN only"):
        Forecaster(**KW, missing="mask", epochs=1).fit(both * [1, np.nan])
    model = Forecaster(**KW, missing="mask", horizon=3, known=0, epochs=1).fit(both)
    with pytest.raises(ValueError, match="future: expected finite numbers"):
        model.predict(both, future=[0.0, np.nan, 0.0])
    with pytest.raises(ValueError, match="missing: expected one of"):
        Forecaster(missing="drop").fit(SINE)


def test_what_is_filled_in_is_no_target() -> None:
    """The last horizon is read by nobody: what stands there in place of a missing value changes no loss."""
    gaps = SINE[:35].copy()
    gaps[[31, 33]] = np.nan
    model = Forecaster(**KW, horizon=5, missing="mask", epochs=1).fit(gaps)
    (series,) = model._prepare(gaps, None, model.config_)
    batch = model._plan([series], None)[0]
    assert batch == [(0, 30)]
    losses = []
    for value in (0.0, 9.0):
        x = series.x.copy()
        x[[31, 33], 0] = value
        losses.append(model._step(Run(model.modules_, train=False), [replace(series, x=x)], batch))
    assert losses[0] == losses[1]
    assert losses[0][1] == 3
