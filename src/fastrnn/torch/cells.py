"""LSTMCell, GRUCell and RNNCell as modules of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastrnn.layers import gated
from fastrnn.torch._module import FastModule, elman_cell
from fastrnn.torch._passes import Spec

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Cell(FastModule, nn.RNNCellBase):
    """What the cells share."""

    def _parameter_names(self) -> Any:
        return _NAMES if self.bias else _NAMES[:2]

    def _spec(self, dtype: torch.dtype, batch_first: bool) -> Spec:
        return Spec(
            self._cell(), self.input_size, self.hidden_size, 0, 1, False, self.bias, batch_first, dtype
        )

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Do one step.

        Parameters
        ----------
        input : Tensor [B, I] or [I]
        hx : Tensor [B, H] or [H], or for an LSTM a pair of them, optional
            Zeros by default.

        Returns
        -------
        hx
            The next state, as the argument.

        Examples
        --------
        >>> import torch, fastrnn.torch
        >>> h, c = fastrnn.torch.LSTMCell(3, 4)(torch.ones(2, 3))
        >>> h.shape, c.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
        """
        if isinstance(hx, (tuple, list)):
            raise TypeError("hx: expected a tensor h, got a pair, which only an LSTM has")
        return self._run(input, hx, None, one_step=True)[1]


class LSTMCell(Cell):
    """One step of an LSTM, as ``torch.nn.LSTMCell``, in fastrnn's core.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of ``torch.nn.LSTMCell``.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def _cell(self) -> str:
        return "lstm"

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Do one step; return the next (h, c). See :meth:`GRUCell.forward`."""
        h0 = c0 = None
        if hx is not None:
            if not isinstance(hx, (tuple, list)) or len(hx) != 2:
                got = f"{len(hx)} of them" if isinstance(hx, (tuple, list)) else type(hx).__name__
                raise TypeError(f"hx: expected a pair (h, c), got {got}")
            h0, c0 = hx
        return self._run(input, h0, c0, one_step=True)[1:]


class GRUCell(Cell):
    """One step of a GRU, as ``torch.nn.GRUCell``, in fastrnn's core.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of ``torch.nn.GRUCell``.
    reset_after : bool
        As of :class:`fastrnn.torch.GRU`.
    """

    reset_after = True  # of converted modules

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        reset_after: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)
        self.reset_after = bool(reset_after)

    def _cell(self) -> str:
        return gated(self.reset_after)

    def extra_repr(self) -> str:
        """Return the options that are not the default."""
        return str(super().extra_repr()) + ("" if self.reset_after else ", reset_after=False")


class RNNCell(Cell):
    """One step of an Elman RNN, as ``torch.nn.RNNCell``, in fastrnn's core.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity, device, dtype
        As of ``torch.nn.RNNCell``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        elman_cell(nonlinearity)
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def _cell(self) -> str:
        return elman_cell(self.nonlinearity)
