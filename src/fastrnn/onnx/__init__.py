"""ONNX models: their recurrent layers, whole models with fastrnn inside, and layers as ONNX files.

It needs the library onnx, and for whole models onnxruntime: ``pip install 'fastrnn[onnx]'`` installs both.
Nothing that a file contains is executed, and files beside a model are read only from the model's folder.
"""

from __future__ import annotations

from fastrnn.onnx import backend
from fastrnn.onnx._export import export
from fastrnn.onnx._load import load
from fastrnn.onnx._session import Session, accelerate

__all__ = ["Session", "accelerate", "backend", "export", "load"]
