"""The next word: a language model over words, beside an interpolated Kneser-Ney trigram model.

The text is the Jargon File 4.4.7 (public domain, 1.7 MB of English): Debian package jargon-text. Every tenth
entry is held out. With --quick, or any text of your own after --text: Python's own help topics.
"""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path

import numpy as np
from _common import BASELINE, MODEL, data, figure, parser, report

from fastrnn.demo import kneser_ney
from fastrnn.models import LanguageModel

UNKNOWN, ENTRY = "<unknown>", "\n"  # a rare word; where an entry begins
PROMPTS = ["a hacker is someone who", "the term is used", "see also", "this is a", "in the early days of"]


def entries(text: str) -> list[list[str]]:
    """Cut a text at its headwords (or at empty lines, if there are none) into lists of words."""
    parts = re.split(r"\n\s*(?=:[^\n:]+:)", text) if "Jargon File" in text else text.split("\n\n")
    words = [re.findall(r"[a-z]+(?:['’-][a-z]+)*|\d+|[^\w\s]", part.lower()) for part in parts]
    return [[ENTRY, *row] for row in words if len(row) > 5]


def split(rows: list[list[str]], min_count: int) -> tuple[list[str], list[str], int]:
    """Give the words to train on and those held out, with rare ones replaced, and how many different ones."""
    train = [w for i, row in enumerate(rows) if i % 10 for w in row]
    held_out = [w for row in rows[::10] for w in row]
    names, counts = np.unique(train, return_counts=True)
    known = set(names[counts >= min_count].tolist())
    train, held_out = ([w if w in known else UNKNOWN for w in part] for part in (train, held_out))
    return train, held_out, len(known) + 1


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 text")
    options = arguments.parse_args()
