"""What importing the package costs and brings, and what it tells of itself."""

from __future__ import annotations

import pytest
from conftest import run_python

import fastrnn

IMPORT = """
import time
import numpy
start = time.perf_counter()
import fastrnn
print(time.perf_counter() - start)
"""


def test_import_is_quick() -> None:
    seconds = [float(run_python("-c", IMPORT).stdout) for _ in range(5)]
    assert min(seconds) < 0.05


def test_import_needs_nothing_but_numpy() -> None:
    names = ("torch", "scipy", "matplotlib", "tqdm")
    code = f"import sys, fastrnn; print([m for m in {names} if m in sys.modules])"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    fastrnn.show_config()
    text = capsys.readouterr().out
    for word in ("fastrnn", "kernel set:", "threads:", "compiler:"):
        assert word in text
