"""What fit shows: a progress bar where tqdm is installed, else one plain line an epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any


class Progress:
    """The display of one epoch; `close` ends it."""

    def __init__(self, batches: list[Any], description: str, verbose: bool) -> None:
        self.description, self.verbose = description, verbose
        self.began, self.shown = time.perf_counter(), ""
        self.tokens, self.rate = 0, 0.0
        self.batches = batches
        self.bar: Any = None
        if verbose:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self.bar = tqdm(total=len(batches), desc=description)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield batch
            if self.bar is not None:
                self.bar.update()

    def show(self, tokens: int = 0, **numbers: float) -> None:
        """Show numbers beside the bar."""
        if not self.verbose:
            return
        if tokens != self.tokens:  # validation comes after the last ones, and its time does not count
            self.tokens, self.rate = tokens, tokens / (time.perf_counter() - self.began)
        texts = {name: f"{number:.4f}" for name, number in numbers.items()}
        texts["tokens_per_s"] = f"{self.rate:,.0f}"
        self.shown = ", ".join(f"{name}={text}" for name, text in texts.items())
        if self.bar is not None:
            self.bar.set_postfix_str(self.shown, refresh=False)

    def close(self) -> None:
        """End the display, of a whole epoch or of one that failed."""
        if self.bar is not None:
            self.bar.close()
        elif self.verbose and self.shown:
            print(f"{self.description}: {self.shown}", file=sys.stderr, flush=True)
