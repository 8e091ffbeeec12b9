"""Every example runs with --quick and leaves a table, its figures and a picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("_"))
MISSING = 77  # what _common.py ends with where something is not installed
pytest.importorskip("tqdm")
pytest.importorskip("matplotlib")


def run(name: str, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick", "--out", str(out), *arguments]
    environment = os.environ | {"PYTHONWARNINGS": "error::RuntimeWarning", "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def lines_of(text: str) -> list[str]:
    return [line for line in text.strip().splitlines() if line.strip()] or [""]


@pytest.mark.parametrize("name", NAMES)
def test_quick_run(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path)
    last = lines_of(done.stderr)[-1]
    if done.returncode == MISSING:
        pytest.skip(last)
    if done.returncode and last.startswith("ModuleNotFoundError") and "fastrnn" not in last:
        pytest.skip(last)
    assert done.returncode == 0, done.stderr[-3000:]

    printed = [[cell.strip() for cell in line.split("|")] for line in lines_of(done.stdout)]
    record = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert record["name"] == name
    assert record["quick"] is True
    assert record["seconds"] > 0
    assert record["rows"]
    head = printed.index(["metric", "fastrnn", "baseline"])
    assert [row[0] for row in printed[head + 1 : head + 1 + len(record["rows"])]] == [
        row["metric"] for row in record["rows"]
    ]
    for row in record["rows"]:
        values = [v for v in (row["fastrnn"], row["baseline"]) if isinstance(v, float)]
        assert np.isfinite(values).all()

    from matplotlib.image import imread

    picture = tmp_path / f"{name}.png"
    pixels = imread(picture)
    assert picture.stat().st_size < 150_000
    assert min(pixels.shape[:2]) > 200
    assert np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0).shape[0] > 50
    assert 0.01 < (pixels[..., :3].min(axis=2) < 0.95).mean() < 0.99


def test_there_are_examples() -> None:
    assert {"caption", "next_word", "sentiment", "translate"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_committed_results_are_of_a_full_run(name: str) -> None:
    record = EXAMPLES / "results" / f"{name}.json"
    if not record.exists():
        pytest.skip(f"{record.name} is not there yet")
    assert json.loads(record.read_text(encoding="utf-8"))["quick"] is False
    assert 0 < record.with_suffix(".png").stat().st_size < 150_000


def test_missing_data_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['task.py']; from _common import data; data('usr/none', 'apt-get install it')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert done.returncode == MISSING
    assert done.stderr.count("\n") == 1
    assert "apt-get install it" in done.stderr
