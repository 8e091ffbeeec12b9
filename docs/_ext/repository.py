"""Sphinx extension: shows files of the repository as pages of the site.

It does two things before Sphinx reads a page:

- ``{include}`` of a Markdown file outside docs/ is replaced by the file. Links in it, and in every page, that lead to
  another file of the repository lead to the page that shows that file. Where there is no such page, the text of the
  link stays.
- The sources of the gallery are made: each file of examples/ with its task, kept picture, kept figures and caveats.
"""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
IMAGE = re.compile(r"(!\[[^\]]*\]\(|<img src=\")([^)\s\"]+)")
GALLERY = "examples/index"


def pages() -> dict[Path, str]:
    """Return the file of the repository that each page shows, with the page's name."""
    found = {ROOT / "examples" / "README.md": GALLERY}
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        found[page] = name
        found |= {(page.parent / path).resolve(): name for path in INCLUDE.findall(page.read_text())}
    return found


def with_links(text: str, folder: Path, page: Path, known: dict[Path, str]) -> str:
    """Return Markdown that stands in `folder`, with links and pictures as the page `page` needs them."""

    def link(match: re.Match[str]) -> str:
        label, target = match.groups()
        file, _, anchor = target.partition("#")
        if not file or re.match(r"\w+:", file) or file.startswith("/"):
            return match[0]
        path = (folder / file).resolve()
        if known.get(path) == GALLERY:  # a section there is a page here
            return f"[{label}](/examples/{anchor.removesuffix('py') or 'index'}.rst)"
        if path in known:
            return f"[{label}](/{known[path]}.md{'#' * bool(anchor)}{anchor})"
        return match[0] if path.is_relative_to(DOCS) else label

    def image(match: re.Match[str]) -> str:
        if re.match(r"\w+:", match[2]):
            return match[0]
        return match[1] + os.path.relpath((folder / match[2]).resolve(), page.parent)

    return IMAGE.sub(image, LINK.sub(link, text))


def read(app: Any, name: str, source: list[str]) -> None:
    """Expand and correct the text of a Markdown page."""
    page = Path(app.env.doc2path(name))
    if page.suffix != ".md":
        return

    def included(match: re.Match[str]) -> str:
        path = (page.parent / match[1]).resolve()
        app.env.note_dependency(str(path))
        return with_links(path.read_text(), path.parent, page, app.env.repository_pages)

    text = with_links(source[0], page.parent, page, app.env.repository_pages)
    source[0] = INCLUDE.sub(included, text)


def remember_pages(app: Any, env: Any, *_: Any) -> None:
    """Find the pages once for each build."""
    env.repository_pages = pages()


# -- the gallery ----------------------------------------------------------------------------------------------


def as_rst(text: str) -> str:
    """Return prose in reStructuredText: code and links of Markdown."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", LINK.sub(r"\1", text))


def docstring_as_rst(text: str) -> str:
    """Return a program's docstring as prose; what is indented in it are commands."""
    parts = []
    for part in text.split("\n\n"):
        if part.startswith("    "):
            parts.append(".. code-block:: sh\n\n" + part)
        else:
            pieces = re.split(r"(`[^`]+`)", part)
            pieces[::2] = [re.sub(r"([*|_\\])", r"\\\1", piece) for piece in pieces[::2]]
            parts.append(as_rst("".join(pieces)))
    return "\n\n".join(parts)


def sections() -> dict[str, tuple[str, str]]:
    """Return the task of each example and the prose about its result, as examples/README.md has them."""
    text = (ROOT / "examples" / "README.md").read_text()
    tasks = dict(re.findall(r"^\| \[(\w+)\.py\]\([^)]*\) \| ([^|]+) \|", text, re.MULTILINE))
    found = {}
    for section in text.split("\n## ")[1:]:
        name, _, body = section.partition(".py\n")
        prose = [p for p in body.strip().split("\n\n") if not p.startswith(("|", "<img", "```", "!["))]
        if name in tasks:
            found[name] = (tasks[name].strip(), "\n\n".join(prose))
    return found


def table(record: dict[str, Any]) -> str:
    """Return the figures of a kept result as a table."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return "" if value is None else str(value)

    rows = [["metric", "fastrnn", "baseline", "the baseline is"]]
    for row in record["rows"]:
        rows.append([text(row.get(key)) for key in ("metric", "fastrnn", "baseline", "baseline_is")])
    rows = rows if any(row[3] for row in rows[1:]) else [row[:3] for row in rows]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'*' if i == 0 else ' '} - {cell}".rstrip() for i, cell in enumerate(row)]
    return "\n".join(lines)


def example(path: Path, task: str, prose: str) -> str:
    """Return the source of a page of the gallery: what it is about, then the program."""
    source = path.read_text()
    tree = ast.parse(source)
    head = tree.body[0]
    code = "\n".join(source.splitlines()[head.end_lineno :]).lstrip("\n")
    title = task[0].upper() + task[1:]
    parts = [f"{title}\n{'=' * len(title)}", as_rst(prose)]
    result = ROOT / "examples" / "results" / f"{path.stem}.json"
    thumbnail = ""
    if result.exists():
        picture = os.path.relpath(result.with_suffix(".png"), DOCS / "examples")
        alt = f"Result of the example {path.stem}: {task}."
        parts += [
            f".. image:: {picture}\n   :alt: {alt}\n   :width: 700",
            table(json.loads(result.read_text())),
        ]
        kept = os.path.relpath(result.with_suffix(".png"), DOCS)
        thumbnail = f"# sphinx_gallery_thumbnail_path = {kept!r}\n"
    parts.append(f"Run it in a clone with ``python examples/{path.name}``. What the program says of itself:")
    parts.append(docstring_as_rst(ast.get_docstring(tree) or ""))
    text = "\n\n".join(parts).replace('"""', "'''").replace("\\", "\\\\")
    return f'"""\n{text}\n"""\n\n{thumbnail}{code}\n'


def make_gallery(*_: Any) -> None:
    """Write the sources of the gallery, where they have changed."""
    folder = DOCS / "_gallery"
    folder.mkdir(exist_ok=True)
    intro = (
        "Examples\n========\n\nEach example is one program: it trains in at most three minutes on two cores and prints "
        "its result beside that of a baseline. The pictures and figures are those of a full run, kept in the "
        "repository.\n"
    )
    texts = {"README.rst": intro}
    known = sections()
    for path in sorted((ROOT / "examples").glob("[a-z]*.py")):
        task, prose = known.get(path.stem, (path.stem, ""))
        texts[path.name] = example(path, task, prose)
    for old in folder.iterdir():
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Any) -> dict[str, Any]:
    """Connect the functions above to the build."""
    app.connect("config-inited", make_gallery, priority=1)  # before sphinx-gallery looks
    app.connect("env-before-read-docs", remember_pages)
    app.connect("source-read", read)
    return {"version": "1", "parallel_read_safe": False}
