"""Old names of arguments: they work for one more version, with a DeprecationWarning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn the caller's caller that `old` is called `new` now."""
    warnings.warn(f"{old} is called {new} now", DeprecationWarning, stacklevel=stacklevel)


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take keyword arguments by their old names too: ``@renamed(old="new")``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            options: dict[str, Any] = kwargs
            for old, new in names.items():
                if old in options:
                    warn_renamed(f"{function.__qualname__}: the argument {old}", new)
                    if new in options:
                        raise TypeError(f"{new}: expected once, got it by its old name {old} too")
                    options[new] = options.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate
