"""The progress bar of fit."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any


def progress(batches: list[Any], description: str, verbose: bool) -> Any:
    """Return a context that gives the batches, with a progress bar if `verbose`."""
    if not verbose:
        return nullcontext(batches)
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("fit needs tqdm for verbose=True: pip install 'fastrnn[demo]'") from error
    return tqdm(batches, desc=description)
