"""The benchmark's own arithmetic, the agreement of its engines, and that a report comes out."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # appended: its modules must shadow nothing

import contests  # noqa: E402
import pages  # noqa: E402
import peers  # noqa: E402
import plots  # noqa: E402
import report  # noqa: E402
import scaling  # noqa: E402
import sequences  # noqa: E402
import shapes  # noqa: E402
import summaries  # noqa: E402
import targets  # noqa: E402
import timing  # noqa: E402
from roofline import Limits, roofline  # noqa: E402
from shapes import Case  # noqa: E402
from workload import difference, make_workload, tolerance  # noqa: E402

LIMITS = Limits(
    {"float32": 100.0, "float64": 50.0},
    {"L1": 200.0, "L2": 100.0, "L3": 50.0, "DRAM": 20.0},
    {"L1": 32 * 1024, "L2": 1024 * 1024, "L3": 32 * 1024 * 1024},
)
peers.load("jax").thorough = False  # compile one candidate only
VARIANTS = ((1, False), (1, True), (2, True))


def small(kind: str, mode: str, **change: Any) -> Case:
    return replace(Case("test", kind, mode, T=5, B=3, I=4, H=6), **change)


# ------------------------------------------------------------------------------------------- shapes


def test_flops_by_hand() -> None:
    case = Case("test", "lstm", "infer", T=10, B=2, I=3, H=5)
    assert case.flops == 2 * 2 * 4 * 5 * (10 * 3 + 9 * 5)  # no h_0, so nine recurrent products
    assert replace(case, mode="train").flops == 3 * case.flops
    assert replace(case, bidirectional=True).flops == 2 * case.flops
    assert replace(case, layers=2).flops == case.flops + 2 * 2 * 4 * 5 * (10 * 5 + 9 * 5)
    stacked = replace(case, layers=2, bidirectional=True)
    assert stacked.flops == 2 * case.flops + 2 * 2 * 2 * 4 * 5 * (10 * 10 + 9 * 5)
    assert replace(case, T=1).flops == 2 * 2 * 4 * 5 * 3


@pytest.mark.parametrize("suite", [*shapes.SHAPE_SUITES, "quick"])
@pytest.mark.parametrize("mode", shapes.MODES)
@pytest.mark.parametrize("kind", shapes.KINDS)
def test_every_suite_has_cases(suite: str, kind: str, mode: str) -> None:
    cases = shapes.suite_cases(suite, kind, mode)
    assert cases
    assert all(case.kind == kind and case.mode == mode and case.flops > 0 for case in cases)
    assert len(shapes.unique(cases)) == len(cases)


def test_drawn_shapes_follow_from_the_seed() -> None:
    cases = shapes.suite_cases("drawn", "gru", "train")
    assert cases == shapes.suite_cases("drawn", "gru", "train")
    assert len(cases) == shapes.DRAWN_CASES
    assert all(case.flops <= shapes.DRAWN_FLOPS for case in cases)
    sizes = [{getattr(case, name) for case in cases} for name in "BTIH"]
    assert all(len(found) > shapes.DRAWN_CASES / 3 for found in sizes)
    others = shapes.suite_cases("drawn", "gru", "train", seed=1)
    assert not set(others) & set(cases)


def test_unknown_suite_is_named() -> None:
    with pytest.raises(ValueError, match=r"suite: expected .*, got 'nonsense'"):
        shapes.suite_cases("nonsense", "lstm", "infer")


def test_cap_cuts_steps_only() -> None:
    case = Case("test", "gru", "train", T=1500, B=64, I=1024, H=1024)
    cut = shapes.cap(case, seconds=1.0, gflops=100.0, bytes_limit=1e12)
    assert cut.T < case.T
    assert cut.published_T == 1500
    assert cut.flops <= 100e9 < cut.flops + cut.step_flops
    assert shapes.cap(case, 1e9, 100.0, 1e15) is case
    by_memory = shapes.cap(case, 1e9, 100.0, 1e8)
    assert by_memory.T * by_memory.step_bytes <= 1e8
    assert shapes.cap(case, 1e-9, 100.0, 1.0).T == 1


def test_unique_keeps_the_first_of_equal_shapes() -> None:
    case = small("lstm", "infer")
    same = replace(case, suite="other", published_T=1500)
    assert shapes.unique([case, same, replace(case, mode="train")]) == [case, replace(case, mode="train")]


# ----------------------------------------------------------------------------------------- roofline


def test_roofline_of_one_step_reads_the_weights_once() -> None:
    case = Case("test", "lstm", "infer", T=1, B=1, I=128, H=64)
    least = roofline(case, LIMITS, threads=1)
    assert least.bound == "L2"  # W does not fit in L1
    assert least.seconds == pytest.approx(4 * 64 * 128 * 4 / 100e9)  # and R is not read
    two = roofline(replace(case, T=2), LIMITS, threads=1)
    assert two.seconds == pytest.approx(4 * 64 * (128 + 64) * 4 / 100e9)


def test_roofline_of_a_batch_is_arithmetic() -> None:
    case = Case("test", "gru", "infer", T=50, B=128, I=256, H=256)
    least = roofline(case, LIMITS, threads=2)
    assert least.bound == "fma"
    assert least.seconds == pytest.approx(case.flops / 200e9)
    training = roofline(replace(case, mode="train"), LIMITS, threads=2)
    assert training.seconds == pytest.approx(3 * case.flops / 200e9)


def test_roofline_of_a_sequence_reads_r_every_step() -> None:
    case = Case("test", "lstm", "infer", T=1000, B=1, I=1, H=256)
    least = roofline(case, LIMITS, threads=1)
    r_seconds = 4 * 256 * 256 * 4 / 50e9  # 1 MiB of R fits in L2 exactly; with W it does not
    later = 998 * 4 * 256 * 256 * 4 / 100e9
    assert least.bound == "L2"
    assert least.weights_level == "L2"
    x_w = 2 * 1000 * 4 * 256 / 100e9
    assert least.seconds == pytest.approx(x_w + r_seconds + later)


def test_roofline_levels_share_l3_only() -> None:
    half = 0.6 * LIMITS.cache_bytes["L2"]
    assert LIMITS.level(half, 2) == "L2"
    assert LIMITS.level(2 * half, 2) == "L3"
    assert LIMITS.level(0.6 * LIMITS.cache_bytes["L3"], 2) == "DRAM"
    assert LIMITS.read("DRAM", 2) == LIMITS.read("DRAM", 1)


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_roofline_never_beats_the_peak(kind: str) -> None:
    for mode in shapes.MODES:
        for case in shapes.suite_cases("research", kind, mode):
            assert roofline(case, LIMITS, 2).seconds >= case.flops / LIMITS.peak(case.dtype, 2) * 0.999


def test_limits_need_every_figure() -> None:
    raw = {"fma_gflops": LIMITS.fma_gflops, "read_gbs": LIMITS.read_gbs, "cache_bytes": LIMITS.cache_bytes}
    assert Limits.measured(raw) == LIMITS
    assert Limits.measured({**raw, "read_gbs": {"L1": 1.0}}) is None
    assert Limits.measured(None) is None


# ------------------------------------------------------------------------------------------ engines


@pytest.mark.parametrize("name", peers.NAMES)
@pytest.mark.parametrize("mode", shapes.MODES)
@pytest.mark.parametrize("kind", shapes.KINDS)
def test_peer_agrees_with_the_reference(name: str, kind: str, mode: str) -> None:
    module = peers.load(name)
    try:
        module.version()
    except ImportError as error:
        pytest.skip(str(error))
    if reason := module.unsupported(small(kind, mode)):
        pytest.skip(reason)
    for layers, bidirectional in VARIANTS:
        case = small(kind, mode, layers=layers, bidirectional=bidirectional)
        workload = make_workload(case)
        prepared = module.prepare(workload, 1)
        assert difference(contests.reference(workload), prepared.outputs(), tolerance(case)) is None, (
            case.label
        )


@pytest.mark.parametrize("mode", shapes.MODES)
def test_every_way_of_compiling_jax_agrees(mode: str) -> None:
    pytest.importorskip("jax")
    case = small("lstm", mode)
    workload = make_workload(case)
    expected = contests.reference(workload)
    for transposed, unroll in ((True, 1), (False, 1), (True, 4)):
        prepared = peers.load("jax").candidate(workload, transposed, unroll)
        assert difference(expected, prepared.outputs(), tolerance(case)) is None, (transposed, unroll)


@pytest.mark.parametrize("mode", shapes.MODES)
@pytest.mark.parametrize("kind", shapes.KINDS)
def test_fastrnn_agrees_with_the_reference(kind: str, mode: str) -> None:
    for layers, bidirectional in VARIANTS:
        case = small(kind, mode, layers=layers, bidirectional=bidirectional)
        workload = make_workload(case)
        prepared = peers.load("fastrnn").prepare(workload, 1)
        assert difference(contests.reference(workload), prepared.outputs(), tolerance(case)) is None, (
            case.label
        )


def test_difference_finds_a_swapped_gate_and_names_it() -> None:
    workload = make_workload(small("gru", "infer"))
    expected = contests.reference(workload)
    weight = workload.params["weight_hh_l0"]
    swapped = weight.reshape(3, 6, 6)[[1, 0, 2]].reshape(weight.shape)
    wrong = contests.reference(replace(workload, params={**workload.params, "weight_hh_l0": swapped}))
    assert "differs by" in str(difference(expected, wrong, tolerance(workload.case)))
    assert "shape" in str(difference(expected, {**expected, "y": expected["y"][1:]}, 1e-4))
    assert "h_n" in str(difference(expected, {"y": expected["y"]}, 1e-4))
    assert difference(expected, {"y": expected["y"]}, 1e-4, shared=True) is None
    assert difference(expected, {**expected, "y": np.full_like(expected["y"], np.nan)}, 1e-4)


# ----------------------------------------------------------------------------------------- contests


def settings(**change: Any) -> contests.Settings:
    return replace(contests.Settings(1, (), 1, 1e-4, limits=LIMITS), **change)


def torch_or_none() -> tuple[str, ...]:
    return ("torch",) if "torch" in peers.installed(["torch"])[0] else ()


@pytest.mark.parametrize("mode", shapes.MODES)
def test_dense_row(mode: str) -> None:
    contest = contests.dense_contest(small("lstm", mode), settings(peers=torch_or_none()))
    row = contests.run_contest(contest, settings(), lambda _: None)
    assert row["wrong"] == row["failed"] == {}
    assert row["roofline"]["share"] > 0
    assert 0 < row["roofline"]["beside"] < 1
    assert row.get("best_peer") != contests.MACHINE
    assert json.loads(json.dumps(row, allow_nan=False)) == row


@pytest.mark.parametrize("mode", shapes.MODES)
@pytest.mark.parametrize("kind", shapes.KINDS)
def test_ragged_row(kind: str, mode: str) -> None:
    chosen = settings(peers=(*torch_or_none(), *peers.installed(["onnxruntime"])[0]))
    contest = sequences.ragged_contest(small(kind, mode), chosen)
    row = contests.run_contest(contest, chosen, lambda _: None)
    assert row["wrong"] == row["failed"] == {}
    assert len(row["comparisons"]) >= 3


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_stream_row(kind: str) -> None:
    chosen = settings(
        peers=tuple(name for name in peers.installed(list(peers.NAMES))[0] if name != "openvino")
    )
    contest = sequences.stream_contest(small(kind, "infer", T=1, B=1), chosen)
    contest.figures = None  # tracemalloc over many steps has its own test in the suite of streams
    row = contests.run_contest(contest, chosen, lambda _: None)
    assert row["wrong"] == row["failed"] == {}


def test_a_wrong_engine_is_not_timed() -> None:
    case = small("rnn", "infer")
    contest = contests.dense_contest(case, settings())
    other = make_workload(case, seed=7)
    contest.engines["impostor"] = lambda: peers.load("fastrnn").prepare(other, 1)
    contest.checks["impostor"] = "all"
    row = contests.run_contest(contest, settings(), lambda _: None)
    assert "differs by" in row["wrong"]["impostor"]
    assert "impostor" not in row["engines"]


def test_a_failing_peer_is_reported() -> None:
    contest = contests.dense_contest(small("rnn", "infer"), settings())
    contest.engines["broken"] = lambda: 1 / 0  # type: ignore[assignment,return-value]
    row = contests.run_contest(contest, settings(), lambda _: None)
    assert row["failed"] == {"broken": "ZeroDivisionError: division by zero"}


def test_engines_take_turns_and_slow_ones_rest() -> None:
    turns: list[str] = []
    times = {"fast": timing.Timing(1, [1e-6]), "slow": timing.Timing(1, [1.0])}
    assert timing.is_slow(times["slow"], times, 0.02)
    assert not timing.is_slow(times["fast"], times, 0.02)
    engines = {name: timing.Prepared(lambda: None, lambda _: {}) for name in ("a", "b")}
    found = timing.measure(engines, rounds=2, min_seconds=1e-4, progress=turns.append)
    assert turns == ["a", "b", "a", "b", "b", "a"]  # calibration, then two rounds, the second one further on
    assert all(len(timed.samples) == 2 for timed in found.values())


def test_nothing_is_slow_beside_another_kind_of_work() -> None:
    def sleeps(seconds: float, **options: Any) -> timing.Prepared:
        return timing.Prepared(lambda: time.sleep(seconds), lambda _: {}, **options)

    engines = {"fastrnn": sleeps(0.02), "slow": sleeps(1.5), "machine": sleeps(1e-5, other=True)}
    found = timing.measure(engines, rounds=2, min_seconds=1e-4)
    assert {name: len(timed.samples) for name, timed in found.items()} == {
        "fastrnn": 2,
        "slow": 1,
        "machine": 2,
    }


def test_ratios_are_those_within_rounds() -> None:
    slow, fast, alone, both = (
        timing.Timing(1, samples)
        for samples in ([2.0, 4.0, 90.0], [1.0, 2.0, 30.0], [1.0, 1.0, 3.0], [0.5, 1.0, 1.0])
    )
    assert contests.paired_ratio(slow, fast) == 2.0
    assert contests.paired_ratio(slow, fast, alone, both) == 1.0  # of 1, 2 and 1
    assert contests.paired_ratio(timing.Timing(1, [8.0]), fast) == 4.0


def test_threads_row_has_what_the_machine_gives() -> None:
    case = small("lstm", "infer", T=40, B=32, H=128)
    row = contests.run_contest(scaling.threads_contest(case, settings(threads=2)), settings(), lambda _: None)
    names = [item["name"] for item in row["comparisons"]]
    line = "a line to another core and back [ns]"
    assert names == ["1 -> 2 threads", "1 -> 2 threads, fma alone", line, "1 -> 2 threads over that of fma"]
    assert next(item["value"] for item in row["comparisons"] if item["name"] == line) > 0
    assert [item["met"] is None for item in row["comparisons"]] == [False, True, True, False]


# ------------------------------------------------------------------------------------------- report


def fake_row(kind: str, mode: str, ratio: float, **change: Any) -> dict[str, Any]:
    case = replace(Case("research", kind, mode, T=1000, B=1, I=64, H=64), **change)
    engines = {
        name: {"seconds": seconds, "calls": 1, "samples": [seconds], "units": 1.0}
        for name, seconds in (("fastrnn", 1e-3), ("torch", ratio * 1e-3))
    }
    least = {"seconds": 8e-4, "bound": "L2", "weights_level": "L2", "share": 0.8, "peak_share": 0.7}
    least["beside"] = 0.9
    return {
        **case.fields(),
        "title": case.label,
        "on_roofline": True,
        "flops": case.flops,
        "threads": 2,
        "engines": engines,
        "gflops": 100.0,
        "skipped": {},
        "failed": {},
        "wrong": {},
        "comparisons": [],
        "best_peer": "torch",
        "ratio": ratio,
        "roofline": least,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    rows = [fake_row("lstm", "infer", 2.0), fake_row("gru", "infer", 8.0), fake_row("gru", "train", 1.2)]
    rows.append(fake_row("lstm", "train", 4.0, B=64, H=512, I=512))
    rows[1]["comparisons"] = [contests.outcome("time over none", 1.2, "<=", 1.1)]
    rows.append({"title": "long lstm train", "error": "MemoryError: no"})
    meta = {
        "cpu": "a CPU",
        "cores": 2,
        "system": "Linux",
        "python": "3.11",
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "config": {"compiler": "GCC"},
        "versions": {"fastrnn": "1", "torch": "2"},
        "missing": {},
        "threads": 2,
        "isa": None,
        "rounds": 3,
        "min_ms": 1.0,
        "quick": False,
    }
    limits = {name: getattr(LIMITS, name) for name in ("fma_gflops", "read_gbs", "cache_bytes")}
    return {"meta": meta, "limits": limits, "rows": rows}


def test_targets_take_the_worst_row(results: dict[str, Any]) -> None:
    found = {item["what"]: item for item in targets.targets(results)}
    least = found["inference, fastest alternative over fastrnn: minimum"]
    assert (least["figure"], least["met"]) == ("2.00", True)
    assert found["inference, fastest alternative over fastrnn: geomean"]["figure"] == "4.00"
    assert not found["gru training, fastest alternative over fastrnn: minimum"]["met"]
    assert not found["training, H >= 512, B >= 32: share of the best FMA peak"]["met"]
    assert found["training, H >= 512, B >= 32: share of fma at the same time"]["met"]
    assert not found["forward, B = 1 sequences, weights beyond L1: share of the roofline"]["met"]
    assert found["lstm I = H = 64, B = 1, T = 1000, a step"]["figure"].startswith("1000 ns (909 ns")
    assert not found["time over none, infer"]["met"]


def test_summary_and_problems(results: dict[str, Any]) -> None:
    text = report.summary(results)
    assert "infer all    2 shapes  geomean 4.00  minimum 2.00" in text
    assert report.problems(results) == ["FAILED: long lstm train: MemoryError: no"]
    results["rows"][0]["wrong"] = {"torch": "y: differs by 1"}
    assert len(report.problems(results)) == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (1.234e-3, "1.23 ms"), (5e-6, "5 us"), (9e-8, "90 ns")]
)
def test_durations(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_report_is_written(results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    path, out = tmp_path / "two-cores.json", tmp_path / "machine"
    results["rows"].append(fake_row("lstm", "infer", 0.5, B=7))
    report.write_json(path, results)
    monkeypatch.setattr(sys, "argv", ["report.py", str(path), "--out", str(out), "--format", "svg"])
    report.main()
    page, shapes_page = (out / "README.md").read_text(), (out / "shapes.md").read_text()
    assert page.startswith("# a CPU\n")
    assert "2 of 2 cores" in page
    assert "| LSTM, inference | 7 | 1000 | 64 | 64 |  | PyTorch | 0.500 |" in page
    assert "| research | 1 | 1000 | 64 | 64 |  | 1 ms | 65.5 | PyTorch | **2.00** | 2.00 |" in shapes_page
    for name in ("ratio", "roofline"):
        assert (out / f"two-cores-{name}.svg").stat().st_size > 1000
        assert f"![two-cores-{name}.svg](two-cores-{name}.svg)" in page
    for row in results["rows"]:
        assert report.print_row(row)


def test_a_summary_says_what_the_run_said(results: dict[str, Any], tmp_path: Path) -> None:
    results["rows"][1]["comparisons"] = []  # a dense shape has none
    results["rows"].append(
        {
            **fake_row("gru", "infer", 2.0),
            "title": "gru: ragged",
            "on_roofline": False,
            "comparisons": [contests.outcome("time over none", 1.2, "<=", 1.1)],
            "failed": {"torch": "no"},
        }
    )
    for row in results["rows"]:
        if "error" not in row:
            row["gflops"] = row["flops"] / row["engines"]["fastrnn"]["seconds"] / 1e9
    path = tmp_path / "summary.json"
    summaries.write(path, summaries.summarise(results))
    found = summaries.load(path)
    assert summaries.summarise(found) == json.loads(path.read_text())
    assert report.summary(found).splitlines()[:6] == report.summary(results).splitlines()[:6]
    assert report.problems(found) == report.problems(results)
    assert pages.comparison_table(found["rows"][-1:]) == pages.comparison_table(results["rows"][-1:])


def test_programs_and_callers_have_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    measured = {"samples": [0.01, 0.02], "losses": [1.0], "seconds": 0.02, "threads": 2, "peak_bytes": 5e7}
    measured["units_per_second"] = 1500.0
    served = {"calls_per_second": 1234.0, "p50_ms": 1.0, "p99_ms": 2.0, "rates": [1234.0]}
    results = {
        "meta": {"cpu": "a CPU", "cores": 2, "commit": "abc", "date": "2026-01-02", "environment": {}},
        "programs": [
            {
                "program": "tagger",
                "sizes": "H 64",
                "unit": "tokens",
                "engines": {"fastrnn default": measured, "torch default": measured | {"seconds": 0.05}},
                "ratios": {"torch default": 2.5},
            }
        ],
        "services": [
            {
                "call": "batch",
                "kind": "thread",
                "callers": 8,
                "engines": {"fastrnn default": served},
                "over_one_caller": 1.5,
            }
        ],
        "mixtures": [{"mixture": "two", "size": "large", "together": 1.5, "parts": 3.0, "ratio": 0.5}],
    }
    path, out = tmp_path / "programs.json", tmp_path / "machine"
    report.write_json(path, results)
    monkeypatch.setattr(sys, "argv", ["report.py", str(path), "--out", str(out)])
    report.main()
    page = (out / "README.md").read_text()
    assert "| tagger | H 64 | 2 | 20 | 50 | **2.50** | 1,500 tokens | 50 | 50 |" in page
    assert "| batch | 8 threads | 1,234 (2) | - | - | - | 1.50 |" in page
    assert "| two | large | 1,500 | 3,000 | **0.50** |" in page
    assert "shapes.md" not in page
    assert not (out / "shapes.md").exists()
    kept = (out / "programs.json").read_text()
    assert "samples" not in kept
    assert "losses" not in kept
    assert summaries.load(out / "programs.json")["programs"][0]["ratios"] == {"torch default": 2.5}


def test_dots_of_the_plot_stand_on_their_side_of_one() -> None:
    ratios = [0.5, 0.99, 0.999, 1.0, 1.001, 1.01, 4.0, *[2.0] * 30]
    places = plots.stacked(ratios)
    assert len(places) == len(ratios)
    assert sum(place < 1 for place, _ in places) == 3
    assert max(height for _, height in places) <= plots.HEIGHT
    assert len(set(places)) == len(places)
