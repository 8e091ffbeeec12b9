"""The site: its API pages are complete, its lessons have what each promises, its pictures are small and described."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import fastrnn

DOCS = Path(__file__).parents[2] / "docs"
LESSONS = sorted((DOCS / "tutorial").glob("[0-9]*.md"))
# Modules whose public names are those of the package or of another module.
INSIDE = {"cells", "config", "gradients", "layers", "ragged", "demo"}


def public_names() -> set[str]:
    names = {m.name for m in pkgutil.iter_modules(fastrnn.__path__) if m.name[0] != "_"} - INSIDE
    found = {f"fastrnn.{name}" for name in fastrnn.__all__ if name not in names}
    for name in names:
        try:
            module: Any = importlib.import_module(f"fastrnn.{name}")
        except ImportError as error:
            if "fastrnn[" not in str(error):  # an extra says what to install
                raise
            continue
        found |= {f"fastrnn.{name}.{thing}" for thing in module.__all__}
    # those that the package has too stand there once, under the shorter name
    return found - {f"fastrnn.nn.{name}" for name in fastrnn.__all__}


def listed_names() -> list[str]:
    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.rst"))
    names = re.findall(r"^   (fastrnn\.[\w.]+)$", pages, re.MULTILINE)
    return [re.sub(r"^fastrnn\.nn\.", "fastrnn.", n) if n[11:] in fastrnn.__all__ else n for n in names]


def test_the_api_pages_are_complete() -> None:
    listed = listed_names()
    assert public_names() - set(listed) == set(), "not on a page of docs/api"
    assert len(listed) == len(set(listed)), "listed twice"


@pytest.mark.parametrize("name", listed_names())
def test_every_listed_name_is_there(name: str) -> None:
    *path, last = name.split(".")
    try:
        module: Any = importlib.import_module(".".join(path))
    except ImportError as error:
        if "fastrnn[" not in str(error):
            raise
        pytest.skip(str(error))
    assert hasattr(module, last)


def test_there_are_thirteen_lessons_in_order() -> None:
    assert [int(page.name[:2]) for page in LESSONS] == list(range(1, 14))
    index = (DOCS / "tutorial" / "index.md").read_text()
    assert re.findall(r"\((\d\d-[\w-]+\.md)\)", index) == [page.name for page in LESSONS]


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_lesson_has_a_figure_and_an_exercise_with_its_answer(page: Path) -> None:
    text = page.read_text()
    ((alt, picture),) = re.findall(r"!\[(.*)\]\((.*)\)", text)
    assert picture == f"figures/{page.stem}.png"
    assert len(alt) > 40, "what somebody who cannot see it would want to know"
    assert text.count("\n## Exercise\n") == text.count("<details><summary>Answer</summary>") == 1
    assert "```python" in text.partition("## Exercise")[0]


def test_pictures_are_small() -> None:
    sizes = {path: path.stat().st_size for path in DOCS.rglob("*.png") if "_build" not in path.parts}
    assert sizes
    assert max(sizes.values()) < 60_000
    assert sum(sizes.values()) < 2_000_000


def test_the_page_on_installation_has_every_extra() -> None:
    text = (DOCS.parent / "pyproject.toml").read_text()
    extras = re.findall(
        r"^(\w+) = \[", text.partition("[project.optional-dependencies]")[2].partition("\n[")[0], re.MULTILINE
    )
    assert set(extras) == set(re.findall(r"fastrnn\[(\w+)\]", (DOCS / "install.md").read_text()))
