"""Layers as ONNX files: equal in onnxruntime, the same bits when they are read again, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_graphs import has, needs, onnx

import fastrnn
from fastrnn.onnx import export, load

KINDS: dict[str, Any] = {
    "RNN": fastrnn.RNN,
    "relu": lambda *a, **k: fastrnn.RNN(*a, nonlinearity="relu", **k),
    "GRU": fastrnn.GRU,
    "before": lambda *a, **k: fastrnn.GRU(*a, reset_after=False, **k),
    "LSTM": fastrnn.LSTM,
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bidirectional": True, "batch_first": True, "bias": False},
    {"num_layers": 3, "batch_first": True},
]


def drawn(layer: Any, T: int = 6, B: int = 3) -> tuple[np.ndarray, Any, np.ndarray]:
    """x, an initial state and lengths for a layer."""
    rng = np.random.default_rng(0)
    shape = (B, T, layer.input_size) if layer.batch_first else (T, B, layer.input_size)
    count = layer.num_layers * (1 + layer.bidirectional)
    states = [rng.uniform(-1, 1, (count, B, layer.hidden_size)).astype(layer.dtype) for _ in range(2)]
    state = tuple(states) if isinstance(layer, fastrnn.LSTM) else states[0]
    return rng.uniform(-1, 1, shape).astype(layer.dtype), state, np.array([T, 1, T - 2], np.int32)


def feeds(layer: Any, x: np.ndarray, state: Any = None, lengths: Any = None) -> dict[str, np.ndarray]:
    made = {"x": x} | ({} if lengths is None else {"lengths": lengths})
    if state is not None:
        made |= dict(zip(("h_0", "c_0"), state if isinstance(state, tuple) else (state,), strict=False))
    return made


def run(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    runtime = pytest.importorskip("onnxruntime")
    return list(runtime.InferenceSession(path).run(None, given))


def outputs(layer: Any, x: np.ndarray, state: Any = None, **kwargs: Any) -> list[np.ndarray]:
    y, last = layer(x, state, **kwargs)
    return [y, *(last if isinstance(last, tuple) else (last,))]


def assert_close(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("asked", [(True, True), (True, False), (False, True), (False, False)])
def test_exports_are_equal_in_onnxruntime(
    kind: str, options: dict[str, Any], asked: tuple[bool, bool], tmp_path: Path
) -> None:
    layer = KINDS[kind](3, 4, rng=1, **options)
    path = tmp_path / "a.onnx"
    export(layer, path, lengths=asked[0], state=asked[1])
    onnx.checker.check_model(path, full_check=True)
    x, state, lengths = drawn(layer)
    state, lengths = state if asked[1] else None, lengths if asked[0] else None
    assert_close(run(path, feeds(layer, x, state, lengths)), outputs(layer, x, state, lengths=lengths))
    again = load(path)
    (first,) = again
    assert type(again[first]) is type(layer)
    if layer.num_layers == 1 or not asked[1]:
        np.testing.assert_array_equal(again[first].flat, layer.flat)
    assert again[first].num_layers == layer.num_layers


@pytest.mark.parametrize("opset", [10, 13, 17, 21])
def test_versions_of_the_operators(opset: int, tmp_path: Path) -> None:
    layer = fastrnn.LSTM(3, 4, 2, bidirectional=True, rng=0)
    export(layer, tmp_path / "a.onnx", opset=opset)
    onnx.checker.check_model(tmp_path / "a.onnx", full_check=True)
    x, state, lengths = drawn(layer)
    assert_close(
        run(tmp_path / "a.onnx", feeds(layer, x, state, lengths)), outputs(layer, x, state, lengths=lengths)
    )


def test_doubles(tmp_path: Path) -> None:
    layer = fastrnn.GRU(3, 4, dtype=np.float64, rng=0)
    export(layer, tmp_path / "a.onnx")
    onnx.checker.check_model(tmp_path / "a.onnx", full_check=True)
    again = load(tmp_path / "a.onnx")["GRU_0"]
    assert again.dtype == np.float64
    np.testing.assert_array_equal(again.flat, layer.flat)


OPTIONED: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"peepholes": True}),
    ("LSTM", {"peepholes": True, "bidirectional": True, "num_layers": 2}),
    ("LSTM", {"input_forget": True}),
    ("LSTM", {"clip": 0.3}),
    ("GRU", {"clip": 0.3, "reset_after": False}),
    ("LSTM", {"activations": ("hard_sigmoid", "relu", ("elu", 0.5))}),
    ("GRU", {"activations": (("hard_sigmoid", 0.2, 0.5), "softsign")}),
    ("RNN", {"activations": (("leaky_relu", 0.1),)}),
    ("GRU", {"reverse": True, "num_layers": 2}),
    ("LSTM", {"merge": "sum", "bidirectional": True, "num_layers": 2}),
    ("GRU", {"merge": "mul", "bidirectional": True, "batch_first": True}),
    ("RNN", {"merge": "ave", "bidirectional": True}),
    ("LSTM", {"learned_state": True, "num_layers": 2}),
    ("GRU", {"learned_state": True, "bidirectional": True}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIONED, ids=str)
@pytest.mark.parametrize("given", [True, False])
def test_options_of_layers(kind: str, options: dict[str, Any], given: bool, tmp_path: Path) -> None:
    new = [
        name
        for name in options
        if name in ("peepholes", "input_forget", "clip", "activations", "reverse", "merge", "learned_state")
    ]
    if not has(*new):
        pytest.skip(f"layers do not have {new}")
    layer = KINDS[kind](3, 4, rng=2, **options)
    layer.flat = np.random.default_rng(3).uniform(-0.7, 0.7, layer.flat.size).astype(np.float32)
    export(layer, tmp_path / "a.onnx", state=given)
    onnx.checker.check_model(tmp_path / "a.onnx", full_check=True)
    x, state, lengths = drawn(layer)
    state = state if given else None
    assert_close(
        run(tmp_path / "a.onnx", feeds(layer, x, state, lengths)), outputs(layer, x, state, lengths=lengths)
    )
    again = load(tmp_path / "a.onnx", join=False)
    x = x.swapaxes(0, 1) if layer.batch_first else x
    if layer.num_layers == 1 and "merge" not in options and not (given and "learned_state" in options):
        (one,) = again.values()
        np.testing.assert_array_equal(one(x, state)[0], outputs(layer, x, state)[0])


def test_what_onnx_does_not_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match=r"layer: expected no projection, .*, got proj_size=2"):
        export(fastrnn.LSTM(3, 4, proj_size=2), path)
    with pytest.raises(ValueError, match="opset: expected 10 to"):
        export(fastrnn.GRU(3, 4), path, opset=9)
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN, got int"):
        export(3, path)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        export(fastrnn.GRU(3, 4), tmp_path / "none" / "a.onnx")
    assert not list(tmp_path.iterdir())


@needs("layer_norm")
def test_normalised_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layer: expected no layer_norm, .*, got layer_norm=True"):
        export(fastrnn.LSTM(3, 4, layer_norm=True), tmp_path / "a.onnx")
