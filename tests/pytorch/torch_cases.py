"""What the tests of fastrnn.torch share: every kind of module, from torch.nn and from fastrnn.torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastrnn.torch  # noqa: E402

LAYERS = ("LSTM", "GRU", "RNN_TANH", "RNN_RELU")
CELLS = ("LSTMCell", "GRUCell", "RNNCell")
# torch says that its own projections are slow, and that some of its tools are old
QUIET = [
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
REFUSED = (
    ValueError,
    TypeError,
    RuntimeError,
)  # torch.nn raises RuntimeError where fastrnn raises ValueError


def make(api: Any, kind: str, *args: Any, seed: int = 0, **options: Any) -> Any:
    """A layer or cell, from torch.nn or fastrnn.torch, with seeded weights: the same ones from both."""
    torch.manual_seed(seed)
    if kind.startswith("RNN_"):
        return api.RNN(*args, nonlinearity=kind[4:].lower(), **options)
    return getattr(api, kind)(*args, **options)


def pair(kind: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """The module of torch.nn and a converted copy of it."""
    theirs = make(torch.nn, kind, *args, **options)
    return theirs, fastrnn.torch.convert(copy.deepcopy(theirs), verbose=False)


def flat(outputs: Any) -> list[Any]:
    """All tensors of nested outputs, PackedSequence included."""
    if isinstance(outputs, torch.nn.utils.rnn.PackedSequence):
        return [outputs.data]
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [t for part in outputs if part is not None for t in flat(part)]


def leaves(*tensors: Any) -> list[Any]:
    """Copies that require gradients."""
    return [t.detach().clone().requires_grad_() for t in tensors]


def weighted(outputs: Any, seed: int = 1) -> Any:
    """A scalar in which every output counts, each with a weight of its own."""
    generator = torch.Generator().manual_seed(seed)
    return sum(
        (t * torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype)).sum()
        for t in flat(outputs)
    )


def assert_close(got: Any, want: Any) -> None:
    """Outputs or gradients that are equal within the tolerances of the project."""
    got, want = flat(got), flat(want)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        double = other.dtype == torch.float64
        tolerance = {"rtol": 1e-9, "atol": 1e-11} if double else {"rtol": 1.3e-6, "atol": 1e-5}
        torch.testing.assert_close(one, other, **tolerance)


def gradients(module: Any) -> list[Any]:
    """Gradients of all parameters."""
    return [p.grad for p in module.parameters()]


def state(kind: str, *shape: int, dtype: Any = None, seed: int = 2) -> Any:
    """A state of a layer or cell."""
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)]
    return tuple(parts) if kind.startswith("LSTM") else parts[0]


def numbers(*shape: int, dtype: Any = None, seed: int = 3) -> Any:
    """Seeded numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
