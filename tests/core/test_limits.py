"""How many threads a call has, and what must not be shared among them in some way."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_same_bits, run_python

import fastrnn

LIMITED = """
import fastrnn
from threadpoolctl import threadpool_limits
fastrnn.set_num_threads(3)
found = [fastrnn.get_num_threads()]
for limit in (2, 1):
    with threadpool_limits(limit):
        found.append(fastrnn.get_num_threads())
found.append(fastrnn.get_num_threads())
print(found)
"""


def test_threadpoolctl_limits_a_number_that_was_set() -> None:
    pytest.importorskip("threadpoolctl")
    run = run_python("-c", LIMITED, OMP_NUM_THREADS="4")
    assert run.stdout.strip() == "[3, 2, 1, 3]", run.stderr


@pytest.mark.parametrize("kind", [fastrnn.LSTM, fastrnn.GRU])
def test_dropout_where_layers_would_run_as_a_wavefront(kind: type) -> None:
    """Masks are applied to whole layers, so layers must not run side by side. Without dropout this call would."""
    x = np.random.default_rng(0).standard_normal((600, 1, 16)).astype(np.float32)
    before = fastrnn.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 2, 2):
            fastrnn.set_num_threads(threads)
            layer = kind(16, 64, 4, dropout=0.5, rng=0)
            y, _, tape = layer.forward(x)
            g = layer.backward(tape, y)
            found.append({"y": y, "dx": g.x, "flat": g.flat})
    finally:
        fastrnn.set_num_threads(before)
    for got in found[1:]:
        assert_same_bits(got, found[0])
