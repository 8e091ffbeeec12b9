"""docs/guarantees.md names tests that exist, and a command for each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
NAME = re.compile(r"`(tests/\w+/test_\w+\.py)(?:::(test_\w+))?`")
NAMES = sorted(set(NAME.findall(PAGE.read_text())))


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name"), NAMES, ids=[f"{path}::{name}" for path, name in NAMES])
def test_named_tests_exist(path: str, name: str) -> None:
    assert (ROOT / path).exists()
    if name:
        assert name in functions(ROOT / path)


def test_every_row_has_a_test_and_a_command() -> None:
    tables = re.findall(r"\| promise \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE.read_text())
    rows = [line for table in tables for line in table.splitlines()]
    assert len(rows) > 30
    for row in rows:
        cells = row.strip("| ").split(" | ")
        assert len(cells) == 3, row
        assert NAME.search(cells[1]) or "`tests/native/driver.cpp`" in cells[1], row
        script = re.fullmatch(r"`bash (\.ci/\w+)( \w+)?`", cells[2])
        assert script is None or (ROOT / script[1]).exists(), row
        assert script or re.fullmatch(r"`pytest .*`", cells[2]), row
