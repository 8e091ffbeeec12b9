"""From torch.nn to fastrnn and back, and from a layer on NumPy arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import fastrnn
from fastrnn.torch._passes import DTYPES
from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.torch.layers import GRU, LSTM, RNN

_OWN = {
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNN: RNN,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
    nn.RNNCell: RNNCell,
}
_TORCH = {own: theirs for theirs, own in _OWN.items()}


def _class_of(module: nn.Module) -> type:
    """Return the class of a module; of one with parametrizations, the class that it had before."""
    cls = type(module)
    parametrized = "parametrizations" in module._modules and cls.__name__.startswith("Parametrized")
    return cls.__bases__[0] if parametrized else cls


def _change_class(module: nn.Module, cls: type) -> None:
    """Make a module one of another class, with its parametrizations."""
    old = type(module)
    if old is not _class_of(module):
        members = {k: v for k, v in vars(old).items() if k not in ("__dict__", "__weakref__")}
        cls = type(f"Parametrized{cls.__name__}", (cls,), members)
    module.__dict__.pop("_fastrnn_views", None)
    module.__class__ = cls


def _reason(module: nn.Module) -> str | None:
    """Return why a recurrent module is left as it is; None where it can be converted."""
    cls = _class_of(module)
    if cls not in _OWN:
        return f"{cls.__name__} may compute something of its own; only torch.nn's own classes are converted"
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedTensorMixin):
            return f"{name} is not initialised"
        if parameter.dtype not in DTYPES:
            return f"{name} is {parameter.dtype}: call .float() first"
        if parameter.device.type not in ("cpu", "meta"):
            return f"{name} is on {parameter.device}: call .cpu() first"
    return None


def convert(module: nn.Module, *, verbose: bool = True) -> nn.Module:
    """Let the recurrent layers of a module run in fastrnn's core.

    Every ``torch.nn.LSTM``, ``GRU``, ``RNN`` and their cells in the module, and the module itself, change their class
    in place. Parameters, optimisers, hooks, tied modules and parametrizations stay. Convert before
    ``torch.compile``, and before wrapping the module in ``DistributedDataParallel``.

    Parameters
    ----------
    module : torch.nn.Module
    verbose : bool
        Whether to print a line for every recurrent layer: what it is now, or why it was left as it was.

    Returns
    -------
    module
        The same object.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.GRU(3, 4), "head": torch.nn.Linear(4, 2)})
    >>> model = fastrnn.torch.convert(model)
    encoder: GRU -> fastrnn.torch.GRU
    >>> type(model["encoder"])
    <class 'fastrnn.torch.layers.GRU'>
    """
    _expect_module(module)
    lines = []
    for name, part in module.named_modules():
        if not isinstance(part, (nn.RNNBase, nn.RNNCellBase)) or _class_of(part) in _TORCH:
            continue
        reason = _reason(part)
        own = _OWN.get(_class_of(part))
        if reason is None and own is not None:
            _change_class(part, own)
            lines.append(f"{name or 'module'}: {own.__name__} -> fastrnn.torch.{own.__name__}")
        else:
            lines.append(f"{name or 'module'}: left as it is: {reason}")
    if verbose:
        print("\n".join(lines or ["nothing to convert: no LSTM, GRU, RNN or cell of torch.nn"]))
    return module


def revert(module: nn.Module) -> nn.Module:
    """Undo :func:`convert`, in place.

    Frozen layers are unfrozen. Layers that were made as fastrnn's become ``torch.nn``'s too.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    module
        The same object.

    Raises
    ------
    ValueError
        A layer has options that ``torch.nn`` has not. Nothing is changed.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> fastrnn.torch.revert(fastrnn.torch.GRU(3, 4))
    GRU(3, 4)
    """
    _expect_module(module)
    parts = [(n or "module", p) for n, p in module.named_modules() if _class_of(p) in _TORCH]
    for name, part in parts:
        if not getattr(part, "reset_after", True):
            raise ValueError(f"module: expected layers that torch.nn has, got {name} with reset_after=False")
    for _, part in parts:
        part.unfreeze()
        part.__dict__.pop("reset_after", None)
        _change_class(part, _TORCH[_class_of(part)])
    return module


def from_layer(layer: Any) -> Any:
    """Return a module that shares the memory of a layer or cell on NumPy arrays.

    What an optimiser of PyTorch changes, the layer has too, and the other way round.

    Parameters
    ----------
    layer : fastrnn.LSTM, GRU, RNN, LSTMCell, GRUCell or RNNCell
        Not frozen.

    Returns
    -------
    module : the class of the same name in fastrnn.torch

    Raises
    ------
    TypeError, ValueError
        It is no such layer, or it is frozen.

    Examples
    --------
    >>> import torch, fastrnn, fastrnn.torch
    >>> layer = fastrnn.GRU(3, 4)
    >>> module = fastrnn.torch.from_layer(layer)
    >>> _ = torch.nn.init.zeros_(module.bias_hh_l0)
    >>> bool((layer.params["bias_hh_l0"] == 0).all())
    True
    """
    made = _make_like(layer)
    if not layer.flat.flags.writeable:
        raise ValueError(
            "layer: expected one with writeable parameters, got a frozen one: unfreeze() it first"
        )
    for name, array in layer.params.items():
        setattr(made, name, nn.Parameter(torch.from_numpy(array)))
    return made


def _make_like(layer: Any) -> Any:
    sizes = (
        {"input_size": 0, "hidden_size": 0, "bias": True} if isinstance(layer, fastrnn.cells.Cell) else None
    )
    kind = type(layer)
    options: dict[str, Any] = {}
    if kind in (fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN):
        names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
        options = {name: getattr(layer, name) for name in names}
        inner = layer
    elif sizes and kind in (fastrnn.LSTMCell, fastrnn.GRUCell, fastrnn.RNNCell):
        options = {name: getattr(layer, name) for name in sizes}
        inner = layer._layer
    else:
        raise TypeError(f"layer: expected a recurrent layer or cell of fastrnn, got {kind.__name__}")
    odd = [n for n in ("reverse", "learned_state") if getattr(inner, n, False)]
    if getattr(inner, "merge", "concat") != "concat":
        odd.append("merge")
    if odd:
        raise ValueError(f"layer: expected one without {' and '.join(odd)}, got {inner!r}")
    if kind is fastrnn.LSTM:
        options["proj_size"] = layer.proj_size
    if isinstance(inner, fastrnn.GRU):
        options["reset_after"] = inner.reset_after
    if isinstance(inner, fastrnn.RNN):
        options["nonlinearity"] = inner.nonlinearity
    dtype = torch.float64 if layer.dtype.itemsize == 8 else torch.float32
    return globals()[kind.__name__](**options, device="meta", dtype=dtype)


def _expect_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
