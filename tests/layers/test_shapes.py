"""The edges of the products: sizes around one and two vectors, row counts around one tile, nothing at all.

The widest vector has 16 floats or 8 doubles. `test_isa.py` runs this file again for every kernel set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import KIND, Variant, make_case, make_layer, run_layer, run_reference

WIDTHS = {np.float32: range(1, 34), np.float64: range(1, 18)}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def check(v: Variant, **kwargs: Any) -> None:
    """A training step against the reference; a sum of n terms may round as its size."""
    case = make_case(v)
    if "lengths" in kwargs:
        kwargs["lengths"] = case.lengths
    got = run_layer(make_layer(v, case.params), case, **kwargs)
    want = run_reference(v, case, **kwargs)
    assert set(got) == set(want)
    rtol, atol = (1.3e-6, 1e-5) if v.dtype is np.float32 else (1e-9, 1e-11)
    for key, value in want.items():
        scale = max(1.0, np.abs(value).max(initial=0))
        message = f"{key} with T, B, I, H, P = {v.T, v.B, v.I, v.H, v.proj_size}"
        np.testing.assert_allclose(got[key], value, rtol=rtol, atol=atol * scale, err_msg=message)


@DTYPES
@KIND
def test_hidden_size_and_rows(kind: str, dtype: Any) -> None:
    for H in WIDTHS[dtype]:
        for B in range(1, 10):
            check(Variant(kind, I=1 + (7 * H + B) % 33, H=H, T=2, B=B, dtype=dtype))


@DTYPES
@KIND
def test_input_size(kind: str, dtype: Any) -> None:
    for I in WIDTHS[dtype]:
        for H in (1, 4, 8, 15, 17):
            check(Variant(kind, I=I, H=H, T=2, B=1 + I % 9, dtype=dtype))


@DTYPES
def test_projection_size(dtype: Any) -> None:
    for H in (2, 5, 9, 16, 17, 33):
        for P in sorted({1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32} & set(range(H))):
            check(Variant("lstm", proj_size=P, I=3, H=H, T=3, B=1 + (H + P) % 9, dtype=dtype))


@DTYPES
@KIND
def test_stacked_and_both_directions(kind: str, dtype: Any) -> None:
    for H in (1, 3, 8, 16, 17):
        for B in (1, 4, 7):
            v = Variant(kind, 2, True, H % 2 == 0, I=H + 1, H=H, T=3, B=B, dtype=dtype)
            check(v)
            check(v, lengths=True)


@pytest.mark.parametrize(
    ("T", "B", "I", "H"),
    [
        (1, 64, 64, 64),
        (3, 20, 70, 129),
        (2, 65, 130, 67),
        (300, 2, 3, 32),
        (70, 33, 48, 31),
        (40, 1, 1, 260),
        (5, 130, 260, 12),
    ],
)
@DTYPES
@KIND
def test_many_panels_tiles_and_chunks(kind: str, dtype: Any, T: int, B: int, I: int, H: int) -> None:
    check(Variant(kind, I=I, H=H, T=T, B=B, dtype=dtype))


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@KIND
def test_nothing_at_all(kind: str, dtype: Any, T: int, B: int, lengths: bool) -> None:
    v = Variant(kind, 2, True, proj_size=3 if kind == "lstm" else 0, T=T, B=B, dtype=dtype)
    case = make_case(v)
    kwargs = {"lengths": np.zeros(B, int), "reset": np.zeros((T, B), bool)} if lengths else {}
    layer = make_layer(v, case.params)
    y, last = layer(case.x, case.state, **kwargs)
    assert y.shape == (T, B, v.D * v.out)
    assert y.dtype == dtype
    got = run_layer(layer, case, **kwargs)
    states = zip(
        last if v.states == 2 else [last],
        case.state if v.states == 2 else [case.state],
        case.dstate if v.states == 2 else [case.dstate],
        "hc",
        strict=False,
    )
    for end, start, dend, letter in states:
        np.testing.assert_array_equal(end, start, strict=True)
        np.testing.assert_array_equal(got[f"d{letter}_0"], dend, strict=True)
    assert got["dx"].shape == case.x.shape
    assert not any(got["d" + key].any() for key in layer.params)


@KIND
def test_unbatched_without_steps(kind: str) -> None:
    v = Variant(kind)
    y, _ = make_layer(v)(np.zeros((0, v.I), np.float32))
    assert y.shape == (0, v.H)
