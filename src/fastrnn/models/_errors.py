"""Failures of models: what they raise, and what they leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class NotFittedError(ValueError, AttributeError):
    """The model has no weights yet."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in fit: the model keeps what it has learned so far."""


@contextmanager
def unchanged_on_failure(model: object) -> Iterator[None]:
    """Restore all attributes of a model if the block fails, unless fit was interrupted after its first step."""
    kept = dict(vars(model))
    rng = kept.get("_rng")
    state = None if rng is None else rng.bit_generator.state
    try:
        yield
    except Interrupted:
        raise
    except BaseException:
        vars(model).clear()
        vars(model).update(kept)
        if rng is not None:
            rng.bit_generator.state = state
        raise


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Turn any error that bad data can cause into a ValueError whose message begins with `what`."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        text = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{what}: {text}") from error
