"""Bad calls: each names the argument, what was expected and what came, and changes nothing."""

# ruff: noqa: E501  one case a line
from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import run_python

import fastrnn
from fastrnn import functional

f32 = np.float32
T, B, I, H = 4, 8, 3, 64


def zeros(*shape: int, dtype: Any = f32) -> np.ndarray:
    return np.zeros(shape, dtype)


def gru(**kwargs: Any) -> Any:
    return fastrnn.GRU(I, H, **kwargs)


def lstm(**kwargs: Any) -> Any:
    return fastrnn.LSTM(I, H, **kwargs)


X = zeros(T, B, I)
H0 = zeros(1, B, H)


def backward(layer: Any, dy: Any = None, dstate: Any = None, **kwargs: Any) -> Any:
    _, _, tape = layer.forward(X, **kwargs)
    return layer.backward(tape, dy, dstate)


def twice(layer: Any) -> Any:
    y, _, tape = layer.forward(X)
    layer.backward(tape, y)
    return layer.backward(tape, y)


def ragged() -> Any:
    return fastrnn.Ragged(zeros(5, I), [2, 3])


def params(**change: Any) -> dict[str, Any]:
    all_of_them = gru().state_dict() | change
    return {key: value for key, value in all_of_them.items() if value is not None}


def step(x: Any, out: Any = None, batch_size: int = 2) -> Any:
    return gru().stream(batch_size).step(x, out=out)


def set_state(value: Any, layer: Any = None) -> None:
    (layer or gru()).stream(2).state = value


class Unreadable:
    """As a tensor of PyTorch that requires a gradient."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("it has a gradient")


def masked(*shape: int, dtype: Any = f32) -> Any:
    return np.ma.masked_array(zeros(*shape, dtype=dtype), mask=np.ones(shape, bool))


def without_lengths() -> Any:
    rows = ragged()
    rows.lengths = None
    return rows


def backward_ragged(lengths: list[int], dy: Any) -> Any:
    layer = gru()
    _, _, tape = layer.forward(fastrnn.Ragged(zeros(sum(lengths), I), lengths))
    return layer.backward(tape, dy)


def step_back(cell: Any, dstate: Any) -> Any:
    return cell.backward(cell.forward(zeros(2, 3))[1], dstate)


def projected(gates: int) -> dict[str, Any]:
    return {
        "weight_ih_l0": zeros(gates * H, I),
        "weight_hh_l0": zeros(gates * H, 8),
        "weight_hr_l0": zeros(8, H),
    }


# id, call, exception, message
ACTIVATIONS = (
    "one of sigmoid, tanh, relu, linear, affine, leaky_relu, thresholded_relu, scaled_tanh, hard_sigmoid, "
)
ACTIVATIONS += "elu, softsign, softplus, or one of them with numbers"
BAD: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    # constructors
    ("input_size zero", lambda: fastrnn.LSTM(0, 4), ValueError, "input_size: expected at least 1, got 0"),
    ("input_size float", lambda: fastrnn.LSTM(2.0, 4), TypeError, "input_size: expected an integer, got float"),
    ("input_size bool", lambda: fastrnn.LSTM(True, 4), TypeError, "input_size: expected an integer, got bool"),
    ("input_size huge", lambda: fastrnn.LSTM(2**40, 4), ValueError, "input_size: expected at most 2147483647, got 1099511627776"),
    ("hidden_size negative", lambda: fastrnn.GRU(3, -1), ValueError, "hidden_size: expected at least 1, got -1"),
    ("hidden_size str", lambda: fastrnn.GRU(3, "4"), TypeError, "hidden_size: expected an integer, got str"),
    ("num_layers", lambda: fastrnn.RNN(3, 4, 0), ValueError, "num_layers: expected at least 1, got 0"),
    ("num_layers None", lambda: fastrnn.RNN(3, 4, None), TypeError, "num_layers: expected an integer, got NoneType"),
    ("nonlinearity", lambda: fastrnn.RNN(3, 4, 1, "gelu"), ValueError, f"nonlinearity: expected {ACTIVATIONS}, got 'gelu'"),
    ("dropout 1", lambda: gru(dropout=1.0), ValueError, "dropout: expected at least 0 and less than 1, got 1.0"),
    ("dropout negative", lambda: gru(dropout=-0.1), ValueError, "dropout: expected at least 0 and less than 1, got -0.1"),
    ("dropout str", lambda: gru(dropout="half"), TypeError, "dropout: expected a number, got str"),
    ("proj_size", lambda: lstm(proj_size=64), ValueError, "proj_size: expected less than hidden_size 64, got 64"),
    ("proj_size negative", lambda: lstm(proj_size=-1), ValueError, "proj_size: expected at least 0, got -1"),
    ("dtype int", lambda: gru(dtype=int), TypeError, "dtype: expected float32 or float64, got int64"),
    ("dtype None", lambda: gru(dtype=None), TypeError, "dtype: expected float32 or float64, got None"),
    ("dtype half", lambda: gru(dtype="float16"), TypeError, "dtype: expected float32 or float64, got float16"),
    ("dtype unknown", lambda: gru(dtype="float31"), TypeError, "dtype: expected float32 or float64, got 'float31'"),
    ("cell hidden_size", lambda: fastrnn.GRUCell(3, 0), ValueError, "hidden_size: expected at least 1, got 0"),
    ("cell nonlinearity", lambda: fastrnn.RNNCell(3, 4, True, "sin"), ValueError, f"nonlinearity: expected {ACTIVATIONS}, got 'sin'"),
    # x
    ("x features", lambda: gru()(zeros(T, B, 5)), ValueError, "x: expected shape (T, B, 3) or (T, 3), got (4, 8, 5)"),
    ("x features batch_first", lambda: gru(batch_first=True)(zeros(B, T, 5)), ValueError, "x: expected shape (B, T, 3) or (T, 3), got (8, 4, 5)"),
    ("x 1 dimension", lambda: gru()(zeros(3)), ValueError, "x: expected shape (T, B, 3) or (T, 3), got (3,)"),
    ("x 4 dimensions", lambda: gru()(zeros(1, T, B, I)), ValueError, "x: expected shape (T, B, 3) or (T, 3), got (1, 4, 8, 3)"),
    ("x scalar", lambda: gru()(1.0), ValueError, "x: expected shape (T, B, 3) or (T, 3), got ()"),
    ("x int", lambda: gru()(zeros(T, B, I, dtype=int)), TypeError, "x: expected an array of real floats, got an array of int64"),
    ("x bool", lambda: gru()(zeros(T, B, I, dtype=bool)), TypeError, "x: expected an array of real floats, got an array of bool"),
    ("x complex", lambda: gru()(zeros(T, B, I, dtype=complex)), TypeError, "x: expected an array of real floats, got an array of complex128"),
    ("x object", lambda: gru()(zeros(T, B, I, dtype=object)), TypeError, "x: expected an array of real floats, got ndarray"),
    ("x str", lambda: gru()("text"), TypeError, "x: expected an array of real floats, got an array of <U4"),
    ("x None without steps", lambda: gru()(None), ValueError, "steps: expected a number of steps where x is None, got None"),
    ("x and steps", lambda: gru()(X, steps=4), ValueError, "steps: expected None where x is given, got 4"),
    ("steps negative", lambda: gru()(None, steps=-1), ValueError, "steps: expected at least 0, got -1"),
    ("steps float", lambda: gru()(None, steps=2.5), TypeError, "steps: expected an integer, got float"),
    ("x uneven lists", lambda: gru()([[[1.0, 2.0, 3.0]], [[1.0]]]), TypeError, "x: expected an array of real floats, got list"),
    ("x that NumPy cannot read", lambda: gru()(Unreadable()), TypeError, "x: expected an array of real floats, got Unreadable: it has a gradient"),
    ("x uneven lists, checkpoints", lambda: gru().forward([[[1.0, 2.0, 3.0]], [[1.0]]], checkpoint="auto"), TypeError, "x: expected an array of real floats, got list"),
    ("x uneven lists, dropout", lambda: gru(num_layers=2, dropout=0.5).forward([[[1.0, 2.0, 3.0]], [[1.0]]]), TypeError, "x: expected an array of real floats, got list"),
    ("x masked in a list", lambda: gru()([masked(B, I)] * T), TypeError, "x: expected an array without masked elements, got a masked array"),
    # state
    ("h0 layers", lambda: gru(num_layers=2)(X, H0), ValueError, "state: expected shape (2, 8, 64), got (1, 8, 64)"),
    ("h0 batch", lambda: gru()(X, zeros(1, 7, H)), ValueError, "state: expected shape (1, 8, 64), got (1, 7, 64)"),
    ("h0 unbatched", lambda: gru()(X[:, 0], H0), ValueError, "state: expected shape (1, 64), got (1, 8, 64)"),
    ("h0 int", lambda: gru()(X, H0.astype(int)), TypeError, "state: expected an array of real floats, got an array of int64"),
    ("h0 pair", lambda: gru()(X, (H0, H0)), TypeError, "state: expected an array h, got a pair (h, c), which only an LSTM has"),
    ("pair for two layers", lambda: gru(num_layers=2)(X, (zeros(2, B, H), zeros(2, B, H))), TypeError, "state: expected an array h, got a pair (h, c), which only an LSTM has"),
    ("pair, unbatched", lambda: gru()(X[:, 0], (H0[:, 0], H0[:, 0])), TypeError, "state: expected an array h, got a pair (h, c), which only an LSTM has"),
    ("pair in training", lambda: gru().forward(X, (H0, H0)), TypeError, "state: expected an array h, got a pair (h, c), which only an LSTM has"),
    ("dstate pair", lambda: backward(gru(), None, (H0, H0)), TypeError, "dstate: expected an array h, got a pair (h, c), which only an LSTM has"),
    ("cell pair", lambda: fastrnn.GRUCell(I, H)(X[0], (H0[0], H0[0])), TypeError, "state: expected an array h, got a pair (h, c), which only an LSTM has"),
    ("h0 directions", lambda: gru(bidirectional=True)(X, H0), ValueError, "state: expected shape (2, 8, 64), got (1, 8, 64)"),
    ("lstm state alone", lambda: lstm()(X, H0), TypeError, "state: expected a pair (h, c), got ndarray"),
    ("lstm state of three", lambda: lstm()(X, (H0, H0, H0)), TypeError, "state: expected a pair (h, c), got tuple"),
    ("lstm h0 projected", lambda: lstm(proj_size=5)(X, (H0, H0)), ValueError, "state[0]: expected shape (1, 8, 5), got (1, 8, 64)"),
    ("lstm c0", lambda: lstm(proj_size=5)(X, (zeros(1, B, 5), zeros(1, B, 5))), ValueError, "state[1]: expected shape (1, 8, 64), got (1, 8, 5)"),
    ("x None h0 dimensions", lambda: gru()(None, zeros(B, H), steps=3), ValueError, "state: expected shape (1, 64), got (8, 64)"),
    ("x None h0 number, dropout", lambda: gru(num_layers=2, dropout=0.5).forward(None, 5.0, steps=3), ValueError, "state: expected shape (2, B, 64), got ()"),
    ("x None c0 dimensions", lambda: lstm()(None, (None, zeros(B, H)), steps=3), ValueError, "state[1]: expected shape (1, 64), got (8, 64)"),
    # lengths
    ("lengths negative", lambda: gru()(X, lengths=[4, -1, 0, 0, 0, 0, 0, 0]), ValueError, "lengths: expected values from 0 to 4, got -1"),
    ("lengths too long", lambda: gru()(X, lengths=[5] * 8), ValueError, "lengths: expected values from 0 to 4, got 5"),
    ("lengths shape", lambda: gru()(X, lengths=[4, 4]), ValueError, "lengths: expected shape (8,), got (2,)"),
    ("lengths matrix", lambda: gru()(X, lengths=zeros(8, 1, dtype=int)), ValueError, "lengths: expected shape (8,), got (8, 1)"),
    ("lengths scalar", lambda: gru()(X, lengths=4), ValueError, "lengths: expected shape (8,), got ()"),
    ("lengths float", lambda: gru()(X, lengths=[4.0] * 8), TypeError, "lengths: expected an array of integers, got an array of float64"),
    ("lengths bool", lambda: gru()(X, lengths=[True] * 8), TypeError, "lengths: expected an array of integers, got an array of bool"),
    ("lengths number, x None", lambda: gru()(None, steps=3, lengths=5), TypeError, "lengths: expected an array of integers, got int"),
    ("lengths uneven lists", lambda: gru()(X, lengths=[[1], [1, 2]]), TypeError, "lengths: expected an array of integers, got list"),
    ("lengths masked", lambda: gru()(X, lengths=masked(B, dtype=int)), TypeError, "lengths: expected an array without masked elements, got a masked array"),
    ("lengths unbatched", lambda: gru()(X[:, 0], lengths=[4]), ValueError, "lengths: expected None for an unbatched sequence, got an array"),
    ("lengths and Ragged", lambda: gru()(ragged(), lengths=[2, 3]), ValueError, "lengths: expected None with a Ragged x, got an array"),
    ("lengths of training", lambda: gru().forward(X, lengths=[9] * 8), ValueError, "lengths: expected values from 0 to 4, got 9"),
    # reset
    ("reset shape", lambda: gru()(X, reset=zeros(B, T, dtype=bool)), ValueError, "reset: expected shape (4, 8), got (8, 4)"),
    ("reset batch_first", lambda: gru(batch_first=True)(zeros(B, T, I), reset=zeros(T, B, dtype=bool)), ValueError, "reset: expected shape (8, 4), got (4, 8)"),
    ("reset int", lambda: gru()(X, reset=zeros(T, B, dtype=int)), TypeError, "reset: expected an array of bool, got an array of int64"),
    ("reset 1 dimension", lambda: gru().forward(X, reset=zeros(T, dtype=bool)), ValueError, "reset: expected shape (4, 8), got (4,)"),
    ("reset masked", lambda: gru()(X, reset=masked(T, B, dtype=bool)), TypeError, "reset: expected an array without masked elements, got a masked array"),
    ("reset of a Ragged", lambda: gru()(ragged(), reset=zeros(3, 2, dtype=bool)), ValueError, "reset: expected shape (5,), got (3, 2)"),
    # checkpoint
    ("checkpoint zero", lambda: gru().forward(X, checkpoint=0), ValueError, "checkpoint: expected at least 1, got 0"),
    ("checkpoint word", lambda: gru().forward(X, checkpoint="some"), ValueError, "checkpoint: expected None, \"auto\" or a number of steps, got 'some'"),
    ("checkpoint float", lambda: gru().forward(X, checkpoint=2.0), TypeError, "checkpoint: expected an integer, got float"),
    # backward
    ("dy shape", lambda: backward(gru(), zeros(T, B, 5)), ValueError, "dy: expected shape (4, 8, 64), or dy_last of shape (8, 64), got (4, 8, 5)"),
    ("dy last step", lambda: backward(gru(), zeros(7, H)), ValueError, "dy: expected shape (4, 8, 64), or dy_last of shape (8, 64), got (7, 64)"),
    ("dy int", lambda: backward(gru(), zeros(T, B, H, dtype=int)), TypeError, "dy: expected an array of real floats, got an array of int64"),
    ("dstate shape", lambda: backward(gru(), None, zeros(1, B, 5)), ValueError, "dstate: expected shape (1, 8, 64), got (1, 8, 5)"),
    ("dstate of lstm", lambda: backward(lstm(), None, H0), TypeError, "dstate: expected a pair (h, c), got ndarray"),
    ("dstate c shape", lambda: backward(lstm(), None, (H0, zeros(1, B, 5))), ValueError, "dstate[1]: expected shape (1, 8, 64), got (1, 8, 5)"),
    ("tape twice", lambda: twice(gru()), ValueError, "tape: expected an unused tape, got one that already served a backward"),
    ("tape None", lambda: gru().backward(None), TypeError, "tape: expected a tape of forward, got NoneType"),
    ("tape of another size", lambda: gru(num_layers=2).backward(gru().forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of another cell", lambda: lstm().backward(gru().forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of another hidden_size", lambda: fastrnn.GRU(I, 5).backward(gru().forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of another input_size", lambda: fastrnn.GRU(2 * I, H).backward(gru().forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of another bias", lambda: gru(bias=False).backward(gru().forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of another reset", lambda: gru(reset_after=False).backward(gru().forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of another nonlinearity", lambda: fastrnn.RNN(I, H, 1, "relu").backward(fastrnn.RNN(I, H).forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of another proj_size", lambda: lstm(proj_size=5).backward(lstm().forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of a layer for two", lambda: gru(num_layers=2).backward(gru(bidirectional=True).forward(X)[2], X), ValueError, "tape: expected a tape of this layer, got one of another network"),
    ("tape of another dtype", lambda: gru(dtype=float).backward(gru().forward(X)[2], X), TypeError, "tape: expected a tape of this layer, got one of another dtype"),
    ("Ragged dy of other lengths", lambda: backward_ragged([3, 1], fastrnn.Ragged(zeros(4, H), [1, 3])), ValueError, "dy.lengths: expected [3 1], got [1 3]"),
    ("Ragged as many steps as rows", lambda: backward_ragged([2, 0, 1], zeros(3, H)), ValueError, "dy: expected a Ragged or dy_last, since 3 vectors may be of all steps or of the last ones, got shape (3, 64)"),
    ("Ragged dy of a padded x", lambda: backward(gru(), ragged()), TypeError, "dy: expected an array of real floats, got Ragged"),
    # Ragged and chunks
    ("Ragged sum", lambda: fastrnn.Ragged(zeros(5, 3), [2, 2]), ValueError, "lengths: expected a sum of 5, got 4"),
    ("Ragged masked", lambda: fastrnn.Ragged(masked(5, 3), [2, 3]), TypeError, "values: expected an array without masked elements, got a masked array"),
    ("Ragged list masked", lambda: fastrnn.Ragged.from_list([masked(5, 3)]), TypeError, "sequences[0]: expected an array without masked elements, got a masked array"),
    ("Ragged lengths replaced", lambda: gru()(without_lengths()), TypeError, "x.lengths: expected an array of integers, got None"),
    ("Ragged lengths replaced, training", lambda: gru().forward(without_lengths()), TypeError, "x.lengths: expected an array of integers, got None"),
    ("Ragged negative", lambda: fastrnn.Ragged(zeros(5, 3), [6, -1]), ValueError, "lengths: expected values of at least 0, got -1"),
    ("Ragged float lengths", lambda: fastrnn.Ragged(zeros(5, 3), [2.0, 3.0]), TypeError, "lengths: expected an array of integers, got an array of float64"),
    ("Ragged dimensions", lambda: fastrnn.Ragged(zeros(5, 1, 1), [5]), ValueError, "values: expected shape (total, features) or (total,), got (5, 1, 1)"),
    ("Ragged features", lambda: gru()(fastrnn.Ragged(zeros(5, 4), [5])), ValueError, "x.values: expected shape (total, 3), got (5, 4)"),
    ("Ragged without features", lambda: gru()(fastrnn.Ragged(zeros(5), [5])), ValueError, "x.values: expected shape (total, 3), got (5,)"),
    ("Ragged list of vectors", lambda: fastrnn.Ragged.from_list([zeros(2), zeros(2, 4)]), ValueError, "sequences[1]: expected shape (steps,), got (2, 4)"),
    ("Ragged list", lambda: fastrnn.Ragged.from_list([zeros(2, 3), zeros(2, 4)]), ValueError, "sequences[1]: expected shape (steps, 3), got (2, 4)"),
    ("Ragged no rows", lambda: fastrnn.Ragged.from_list([]), ValueError, "sequences: expected at least one sequence, got none"),
    ("chunks size", lambda: list(fastrnn.chunks(X, 0)), ValueError, "size: expected at least 1, got 0"),
    ("chunks size float", lambda: list(fastrnn.chunks(X, 2.0)), TypeError, "size: expected an integer, got float"),
    ("chunks lengths negative", lambda: list(fastrnn.chunks(X, 2, [1, -3] + [0] * 6)), ValueError, "lengths: expected values from 0 to 4, got -3"),
    ("chunks lengths beyond", lambda: list(fastrnn.chunks(X, 2, [9] + [0] * 7)), ValueError, "lengths: expected values from 0 to 4, got 9"),
    ("chunks lengths", lambda: list(fastrnn.chunks(X, 2, [1, 2])), ValueError, "lengths: expected one for each sequence of x of shape (4, 8, 3), got (2,)"),
    # freeze, stream
    ("load into frozen", lambda: frozen().load_state_dict(gru().state_dict()), ValueError, "load_state_dict: the layer is frozen; unfreeze() it first"),
    ("flat of a frozen layer", lambda: setattr(frozen(), "flat", gru().flat), ValueError, "flat: the layer is frozen; unfreeze() it first"),
    ("flat shape", lambda: setattr(gru(), "flat", zeros(3)), ValueError, "flat: expected shape (13248,), got (3,)"),
    ("params shape", lambda: gru().params.update(bias_ih_l0=zeros(3)), ValueError, "bias_ih_l0: expected shape (192,), got (3,)"),
    ("stream of both directions", lambda: gru(bidirectional=True).stream(), ValueError, "stream: expected a layer of one direction, got a bidirectional one"),
    ("stream batch_size", lambda: gru().stream(0), ValueError, "batch_size: expected at least 1, got 0"),
    ("stream batch_size float", lambda: gru().stream(1.0), TypeError, "batch_size: expected an integer, got float"),
    ("step rows", lambda: step(zeros(3, I)), ValueError, "x: expected shape (2, 3), got (3, 3)"),
    ("step features", lambda: step(zeros(2, 4)), ValueError, "x: expected shape (2, 3), got (2, 4)"),
    ("step unbatched", lambda: step(zeros(I)), ValueError, "x: expected shape (2, 3), got (3,)"),
    ("step int", lambda: step(zeros(2, I, dtype=int)), TypeError, "x: expected an array of real floats, got an array of int64"),
    ("out shape", lambda: step(zeros(2, I), zeros(2, 5)), ValueError, "out: expected shape (2, 64), got (2, 5)"),
    ("out dtype", lambda: step(zeros(2, I), zeros(2, H, dtype=float)), TypeError, "out: expected an array of float32, got an array of float64"),
    ("out list", lambda: step(zeros(2, I), [0.0]), TypeError, "out: expected an array of float32, got list"),
    ("out strided", lambda: step(zeros(2, I), zeros(2, 2 * H)[:, ::2]), ValueError, "out: expected a writable, aligned, C-contiguous array, got one that is not"),
    ("out read-only", lambda: step(zeros(2, I), np.broadcast_to(f32(0), (2, H))), ValueError, "out: expected a writable, aligned, C-contiguous array, got one that is not"),
    ("run rows", lambda: gru().stream(2).run(X), ValueError, "x: expected 3 dimensions and a batch of 2, got shape (4, 8, 3)"),
    ("run features", lambda: gru().stream(2).run(zeros(T, 2, 5)), ValueError, "x: expected shape (T, B, 3) or (T, 3), got (4, 2, 5)"),
    ("stream state shape", lambda: set_state(H0), ValueError, "state: expected shape (1, 2, 64), got (1, 8, 64)"),
    ("stream state pair", lambda: set_state(H0, lstm()), TypeError, "state: expected a pair (h, c), got ndarray"),
    ("stream reset", lambda: gru().stream(2).reset([2]), ValueError, "sequences: expected values from 0 to 1, got 2"),
    ("stream reset mask", lambda: gru().stream(2).reset([True]), ValueError, "sequences: expected shape (2,), got (1,)"),
    ("stream reset float", lambda: gru().stream(2).reset([0.5]), TypeError, "sequences: expected an array of integers, got an array of float64"),
    # cells
    ("cell x", lambda: fastrnn.GRUCell(3, 4)(zeros(2, 5)), ValueError, "x: expected shape (B, 3) or (3,), got (2, 5)"),
    ("cell h", lambda: fastrnn.GRUCell(3, 4)(zeros(2, 3), zeros(2, 5)), ValueError, "state: expected shape (2, 4), got (2, 5)"),
    ("cell state", lambda: fastrnn.LSTMCell(3, 4)(zeros(2, 3), zeros(2, 4)), TypeError, "state: expected a pair (h, c), got ndarray"),
    ("cell c", lambda: fastrnn.LSTMCell(3, 4)(zeros(2, 3), (zeros(2, 4), zeros(2, 5))), ValueError, "state[1]: expected shape (2, 4), got (2, 5)"),
    ("cell dstate", lambda: step_back(fastrnn.GRUCell(3, 4), zeros(2, 3)), ValueError, "dstate: expected shape (2, 4), got (2, 3)"),
    ("cell dstate c", lambda: step_back(fastrnn.LSTMCell(3, 4), (None, zeros(1, 4))), ValueError, "dstate[1]: expected shape (2, 4), got (1, 4)"),
    ("cell dstate alone", lambda: step_back(fastrnn.LSTMCell(3, 4), zeros(2, 4)), TypeError, "dstate: expected a pair (h, c), got ndarray"),
    ("cell tape", lambda: fastrnn.GRUCell(I, H).backward(gru().forward(X)[2], zeros(B, H)), TypeError, "tape: expected a tape of forward, got Tape"),
    # parameters
    ("state_dict list", lambda: gru().load_state_dict([1]), TypeError, "state_dict: expected a mapping, got list"),
    ("state_dict unreadable", lambda: gru().load_state_dict(params(bias_hh_l0=Unreadable())), TypeError, "state_dict: bias_hh_l0: expected real floats, got Unreadable: it has a gradient"),
    ("state_dict missing", lambda: gru(bias=False).load_state_dict({}), ValueError, "state_dict: missing weight_ih_l0; missing weight_hh_l0"),
    ("state_dict shape", lambda: gru().load_state_dict(params(bias_hh_l0=zeros(4))), ValueError, "state_dict: bias_hh_l0: expected shape (192,), got (4,)"),
    ("state_dict unexpected", lambda: gru().load_state_dict(params(weight=zeros(1))), ValueError, "state_dict: unexpected weight"),
    ("state_dict int", lambda: gru().load_state_dict(params(bias_hh_l0=zeros(192, dtype=int))), ValueError, "state_dict: bias_hh_l0: expected real floats, got int64"),
    ("functional empty", lambda: functional.gru(X, None, {}), ValueError, "params: expected a matrix weight_ih_l0, got the names []"),
    ("functional list", lambda: functional.gru(X, None, [zeros(3)]), TypeError, "params: expected a mapping, got list"),
    ("functional projected GRU", lambda: functional.gru_forward(zeros(T, B, I), None, projected(3)), ValueError, "params: unexpected weight_hr_l0; weight_hh_l0: expected shape (192, 64), got (192, 8)"),
    ("functional projected RNN", lambda: functional.rnn_forward(zeros(T, B, I), None, projected(1)), ValueError, "params: unexpected weight_hr_l0; weight_hh_l0: expected shape (64, 64), got (64, 8)"),
    ("functional dropout", lambda: functional.gru_forward(X, None, params(), dropout=1.5), ValueError, "dropout: expected at least 0 and less than 1, got 1.5"),
    ("functional dropout bool", lambda: functional.gru_forward(X, None, params(), dropout=True), TypeError, "dropout: expected a number, got bool"),
    ("functional shape", lambda: functional.gru(X, None, params(weight_hh_l0=zeros(192, 63))), ValueError, "params: weight_hh_l0: expected shape (192, 64), got (192, 63)"),
    ("functional dtype", lambda: functional.gru(X, None, params(bias_ih_l0=zeros(192, dtype=float))), ValueError, "params: bias_ih_l0: expected float32, got float64"),
    ("functional half a bias", lambda: functional.gru(X, None, params(bias_hh_l0=None)), ValueError, "params: missing bias_hh_l0"),
    ("functional tape", lambda: functional.gru_backward(gru().forward(X)[2]), TypeError, "tape: expected a tape of the forward function, got Tape"),
    ("functional nonlinearity", lambda: functional.rnn(X, None, {}, nonlinearity="cos"), ValueError, f"nonlinearity: expected {ACTIVATIONS}, got 'cos'"),
    ("functional integers", lambda: functional.gru(X, None, params(weight_hh_l0=zeros(192, 64, dtype=int))), TypeError, "dtype: expected float32 or float64, got int64"),
    ("indices beyond int64", lambda: fastrnn.Embedding(3, 2)(np.array([2**63], np.uint64)), ValueError, "x: expected values that fit int64, got 9223372036854775808"),
    # threads
    ("threads zero", lambda: fastrnn.set_num_threads(0), ValueError, "n: expected 1 to 1024, got 0"),
    ("threads float", lambda: fastrnn.set_num_threads(1.5), TypeError, "n: expected an integer, got float"),
]  # fmt: skip


def frozen() -> Any:
    layer = gru()
    layer.freeze()
    return layer


@pytest.mark.parametrize(("call", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_message(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
    assert type(raised.value) is error


def test_there_are_enough() -> None:
    assert len(BAD) == len({name for name, *_ in BAD}) >= 60


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(AttributeError, match=r"module 'fastrnn' has no attribute 'Transformer'"):
        _ = fastrnn.Transformer


@pytest.mark.parametrize("name", ["", "sse3", "AVX2", "neon"])
def test_an_unknown_kernel_set_is_loud(name: str) -> None:
    run = run_python("-c", "import fastrnn", FASTRNN_ISA=name)
    if name == "neon" and run.returncode == 0:
        pytest.skip("this CPU has neon")
    if name == "":
        assert run.returncode == 0, run.stderr  # as if it were not set
        return
    assert run.returncode != 0
    assert "FASTRNN_ISA: expected one of" in run.stderr
    assert f"got '{name}'" in run.stderr
    assert len(run.stdout) == 0


def test_a_failed_call_changes_nothing() -> None:
    layer = gru(dropout=0.5, num_layers=2, rng=np.random.default_rng(0))
    same = gru(dropout=0.5, num_layers=2, rng=np.random.default_rng(0))
    y, _, tape = layer.forward(X)
    same.forward(X)
    for bad in (zeros(T, B, 5), zeros(T, B, H, dtype=int)):
        with pytest.raises((ValueError, TypeError)):
            layer.backward(tape, bad)
    with pytest.raises(ValueError, match=r"^state: "):
        layer.forward(X, H0)  # draws no masks
    assert layer.rng.bit_generator.state == same.rng.bit_generator.state
    np.testing.assert_array_equal(layer.flat, same.flat)
    assert layer.backward(tape, np.ones_like(y)).flat.any()  # the tape has not been used up

    stream = gru().stream(2)
    stream.step(np.ones((2, I), f32))
    before = stream.state
    for bad in (zeros(3, I), zeros(2, I, dtype=int)):
        with pytest.raises((ValueError, TypeError)):
            stream.step(bad)
    with pytest.raises(ValueError, match=r"^out: "):
        stream.step(np.ones((2, I), f32), out=zeros(2, 5))
    np.testing.assert_array_equal(stream.state, before)


def test_sizes_beyond_memory_are_an_error() -> None:
    for sizes in [(1, 2**20), (1, 2**30), (2**31 - 1, 2**31 - 1)]:
        with pytest.raises(MemoryError):
            fastrnn.LSTM(*sizes)
    layer = fastrnn.GRU(1, 64)
    with pytest.raises(MemoryError):
        layer(None, steps=2**31 - 1, lengths=np.zeros(2**12, int))
    with pytest.raises(MemoryError):
        layer(np.broadcast_to(f32(0), (2**30, 2**20, 1)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MemoryError):
        layer(np.broadcast_to(f32(0), (2**31, 2**29, 1)))  # y would pass 2**64 bytes
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**20  # KiB; lists of the rows had 17 GB
    assert layer(zeros(2, 1, 1))[0].shape == (2, 1, 64)
