"""Which options layers have: some came later than the tests that need them."""

from __future__ import annotations

import inspect

import pytest

import fastrnn


def has(*options: str) -> bool:
    """Whether layers have these options."""
    return set(options) <= set(inspect.signature(fastrnn.LSTM).parameters)


def needs(*options: str) -> pytest.MarkDecorator:
    """A mark that skips a test where layers do not have options."""
    return pytest.mark.skipif(not has(*options), reason=f"layers do not have {', '.join(options)}")
