"""LSTM, GRU and RNN as modules of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastrnn.layers import gated
from fastrnn.torch._module import FastModule, elman_cell
from fastrnn.torch._passes import Spec

__all__ = ["GRU", "LSTM", "RNN"]


class Layer(FastModule, nn.RNNBase):
    """What LSTM, GRU and RNN share."""

    def _parameter_names(self) -> Any:
        return self._flat_weights_names

    def _spec(self, dtype: torch.dtype, batch_first: bool) -> Spec:
        return Spec(
            self._cell(), self.input_size, self.hidden_size, self.proj_size, self.num_layers,
            self.bidirectional, self.bias, batch_first, dtype,
        )  # fmt: skip

    def flatten_parameters(self) -> None:
        """Do nothing: the core reads parameters where they lie."""

    def _states(self, hx: Any) -> tuple[Any, Any]:
        """Return (h_0, c_0), or (h_0, None)."""
        if isinstance(hx, (tuple, list)):
            raise TypeError("hx: expected a tensor h_0, got a pair, which only an LSTM has")
        return hx, None

    def forward(
        self, input: Any, hx: Any = None, *, lengths: Any = None, reset: Any = None
    ) -> tuple[Any, Any]:
        """Run the layer.

        Parameters
        ----------
        input : Tensor [T, B, I], [B, T, I] if ``batch_first``, [T, I] unbatched; or PackedSequence
        hx : Tensor [L*D, B, output], or for an LSTM the pair of that and c [L*D, B, H], optional
            Initial state, by default zeros. It has no batch axis if ``input`` has none.
        lengths : int tensor or list [B], optional
            Steps of each sequence, in any order, zeros allowed. Outputs in the padding are 0. The final state is that
            after each sequence's last step, and the reverse direction starts there.
        reset : bool tensor shaped as ``input`` without its last axis, optional
            True where a step begins a new segment: neither state nor gradient crosses that boundary.

        Returns
        -------
        output : Tensor [T, B, D*output], laid out as ``input``; PackedSequence for a PackedSequence
        hx
            The final state, as the argument.

        Raises
        ------
        ValueError, TypeError
            The message names the argument, what was expected and what came.

        Examples
        --------
        >>> import torch, fastrnn.torch
        >>> gru = fastrnn.torch.GRU(3, 4)
        >>> output, h_n = gru(torch.ones(5, 2, 3), lengths=[5, 2])
        >>> output.shape, bool((output[2:, 1] == 0).all())
        (torch.Size([5, 2, 4]), True)
        """
        h0, c0 = (None, None) if hx is None else self._states(hx)
        dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
        if isinstance(input, PackedSequence):
            return self._run_packed(input, h0, c0, lengths, reset, dropout)
        y, h, c = self._run(input, h0, c0, self.batch_first, lengths, reset, None, dropout)
        return y, h if c is None else (h, c)

    def _run_packed(
        self, packed: Any, h0: Any, c0: Any, lengths: Any, reset: Any, dropout: float
    ) -> tuple[Any, Any]:
        for name, value in (("lengths", lengths), ("reset", reset)):
            if value is not None:
                raise ValueError(f"{name}: expected None with a PackedSequence, got {type(value).__name__}")
        data, batch_sizes, order, back = packed

        def permuted(state: Tensor | None, order: Tensor | None) -> Tensor | None:
            return state if state is None or order is None else state.index_select(1, order)

        h0, c0 = permuted(h0, order), permuted(c0, order)
        y, h, c = self._run(data, h0, c0, batch_sizes=batch_sizes, dropout=dropout)
        hx = permuted(h, back) if c is None else (permuted(h, back), permuted(c, back))
        return PackedSequence(y, batch_sizes, order, back), hx


class LSTM(Layer):
    """LSTM, as ``torch.nn.LSTM``, in fastrnn's core.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        As of ``torch.nn.LSTM``, with the same parameters, names and initial values. float32 and float64 on the CPU.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> lstm = fastrnn.torch.LSTM(3, 4, batch_first=True)
    >>> output, (h_n, c_n) = lstm(torch.ones(2, 5, 3))
    >>> output.sum().backward()
    >>> lstm.weight_hh_l0.grad.shape
    torch.Size([16, 4])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype,
        )  # fmt: skip

    def _cell(self) -> str:
        return "lstm"

    def _states(self, hx: Any) -> tuple[Any, Any]:
        if not isinstance(hx, (tuple, list)) or len(hx) != 2:
            got = f"{len(hx)} of them" if isinstance(hx, (tuple, list)) else type(hx).__name__
            raise TypeError(f"hx: expected a pair (h_0, c_0), got {got}")
        return hx[0], hx[1]


class GRU(Layer):
    """GRU, as ``torch.nn.GRU``, in fastrnn's core.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of ``torch.nn.GRU``, with the same parameters, names and initial values. float32 and float64 on the CPU.
    reset_after : bool
        False: n = tanh(W_in x + b_in + W_hn (r * h) + b_hn), as in the first version of the paper.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> output, h_n = fastrnn.torch.GRU(3, 4, num_layers=2)(torch.ones(5, 2, 3))
    >>> output.shape, h_n.shape
    (torch.Size([5, 2, 4]), torch.Size([2, 2, 4]))
    """

    reset_after = True  # of converted modules

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        reset_after: bool = True,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            0, device, dtype,
        )  # fmt: skip
        self.reset_after = bool(reset_after)

    def _cell(self) -> str:
        return gated(self.reset_after)

    def extra_repr(self) -> str:
        """Return the options that are not the default."""
        return str(super().extra_repr()) + ("" if self.reset_after else ", reset_after=False")


class RNN(Layer):
    """Elman RNN, as ``torch.nn.RNN``, in fastrnn's core.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, device, dtype
        As of ``torch.nn.RNN``, with the same parameters, names and initial values. float32 and float64 on the CPU.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> output, h_n = fastrnn.torch.RNN(3, 4, nonlinearity="relu")(torch.ones(5, 2, 3))
    >>> output.shape, h_n.shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        mode = elman_cell(nonlinearity).upper()
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            0, device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def _cell(self) -> str:
        return str(self.mode).lower()
