"""Arrays of every kind as arguments: the right bits, or a TypeError or ValueError that says what was expected."""

from __future__ import annotations

import array
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import KIND, Case, Variant, assert_same_bits, make_case, make_layer, run_layer

import fastrnn


class Subclass(np.ndarray):
    """An array that would notice being computed with."""

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a subclass took part in the arithmetic")


class OnlyDLPack:
    """What another library may hand over: nothing but the protocol."""

    def __init__(self, a: np.ndarray) -> None:
        self.a = a

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.a.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.a.__dlpack_device__()


class OnlyArray:
    def __init__(self, a: np.ndarray) -> None:
        self.a = a

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.a if dtype is None else self.a.astype(dtype)


def unaligned(a: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape)


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def every_other(a: np.ndarray) -> np.ndarray:
    wide = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    wide[(slice(1, None, 2),) * a.ndim] = a
    return wide[(slice(1, None, 2),) * a.ndim]


def flipped(a: np.ndarray) -> np.ndarray:
    return np.flip(np.ascontiguousarray(np.flip(a)))


def field(a: np.ndarray) -> np.ndarray:
    """A column of records: a stride that is no multiple of the number's size."""
    records = np.zeros(a.shape, [("tag", "u1"), ("value", a.dtype)])
    records["value"] = a
    return records["value"]


WAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "Fortran order": np.asfortranarray,
    "every other": every_other,
    "flipped": flipped,
    "read-only": read_only,
    "unaligned": unaligned,
    "field of records": field,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "wider": lambda a: a.astype(np.float64),
    "long double": lambda a: a.astype(np.longdouble),
    "subclass": lambda a: a.view(Subclass),
    "masked, nothing hidden": lambda a: np.ma.masked_array(a, mask=False),
    "list": lambda a: a.tolist(),
    "DLPack": OnlyDLPack,
    "__array__": OnlyArray,
    "memoryview": lambda a: memoryview(np.ascontiguousarray(a)),
}


def changed(case: Case, way: Callable[[np.ndarray], Any]) -> Case:
    """A case whose arrays all went through `way`."""

    def both(value: Any) -> Any:
        return tuple(map(way, value)) if isinstance(value, tuple) else way(value)

    return Case(**vars(case) | {key: both(getattr(case, key)) for key in ("x", "state", "dy", "dstate")})


@pytest.mark.parametrize("way", WAYS)
@KIND
def test_every_argument_in_every_way(kind: str, way: str) -> None:
    """Inputs, states and their gradients; outputs are plain arrays with the same bits."""
    v = Variant(kind, 2, True, T=4, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    got = run_layer(layer, changed(case, WAYS[way]))
    assert_same_bits(got, want, way)
    assert {type(a) for a in got.values()} == {np.ndarray}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_input_of_a_stream(way: str, batch_size: int) -> None:
    v = Variant("gru", B=batch_size)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = layer(case.x)[0]
    stream = layer.stream(batch_size)
    for t in range(3):
        assert_same_bits(stream.step(WAYS[way](case.x[t])), want[t])
    assert_same_bits(stream.run(WAYS[way](case.x[3:])), want[3:])
    stream.state = WAYS[way](np.zeros((1, batch_size, v.H), np.float32))
    assert_same_bits(stream.step(WAYS[way](case.x[0])), want[0])


@KIND
def test_only_dlpack_with_dropout_and_checkpoints(kind: str) -> None:
    """Masks and checkpoints need the shape of x and of the state before the core sees them."""
    v = Variant(kind, 3, T=9, B=4)
    case = make_case(v)
    h0 = case.state[0] if v.states == 2 else case.state
    foreign = tuple(map(OnlyDLPack, case.state)) if v.states == 2 else OnlyDLPack(h0)

    def outputs(x: Any, state: Any, **kwargs: Any) -> tuple[np.ndarray, int]:
        layer = make_layer(v, case.params, dropout=0.5, rng=3)
        y, _, tape = layer.forward(x, state, checkpoint="auto", **kwargs)
        size = tape.nbytes
        layer.backward(tape, y)
        return y, size

    for got, want in [
        (outputs(OnlyDLPack(case.x), foreign), outputs(case.x, case.state)),
        (outputs(None, foreign, steps=5), outputs(None, case.state, steps=5)),
    ]:
        assert_same_bits(got[0], want[0])
        assert got[1] == want[1]


def test_half_precision_is_widened() -> None:
    v = Variant("lstm")
    case = make_case(v)
    layer = make_layer(v, case.params)
    half = case.x.astype(np.float16)
    assert_same_bits(layer(half)[0], layer(half.astype(np.float32))[0])


@KIND
def test_no_stride_at_all(kind: str) -> None:
    """One number, step or row standing for all of them."""
    v = Variant(kind, 2, True, T=5, B=4)
    case = make_case(v)
    layer = make_layer(v, case.params)
    views = [
        np.broadcast_to(np.float32(0.3), case.x.shape),
        np.broadcast_to(case.x[:1], case.x.shape),
        np.broadcast_to(case.x[:, :1], case.x.shape),
    ]
    for x in views:
        assert_same_bits(layer(x)[0], layer(x.copy())[0])
        y, _, tape = layer.forward(x)
        dy = np.broadcast_to(np.float32(0.3), y.shape)
        _, _, other = layer.forward(x.copy())
        assert_same_bits(layer.backward(tape, dy).flat, layer.backward(other, dy.copy()).flat)


def test_a_matrix_is_an_unbatched_sequence() -> None:
    v = Variant("gru", B=1)
    case = make_case(v)
    layer = make_layer(v, case.params)
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(case.x[:, 0])
    y, _ = layer(matrix)
    assert type(y) is np.ndarray
    assert_same_bits(y, layer(case.x[:, 0])[0])


@pytest.mark.parametrize("where", ["x", "dy", "state", "a step"])
def test_hidden_elements_are_refused(where: str) -> None:
    """What stands under a mask is not the data; `lengths` is the way to say that steps are missing."""
    v = Variant("gru")
    case = make_case(v)
    layer = make_layer(v, case.params)

    def masked(a: np.ndarray) -> np.ndarray:
        return np.ma.masked_array(a, mask=np.arange(a.size).reshape(a.shape) == 2)

    calls: dict[str, tuple[str, Callable[[], Any]]] = {
        "x": ("x", lambda: layer(masked(case.x))),
        "dy": ("dy", lambda: run_layer(layer, case, dy=masked(case.dy))),
        "state": ("state", lambda: layer(case.x, masked(case.state))),
        "a step": ("x", lambda: layer.stream(v.B).step(masked(case.x[0]))),
    }
    name, call = calls[where]
    with pytest.raises(TypeError, match=rf"^{name}: expected an array without masked elements, got a masked"):
        call()


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_memory_mapped(mode: Any, tmp_path: Path) -> None:
    v = Variant("lstm", 2)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    case.x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, mode, shape=case.x.shape)
    assert_same_bits(run_layer(layer, Case(**vars(case) | {"x": mapped})), want)
    weights = np.memmap(tmp_path / "w", np.float32, "w+", shape=layer.flat.shape)
    weights[:] = layer.flat
    at, state = 0, {}
    for name, p in layer.params.items():
        state[name] = weights[at : at + p.size].reshape(p.shape)
        at += p.size
    other = make_layer(v)
    other.load_state_dict(state)
    assert_same_bits(other.flat, layer.flat)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed, so no tensor is passed")
    v = Variant("lstm", 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    for way in (
        torch.from_numpy,
        lambda a: torch.from_numpy(a).double(),
        lambda a: torch.from_numpy(np.ascontiguousarray(a.T)).permute(2, 1, 0),
        lambda a: OnlyDLPack(torch.from_numpy(a)),
    ):
        assert_same_bits(run_layer(layer, changed(case, way)), want)
    lengths = torch.tensor([6, 0, 3])
    assert_same_bits(layer(case.x, lengths=lengths)[0], layer(case.x, lengths=[6, 0, 3])[0])
    with pytest.raises((TypeError, ValueError, RuntimeError)):  # NumPy's and torch's own words
        layer(torch.from_numpy(case.x).requires_grad_())
    with pytest.raises(TypeError, match=r"^x: "):
        layer(torch.from_numpy(case.x).to(torch.bfloat16))
    for wrong in (torch.int32, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=r"^x: "):
            layer(torch.from_numpy(case.x).to(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 3, 5), np.int32),
        np.zeros((4, 3, 5), bool),
        np.zeros((4, 3, 5), np.complex64),
        np.zeros((4, 3, 5), object),
        np.zeros((4, 3, 5), "S4"),
        np.zeros((4, 3, 5), "M8[s]"),
        np.zeros((4, 3, 5), [("a", "f4")]),
        "text",
        {"a": 1},
        {1.0, 2.0},
        iter([1.0]),
        array.array("i", [1, 2]),
        b"12345678",
        lambda: None,
        [[1.0], [1.0, 2.0]],
    ],
    ids=lambda wrong: re.sub(" at 0x.*?>", ">", str(wrong)),  # the same in every process
)
def test_what_is_no_array_of_floats_is_refused(wrong: Any) -> None:
    for call in (fastrnn.GRU(5, 7), fastrnn.GRU(5, 7).forward, fastrnn.GRU(5, 7).stream().step):
        with pytest.raises((TypeError, ValueError), match=r"^x: "):
            call(wrong)
    with pytest.raises((TypeError, ValueError), match=r"^state: "):
        fastrnn.GRU(5, 7)(np.zeros((4, 3, 5)), wrong)


@pytest.mark.parametrize("shape", [(0, 0, 5), (0, 3, 5), (4, 0, 5)])
@KIND
def test_nothing_in_any_layout(kind: str, shape: tuple[int, ...]) -> None:
    layer = make_layer(Variant(kind, 2, True))
    empty = np.zeros(shape, np.float32)
    for x in (
        empty,
        np.asfortranarray(empty),
        empty[::-1],
        empty.astype(float),
        np.broadcast_to(empty, shape),
    ):
        y, _, tape = layer.forward(x)
        assert y.shape == (*shape[:2], 14)
        assert layer.backward(tape, y).x.shape == shape
    with pytest.raises(ValueError, match=r"^x: expected shape"):
        layer(np.zeros((4, 3, 0), np.float32))


# -- outputs that overlap inputs


@KIND
def test_out_may_overlap_the_input(kind: str) -> None:
    """Wholly, in part, or by one number; x is read before `out` is written."""
    v = Variant(kind, 2, I=7, H=7, B=4)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = layer(case.x)[0]
    for shift in (0, 1, 7, 13, -1, -7, 28):
        stream = layer.stream(v.B)
        for t in range(3):
            room = np.full(28 * 3, 9, np.float32)
            x, out = room[28:56].reshape(4, 7), room[28 + shift : 56 + shift].reshape(4, 7)
            x[...] = case.x[t]
            assert stream.step(x, out=out) is out
            assert_same_bits(out, want[t])


def test_out_must_be_plain() -> None:
    layer = fastrnn.GRU(5, 7)
    x = np.ones((3, 5), np.float32)
    good = np.zeros((3, 7), np.float32)
    want = layer.stream(3).step(x)
    assert_same_bits(np.asarray(layer.stream(3).step(x, out=good.view(Subclass))), want)
    for out in (
        np.asfortranarray(good),
        good[::-1],
        read_only(good),
        unaligned(good),
        good.astype(">f4"),
        good.astype(np.float16),
        good.astype(float),
        good.view(np.int32),
        good[:2],
        good.ravel(),
        np.zeros((3, 8), np.float32)[:, 1:],
        np.broadcast_to(good[:1], (3, 7)),
        good.tolist(),
        bytearray(84),
        "out",
    ):
        stream = layer.stream(3)
        with pytest.raises((TypeError, ValueError), match=r"^out: "):
            stream.step(x, out=out)
        assert not stream.state.any()


def test_parameters_may_not_be_what_is_written() -> None:
    """A stream has weights of its own: writing over the layer's does not disturb it."""
    layer = fastrnn.RNN(4, 4, rng=0)
    want = layer(np.ones((3, 1, 4), np.float32))[0]
    stream = layer.stream()
    out = layer.params["weight_hh_l0"][:1]
    for t in range(3):
        stream.step(np.ones((1, 4), np.float32), out=out)
        assert_same_bits(out, want[t])


# -- Ragged, whose attributes are open


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([-1, 6], "x.lengths: expected values from 0 to 5, got -1"),
        ([2, 4], "x.lengths: expected a sum of 5, got more"),
        ([2, 2], "x.lengths: expected a sum of 5, got 4"),
        ([2**63 - 1, 2**63 - 1], "x.lengths: expected values from 0 to 5, got 9223372036854775807"),
        ([[2, 3]], r"x.lengths: expected shape \(1,\), got \(1, 2\)"),
        ([2.0, 3.0], "x.lengths: expected an array of integers, got an array of float64"),
    ],
    ids=str,
)
def test_ragged_lengths_are_checked_at_the_call(lengths: Any, message: str) -> None:
    ragged = fastrnn.Ragged(np.zeros((5, 3), np.float32), [2, 3])
    ragged.lengths = np.array(lengths)
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        fastrnn.GRU(3, 4)(ragged)
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        fastrnn.GRU(3, 4).forward(ragged)


def test_ragged_lengths_of_another_type() -> None:
    ragged = fastrnn.Ragged(np.ones((5, 3), np.float32), [2, 3])
    layer = fastrnn.GRU(3, 4)
    want = layer(ragged)[0].values
    ragged.lengths = np.array([9, 2, 9, 3], np.int16)[1::2]
    assert_same_bits(layer(ragged)[0].values, want)


def test_ragged_sums_do_not_wrap() -> None:
    with pytest.raises(ValueError, match=r"^lengths: expected a sum of 5, got 18446744073709551621$"):
        fastrnn.Ragged(np.zeros((5, 3), np.float32), [2**63 - 1, 2**63 - 1, 7])
