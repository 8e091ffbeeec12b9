"""The pages for readers: their Python examples run, their links lead somewhere, every picture is shown."""

from __future__ import annotations

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
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", [page for page in PAGES if CODE.search(page.read_text())], ids=name)
def test_examples_run(path: Path) -> None:
    known: dict[str, Any] = {}
    if "import torch" in path.read_text():
        pytest.importorskip("torch", reason="torch is not installed")
    for number, block in enumerate(CODE.findall(path.read_text())):  # each goes on where the one before ended
        exec(compile(block, f"{name(path)}, example {number + 1}", "exec"), known)


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
