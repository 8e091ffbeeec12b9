"""The examples in the docstrings of the package, each module's run as a test."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest

import fastrnn

NAMES = ["fastrnn", *(m.name for m in pkgutil.walk_packages(fastrnn.__path__, "fastrnn."))]
# run as a program; the core is no Python
SKIP = {"fastrnn.__main__", "fastrnn._core"}
CORE = {
    "fastrnn.cells",
    "fastrnn.config",
    "fastrnn.functional",
    "fastrnn.layers",
    "fastrnn.ragged",
    "fastrnn.reference",
}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SKIP])
def test_examples(name: str) -> None:
    try:
        module: Any = importlib.import_module(name)
    except ImportError as error:
        if "fastrnn[" not in str(error):  # an extra says what to install
            raise
        pytest.skip(str(error))
    with np.printoptions():
        result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0 or name not in CORE


@pytest.mark.parametrize("name", [n for n in fastrnn.__all__ if n not in fastrnn._lazy])
def test_everything_public_is_documented(name: str) -> None:
    thing = getattr(fastrnn, name)
    assert thing.__doc__, name
    for method, value in vars(thing).items() if isinstance(thing, type) else ():
        if not method.startswith("_") and callable(value):
            assert value.__doc__, f"{name}.{method}"
