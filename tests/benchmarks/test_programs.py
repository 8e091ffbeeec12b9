"""Whole programs and services of the benchmark: they run, engines agree, and what goes wrong is said."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # appended: its modules must shadow nothing

import bench  # noqa: E402
import users  # noqa: E402
from callers import mixtures, services  # noqa: E402
from callers.calls import Call, fastrnn_call  # noqa: E402
from programs import own, suite, tasks  # noqa: E402
from programs.tasks import PROGRAMS, Program  # noqa: E402
from workers import Worker, WorkerError  # noqa: E402


def small(p: Program) -> Program:
    """The same program with sizes that take no time."""
    sizes = {"E": 4, "H": 6, "T": 7, "B": min(p.B, 3), "O": min(p.O, 5), "V": 5 if p.V else 0}
    return replace(p, **sizes, least_T=2 if p.least_T else 0)


@pytest.fixture(autouse=True)
def this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes import what this one does."""
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))


# ---------------------------------------------------------------------------------------- programs


@pytest.mark.parametrize("p", PROGRAMS, ids=lambda p: p.name)
def test_engines_agree(p: Program) -> None:
    torch = pytest.importorskip("torch")
    from programs import torch as peer

    case = small(p)
    losses = []
    for engine in (own, peer):
        model = engine.TASKS[case.task](case)
        data = [model.prepare(batch) for batch in tasks.batches(case)]
        losses.append([model.step(data[number % len(data)]) for number in range(3)])
    assert suite.disagreement(losses[1], losses[0]) is None
    if case.trains:
        assert len({round(loss, 6) for loss in losses[0]}) > 1
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("p", [p for p in PROGRAMS if p.trains], ids=lambda p: p.name)
def test_clipped_gradients_agree(p: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from programs import torch as peer

    case, clip = small(p), 0.01  # less than any of these gradients
    for engine in (own, peer):
        monkeypatch.setattr(engine, "CLIP", clip)
    ours, theirs = (engine.TASKS[case.task](case) for engine in (own, peer))
    for model in (ours, theirs):
        model.step(model.prepare(tasks.batches(case)[0]))
    assert ours.adam.lr == theirs.adam.param_groups[0]["lr"]
    # after one step of Adam the first moment is a tenth of the gradient
    state, moments = ours.adam.state_dict(), theirs.adam.state
    found = np.concatenate([state[f"m.{number}"] for number in range(len(ours.modules))])
    expected = np.concatenate([moments[q]["exp_avg"].numpy().ravel() for q in theirs.parameters()])
    assert np.linalg.norm(found) == pytest.approx(clip / 10, rel=1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("p", PROGRAMS, ids=lambda p: p.name)
def test_every_module_learns(p: Program) -> None:
    case = small(p)
    model = own.TASKS[case.task](case)
    before = {name: module.flat.copy() for name, module in model.modules.items()}
    for batch in tasks.batches(case):
        model.step(model.prepare(batch))
    changed = [not np.array_equal(before[name], module.flat) for name, module in model.modules.items()]
    assert changed == [case.trains] * len(changed)


def test_units_are_tokens() -> None:
    tagger = next(p for p in PROGRAMS if p.task == "tagger")
    batch = tasks.batches(tagger)[0]
    assert tasks.units(tagger, batch) == len(batch["tokens"])
    assert tagger.least_T <= batch["lengths"].min() <= batch["lengths"].max() <= tagger.T
    language = next(p for p in PROGRAMS if p.task == "language")
    assert tasks.units(language, tasks.batches(language)[0]) == language.T * language.B


@pytest.mark.parametrize(
    ("losses", "agree"),
    [
        ([2.0001, 3.0, 4.0], True),
        ([2.0003, 3.0, 4.0], False),
        ([2.0, 3.002, 4.0], True),
        ([2.0, 3.004, 4.0], False),
        ([2.0, 3.0, float("nan")], False),
    ],
)
def test_disagreement(losses: list[float], agree: bool) -> None:
    assert (suite.disagreement(losses, [2.0, 3.0, 4.0]) is None) == agree


class Fake:
    """A worker whose steps take given seconds."""

    def __init__(self, seconds: float, loss: float = 1.0, error: str | None = None) -> None:
        self.seconds, self.loss, self.error = seconds, loss, error
        self.asked: list[str] = []

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append(do)
        if self.error:
            raise WorkerError(self.error)
        opened = {"losses": [self.loss] * 3, "units": 100, "threads": 2, "version": "1", "base_bytes": 1}
        return {"open": opened, "run": {"seconds": self.seconds}, "finish": {"peak_bytes": 5_000_000}}[do]


def fakes(**change: Fake) -> Any:
    found = {"fastrnn default": Fake(0.002), "torch default": Fake(0.006)}
    return found | {"fastrnn 1": Fake(0.004), "torch 1": Fake(0.02)} | change


def test_a_row_has_ratios_and_rates() -> None:
    row = suite.run_program(PROGRAMS[0], fakes(), suite.Settings(rounds=3))
    assert row["ratios"] == pytest.approx({"torch default": 3.0, "torch 1": 5.0})
    assert row["one_over_default"] == pytest.approx(2.0)
    assert row["engines"]["fastrnn default"]["units_per_second"] == pytest.approx(50_000)
    assert row["engines"]["torch 1"]["steps"] == 15  # of 20 ms in a turn of 300
    assert "50,000 tokens" in suite.text(row)
    lines = suite.summary([row]).splitlines()
    assert "threads default: language models and taggers: geomean 3.00, minimum 3.00, 1 program" in lines[0]
    assert len(lines) == 3  # none of 5 ms
    assert suite.problems([row]) == []
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_an_engine_that_disagrees_is_not_timed() -> None:
    wrong = Fake(0.001, loss=1.01)
    row = suite.run_program(PROGRAMS[0], fakes(**{"torch 1": wrong}), suite.Settings(rounds=1))
    assert wrong.asked == ["open"]
    assert "loss 1" in row["wrong"]["torch 1"]
    assert suite.problems([row])[0].startswith("WRONG")


@pytest.mark.parametrize(
    ("error", "count"), [("ValueError: no", 2), ("ModuleNotFoundError: No module named 'torch'", 0)]
)
def test_a_failing_engine_is_reported_and_a_missing_one_left_out(error: str, count: int) -> None:
    broken = {f"torch {threads}": Fake(1, error=error) for threads in suite.THREADS}
    row = suite.run_program(PROGRAMS[0], fakes(**broken), suite.Settings(rounds=1))
    assert len(suite.problems([row])) == count
    assert row["one_over_default"] == pytest.approx(2.0)
    assert "50,000 tokens" in suite.text(row)


def test_an_engine_that_dies_loses_its_row_only() -> None:
    class Dying(Fake):
        def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
            if self.asked.count("run") == 2:
                raise WorkerError("the process has ended")
            return super().ask(do, **arguments)

    row = suite.run_program(PROGRAMS[0], fakes(**{"torch 1": Dying(0.02)}), suite.Settings(rounds=3))
    assert row["failed"] == {"torch 1": "the process has ended"}
    assert set(row["ratios"]) == {"torch default"}
    assert len(suite.problems([row])) == 1


def test_quick_run(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [p for p in PROGRAMS if p.name in ("small LM, GRU", "forecaster")]
    monkeypatch.setattr(suite, "PROGRAMS", wanted)
    lines: list[str] = []
    settings = suite.Settings(rounds=1, turn_seconds=1e-3, quick=True)
    rows = suite.run(settings, lines.append)
    assert suite.problems(rows) == []
    assert [row["program"] for row in rows] == ["small LM, GRU", "forecaster"]
    for row in rows:
        assert row["engines"]["fastrnn 1"]["threads"] == 1
        for record in row["engines"].values():
            assert record["seconds"] > 0
            assert record["peak_bytes"] > 10e6
    assert len(lines) == 4  # head, a row each, summary


# ----------------------------------------------------------------------------------------- callers


def test_a_service_counts_its_calls() -> None:
    tiny = services.CALLS[:1]
    callers = (("thread", 1), ("process", 2))
    settings = services.Settings(1, 0.02, (services.DEFAULT, services.SINGLE), tiny, callers)
    rows = services.run(settings, lambda _: None)
    assert [(row["kind"], row["callers"]) for row in rows] == [("thread", 1), ("process", 2)]
    for row in rows:
        assert row["failed"] == row["wrong"] == {}
        own = row["engines"][services.DEFAULT]
        assert 0 < own["p50_ms"] <= own["p99_ms"]
        assert {"over_single_threaded", "over_one_caller"} <= set(row)
        assert "one sequence" in services.text(row)
    assert rows[0]["over_one_caller"] == 1


def test_engines_of_a_service_agree() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from callers.calls import onnxruntime_call

    which = Call("tiny", T=5, B=3, I=4, H=6)
    figures = [make(which, "default")[1]() for make in (fastrnn_call, onnxruntime_call)]
    assert figures[0] == pytest.approx(figures[1], rel=services.AGREE)


def test_mixtures_have_parts() -> None:
    rows = mixtures.run(mixtures.Settings(rounds=1, seconds=0.01, sizes=("one sequence",)), lambda _: None)
    assert len(rows) >= 4
    for row in rows:
        if "torch" in row["mixture"] and "failed" in row:
            assert "ModuleNotFoundError" in row["failed"]
            continue
        assert row["ratio"] == pytest.approx(row["together"] / row["parts"])
        assert row["mixture"] in mixtures.text(row)


# ------------------------------------------------------------------------------- workers, the command


def test_a_failed_request_is_an_error_and_the_process_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    worker = Worker("programs.server", "fastrnn", "1")
    try:
        with pytest.raises(WorkerError, match="StopIteration"):
            worker.ask("open", program="none of them", quick=True)
        assert worker.ask("open", program="forecaster", quick=True)["threads"] == 1
    finally:
        worker.close()
    assert worker.process.returncode == 0
    assert "Traceback" in capfd.readouterr().err


def test_a_dead_process_is_an_error() -> None:
    worker = Worker("programs.server", "fastrnn", "1")
    worker.process.kill()
    try:
        with pytest.raises(WorkerError, match="ended"):
            worker.ask("run", steps=1)
    finally:
        worker.close()


@pytest.mark.parametrize("suites", [["nobody"], ["programs", "tiny"], ["all", "callers"]])
def test_unknown_and_mixed_suites_are_errors(suites: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        bench.parse(["--suite", *suites])
    assert error.value.code == 2
    assert "--suite" in capsys.readouterr().err


def test_the_command_writes_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked: list[argparse.Namespace] = []

    def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
        asked.append(options)
        return {"programs": []}, ["WRONG: a program"]

    monkeypatch.setattr(users, "run_programs", run)
    path = tmp_path / "programs.json"
    assert bench.main(["--suite", "programs", "--quick", "--json", str(path)]) == 1
    assert [options.quick for options in asked] == [True]
    results = json.loads(path.read_text())
    assert results["meta"]["environment"]["OMP_NUM_THREADS"] == "1"
    assert results["meta"]["cpu"] in capsys.readouterr().out
