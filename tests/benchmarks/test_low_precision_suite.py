"""The suite of small weights: every engine runs, what is wrong is not timed, the comparisons are there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # appended: its modules must shadow nothing

import contests  # noqa: E402
import low_precision  # noqa: E402
import peers  # noqa: E402
from shapes import KINDS, Case  # noqa: E402
from timing import Prepared  # noqa: E402
from workload import make_workload  # noqa: E402

SETTINGS = contests.Settings(1, (), 1, 1e-4)


@pytest.mark.filterwarnings("ignore")  # PyTorch's quantization is deprecated
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_every_kind(kind: str) -> None:
    found = tuple(peers.installed(["torch", "onnxruntime", "openvino"])[0])
    case = Case("lowp", kind, "infer", 4, 2, 32, 32)
    contest = low_precision.contest(case, replace(SETTINGS, peers=found))
    row = contests.run_contest(contest, SETTINGS, lambda _: None)
    assert row["wrong"] == row["failed"] == {}
    names = [item["name"] for item in row["comparisons"]]
    assert {"int8 over float32", "bfloat16 over float32", "freeze int8 over float32"} <= set(names)
    if found:
        assert not row["best_peer"].startswith(contests.OWN)
    if "torch" in found:
        assert "bfloat16 over torch bfloat16" in names


def test_the_stream_row() -> None:
    contest = low_precision.stream_contest(Case("lowp", "lstm", "infer", 1, 1, 16, 16), SETTINGS)
    row = contests.run_contest(contest, SETTINGS, lambda _: None)
    assert row["wrong"] == row["failed"] == {}
    assert row["comparisons"][0]["name"] == "a step with int8 over float32"


def test_an_engine_that_is_far_off_is_an_error() -> None:
    workload = make_workload(Case("lowp", "gru", "infer", 3, 2, 8, 8))
    right = low_precision.own(workload, 1, "int8")
    low_precision.near(workload, lambda: right)
    wrong = Prepared(right.run, lambda result: {"y": np.flip(result[0], axis=2)})
    with pytest.raises(ValueError, match="y differs from float32 by"):
        low_precision.near(workload, lambda: wrong)


def test_training_has_no_rows() -> None:
    assert low_precision.low_precision_contests("lstm", "train", SETTINGS) == []
    assert len(low_precision.low_precision_contests("lstm", "infer", SETTINGS)) == 8
