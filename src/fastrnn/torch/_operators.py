"""The passes as operators of PyTorch: for torch.compile, torch.export, torch.jit.trace and dispatch modes.

The forward operator returns, beside its results, a small tensor that stands for the tape. The tape itself waits here
until the backward operator takes it, or until that tensor is freed. It is a cache: where it is missing, or belongs to
other tensors, the forward pass runs again.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrnn.torch._passes import DTYPES, Call, Order, Spec, array_of, arrays_of, parts_of

_CALL = (
    "Tensor x, Tensor[] weights, Tensor? h0, Tensor? c0, Tensor? lengths, Tensor? reset, Tensor? batch_sizes, "
    "Tensor? masks, str cell, int[] sizes, float dropout"
)

# Tapes, and the addresses of x and y that they refer to, by the address of the tensor that stands for them.
_tapes: dict[int, tuple[Any, int, int]] = {}


def _spec(weights: list[Tensor], cell: str, sizes: list[int]) -> Spec:
    return Spec(cell, *sizes[:4], *map(bool, sizes[4:]), weights[0].dtype)  # type: ignore[arg-type, call-arg]


def _call(spec: Spec, lengths: Any, reset: Any, batch_sizes: Any, masks: Any, dropout: float) -> Call:
    lengths, reset = (None if t is None else array_of(t.contiguous()) for t in (lengths, reset))
    order = None if batch_sizes is None else Order(batch_sizes)
    if masks is not None:
        if order is not None and not order.shape:
            masks = masks.index_select(1, order.to_ragged)
        masks = array_of(masks.contiguous())
    return Call(spec, None, lengths, reset, order, dropout, masks=masks)


def _batch_axis(spec: Spec, x: Any, h0: Any, batch_sizes: Any) -> tuple[Any, ...]:
    """Return (B,), or () without a batch."""
    if batch_sizes is not None:
        return (h0.shape[1],)
    return () if x.dim() == 2 else (x.shape[0 if spec.batch_first else 1],)


@torch.library.custom_op(
    "fastrnn::forward",
    mutates_args=(),
    schema=f"({_CALL}, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
)
def forward(
    x: Any, weights: Any, h0: Any, c0: Any, lengths: Any, reset: Any, batch_sizes: Any, masks: Any,
    cell: str, sizes: Any, dropout: float, keep: bool,
) -> Any:  # fmt: skip
    """Run a layer; return y, h, c (empty where there is none) and what stands for the tape."""
    call = _call(_spec(weights, cell, sizes), lengths, reset, batch_sizes, masks, dropout)
    y, h, c, tape = call.forward(arrays_of(weights), x, h0, c0, keep)
    box = np.zeros(1, np.uint8)
    token = torch.from_numpy(box)  # keeps the box alive
    if keep:
        address = token.data_ptr()
        _tapes[address] = (tape, x.data_ptr(), y.data_ptr())
        weakref.finalize(box, _tapes.pop, address, None).atexit = False
    return y, h, x.new_empty(0) if c is None else c, token


@torch.library.custom_op(
    "fastrnn::backward",
    mutates_args=(),
    schema=f"(Tensor token, Tensor y, Tensor? dy, Tensor? dh, Tensor? dc, {_CALL}, bool need_dx)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def backward(
    token: Any, y: Any, dy: Any, dh: Any, dc: Any,
    x: Any, weights: Any, h0: Any, c0: Any, lengths: Any, reset: Any, batch_sizes: Any, masks: Any,
    cell: str, sizes: Any, dropout: float, need_dx: bool,
) -> Any:  # fmt: skip
    """Return dL/dx (empty unless needed), dL/dh_0, dL/dc_0 (empty where there is none) and the flat gradient."""
    call = _call(_spec(weights, cell, sizes), lengths, reset, batch_sizes, masks, dropout)
    tape, *addresses = _tapes.pop(token.data_ptr(), (None, 0, 0))
    if tape is None or addresses != [x.data_ptr(), y.data_ptr()]:
        tape = call.forward(arrays_of(weights), x, h0, c0, True)[3]
    dx, dh0, dc0, flat = call.backward(tape, dy, dh, dc, need_dx)
    empty = x.new_empty(0)
    return (
        dx if need_dx else empty,
        dh0,
        empty.clone() if dc0 is None else dc0,
        torch.from_numpy(flat),
    )


def _new_state(spec: Spec, x: Any, h0: Any, batch_sizes: Any) -> tuple[Any, Any]:
    """Return tensors with the shapes of h and c; c is empty where there is none."""
    batch = _batch_axis(spec, x, h0, batch_sizes)
    states = [x.new_empty((count, *batch, size)) for count, size in spec.state_shapes()]
    return states[0], states[1] if spec.has_c else x.new_empty(0)


@forward.register_fake
def _(
    x: Any, weights: Any, h0: Any, c0: Any, lengths: Any, reset: Any, batch_sizes: Any, masks: Any,
    cell: str, sizes: Any, dropout: float, keep: bool,
) -> Any:  # fmt: skip
    spec = _spec(weights, cell, sizes)
    h, c = _new_state(spec, x, h0, batch_sizes)
    return x.new_empty((*x.shape[:-1], spec.width)), h, c, x.new_empty(1, dtype=torch.uint8)


@backward.register_fake
def _(
    token: Any, y: Any, dy: Any, dh: Any, dc: Any,
    x: Any, weights: Any, h0: Any, c0: Any, lengths: Any, reset: Any, batch_sizes: Any, masks: Any,
    cell: str, sizes: Any, dropout: float, need_dx: bool,
) -> Any:  # fmt: skip
    spec = _spec(weights, cell, sizes)
    h, c = _new_state(spec, x, h0, batch_sizes)
    flat = x.new_empty(parts_of(spec)[-1][1])
    return x.new_empty(x.shape if need_dx else 0), h, c, flat


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    (x, weights, h0, c0, lengths, reset, batch_sizes, masks, *options, _keep) = inputs
    y, _, _, token = output
    ctx.set_materialize_grads(False)
    ctx.options, ctx.count = options, len(weights)
    ctx.save_for_backward(token, y, x, h0, c0, lengths, reset, batch_sizes, masks, *weights)


def _backward(ctx: Any, dy: Any, dh: Any, dc: Any, _token: Any) -> Any:
    token, y, x, h0, c0, lengths, reset, batch_sizes, masks, *weights = ctx.saved_tensors
    spec = _spec(weights, *ctx.options[:2])
    needs = ctx.needs_input_grad
    if not spec.has_c:
        dc = None
    dx, dh0, dc0, flat = torch.ops.fastrnn.backward(
        token, y, dy, dh, dc, x, weights, h0, c0, lengths, reset, batch_sizes, masks, *ctx.options, needs[0]
    )
    gradients = [flat[start:stop].reshape(shape) for start, stop, shape in parts_of(spec)]
    return (
        dx if needs[0] else None,
        gradients,
        dh0 if h0 is not None else None,
        dc0 if c0 is not None else None,
        *[None] * 8,
    )


forward.register_autograd(_backward, setup_context=_setup_context)


def run(
    spec: Spec, dropout: float, x: Tensor, h0: Any, c0: Any, lengths: Any, reset: Any, batch_sizes: Any, weights: Any
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Run a layer through the operator."""
    masks = None
    if dropout:
        positions = x.shape[:-1].numel() if isinstance(x.shape, torch.Size) else int(np.prod(x.shape[:-1]))
        shape = (spec.num_layers - 1, positions, spec.width)
        masks = x.new_empty(shape).bernoulli_(1.0 - dropout) != 0
    tensors = [t for t in (x, h0, c0, *weights) if t is not None]
    # A trace is one for training and inference; there the forward pass runs again before backward.
    traced = not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None
    keep = not traced and torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    y, h, c, _ = torch.ops.fastrnn.forward(
        x, list(weights), h0, c0, lengths, reset, batch_sizes, masks,
        spec.cell, list(map(int, spec[1:8])), dropout, keep,
    )  # fmt: skip
    return y, h, c if spec.has_c else None


__all__ = ["DTYPES", "run"]
