"""Central differences of the whole layer in float64: eps 1e-6, atol 1e-5, rtol 1e-3, as torch's gradcheck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import Variant, check_gradients, make_case, make_layer, run_layer, variants

TABLE = [replace(v, I=2, H=3, T=4, B=3, proj_size=v.proj_size and 2, dtype=np.float64) for v in variants()]


@pytest.mark.parametrize("rows", ["dense", "lengths", "reset", "lengths and reset"])
@pytest.mark.parametrize("v", TABLE, ids=str)
def test_gradcheck(v: Variant, rows: str) -> None:
    case = make_case(v, seed=3)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    layer = make_layer(v, case.params)
    got = run_layer(layer, case, **kwargs)
    check_gradients(v, layer, case, got, lambda: layer(case.x, case.state, **kwargs))
