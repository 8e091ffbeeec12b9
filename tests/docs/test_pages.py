"""The pages for readers: examples run and print what the page says, links lead somewhere, figures can be drawn."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for folder in ("docs", "benchmarks") for path in (ROOT / folder).rglob("*.md")),
    ROOT / "examples" / "README.md",
]
# code, and what it prints where the page says so
CODE = re.compile(r"^```python\n(.*?)^```$(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?")
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def expect_printed(got: str, text: str, where: str) -> None:
    """Compare what code has printed: kernel sets round differently, so numbers with a point are near, others equal."""
    assert NUMBER.sub("#", got).split() == NUMBER.sub("#", text).split(), f"{where} printed {got}"
    for a, b in zip(NUMBER.findall(got), NUMBER.findall(text), strict=True):
        assert a == b or ("." in a + b and float(a) == pytest.approx(float(b), rel=0.15, abs=0.06)), (
            f"{where} printed {got}"
        )


def run(path: Path, text: str, known: dict[str, Any]) -> None:
    for number, (code, printed) in enumerate(CODE.findall(text)):  # each goes on where the one before ended
        where = f"{name(path)}, example {number + 1} of {len(text.splitlines())} lines"
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, where, "exec"), known)
        if printed:
            expect_printed(out.getvalue(), printed, where)


@pytest.mark.parametrize("path", [page for page in PAGES if CODE.search(page.read_text())], ids=name)
def test_examples_run(path: Path, tmp_path: Path) -> None:
    known: dict[str, Any] = {"__name__": "__main__"}
    lesson, exercise, answer = path.read_text().partition("\n## Exercise")
    for library in ("pandas", "torch"):
        if f"import {library}" in lesson:
            pytest.importorskip(library, reason=f"{library} is not installed")
    run(path, lesson, known)
    if path.parent == ROOT / "docs" / "tutorial":
        pytest.importorskip("matplotlib")
        spec = importlib.util.spec_from_file_location("figures", path.parent / "figures.py")
        assert spec is not None
        assert spec.loader is not None
        figures = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(figures)
        figures.draw(path.stem, known, tmp_path)
    run(path, exercise + answer, known)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for groups in LINK.findall(path.read_text()):
        link = groups[0] or groups[1]
        if not link.startswith(("https://", "http://")):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("folder", ["benchmarks/results", "examples/results"])
def test_every_picture_is_shown(folder: str) -> None:
    shown = {
        (page.parent / (groups[0] or groups[1])).resolve()
        for page in PAGES
        for groups in LINK.findall(page.read_text())
    }
    pictures = {path.resolve() for path in (ROOT / folder).rglob("*.png")}
    assert pictures
    assert pictures <= shown


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 100


def test_results_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "benchmarks" / "results").rglob("*.json")]
    assert sum(sizes) < 300_000
