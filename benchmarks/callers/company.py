"""One process of the mixtures: fastrnn's call and another library's product, each alone and in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from timing import settle

import fastrnn

# T, B, I, H of the LSTM, outputs of the product with its y [T * B, H]
SIZES = {
    "char LM": (64, 32, 64, 256, 96),
    "word LM": (35, 20, 100, 200, 5000),
    "one sequence": (50, 1, 64, 128, 128),
}
WARM_SECONDS = 0.05


class Server:
    """`product` is "numpy", or "torch" for one that PyTorch computes; torch is imported only then."""

    def __init__(self, product: str) -> None:
        self.product = product

    def open(self, size: str) -> dict[str, Any]:
        """Build the parts of a mixture."""
        T, B, I, H, O = SIZES[size]
        rng = np.random.default_rng(0)
        layer = fastrnn.LSTM(I, H, rng=0)
        x = rng.standard_normal((T, B, I), np.float32)
        y, W = (rng.standard_normal(shape, np.float32) for shape in ((T * B, H), (H, O)))
        multiply: Callable[[], Any] = lambda: y @ W  # noqa: E731
        if self.product == "torch":
            import torch

            a, b = torch.from_numpy(y), torch.from_numpy(W)
            multiply = lambda: torch.matmul(a, b)  # noqa: E731

        def both() -> None:
            layer(x)
            multiply()

        self.parts: dict[str, Callable[[], Any]] = {
            "call": lambda: layer(x),
            "product": multiply,
            "both": both,
        }
        self.threads = fastrnn.get_num_threads()
        return {"threads": self.threads}

    def time(self, part: str, seconds: float, callers: int = 1, fewer: int = 0) -> dict[str, Any]:
        """Let `callers` threads repeat a part for `seconds`; returns the seconds of one time of all of them.

        fastrnn may use `fewer` threads less than it would.
        """
        run = self.parts[part]
        fastrnn.set_num_threads(max(1, self.threads - fewer))
        try:
            times = self._repeat(run, WARM_SECONDS, callers)
            times = self._repeat(run, seconds, callers)
        finally:
            fastrnn.set_num_threads(self.threads)
        settle()
        return {"seconds": times}

    def work(self, part: str, times: int) -> dict[str, Any]:
        """Do a part so many times; returns the seconds of all."""
        run = self.parts[part]
        start = time.perf_counter()
        for _ in range(times):
            run()
        elapsed = time.perf_counter() - start
        settle()
        return {"seconds": elapsed}

    def spin(self, seconds: float) -> None:
        """Keep a core busy."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    def _repeat(self, run: Callable[[], Any], seconds: float, callers: int) -> float:
        counts = [0] * callers

        def caller(index: int) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                run()
                counts[index] += 1

        start = time.perf_counter()
        if callers == 1:
            caller(0)
        else:
            threads = [threading.Thread(target=caller, args=(index,)) for index in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return (time.perf_counter() - start) / sum(counts)
