"""The page on error messages quotes messages that really come."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import models

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
QUOTED = re.findall(r"^\| `([^`]+: [^`]+)` \|", PAGE.read_text(), re.MULTILINE)
X = np.ones((5, 2, 3), np.float32)


def changed_parameters() -> None:
    gru = fastrnn.GRU(3, 4)
    y, _, tape = gru.forward(X)
    gru.flat = 2 * gru.flat
    gru.backward(tape, y)


def used_tape() -> None:
    gru = fastrnn.GRU(3, 4)
    y, _, tape = gru.forward(X)
    gru.backward(tape, y)
    gru.backward(tape, y)


def names_with_a_prefix() -> None:
    gru = fastrnn.GRU(3, 4)
    gru.load_state_dict({f"gru.{name}": value for name, value in gru.params.items()})


def unknown_kernel_set() -> None:
    code = "import os; os.environ['FASTRNN_ISA'] = 'none'; import fastrnn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    raise ImportError(done.stderr.strip().splitlines()[-1].partition(": ")[2])


WAYS: list[Callable[[], object]] = [
    changed_parameters,
    used_tape,
    lambda: fastrnn.GRU(3, 4)(X, (np.zeros((1, 2, 4)), np.zeros((1, 2, 4)))),
    names_with_a_prefix,
    lambda: fastrnn.GRU(3, 4, dropout=0.5),
    lambda: models.SequenceClassifier(verbose=False).fit([[1, 2], [2, 1]], [0, 1]),
    unknown_kernel_set,
]


def test_every_quoted_message_has_a_way() -> None:
    assert len(QUOTED) == len(WAYS)


@pytest.mark.parametrize(("text", "way"), list(zip(QUOTED, WAYS, strict=False)), ids=QUOTED)
def test_the_message_comes(text: str, way: Callable[[], object]) -> None:
    with pytest.raises((ValueError, TypeError, ImportError, UserWarning)) as caught:
        way()
    assert str(caught.value).startswith(text)
