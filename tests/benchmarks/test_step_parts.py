"""The suite of the parts of a training step: rows and what they count."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # appended: its modules must shadow nothing

import parts

import fastrnn


def test_every_part_has_a_row_for_each_number_of_threads(capsys: pytest.CaptureFixture[str]) -> None:
    before = fastrnn.get_num_threads()
    rows = parts.run(parts.Settings(rounds=1, quick=True))
    assert fastrnn.get_num_threads() == before
    timed = [row for row in rows if "threads" in row]
    assert len(timed) == 2 * len({1, before})
    assert all(row["ms"] > 0 and row["of limit"] > 0 for row in timed)
    assert all(row["ms"] * row["rate"] == pytest.approx(work(row["part"]) / 1e6) for row in timed)
    assert len(rows) == len(timed) + 1
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def work(part: str) -> float:
    """Operations, or bytes, of a row of the quick run."""
    return 6 * 64 * 32 * 500 if part.startswith("cross") else 32 * (1 << 16)


def test_peak_memory_counts_what_is_held_beyond_the_imports() -> None:
    before = parts.peak_resident()
    held = bytearray(1 << 26)
    held[::4096] = b"1" * (1 << 14)
    assert parts.peak_resident() >= before
    assert parts.peak_resident() > 1 << 26
