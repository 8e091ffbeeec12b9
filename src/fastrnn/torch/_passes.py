"""The passes of the core on tensors: what eager mode, functorch's transforms and the operators share."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import fastrnn._core as _core
from fastrnn._parameters import GATES, parameter_shapes

DTYPES = (torch.float32, torch.float64)


class Spec(NamedTuple):
    """The shape of a network: what its weights do not say, and its dtype."""

    cell: str  # the core's name
    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """Features of y."""
        return (1 + self.bidirectional) * (self.proj_size or self.hidden_size)

    @property
    def has_c(self) -> bool:
        """Whether the state is a pair (h, c)."""
        return self.cell == "lstm"

    def state_shapes(self) -> tuple[tuple[int, int], ...]:
        """Return the sizes of h and, for an LSTM, of c without the batch axis."""
        count = self.num_layers * (1 + self.bidirectional)
        shapes = ((count, self.proj_size or self.hidden_size), (count, self.hidden_size))
        return shapes[: 1 + self.has_c]

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the parameters, in the order of the core's flat gradient."""
        return parameter_shapes(
            GATES[self.cell], self.input_size, self.hidden_size, self.num_layers, self.bias,
            1 + self.bidirectional, self.proj_size,
        )  # fmt: skip


# What follows from a spec. Dictionaries, because Dynamo warns where it sees functools.lru_cache.
_networks: dict[Spec, Any] = {}
_parts: dict[Spec, tuple[tuple[int, int, tuple[int, ...]], ...]] = {}


def network_of(spec: Spec) -> Any:
    """Return the core's network of a spec. It holds no weights, so all modules may share it."""
    network = _networks.get(spec)
    if network is None:
        network = _networks[spec] = _core.Network(
            spec.cell, spec.input_size, spec.hidden_size, spec.proj_size, spec.num_layers,
            spec.bidirectional, spec.bias, spec.batch_first, spec.dtype == torch.float64,
        )  # fmt: skip
    return network


def parts_of(spec: Spec) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """Return where each parameter lies in the flat gradient: start, stop and shape."""
    parts = _parts.get(spec)
    if parts is None:
        found, at = [], 0
        for shape in spec.parameter_shapes().values():
            found.append((at, at + math.prod(shape), shape))
            at += math.prod(shape)
        parts = _parts[spec] = tuple(found)
    return parts


def array_of(tensor: Tensor) -> Any:
    """Return the NumPy view of a tensor."""
    try:
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    except RuntimeError:  # a view that NumPy does not know, such as the imaginary part of a conjugate
        return tensor.detach().resolve_conj().resolve_neg().numpy()


def arrays_of(weights: Any) -> tuple[Any, ...]:
    """Return views of weights as the core reads them; those that are not contiguous are copied."""
    return tuple(np.require(array_of(w), requirements=["C", "A"]) for w in weights)


class Order:
    """Where the steps of a PackedSequence lie in a Ragged, and the other way round."""

    __slots__ = ("lengths", "shape", "to_packed", "to_ragged")

    def __init__(self, batch_sizes: Tensor) -> None:
        sizes = batch_sizes.numpy()
        steps, rows = len(sizes), int(sizes[0])
        self.shape = (steps, rows) if sizes[-1] == rows else None  # of equal lengths: a plain batch
        if self.shape:
            return
        self.lengths = (sizes[:, None] > np.arange(rows)).sum(axis=0, dtype=np.int64)
        row = np.repeat(np.arange(rows), self.lengths)
        starts = np.cumsum(self.lengths) - self.lengths
        first = np.cumsum(sizes) - sizes  # of each step
        index = first[np.arange(len(row)) - starts[row]] + row
        back = np.empty_like(index)
        back[index] = np.arange(len(index))
        self.to_ragged, self.to_packed = torch.from_numpy(index), torch.from_numpy(back)

    def enter(self, packed: Tensor) -> Tensor:
        """Return the steps of a PackedSequence as the core reads them."""
        if self.shape:
            return packed.reshape(*self.shape, -1)
        return packed.index_select(0, self.to_ragged)

    def leave(self, own: Tensor) -> Tensor:
        """Undo :meth:`enter`."""
        return own.reshape(-1, own.shape[-1]) if self.shape else own.index_select(0, self.to_packed)


class Call:
    """A call besides its tensors of floats: network, steps, dropout. It can be repeated with the same masks."""

    __slots__ = ("dropout", "lengths", "masks", "network", "one_step", "order", "reset", "spec")

    def __init__(
        self,
        spec: Spec,
        network: Any = None,
        lengths: Any = None,
        reset: Any = None,
        order: Order | None = None,
        dropout: float = 0.0,
        one_step: bool = False,
        masks: Any = None,
    ) -> None:
        self.spec, self.network = spec, network or network_of(spec)
        self.lengths, self.reset, self.order = lengths, reset, order
        self.dropout, self.one_step, self.masks = dropout, one_step, masks

    def forward(self, weights: Any, x: Tensor, h0: Tensor | None, c0: Tensor | None, keep: bool) -> Any:
        """Return y, h, c (None where there is none) and the tape (None unless `keep`)."""
        order, lengths, ragged = self.order, self.lengths, False
        if order is not None:
            x = order.enter(x.detach())
            if not order.shape:
                lengths, ragged = order.lengths, True
        array = array_of(x)
        state: Any = None
        if h0 is not None:
            state = array_of(h0)
            if c0 is not None:
                state = (state, array_of(c0))
        if self.one_step:
            array = array[None]
            if state is not None:
                state = (state[0][None], state[1][None]) if c0 is not None else state[None]
        tape = None
        if keep or lengths is not None or self.dropout:
            masks, scale = None, 1.0
            if self.dropout:  # the core drops outputs in passes with a tape only
                masks = partial(self._draw, array.shape)
                scale = 1.0 / (1.0 - self.dropout) if self.dropout < 1 else 1.0
            with_tape = keep or masks is not None
            out = self.network.forward(
                weights, array, state, lengths, self.reset, None, ragged, with_tape, 0, masks, scale
            )
            if with_tape:
                out[0].flags.writeable = True  # torch itself notices changes
            tape = out[2] if keep else None
        else:
            out = self.network.infer(weights, array, state, self.reset, None)
        last = out[1]
        h, c = last if self.spec.has_c else (last, None)
        if self.one_step:
            h, c = h[0], None if c is None else c[0]
            y = None
        else:
            y = torch.from_numpy(out[0])
            if order is not None:
                y = order.leave(y)
        return y, torch.from_numpy(h), None if c is None else torch.from_numpy(c), tape

    def backward(self, tape: Any, dy: Any, dh: Any, dc: Any, need_dx: bool) -> Any:
        """Return dL/dx (None unless needed), dL/dh_0, dL/dc_0 (None where there is none) and the flat gradient."""
        if dy is not None:
            if self.order is not None:
                dy = self.order.enter(dy.detach())
            dy = array_of(dy)
        dh, dc = (None if d is None else array_of(d) for d in (dh, dc))
        if self.one_step:
            dh, dc = (None if d is None else d[None] for d in (dh, dc))
        dx, first, flat = self.network.backward(tape, dy, (dh, dc) if self.spec.has_c else dh, need_dx)
        dh0, dc0 = first if self.spec.has_c else (first, None)
        if self.one_step:
            dh0, dc0 = dh0[0], None if dc0 is None else dc0[0]
            dx = dx[0] if need_dx else None
        if need_dx:
            dx = torch.from_numpy(dx)
            if self.order is not None:
                dx = self.order.leave(dx)
        return dx, torch.from_numpy(dh0), None if dc0 is None else torch.from_numpy(dc0), flat

    def gradients(self, flat: Any, needs: Any) -> list[Any]:
        """Return the gradient of each parameter that needs one, as a view of the flat gradient."""
        from_numpy = torch.from_numpy
        parts = parts_of(self.spec)
        return [
            from_numpy(flat[start:stop].reshape(shape)) if need else None
            for (start, stop, shape), need in zip(parts, needs, strict=True)
        ]

    def _draw(self, shape: tuple[int, ...], positions: int, rows: int) -> Any:
        """Return the masks of dropout between layers, [L - 1, positions, D * output], drawn once.

        Numbers are drawn as torch.nn draws them, so that equal seeds drop the same outputs.
        """
        if self.masks is None:
            self.masks = draw_masks(self.spec, self.dropout, shape, self.order).numpy()
        return self.masks


def draw_masks(spec: Spec, dropout: float, shape: Any, order: Order | None) -> Tensor:
    """Return masks [L - 1, positions, D * output] for an input of this shape; the core's hidden layers are [T, B]."""
    shape = tuple(shape[:-1])
    if spec.batch_first and len(shape) == 2 and order is None:
        shape = shape[::-1]
    masks = []
    for _ in range(spec.num_layers - 1):
        mask = torch.empty((*shape, spec.width), dtype=spec.dtype).bernoulli_(1.0 - dropout) != 0
        if order is not None and not order.shape:
            mask = mask.index_select(0, order.to_ragged)
        masks.append(mask.reshape(-1, spec.width))
    return torch.stack(masks)
