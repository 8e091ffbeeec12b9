"""DataFrames and Series: read by position, names of columns kept and checked, forecasts that go on from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits
from small_tasks import SINE, WORDS, bits, make

from fastrnn.models import Captioner, Forecaster, Model, Seq2Seq, SequenceClassifier, SequenceTagger

pd = pytest.importorskip("pandas")

KW: dict[str, Any] = {"hidden_size": 8, "epochs": 2, "verbose": False}
BOTH = pd.DataFrame({"load": SINE, "temp": 5 + np.cos(np.arange(240))}, index=np.arange(1000, 1240))


def test_frames_and_series_are_read_by_position() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.standard_normal((60, 2)), columns=["a", "b"])
    table["id"] = np.arange(60) // 5
    groups = [g[["a", "b"]] for _, g in table.groupby("id")]
    y = pd.Series([0, 1] * 6, index=np.arange(50, 62))
    want = bits(SequenceClassifier(**KW).fit([g.to_numpy() for g in groups], y.tolist()))
    with_names = SequenceClassifier(**KW).fit(groups, y)
    assert_same_bits(bits(with_names), want)
    assert with_names.predict(groups[3:]).shape == (9,)
    assert with_names.n_features_in_ == 2
    assert with_names.feature_names_in_.tolist() == ["a", "b"]
    series = [g["a"] for g in groups]
    assert_same_bits(
        bits(SequenceClassifier(**KW).fit(series, y)),
        bits(SequenceClassifier(**KW).fit([s.tolist() for s in series], y.tolist())),
    )
    tags = pd.Series([["x", "y"] * 2 + ["x"]] * 12, index=np.arange(7, 19))
    assert (
        SequenceTagger(**KW).fit(series, tags).score(series, [pd.Series(t, index=range(9, 14)) for t in tags])
        >= 0
    )


def test_texts_in_series_are_read_by_position() -> None:
    s = pd.Series(WORDS, index=[9, 4, 7, 3, 8, 5])
    assert_same_bits(bits(Seq2Seq(**KW).fit(s, s)), bits(Seq2Seq(**KW).fit(WORDS, WORDS)))
    part = s[s.str.len() > 3]
    model = Seq2Seq(**KW).fit(part, part, validation=0.4)
    assert len(model.predict(part)) == 2
    assert SequenceClassifier(**KW).fit(s, pd.Series([0, 1] * 3, index=s.index)).predict(s).shape == (6,)
    words = pd.Series([w.split() for w in ("a cat", "a dog", "two dogs")], index=[5, 6, 7])
    captioner = Captioner(**KW).fit(
        pd.DataFrame(np.eye(3), columns=["x", "y", "z"], index=words.index), words
    )
    captioner.partial_fit(pd.DataFrame(np.eye(3), columns=["x", "y", "z"], index=words.index), words)
    assert captioner.feature_names_in_.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize("many", [False, True])
def test_columns_in_another_order_are_refused(many: bool, tmp_path: Path) -> None:
    model = Forecaster(**KW).fit([BOTH, BOTH[:100]] if many else BOTH)
    model.save(tmp_path / "model.npz")
    for fitted in (model, Model.load(tmp_path / "model.npz")):
        assert fitted.feature_names_in_.tolist() == ["load", "temp"]
        assert fitted.n_features_in_ == 2
        for call in (fitted.predict, fitted.predict_interval, fitted.score):
            with pytest.raises(
                ValueError, match="Feature names must be in the same order as they were in fit"
            ):
                call(BOTH[["temp", "load"]])
            with pytest.raises(
                ValueError, match="Feature names unseen at fit time:\n- wind\nFeature names seen at"
            ):
                call(BOTH.rename(columns={"temp": "wind"}))
            with pytest.warns(
                UserWarning, match="X does not have valid feature names, but Forecaster was fitted"
            ):
                call(BOTH.to_numpy())
    with pytest.raises(ValueError, match=r"validation: X: The feature names should match those"):
        model.fit(BOTH, validation=BOTH[["temp", "load"]])
    with pytest.raises(
        ValueError, match=r"X\[1\]: expected the columns \['load', 'temp'\], as before it, got"
    ):
        model.fit([BOTH, BOTH[["temp", "load"]]])
    plain = Forecaster(**KW).fit(BOTH.to_numpy())
    assert not hasattr(plain, "feature_names_in_")
    with pytest.warns(
        UserWarning, match="X has feature names, but Forecaster was fitted without feature names"
    ):
        plain.predict(BOTH)
    with pytest.raises(TypeError, match="names of columns that are all str"):
        Forecaster(**KW).fit(BOTH.rename(columns={"temp": 3}))
    assert not hasattr(Forecaster(**KW).fit(BOTH.set_axis([0, 1], axis=1)), "feature_names_in_")


@pytest.mark.parametrize("name", ["forecaster", "classifier", "captioner"])
def test_names_are_checked_as_scikit_learn_does(name: str) -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    model, _, _ = make(name, epochs=1)
    if name != "classifier":

        class Alone(type(model)):  # type: ignore[misc]
            """The check passes a target: that of a forecaster is X. It looks for feature_names_in_ here."""

            def fit(self, X: Any, y: Any = None, **options: Any) -> Any:
                target = None if name == "forecaster" else ["a", "b"] * (len(X) // 2)
                return super().fit(X, target, **options)

            def score(self, X: Any, y: Any = None) -> float:
                return super().score(X, None if name == "forecaster" else ["a", "b"] * (len(X) // 2))

            partial_fit = property()

        Alone.__module__ = "fastrnn.models"
        model = Alone(**model.get_params())
    checks.check_dataframe_column_names_consistency(type(model).__name__, model)


@pytest.mark.parametrize(
    ("index", "following"),
    [
        (pd.RangeIndex(10, 490, 2), [490, 492, 494]),
        (
            pd.date_range("2020-01-01", periods=240, freq="D"),
            pd.date_range("2020-08-28", periods=3, freq="D"),
        ),
        (pd.DatetimeIndex(pd.date_range("2020-01-01", periods=240, freq="h").to_numpy()), None),
        (
            pd.DatetimeIndex(pd.date_range("2000-01-01", periods=240, freq="MS").to_numpy()),
            pd.date_range("2020-01-01", periods=3, freq="MS"),
        ),
        (pd.period_range("2000-01", periods=240, freq="M"), pd.period_range("2020-01", periods=3, freq="M")),
        (np.arange(240) * 7 % 240, [0, 1, 2]),
    ],
)
def test_forecasts_of_frames_are_frames(index: Any, following: Any) -> None:
    frame, one = BOTH.set_axis(index, axis=0), pd.Series(SINE, index=index, name="load")
    following = pd.date_range("2020-01-11", periods=3, freq="h") if following is None else following
    model, single = Forecaster(**KW).fit(frame), Forecaster(**KW).fit(one)
    for forecast in (model.predict(frame, 3), *model.predict_interval(frame, 3)):
        assert list(forecast.columns) == ["load", "temp"]
        assert list(forecast.index) == list(following)
    for forecast in (single.predict(one, 3), *single.predict_interval(one, 3)):
        assert (forecast.name, list(forecast.index)) == ("load", list(following))
    assert isinstance(single.predict(SINE, 3), np.ndarray)
    assert_same_bits(single.predict(SINE, 3), single.predict(one, 3).to_numpy())
