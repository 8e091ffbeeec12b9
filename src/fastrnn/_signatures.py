"""Functions that hand keyword arguments on to another one as ``**options``.

A call in which a keyword argument is left out looks its default up, so every one of them costs a short call time, and
an empty ``**options`` costs less than three of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

Function = TypeVar("Function", bound=Callable[..., Any])


class CallOptions(TypedDict, total=False):
    """Keyword arguments of a call of a layer."""

    lengths: ArrayLike | None
    reset: ArrayLike | None
    steps: int | None
    mask: ArrayLike | None
    return_layers: bool


class ForwardOptions(CallOptions, total=False):
    """Keyword arguments of ``forward`` of a layer."""

    checkpoint: int | str | None


class BackwardOptions(TypedDict, total=False):
    """Keyword arguments of ``backward`` of a layer."""

    dy_last: ArrayLike | None
    need_dx: bool
    dlayers: Sequence[Any] | None


def passes_on(shared: Callable[..., Any]) -> Callable[[Function], Function]:
    """Let help show the arguments of `shared` that have defaults, where a function hands them on as ``**options``."""
    taken = inspect.signature(shared).parameters.values()
    options = [p.replace(kind=p.KEYWORD_ONLY) for p in taken if p.default is not p.empty]

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        vars(function)["__signature__"] = signature.replace(parameters=[*own, *options])
        return function

    return decorate
