"""Keras models: their recurrent layers as layers of fastrnn, and the way back.

It reads files by h5py alone, without Keras: ``pip install 'fastrnn[keras]'``. Nothing that a file contains is
executed, and nothing outside the file is read.
"""

from __future__ import annotations

from fastrnn.keras._load import load
from fastrnn.keras._weights import state_dict

__all__ = ["load", "state_dict"]
