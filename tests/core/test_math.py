"""tanh and sigmoid of the core: at most 2 ULP, odd, bounded, NaN kept, infinities right."""

from __future__ import annotations

from pathlib import Path
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


def distance(got: NDArray[Any], want: NDArray[Any]) -> NDArray[Any]:
    """ULP between two arrays of one sign, as NumPy counts them: how many numbers further."""
    bits = np.dtype(f"i{got.itemsize}")
    return np.abs(got.view(bits) - want.view(bits))


def worst_ulp(name: str, x: NDArray[Any]) -> int:
    """Largest distance from the correctly rounded result; a subnormal one may be flushed to zero."""
    got, want = CORE[name](x), exact(name, x)
    assert got.dtype == x.dtype
    assert got.shape == x.shape
    tiny = np.finfo(x.dtype).tiny
    normal = np.abs(want) >= tiny
    assert (np.abs(got[~normal] - want[~normal]) <= tiny).all()
    assert (np.sign(got[normal]) == np.sign(want[normal])).all()
    return int(distance(got[normal], want[normal].astype(x.dtype)).max(initial=0))


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


def test_numpys_validation_table() -> None:
    """The table that NumPy tests its own tanh with, in bit patterns and with its own tolerances."""
    path = Path(np.__file__).parent / "_core/tests/data/umath-validation-set-tanh.csv"
    if not path.exists():
        pytest.skip("this NumPy does not bring its table")
    rows = [line.split(",") for line in path.read_text().splitlines() if line.startswith("np.float")]
    assert len(rows) > 1000
    for dtype in (np.float32, np.float64):
        words = [row for row in rows if row[0] == f"np.{np.dtype(dtype).name}"]
        unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
        x, want = (np.array([int(row[i], 16) for row in words], unsigned).view(dtype) for i in (1, 2))
        tolerance = np.array([int(row[3]) for row in words])
        got = _core.tanh(x)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        normal = np.abs(want) >= np.finfo(dtype).tiny
        assert (distance(got[normal], want[normal]) <= tolerance[normal]).all()


@DTYPES
def test_tanh_is_odd_and_bounded(dtype: Any) -> None:
    x = sample(dtype)
    y = _core.tanh(x)
    np.testing.assert_array_equal(_core.tanh(-x), -y)
    assert (np.abs(y) <= 1).all()
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
