"""What the modules share: they find the core's view of their parameters and choose how to run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from fastrnn.torch import _operators
from fastrnn.torch._functions import Dropout, Transformed, apply_eager
from fastrnn.torch._passes import DTYPES, Call, Order, Spec, arrays_of, network_of

_is_transformed = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_traced = torch._C._get_tracing_state
_PLAIN = (Tensor, nn.Parameter)


class Views:
    """The core's view of a module's parameters. It is found again by their addresses; copies begin without one."""

    __slots__ = ("found", "frozen", "trainable")

    def __init__(self, trainable: tuple[bool, ...] | None = None) -> None:
        # addresses, arrays or packed weights, spec, network; one tuple, so that threads see one or the other
        self.found: tuple[Any, ...] = (None, None, None, None)
        self.frozen: tuple[Any, ...] | None = (
            None  # addresses and versions of what was packed, packed, spec, network
        )
        self.trainable = trainable  # which parameters took part in training before they were frozen

    def __reduce__(self) -> Any:
        return Views, (self.trainable,)


def elman_cell(nonlinearity: str) -> str:
    """Return the core's name of the Elman cell with a nonlinearity of torch.nn."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
    return f"rnn_{nonlinearity}"


class FastModule(nn.Module):
    """A module whose forward pass runs in fastrnn's core."""

    def _cell(self) -> str:
        """Return the core's name of the cell."""
        raise NotImplementedError

    def _spec(self, dtype: torch.dtype, batch_first: bool) -> Spec:
        raise NotImplementedError

    # -- parameters ---------------------------------------------------------------------------------------

    def _parameter_names(self) -> list[str]:
        raise NotImplementedError

    def _weights(self) -> list[Tensor]:
        """Return the parameters in the core's order, parametrized ones as they are now."""
        stored = self._parameters
        try:
            return [stored[name] for name in self._parameter_names()]
        except KeyError:
            return [getattr(self, name) for name in self._parameter_names()]

    def _views(self) -> Views:
        views = self.__dict__.get("_fastrnn_views")
        if views is None:
            views = self.__dict__.setdefault("_fastrnn_views", Views())
        return views  # type: ignore[no-any-return]

    def _look_up(self, weights: list[Tensor], batch_first: bool) -> tuple[Any, ...]:
        """Return (addresses, arrays, spec, network) of the parameters as they are now."""
        views = self._views()
        if views.trainable is not None:
            return self._packed_weights(views, weights, batch_first)
        addresses: list[Any] = [w.data_ptr() if w.is_contiguous() else None for w in weights]
        addresses.append(batch_first)
        found = views.found
        if found[0] == addresses:
            return found
        spec = self._checked_spec(weights, batch_first)
        found = (addresses, arrays_of(weights), spec, network_of(spec))
        if None not in addresses:  # a copy must not be kept: it would miss changes
            views.found = found
        return found

    def _checked_spec(self, weights: list[Tensor], batch_first: bool) -> Spec:
        dtype = weights[0].dtype
        for name, weight in zip(self._parameter_names(), weights, strict=True):
            if weight.dtype not in DTYPES:
                raise TypeError(
                    f"{name}: expected float32 or float64, got {weight.dtype}: call .float() on the module"
                )
            if weight.dtype != dtype:
                raise TypeError(f"{name}: expected {dtype} as the other parameters, got {weight.dtype}")
            _on_cpu(name, weight)
        spec = self._spec(dtype, batch_first)
        if _is_traced() is not None:  # sizes are tensors there
            return spec
        for weight, (name, shape) in zip(weights, spec.parameter_shapes().items(), strict=True):
            if tuple(weight.shape) != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {tuple(weight.shape)}")
        return spec

    # -- frozen modules -----------------------------------------------------------------------------------

    def freeze(self, weights: str = "float32") -> Any:
        """Pack the weights once, so that calls need not; return the module.

        The parameters stop requiring gradients until :meth:`unfreeze`. A call after they were changed in place (an
        optimiser, ``load_state_dict``) raises an error; changes of ``parameter.data`` are not noticed.

        Parameters
        ----------
        weights : {"float32"}
            How the weights are held. A module of float64 keeps that.

        Returns
        -------
        module
            Itself.

        Raises
        ------
        ValueError
            Some parameters are parametrized, and so computed anew in every call.

        Examples
        --------
        >>> import torch, fastrnn.torch
        >>> gru = fastrnn.torch.GRU(3, 4).freeze()
        >>> gru.frozen, gru.unfreeze().frozen
        (True, False)
        """
        if weights != "float32":
            raise ValueError(f"weights: expected 'float32', got {weights!r}")
        views = self._views()
        if views.trainable is None:
            odd = [name for name in self._parameter_names() if name not in self._parameters]
            if odd:
                raise ValueError(
                    f"freeze: expected plain parameters, got parametrized ones: {', '.join(odd)}"
                )
            self._checked_spec(self._weights(), False)
            parameters = list(self.parameters())
            trainable = tuple(p.requires_grad for p in parameters)
            for parameter in parameters:
                parameter.requires_grad_(False)
            views.trainable = trainable
        return self

    def unfreeze(self) -> Any:
        """Undo :meth:`freeze`; return the module."""
        views = self._views()
        if views.trainable is not None:
            for parameter, trainable in zip(self.parameters(), views.trainable, strict=True):
                parameter.requires_grad_(trainable)
            views.trainable = views.frozen = None
        return self

    @property
    def frozen(self) -> bool:
        """Whether the weights are packed."""
        return self._views().trainable is not None

    def _packed_weights(self, views: Views, weights: list[Tensor], batch_first: bool) -> tuple[Any, ...]:
        state = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]
        if views.frozen is None:
            spec = self._checked_spec(weights, batch_first)
            network = network_of(spec)
            views.frozen = (state, network.pack(arrays_of(weights)), spec, network)
        if views.frozen[0] != state:
            raise ValueError(
                "parameters: expected those that were frozen, got changed ones: unfreeze() and freeze() again"
            )
        found = views.frozen
        if found[2].batch_first != batch_first:
            spec = found[2]._replace(batch_first=batch_first)
            return (state, found[1], spec, network_of(spec))
        return found

    # -- calls --------------------------------------------------------------------------------------------

    def _run(
        self,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        batch_first: bool = False,
        lengths: Any = None,
        reset: Any = None,
        batch_sizes: Tensor | None = None,
        dropout: float = 0.0,
        one_step: bool = False,
    ) -> tuple[Any, Tensor, Tensor | None]:
        """Return y (None for one step), h and c (None where there is none)."""
        if (
            torch.compiler.is_compiling()
            or _is_transformed()
            or _dispatch_modes()
            or type(x) not in _PLAIN
            or x.is_meta
            or _is_traced() is not None
        ):
            return self._run_generally(x, h0, c0, batch_first, lengths, reset, batch_sizes, dropout, one_step)
        weights = self._weights()
        _, arrays, spec, network = self._look_up(weights, batch_first)
        dtype = spec.dtype
        if x.dtype is not dtype:
            x = _cast("input", x, dtype)
        if h0 is not None:
            if h0.dtype is not dtype:
                h0 = _cast("hx", h0, dtype)
            if c0 is not None and c0.dtype is not dtype:
                c0 = _cast("hx[1]", c0, dtype)
        if lengths is None and reset is None and batch_sizes is None:
            call = Call(spec, network, dropout=dropout, one_step=one_step)
        else:
            if lengths is not None:
                lengths = _lengths(lengths)
            if reset is not None:
                reset = _reset(reset)
            order = None if batch_sizes is None else Order(batch_sizes)
            call = Call(spec, network, lengths, reset, order, dropout, one_step)
        try:
            if (
                torch.is_grad_enabled()
                and (
                    x.requires_grad
                    or any([w.requires_grad for w in weights])
                    or (h0 is not None and h0.requires_grad)
                    or (c0 is not None and c0.requires_grad)
                )
            ) or forward_ad._current_level >= 0:
                out: Any = apply_eager(call, arrays, x, h0, c0, *weights)
                if one_step:
                    return (None, *out) if c0 is not None or spec.has_c else (None, out, None)
                return out if spec.has_c else (*out, None)
            y, h, c, _ = call.forward(arrays, x, h0, c0, False)
            return y, h, c
        except (ValueError, TypeError):
            _check(
                spec, x, h0, c0, batch_sizes, one_step
            )  # raises in torch's words where it finds what is wrong
            raise

    def _run_generally(
        self, x: Tensor, h0: Any, c0: Any, batch_first: bool, lengths: Any, reset: Any, batch_sizes: Any,
        dropout: float, one_step: bool,
    ) -> tuple[Any, Tensor, Tensor | None]:  # fmt: skip
        """Run through what compilers, tracers and transforms understand."""
        weights = [getattr(self, name) for name in self._parameter_names()]
        spec = self._checked_spec(weights, batch_first)
        if x.dtype != spec.dtype:
            x = _cast("input", x, spec.dtype)
        if h0 is not None and h0.dtype != spec.dtype:
            h0 = _cast("hx", h0, spec.dtype)
        if c0 is not None and c0.dtype != spec.dtype:
            c0 = _cast("hx[1]", c0, spec.dtype)
        if _is_traced() is None:
            _check(spec, x, h0, c0, batch_sizes, one_step)
        if lengths is not None:
            lengths = torch.as_tensor(lengths).to(torch.int64)
        if reset is not None:
            reset = torch.as_tensor(reset)
            if reset.dtype != torch.bool:
                raise TypeError(f"reset: expected a tensor of bool, got {reset.dtype}")
        if one_step:
            x, h0, c0 = (None if t is None else t.unsqueeze(0) for t in (x, h0, c0))
        if batch_sizes is not None and h0 is None:
            rows = int(batch_sizes[0])
            states = [x.new_zeros((count, rows, size)) for count, size in spec.state_shapes()]
            h0, c0 = states[0], states[1] if spec.has_c else None
        if not torch.compiler.is_compiling() and _is_transformed():
            rate = Dropout(dropout) if dropout else None
            out = Transformed.apply(spec, rate, x, h0, c0, lengths, reset, batch_sizes, *weights)
            y, h, c = out if spec.has_c else (*out, None)
        else:
            y, h, c = _operators.run(spec, dropout, x, h0, c0, lengths, reset, batch_sizes, weights)
        if one_step:
            return None, h.squeeze(0), None if c is None else c.squeeze(0)
        return y, h, c

    def __prepare_scriptable__(self) -> Any:
        raise TypeError(
            "torch.jit.script: expected a module of PyTorch's own operators, got a fastrnn layer: use torch.jit.trace "
            "or torch.export, or fastrnn.torch.revert(model) first"
        )


def _on_cpu(name: str, tensor: Tensor) -> None:
    if tensor.device.type not in ("cpu", "meta"):
        raise ValueError(f"{name}: expected a tensor on the CPU, got one on {tensor.device}")


def _cast(name: str, tensor: Any, dtype: torch.dtype) -> Tensor:
    """Return a tensor as the parameters' dtype under autocast; otherwise there is no silent cast."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    _on_cpu(name, tensor)
    if torch.is_autocast_enabled("cpu") and tensor.is_floating_point():
        return tensor.to(dtype)
    raise TypeError(
        f"{name}: expected {dtype} as the parameters, got {tensor.dtype}: convert it with .to({dtype})"
    )


def _lengths(lengths: Any) -> Any:
    """Return a copy of lengths: the caller may write to his."""
    return np.array(lengths.detach().numpy() if isinstance(lengths, Tensor) else lengths)


def _reset(reset: Any) -> Any:
    """Return a copy of reset flags, for the same reason."""
    return np.array(reset.detach().numpy() if isinstance(reset, Tensor) else reset, order="C")


def _check(spec: Spec, x: Tensor, h0: Any, c0: Any, batch_sizes: Any, one_step: bool) -> None:
    """Raise, in the words of the caller, where a tensor does not fit."""
    _on_cpu("input", x)
    dims = x.dim()
    if one_step:
        known: tuple[int, ...] = (1, 2)
        wanted = f"(B, {spec.input_size}) or ({spec.input_size},)"
    elif batch_sizes is not None:
        known, wanted = (2,), f"(total, {spec.input_size})"
    else:
        known = (2, 3)
        axes = "B, T" if spec.batch_first else "T, B"
        wanted = f"({axes}, {spec.input_size}) or (T, {spec.input_size})"
    if dims not in known or x.shape[-1] != spec.input_size:
        raise ValueError(f"input: expected shape {wanted}, got {tuple(x.shape)}")
    batch: tuple[Any, ...] = ()
    if batch_sizes is not None:
        batch = (
            (int(batch_sizes[0]),)
            if not torch.compiler.is_compiling()
            else tuple(h0.shape[1:2] if h0 is not None else ())
        )
    elif one_step:
        batch = tuple(x.shape[:-1])
    elif dims == 3:
        batch = (x.shape[0 if spec.batch_first else 1],)
    names = ("hx[0]", "hx[1]") if spec.has_c else ("hx",)
    for name, state, (count, size) in zip(names, (h0, c0), spec.state_shapes(), strict=False):
        if state is None and h0 is None and c0 is None:
            continue
        if not isinstance(state, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(state).__name__}")
        _on_cpu(name, state)
        shape = (*batch, size) if one_step else (count, *batch, size)
        if tuple(state.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(state.shape)}")
