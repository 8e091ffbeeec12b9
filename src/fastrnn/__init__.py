"""Recurrent networks on CPUs: Elman RNN, LSTM and GRU, forward and BPTT, for NumPy arrays."""

from __future__ import annotations

from typing import Any

from fastrnn.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.config import get_num_threads, set_num_threads, show_config
from fastrnn.gradients import Gradients
from fastrnn.layers import GRU, LSTM, RNN, Stream
from fastrnn.ragged import Ragged, chunks

# The kit is imported on first use: `import fastrnn` stays a matter of milliseconds.
_lazy = {
    "diagnostics": "fastrnn.diagnostics",
    "functional": "fastrnn.functional",
    "init": "fastrnn.init",
    "losses": "fastrnn.losses",
    "models": "fastrnn.models",
    "optim": "fastrnn.optim",
    "reference": "fastrnn.reference",
    "nn": "fastrnn.nn",
    "io": "fastrnn.io",
}
_lazy_names = {
    "Embedding": "fastrnn.nn",
    "Linear": "fastrnn.nn",
    "Dropout": "fastrnn.nn",
}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "Gradients",
    "LSTMCell",
    "RNNCell",
    "Ragged",
    "Stream",
    "chunks",
    "get_num_threads",
    "set_num_threads",
    "show_config",
    *_lazy,
    *_lazy_names,
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _lazy:
        return importlib.import_module(_lazy[name])
    if name in _lazy_names:
        return getattr(importlib.import_module(_lazy_names[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("fastrnn")
    raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
