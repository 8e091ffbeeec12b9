"""Forecasts of some columns, with the others as covariates whose future may be known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn.models import Forecaster, load

KW: dict[str, Any] = {"hidden_size": 16, "steps": 20, "lr": 0.02, "batch_size": 4, "verbose": False}


def driven(n: int = 400) -> np.ndarray:
    """A series that copies what the covariate was one step before it: [n, 2]."""
    drive = np.random.default_rng(0).choice([-1.0, 1.0], n)
    return np.stack([np.concatenate([[0.0], drive[:-1]]), drive], axis=1)


def test_the_future_of_covariates_is_read(tmp_path: Path) -> None:
    both = driven()
    model = Forecaster(**KW, epochs=40, target=0).fit(both[:360])
    assert model.score(both[360:]) > 0.9
    future = both[360:370, 1]
    known = model.predict(both[:360], 10, future=future)
    assert known.shape == (10,)
    np.testing.assert_allclose(known, both[360:370, 0], atol=0.5)
    other = model.predict(both[:360], 10, future=-future)
    np.testing.assert_allclose(other[1:], -both[361:370, 0], atol=0.5)
    assert other[0] == known[0]  # the first step reads nothing but the history
    assert np.abs(model.predict(both[:360], 10)[1:]).max() < 0.7  # a coin that is not known
    low, high = model.predict_interval(both[:360], 10, future=future[:, None], samples=100)
    assert (low < high).all()
    assert (np.abs(high + low) / 2 - 1 < 0.5).all()
    model.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(load(tmp_path / "model.npz").predict(both[:360], 10, future=future), known)


@pytest.mark.parametrize("target", ["load", ["load"], ["wind", "load"], 1, [0]])
def test_targets_by_name_and_place(target: Any) -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.standard_normal((60, 3)), columns=["load", "temp", "wind"])
    every = Forecaster(**KW, epochs=1).fit(frame)
    model = Forecaster(**KW, epochs=1, target=target).fit(frame)
    columns = [
        c if isinstance(c, str) else frame.columns[c]
        for c in (target if isinstance(target, list) else [target])
    ]
    want = every.predict(frame, 4)[columns]
    got = model.predict(frame, 4)
    if isinstance(target, list):
        pandas.testing.assert_frame_equal(got, want)
    else:
        pandas.testing.assert_series_equal(got, want[columns[0]])
    covariates = frame.drop(columns=columns)
    future = covariates[:4].to_numpy()
    frames = model.predict(frame, 4, future=covariates[covariates.columns[::-1]][:4])
    np.testing.assert_array_equal(frames, model.predict(frame, 4, future=future))


def test_bad_targets_and_futures() -> None:
    both = driven(50)
    for target, message in (
        (2, r"target: expected a column among \[0, 1\], got 2"),
        ("load", r"target: expected a column among \[\], got 'load'"),
        ([0, 0], "target: expected every column once"),
        (1.5, "target: expected None, a column"),
        ([], "target: expected None, a column"),
    ):
        with pytest.raises(ValueError, match=message):
            Forecaster(**KW, target=target).fit(both)
    model = Forecaster(**KW, epochs=1, target=0).fit(both)
    with pytest.raises(ValueError, match=r"future: expected shape \(3, 1\), got \(2, 1\)"):
        model.predict(both, 3, future=[1.0, 2.0])
    with pytest.raises(ValueError, match="future: expected finite numbers"):
        model.predict(both, 1, future=[np.nan])
    with pytest.raises(ValueError, match=r"future: expected None, since there are no covariates"):
        Forecaster(**KW, epochs=1).fit(both).predict(both, 1, future=[1.0])
