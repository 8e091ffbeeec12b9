"""The table of features: what it says of fastrnn, tried; what it says of PyTorch, where PyTorch is there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

PAGE = Path(__file__).parents[2] / "docs" / "features.md"
X = np.random.default_rng(0).standard_normal((6, 2, 3))


def rows() -> dict[str, list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][1:3] == ["fastrnn", "PyTorch"]
    return {row[0]: row[1:] for row in cells[1:]}


def trains() -> bool:
    gru = fastrnn.GRU(3, 4, rng=0)
    y, _, tape = gru.forward(X)
    before = gru.flat.copy()
    fastrnn.optim.SGD([gru], 0.1).step([gru.backward(tape, y)])
    return not np.array_equal(gru.flat, before)


def streams() -> bool:
    gru = fastrnn.GRU(3, 4, rng=0)
    stream = gru.stream(2)
    return np.array_equal([stream.step(x) for x in X.astype(np.float32)], gru(X)[0])


def resets() -> bool:
    gru, flags = fastrnn.GRU(3, 4, rng=0), np.zeros((6, 2), bool)
    flags[3] = True
    return np.array_equal(gru(X, reset=flags)[0][3:], gru(X[3:], np.zeros((1, 2, 4)))[0])


def checkpoints() -> bool:
    gru = fastrnn.GRU(3, 4, rng=0)
    tapes = [gru.forward(X, checkpoint=kept)[2] for kept in (None, 2)]
    a, b = (gru.backward(tape, np.ones((6, 2, 4))).flat for tape in tapes)
    return np.array_equal(a, b)


def threads_change_no_bit() -> bool:
    before, found = fastrnn.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            fastrnn.set_num_threads(n)
            found.append(fastrnn.LSTM(3, 64, rng=0)(np.tile(X, (20, 16, 1)))[0])
    finally:
        fastrnn.set_num_threads(before)
    return all(np.array_equal(found[0], other) for other in found)


def masks() -> bool:
    gru, taken = fastrnn.GRU(3, 4, rng=0), np.ones((6, 2), bool)
    taken[2] = False
    return np.array_equal(gru(X, mask=taken)[0][3:], gru(np.delete(X, 2, 0))[0][2:])


def small_weights_are_packed() -> bool:
    lstm = fastrnn.LSTM(3, 64, rng=0).freeze(weights="int8")
    want = fastrnn.LSTM(3, 64, rng=0)(X)[0]
    return 0 < float(np.abs(lstm(X)[0] - want).max()) < 0.05


def differs(**options: Any) -> bool:
    """Whether the training pass of an LSTM differs from that of the plain one."""
    plain, other = fastrnn.LSTM(3, 4, rng=0), fastrnn.LSTM(3, 4, rng=1, **options)
    other.load_state_dict(other.state_dict() | plain.state_dict())
    return not np.array_equal(plain.forward(X)[0], other.forward(X)[0])


def width(layer: Any) -> int:
    return int(layer(X)[0].shape[-1])


FASTRNN: dict[str, Callable[[], bool]] = {
    "runs on CPUs": lambda: width(fastrnn.LSTM(3, 4)) == 4,
    "runs on GPUs": lambda: hasattr(fastrnn.LSTM(3, 4), "cuda"),
    "training": trains,
    "automatic differentiation": lambda: hasattr(fastrnn.LSTM(3, 4)(X)[0], "backward"),
    "LSTM and GRU": lambda: width(fastrnn.LSTM(3, 4)) == width(fastrnn.GRU(3, 4)) == 4,
    "Elman RNN": lambda: width(fastrnn.RNN(3, 4)) == 4,
    "GRU with the reset before or after the product": lambda: (
        not np.allclose(*(fastrnn.GRU(3, 4, reset_after=after, rng=0)(X)[0] for after in (True, False)))
    ),
    "LSTM with projection": lambda: width(fastrnn.LSTM(3, 4, proj_size=2)) == 2,
    "peepholes": lambda: "weight_ci_l0" in fastrnn.LSTM(3, 4, peepholes=True).params,
    "activations of your choice": lambda: differs(activations=("hard_sigmoid", "softsign", "linear")),
    "recurrent dropout": lambda: differs(recurrent_dropout=0.5),
    "zoneout": lambda: differs(zoneout=0.5),
    "layer normalisation inside the cell": lambda: _accepts(fastrnn.LSTM, layer_norm=True),
    "both directions": lambda: width(fastrnn.LSTM(3, 4, bidirectional=True)) == 8,
    "sequences of unequal length": lambda: not fastrnn.GRU(3, 4)(X, lengths=[6, 2])[0][2:, 1].any(),
    "masks of single steps": masks,
    "resets inside a sequence": resets,
    "one step at a time, the state kept": streams,
    "checkpointed BPTT": checkpoints,
    "int8 weights for inference": small_weights_are_packed,
    "reads ONNX models and Keras files": lambda: all(
        importlib.util.find_spec(f"fastrnn.{name}") for name in ("onnx", "keras")
    ),
    "float64": lambda: fastrnn.GRU(3, 4, dtype=np.float64)(X)[0].dtype == np.float64,
    "same bits for any number of threads, as a guarantee": threads_change_no_bit,
    "estimators with `fit` and `predict`": lambda: (
        hasattr(fastrnn.models.Seq2Seq, "fit") and hasattr(fastrnn.models.Seq2Seq, "predict")
    ),
}


def test_every_row_is_tried() -> None:
    assert set(FASTRNN) == set(rows()) - {"needs"}


@pytest.mark.parametrize("name", FASTRNN)
def test_what_the_table_says_of_fastrnn(name: str) -> None:
    assert FASTRNN[name]() is (rows()[name][0] == "yes")


def test_fastrnn_needs_numpy_alone() -> None:
    text = (PAGE.parents[1] / "pyproject.toml").read_text()
    assert re.search(r"^dependencies = \[\"numpy[^\",]*\"\]$", text, re.MULTILINE)
    assert rows()["needs"][0] == "NumPy"


def test_what_the_table_says_of_pytorch() -> None:
    torch: Any = pytest.importorskip("torch")
    nn, x, table = torch.nn, torch.tensor(X), rows()
    tried = {
        "automatic differentiation": nn.GRU(3, 4).double()(x)[0].requires_grad,
        "Elman RNN": nn.RNN(3, 4).double()(x)[0].shape[-1] == 4,
        "LSTM with projection": nn.LSTM(3, 4, proj_size=2).double()(x)[0].shape[-1] == 2,
        "both directions": nn.GRU(3, 4, bidirectional=True).double()(x)[0].shape[-1] == 8,
        "sequences of unequal length": hasattr(nn.utils.rnn, "pack_padded_sequence"),
        "float64": nn.GRU(3, 4).double()(x)[0].dtype == torch.float64,
        "GRU with the reset before or after the product": _accepts(nn.GRU, reset_after=False),
        "estimators with `fit` and `predict`": hasattr(nn.LSTM, "fit"),
    }
    for name, found in tried.items():
        assert found is (table[name][1] == "yes"), name


def _accepts(kind: Any, **options: Any) -> bool:
    try:
        kind(3, 4, **options)
    except TypeError:
        return False
    return True
