"""The folders of src/cpp import downwards only: bindings -> engine -> kernels and runtime."""

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src" / "cpp"
MAY_INCLUDE = {
    "bindings": {"bindings", "engine", "kernels", "runtime"},
    "engine": {"engine", "kernels", "runtime"},
    "kernels": {"kernels"},
    "runtime": {"runtime"},
}


def breaches(sources):
    """Return what is wrong with the includes of ``sources``, a mapping from path to text."""
    wrong = []
    for path, text in sources.items():
        folder = path.split("/")[0]
        for included in re.findall(r'^\s*#\s*include\s*"([^"]+)"', text, re.MULTILINE):
            target = included.split("/")[0]
            if "/" not in included or target not in MAY_INCLUDE:
                wrong.append(f"{path}: {included} is not written from src/cpp on")
            elif target not in MAY_INCLUDE[folder]:
                wrong.append(f"{path}: {folder} may not include {included}")
    return wrong


def test_includes_go_down_only():
    sources = {p.relative_to(SOURCES).as_posix(): p.read_text() for p in SOURCES.rglob("*.[ch]pp")}
    assert {path.split("/")[0] for path in sources} == set(MAY_INCLUDE)
    assert not breaches(sources)


@pytest.mark.parametrize(
    ("path", "included"),
    [
        ("kernels/step.hpp", "engine/batch.hpp"),
        ("runtime/memory.hpp", "kernels/simd.hpp"),
        ("kernels/step.hpp", "runtime/memory.hpp"),
        ("engine/batch.hpp", "bindings/arrays.hpp"),
        ("engine/batch.hpp", "tape.hpp"),
    ],
)
def test_a_wrong_include_is_found(path, included):
    assert breaches({path: f'#pragma once\n#include "{included}"\n'})
