"""Central differences of the whole layer in float64: eps 1e-6, atol 1e-5, rtol 1e-3, as torch's gradcheck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import Variant, assert_gradient, make_case, make_layer, numeric_gradient, run_layer, variants

TABLE = [replace(v, I=2, H=3, T=4, B=3, proj_size=v.proj_size and 2, dtype=np.float64) for v in variants()]


@pytest.mark.parametrize("rows", ["dense", "lengths", "reset", "lengths and reset"])
@pytest.mark.parametrize("v", TABLE, ids=str)
def test_gradcheck(v: Variant, rows: str) -> None:
    case = make_case(v, seed=3)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    layer = make_layer(v, case.params)
    states, dstates = (case.state, case.dstate) if v.states == 2 else ((case.state,), (case.dstate,))

    def loss() -> float:
        y, last = layer(case.x, case.state, **kwargs)
        ends = zip(last if v.states == 2 else (last,), dstates, strict=True)
        return float((y * case.dy).sum() + sum((s * d).sum() for s, d in ends))

    got = run_layer(layer, case, **kwargs)
    inputs = {"dx": case.x} | {"d" + key: value for key, value in layer.params.items()}
    inputs |= {f"d{letter}_0": s for letter, s in zip("hc", states, strict=False)}
    assert set(inputs) == {key for key in got if key.startswith("d")}
    for key, array in inputs.items():
        assert_gradient(got[key], numeric_gradient(loss, array), key)
