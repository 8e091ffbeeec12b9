"""Automatic differentiation in eager mode, and under the transforms of torch.func."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fastrnn.torch._passes import Call, Order, Spec, array_of, arrays_of

_ADVICE = "fastrnn.torch.revert(model) gives you torch.nn's layers back"
_SECOND = f"fastrnn layers have no second derivatives; {_ADVICE}"
_FORWARD_MODE = f"fastrnn layers have no forward-mode derivatives (jvp); {_ADVICE}"
_PER_SAMPLE = f"fastrnn layers have no per-sample gradients (vmap over a gradient); {_ADVICE}"
_VMAP = f"vmap: expected parameters that all samples share, got batched ones; {_ADVICE}"

# Which hooks would pack what is saved for the backward pass (checkpoints, saving to disk); None where there are none.
_saved_tensor_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


class _Once(Function):
    """The identity on a gradient, which cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(_SECOND)


class Eager(Function):
    """A training pass in eager mode.

    The tape is a cache. Where it has served (``retain_graph``), or where hooks pack what is saved (checkpoints),
    the forward pass runs again and gives the same bits.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, arrays: Any, x: Any, h0: Any, c0: Any, *weights: Any) -> Any:
        keep = _saved_tensor_hooks is None or _saved_tensor_hooks(True) is None
        y, h, c, tape = call.forward(arrays, x, h0, c0, keep)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.tape = call, [tape] if keep else []
        ctx.save_for_backward(x, None if call.order else y, h0, c0, *weights)
        if y is None:
            return h if c is None else (h, c)
        return (y, h) if c is None else (y, h, c)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if not torch.is_grad_enabled():
            return _gradients(ctx, gradients)
        with torch.no_grad():
            out = _gradients(ctx, gradients)
        return tuple(d if d is None else _Once.apply(d.requires_grad_()) for d in out)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(_FORWARD_MODE)


# Function.apply looks up what only transforms need; the caller knows that none is active.
apply_eager = super(Function, Eager).apply


def _gradients(ctx: Any, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
    call: Call = ctx.call
    x, _, h0, c0, *weights = ctx.saved_tensors  # torch raises where one of them was changed
    dy, dh, dc = ((None,) * call.one_step + gradients + (None,))[:3]
    needs = ctx.needs_input_grad
    try:
        tape = ctx.tape.pop()
    except IndexError:
        tape = call.forward(arrays_of(weights), x, h0, c0, True)[3]
    dx, dh0, dc0, flat = call.backward(tape, dy, dh, dc, needs[2])
    return (None, None, dx, dh0 if needs[3] else None, dc0 if needs[4] else None,
            *call.gradients(flat, needs[5:]))  # fmt: skip


class Transformed(Function):
    """A training pass under torch.func: grad, vmap over inputs, and their compositions that are supported."""

    @staticmethod
    def forward(
        spec: Spec, dropout: Any, x: Any, h0: Any, c0: Any, lengths: Any, reset: Any, batch_sizes: Any, *weights: Any
    ) -> Any:  # fmt: skip
        y, h, c, _ = _call(spec, dropout, lengths, reset, batch_sizes).forward(
            arrays_of(weights), x, h0, c0, False
        )
        return (y, h) if c is None else (y, h, c)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        spec, dropout, *tensors = inputs
        ctx.spec, ctx.dropout = spec, dropout
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, dy: Any, dh: Any, dc: Any = None) -> Any:
        needs = tuple(ctx.needs_input_grad)
        out = TransformedBackward.apply(ctx.spec, ctx.dropout, needs, dy, dh, dc, *ctx.saved_tensors)
        gradients = [d if need else None for d, need in zip(out, (*needs[2:5], *needs[8:]), strict=True)]
        return (None, None, *gradients[:3], None, None, None, *gradients[3:])

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(_FORWARD_MODE)

    @staticmethod
    def vmap(info: Any, in_dims: Any, spec: Spec, dropout: Any, *tensors: Any) -> Any:
        x, batch_sizes, weights = tensors[0], tensors[5], tensors[6:]
        dims = in_dims[2:]
        if any(dim is not None for dim in dims[6:]):
            raise NotImplementedError(_VMAP)
        if batch_sizes is not None:
            raise NotImplementedError("vmap: expected tensors, got a PackedSequence")
        if dropout and info.randomness != "different":
            raise RuntimeError("vmap: expected randomness='different' for a layer with dropout in training")
        n, batched = info.batch_size, x.dim() - (dims[0] is not None) == 3
        axis = 0 if spec.batch_first else 1  # of the batch in x; the samples come before it
        one = x if dims[0] is None else x.select(dims[0], 0)
        rows = one.shape[axis] if batched else 1

        def joined(tensor: Any, dim: int | None, axis: int) -> Any:
            """Put the samples at an axis, and join them with the batch behind it."""
            if tensor is None:
                return None
            if dim is None:
                tensor = tensor.unsqueeze(axis)
                tensor = tensor.expand(*tensor.shape[:axis], n, *tensor.shape[axis + 1 :])
            else:
                tensor = tensor.movedim(dim, axis)
            return tensor.flatten(axis, axis + 1) if batched else tensor

        axes = (axis, 1, 1, 0, axis)
        changed = [joined(t, d, a) for t, d, a in zip(tensors[:5], dims[:5], axes, strict=True)]
        out = Transformed.apply(spec, dropout, *changed, None, *weights)

        def separated(tensor: Any, axis: int) -> Any:
            return tensor.unflatten(axis, (n, rows)) if batched else tensor

        return tuple(separated(t, a) for t, a in zip(out, (axis, 1, 1)[: len(out)], strict=True)), (
            axis,
            1,
            1,
        )[: len(out)]


class TransformedBackward(Function):
    """The backward pass of `Transformed`, as a function that transforms can see through."""

    @staticmethod
    def forward(
        spec: Spec, dropout: Any, needs: Any, dy: Any, dh: Any, dc: Any,
        x: Any, h0: Any, c0: Any, lengths: Any, reset: Any, batch_sizes: Any, *weights: Any,
    ) -> Any:  # fmt: skip
        call = _call(spec, dropout, lengths, reset, batch_sizes)
        tape = call.forward(arrays_of(weights), x, h0, c0, True)[3]
        dx, dh0, dc0, flat = call.backward(tape, dy, dh, dc, True)
        return (dx, dh0, dc0, *call.gradients(flat, [True] * len(weights)))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(_SECOND)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(_SECOND)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *_: Any) -> Any:
        raise NotImplementedError(_PER_SAMPLE)


class Dropout:
    """The rate of dropout under a transform, and the masks once they are drawn: backward needs the same."""

    __slots__ = ("masks", "rate")

    def __init__(self, rate: float) -> None:
        self.rate, self.masks = rate, None


def _call(spec: Spec, dropout: Any, lengths: Any, reset: Any, batch_sizes: Any) -> Call:
    lengths, reset = (None if t is None else array_of(t) for t in (lengths, reset))
    order = None if batch_sizes is None else Order(batch_sizes)
    if dropout is None:
        return Call(spec, None, lengths, reset, order)
    return _Remembering(spec, dropout, lengths, reset, order)


class _Remembering(Call):
    """A call that leaves its masks where the backward pass finds them."""

    __slots__ = ("memory",)

    def __init__(self, spec: Spec, memory: Dropout, lengths: Any, reset: Any, order: Any) -> None:
        super().__init__(spec, None, lengths, reset, order, memory.rate, masks=memory.masks)
        self.memory = memory

    def _draw(self, shape: tuple[int, ...], positions: int, rows: int) -> Any:
        self.memory.masks = super()._draw(shape, positions, rows)
        return self.memory.masks
