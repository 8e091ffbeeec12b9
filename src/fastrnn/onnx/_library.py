"""The library onnx, imported where it is used, with a message that says how to install it."""

from __future__ import annotations

from typing import Any


def onnx_library() -> Any:
    """Return the module onnx with the parts that are used here."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError("fastrnn.onnx needs onnx: pip install 'fastrnn[onnx]'") from error
    return onnx


def runtime_library(what: str) -> Any:
    """Return the module onnxruntime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{what} needs onnxruntime: pip install 'fastrnn[onnx]'") from error
    return onnxruntime
