"""tanh and sigmoid of the core: at most 2 ULP, odd, bounded, NaN kept, infinities right, tails like the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastrnn import _core

CORE = {"tanh": _core.tanh, "sigmoid": _core.sigmoid}
NAME = pytest.mark.parametrize("name", CORE)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
WIDE = {np.float32: np.float64, np.float64: np.longdouble}


def exact(name: str, x: NDArray[Any]) -> NDArray[Any]:
    """The function in the next wider type."""
    wide = x.astype(WIDE[x.dtype.type])
    if name == "tanh":
        return np.tanh(wide)
    e = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1, e) / (1 + e)


def worst_ulp(name: str, x: NDArray[Any]) -> float:
    """Largest error in units in the last place; a result below the smallest normal number may be flushed."""
    got, want = CORE[name](x), exact(name, x)
    assert got.dtype == x.dtype
    assert got.shape == x.shape
    tiny = np.finfo(x.dtype).tiny
    normal = np.abs(want) >= tiny
    assert (np.abs(got[~normal] - want[~normal]) <= tiny).all()
    # a unit in the last place of the exact result, which near a power of two is the smaller one
    unit = np.spacing(np.abs(want[normal]).astype(x.dtype)).astype(want.dtype)
    error = np.abs(got[normal].astype(want.dtype) - want[normal]) / unit
    return float(error.max(initial=0))


def sample(dtype: Any, n: int = 400_000) -> NDArray[Any]:
    """All magnitudes alike, the range where the functions bend more densely, both signs."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    parts = [
        np.exp(rng.uniform(np.log(float(info.tiny)), np.log(800), n)),
        rng.uniform(0, 1, n),
        rng.uniform(0, 20, n),
        rng.uniform(0, 120 if dtype is np.float32 else 750, n),
        np.arange(0, 100, 1 / 128),
        np.arange(1, 200) * np.log(2) / 2,  # where the reduction of the argument rounds to the next integer
    ]
    x = np.concatenate(parts).astype(dtype)
    return np.concatenate([x, -x, np.nextafter(x, dtype(0)), -np.nextafter(x, dtype(np.inf))])


def skip_without_longdouble(dtype: Any) -> None:
    if dtype is np.float64 and np.finfo(np.longdouble).nmant < 60:
        pytest.skip(
            "this platform's long double is no wider than double, so there is nothing to compare with"
        )


@DTYPES
@NAME
def test_at_most_two_ulp(name: str, dtype: Any) -> None:
    skip_without_longdouble(dtype)
    assert worst_ulp(name, sample(dtype)) <= 2


@pytest.mark.slow
@NAME
def test_at_most_two_ulp_over_every_float32(name: str) -> None:
    for start in range(0, 1 << 32, 1 << 24):
        x = np.arange(start, start + (1 << 24), dtype=np.int64).astype(np.uint32).view(np.float32)
        x = x[np.isfinite(x)]
        assert worst_ulp(name, x) <= 2, f"bit patterns from {start:#x}"
        if name == "tanh":
            assert (np.abs(_core.tanh(x)) <= 1).all()


@DTYPES
def test_tanh_is_odd_and_bounded(dtype: Any) -> None:
    x = sample(dtype)
    y = _core.tanh(x)
    np.testing.assert_array_equal(_core.tanh(-x), -y)
    assert (np.abs(y) <= 1).all()
    assert (np.sign(y) == np.sign(x)).all()
    assert (np.abs(y) <= np.abs(x) * (1 + 2 * np.finfo(dtype).eps)).all()


@DTYPES
def test_sigmoid_is_bounded(dtype: Any) -> None:
    x = sample(dtype)
    y = _core.sigmoid(x)
    assert ((y >= 0) & (y <= 1)).all()
    assert (_core.sigmoid(np.zeros(1, dtype)) == 0.5).all()


@DTYPES
def test_special_values(dtype: Any) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, np.finfo(dtype).max, -np.finfo(dtype).max], dtype)
    np.testing.assert_array_equal(_core.tanh(x), np.array([1, -1, np.nan, 0, -0.0, 1, -1], dtype))
    np.testing.assert_array_equal(np.signbit(_core.tanh(x[3:5])), [False, True])
    y = _core.sigmoid(x)
    np.testing.assert_array_equal(y[2:5], np.array([np.nan, 0.5, 0.5], dtype))
    np.testing.assert_array_equal(y[[0, 5]], 1)
    assert (np.abs(y[[1, 6]]) <= np.finfo(dtype).tiny).all()


@DTYPES
@NAME
def test_place_in_the_array_does_not_matter(name: str, dtype: Any) -> None:
    """The tail of an array goes through the same arithmetic as its body."""
    x = sample(dtype, 500)[:67]
    whole = CORE[name](x)
    for n in range(len(x)):
        np.testing.assert_array_equal(CORE[name](x[n:]), whole[n:])
        np.testing.assert_array_equal(CORE[name](x[:n]), whole[:n])


@DTYPES
@NAME
def test_shapes(name: str, dtype: Any) -> None:
    x = np.linspace(-3, 3, 24).astype(dtype)
    np.testing.assert_array_equal(CORE[name](x.reshape(2, 3, 4)), CORE[name](x).reshape(2, 3, 4))
    np.testing.assert_array_equal(CORE[name](x[::3]), CORE[name](x)[::3])
    assert CORE[name](np.zeros(0, dtype)).shape == (0,)
