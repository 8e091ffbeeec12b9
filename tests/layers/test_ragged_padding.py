"""Ragged.to_padded: what stands behind the end of a sequence."""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("fill", [0, -1, 7])
def test_padding_is_what_was_asked_for(fill: int, dtype: type, batch_first: bool) -> None:
    ragged = fastrnn.Ragged(np.arange(1, 9).reshape(4, 2).astype(dtype), [3, 0, 1])
    want = np.full((3, 3, 2), fill, dtype)  # [B, T, features]
    want[0], want[2, 0] = ragged.values[:3], ragged.values[3]
    got = ragged.to_padded(batch_first=batch_first, fill=fill)
    np.testing.assert_array_equal(got if batch_first else got.swapaxes(0, 1), want)
    assert got.dtype == dtype
    assert got.flags.c_contiguous


def test_padding_may_be_nan() -> None:
    padded = fastrnn.Ragged(np.ones((2, 1)), [2, 0]).to_padded(fill=np.nan)
    np.testing.assert_array_equal(padded[:, :, 0], [[1, np.nan], [1, np.nan]])
