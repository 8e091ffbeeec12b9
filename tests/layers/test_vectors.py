"""ONNX Runtime's own operator tests as vectors: lengths, both directions, and both kinds of GRU.

``FASTRNN_VECTORS`` names the JSON file; without it there is nothing to run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

PATH = os.environ.get("FASTRNN_VECTORS", "")
pytestmark = pytest.mark.skipif(not PATH, reason="FASTRNN_VECTORS does not name the file of test vectors")

DEFAULT = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
# rows of torch's gates in ONNX's: LSTM i, f, g, o out of i, o, f, c; GRU r, z, n out of z, r, h
ORDER = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}


def supported(record: dict[str, Any]) -> bool:
    """No peephole, coupled gates or clipping, and the same ordinary activations in both directions."""
    attrs, op = record["attrs"], record["op"]
    inputs = record["inputs"] + [None] * (8 - len(record["inputs"]))
    activations = [name.lower() for name in attrs.get("activations") or DEFAULT[op]]
    plain = activations in (DEFAULT[op], DEFAULT[op] * 2, ["relu"], ["relu"] * 2)
    return (
        record["expect"] == "ok"
        and plain
        and attrs.get("clip", 9999) >= 999
        and not attrs.get("input_forget")
        and inputs[7] is None
    )


def records() -> list[dict[str, Any]]:
    return [r for r in json.loads(Path(PATH).read_text()) if supported(r)] if PATH else []


def array(entry: Any) -> Any:
    if entry is None:
        return None
    dtype = int if entry["name"] == "sequence_lens" else np.float32
    return np.array(entry["data"], dtype).reshape(entry["shape"])


@pytest.mark.parametrize("record", records(), ids=lambda r: r["id"])
def test_vector(record: dict[str, Any]) -> None:
    op, attrs = record["op"], record["attrs"]
    padded = record["inputs"] + [None] * (8 - len(record["inputs"]))
    x, w, r, b, lengths, h_0, c_0, _ = (array(entry) for entry in padded)
    hidden, gates, directions = attrs["hidden_size"], len(ORDER[op]), w.shape[0]

    def rows(a: np.ndarray) -> np.ndarray:
        return a.reshape(gates, hidden, -1)[ORDER[op]].reshape(gates * hidden, *a.shape[1:])

    params = {}
    for d, way in enumerate(("", "_reverse")[:directions]):
        params["weight_ih_l0" + way], params["weight_hh_l0" + way] = rows(w[d]), rows(r[d])
        if b is not None:
            halves = np.split(b[d], 2)
            params["bias_ih_l0" + way], params["bias_hh_l0" + way] = rows(halves[0]), rows(halves[1])
    kwargs: dict[str, Any] = {"bias": b is not None, "bidirectional": directions == 2}
    kwargs["reverse"] = attrs.get("direction") == "reverse"
    if op == "GRU":
        kwargs["reset_after"] = bool(attrs.get("linear_before_reset", 0))
    if op == "RNN":
        kwargs["nonlinearity"] = (attrs.get("activations") or ["tanh"])[0].lower()
    layer = getattr(fastrnn, op)(w.shape[2], hidden, **kwargs)
    layer.load_state_dict(params)

    state = h_0
    if op == "LSTM" and (h_0 is not None or c_0 is not None):
        zeros = np.zeros((directions, x.shape[1], hidden))
        state = (zeros if h_0 is None else h_0, zeros if c_0 is None else c_0)
    y, last = layer(x, state, lengths=lengths)
    h_n, c_n = last if op == "LSTM" else (last, None)
    y = y.reshape(*y.shape[:2], -1, hidden).swapaxes(1, 2)  # [T, D, B, H]
    tolerance = 1e-4 if op == "LSTM" else 1e-6
    for name, got, want in zip(("Y", "Y_h", "Y_c"), (y, h_n, c_n), record["outputs"], strict=False):
        if want is not None:
            np.testing.assert_allclose(got, array(want), rtol=tolerance, atol=tolerance, err_msg=name)
