"""Streams: one step at a time, with the bits of the whole sequence."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from conftest import (
    KIND,
    Variant,
    assert_same_bits,
    both_dtypes,
    make_case,
    make_layer,
    run_threads,
    variants,
)

import fastrnn

ONE_WAY = [v for v in variants() if not v.bidirectional and v.bias]


@pytest.mark.parametrize("batch_size", [1, 3, 17])
@pytest.mark.parametrize("v", both_dtypes(ONE_WAY), ids=str)
def test_stream_equals_the_whole_sequence(v: Variant, batch_size: int) -> None:
    v = Variant(**vars(v) | {"B": batch_size})
    case = make_case(v)
    layer = make_layer(v, case.params)
    y, last = layer(case.x)
    stream = layer.stream(batch_size)
    out = np.empty((batch_size, v.out), v.dtype)
    for t in range(2):
        assert_same_bits(stream.step(case.x[t]), y[t])
    assert stream.step(case.x[2], out=out) is out
    assert_same_bits(out, y[2])
    assert_same_bits(stream.run(case.x[3:]), y[3:])
    assert_same_bits(stream.state, last)
    stream.reset()
    assert_same_bits(stream.run(case.x), y)


@KIND
def test_stream_resets_rows(kind: str) -> None:
    v = Variant(kind, 2, B=4)
    case = make_case(v)
    layer = make_layer(v, case.params)
    reset = np.zeros((v.T, v.B), bool)
    reset[3, [0, 2]] = True
    want, _ = layer(case.x, reset=reset)
    stream = layer.stream(4)
    stream.run(case.x[:3])
    stream.reset(sequences=[0, 2])
    assert_same_bits(stream.run(case.x[3:]), want[3:])
    mask = np.array([True, False, True, False])
    stream.reset()
    stream.run(case.x[:3])
    stream.reset(sequences=mask)
    assert_same_bits(stream.run(case.x[3:]), want[3:])


@KIND
def test_stream_state_can_be_set(kind: str) -> None:
    v = Variant(kind, 2)
    case = make_case(v)
    layer = make_layer(v, case.params)
    stream = layer.stream(v.B)
    stream.state = case.state
    assert_same_bits(stream.run(case.x), layer(case.x, case.state)[0])


def test_stream_does_not_allocate() -> None:
    layer = fastrnn.LSTM(8, 16)
    stream = layer.stream(1)
    x, out = np.ones((1, 8), np.float32), np.empty((1, 16), np.float32)
    for _ in range(10):
        stream.step(x, out=out)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        stream.step(x, out=out)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 1000


def test_streams_share_a_frozen_layer_between_threads() -> None:
    layer = fastrnn.GRU(6, 20, 2)
    layer.freeze()
    x = np.random.default_rng(0).standard_normal((8, 200, 1, 6)).astype(np.float32)
    want = [layer(part)[0] for part in x]
    got: list[Any] = [None] * len(x)

    def work(i: int) -> None:
        stream = layer.stream(1)
        got[i] = np.stack([stream.step(step) for step in x[i]])

    run_threads(work, len(x))
    for one, other in zip(got, want, strict=True):
        assert_same_bits(one, other)


def test_a_stream_takes_one_call_at_a_time() -> None:
    """Reading ``x`` may run any code, another step of the stream too: that one is refused."""
    stream = fastrnn.GRU(3, 4, rng=0).stream(1)
    x = np.ones((1, 3), np.float32)

    class Input:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            with pytest.raises(RuntimeError, match="stream: expected one call at a time"):
                stream.step(x)
            return x

    y = stream.step(Input())
    stream.reset()
    assert_same_bits(stream.step(x), y)
