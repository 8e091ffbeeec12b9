"""Recurrent networks on CPUs: Elman RNN, LSTM and GRU, forward and BPTT, for NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastrnn.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.config import get_num_threads, set_num_threads, show_config
from fastrnn.gradients import Gradients
from fastrnn.layers import GRU, LSTM, RNN, Stream
from fastrnn.ragged import Ragged, chunks, length_mask

if TYPE_CHECKING:  # editors and type checkers do not run __getattr__
    from fastrnn import (
        diagnostics,
        functional,
        init,
        io,
        losses,
        models,
        nn,
        optim,
        parallel,
        reference,
        text,
    )
    from fastrnn.nn import Dropout, Embedding, Linear, Sequential

    __version__: str

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "GRUCell",
    "Gradients",
    "LSTMCell",
    "Linear",
    "RNNCell",
    "Ragged",
    "Sequential",
    "Stream",
    "chunks",
    "diagnostics",
    "functional",
    "get_num_threads",
    "init",
    "io",
    "length_mask",
    "losses",
    "models",
    "nn",
    "optim",
    "parallel",
    "reference",
    "set_num_threads",
    "show_config",
    "text",
]

# The training utilities are imported on first use, so that `import fastrnn` stays quick.
_lazy: tuple[str, ...] = ("diagnostics", "functional", "init", "io", "losses", "models", "nn", "optim")
_lazy += ("parallel", "reference", "text")
_doors = (
    "keras",
    "onnx",
    "torch",
)  # packages that need another library; import them, or use them as attributes
_lazy_names = dict.fromkeys(("Dropout", "Embedding", "Linear", "Sequential"), "fastrnn.nn")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _lazy + _doors:
        return importlib.import_module(f"fastrnn.{name}")
    if name in _lazy_names:
        return getattr(importlib.import_module(_lazy_names[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("fastrnn")
    raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_doors, "__version__"})
