"""Recurrent layers of PyTorch models in fastrnn's core: eager, compiled and exported, with autograd.

:func:`convert` is all that a model needs. The rest of it stays PyTorch. Install with ``pip install 'fastrnn[torch]'``.

Examples
--------
>>> import torch, fastrnn.torch
>>> model = torch.nn.Sequential(torch.nn.LSTM(3, 4, batch_first=True))
>>> model = fastrnn.torch.convert(model)
0: LSTM -> fastrnn.torch.LSTM
>>> output, state = model(torch.ones(2, 5, 3))
>>> output.sum().backward()
"""

from __future__ import annotations

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("fastrnn.torch needs PyTorch: pip install 'fastrnn[torch]'") from error

_OLDEST = (2, 6)
if tuple(int(part) for part in _torch.__version__.split(".")[:2]) < _OLDEST:
    raise ImportError(f"fastrnn.torch needs PyTorch 2.6 or newer, got {_torch.__version__}")

from fastrnn.torch._convert import convert, from_layer, revert  # noqa: E402
from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell  # noqa: E402
from fastrnn.torch.layers import GRU, LSTM, RNN  # noqa: E402

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "convert", "from_layer", "revert"]
