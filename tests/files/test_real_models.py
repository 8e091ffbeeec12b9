"""Models that other people trained and ship in PyPI packages: they must give what their own engines give.

The expected values were computed once by those engines (``tests/data/real/make.py``). A package is looked for among the
installed ones and in the folder that ``FASTRNN_PACKAGES`` names (``tests/files/packages.py`` fills one).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models
from packages import PACKAGES, file_of

import fastrnn
from fastrnn import io

EXPECTED = Path(__file__).parents[1] / "data" / "real" / "expected.npz"


def expected(name: str) -> np.ndarray:
    with np.load(EXPECTED) as file:
        return np.asarray(file[name])


def of(package: str, path: str) -> Path:
    """A file of a package; without it the test is skipped."""
    found = file_of(package, path)
    if found is None:
        pytest.skip(
            f"{PACKAGES[package]} is not here: python tests/files/packages.py FOLDER; FASTRNN_PACKAGES=FOLDER"
        )
    return found


def needs_option(*names: str) -> None:
    from onnx_graphs import has

    if not has(*names):
        pytest.skip(f"layers do not have {', '.join(names)}")


# -- ONNX -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["silero_vad.onnx", "silero_vad_16k_op15.onnx"])
def test_silero_in_a_stream(name: str) -> None:
    pytest.importorskip("onnxruntime")
    door = pytest.importorskip("fastrnn.onnx")
    session = door.accelerate(of("silero_vad", f"data/{name}"))
    assert session.layers
    assert not session.left
    got = real_models.stream(session.run, real_models.audio())
    want = expected("silero_onnx")
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_array_equal(got > 0.5, want > 0.5)
    assert 0 < (want > 0.5).mean() < 1


def test_silero_in_one_sequence() -> None:
    runtime = pytest.importorskip("onnxruntime")
    door = pytest.importorskip("fastrnn.onnx")
    path = of("silero_vad", "data/silero_vad_16k_sequence.onnx")
    zeros = np.zeros((1, 1, 128), np.float32)
    feeds = {"input": np.concatenate(real_models.chunks(real_models.audio())), "h": zeros, "c": zeros}
    want = runtime.InferenceSession(path).run(None, feeds)
    for one, other in zip(door.accelerate(path).run(None, feeds), want, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_silero_taken_apart_is_refused() -> None:
    door = pytest.importorskip("fastrnn.onnx")
    with pytest.raises(ValueError, match="its cells may be taken apart into MatMul, Sigmoid and Tanh"):
        door.load(of("silero_vad", "data/silero_vad_op18_ifless.onnx"))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_silero_in_torchscript() -> None:
    """The state dict of the program holds the cell's weights: those of the ONNX file."""
    torch = pytest.importorskip("torch")
    door = pytest.importorskip("fastrnn.onnx")
    held = torch.jit.load(of("silero_vad", "data/silero_vad.jit")).state_dict()
    layer = fastrnn.LSTM.from_state_dict(held, prefix="_model.decoder.rnn.")
    layers = door.load(of("silero_vad", "data/silero_vad_16k_op15.onnx"))
    np.testing.assert_array_equal(layer.flat, layers["/model/decoder/rnn/LSTM"].flat)
    np.testing.assert_allclose(expected("silero_jit"), expected("silero_onnx"), atol=1e-5)


def test_dksplit_of_8_bits() -> None:
    """Three bidirectional layers with weights of 8 bits, which ONNX Runtime multiplies by inputs of 8 bits."""
    pytest.importorskip("onnxruntime")
    door = pytest.importorskip("fastrnn.onnx")
    path = of("dksplit", "models/dksplit-int8.onnx")
    (layer,) = door.load(path).values()
    assert repr(layer) == "LSTM(384, 384, num_layers=3, bidirectional=True)"
    session = door.accelerate(path, dequantize=True)
    numbers = np.random.default_rng(2).integers(1, 27, (4, 24))
    (got,) = session.run(None, {"chars": numbers})
    np.testing.assert_allclose(got, expected("dksplit"), atol=0.25)
    same = got.argmax(axis=-1) == expected("dksplit").argmax(axis=-1)
    assert same.mean() > 0.97


# -- PyTorch --------------------------------------------------------------------------------------------------------


def test_medaka_on_a_long_read(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    archive = of("medaka", "data/r1041_e82_400bps_sup_v5.2.0_model_pt.tar.gz")
    held = io.load(real_models.medaka_weights(archive, tmp_path))
    x = np.random.default_rng(0).random((1, 10_000, 10))
    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-2)):  # the model multiplies rounding by 1e4
        gru = fastrnn.GRU.from_state_dict(held, prefix="gru.", batch_first=True, dtype=dtype)
        assert repr(gru).startswith("GRU(10, 128, num_layers=2, batch_first=True, bidirectional=True")
        y = gru(x)[0]
        np.testing.assert_allclose(y[0, ::2000], expected("medaka_y"), atol=tolerance)
        calls = (y @ held["linear.weight"].T + held["linear.bias"])[0].argmax(-1)
        same = calls == expected("medaka_calls")
        assert same.all() if dtype == np.float64 else same.mean() > 0.999


# -- NumPy archives and pickles -------------------------------------------------------------------------------------


def test_g2p_en() -> None:
    """Its arrays have names of their own, in the layout of PyTorch."""
    held = io.read(of("g2p_en", "checkpoint20.npz"))[0]
    graphemes = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]

    def gru(which: str) -> fastrnn.GRU:
        cell = {
            f"{name}_{side}": held[f"{which}_{name[0]}_{side}"]
            for name in ("weight", "bias")
            for side in ("ih", "hh")
        }
        return fastrnn.GRU.from_state_dict(cell)

    encoder, decoder = gru("enc"), gru("dec")
    phonemes = _phonemes(of("g2p_en", "g2p.py"))
    for word, want in zip(real_models.WORDS, expected("g2p_words"), strict=True):
        numbers = [graphemes.index(c) for c in [*word, "</s>"]]
        _, h = encoder(held["enc_emb"][numbers])
        spoken, last = [], 2
        for _ in range(20):
            y, h = decoder(held["dec_emb"][[last]], h)
            last = int((held["fc_w"] @ y[0] + held["fc_b"]).argmax())
            if last == 3:
                break
            spoken.append(phonemes[last])
        assert " ".join(spoken) == want


def _phonemes(path: Path) -> list[str]:
    """The list in the package's source, read and not run."""
    import ast

    with warnings.catch_warnings():  # about an escape in a string
        warnings.simplefilter("ignore")
        tree = ast.parse(path.read_text(encoding="utf-8"))
    value = next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Attribute)
        and node.targets[0].attr == "phonemes"
    )
    assert isinstance(value, ast.BinOp)
    return [*ast.literal_eval(value.left), *ast.literal_eval(value.right)]


def rows(*parts: Any) -> np.ndarray:
    return np.concatenate([np.asarray(part).T for part in parts])


def layer_of_madmom(part: Any) -> tuple[dict[str, np.ndarray], str]:
    """One direction in the layout of PyTorch, and its cell."""
    kind = type(part).__name__
    if kind == "LSTMLayer":
        gates = [part.input_gate, part.forget_gate, part.cell, part.output_gate]
        found = {
            f"weight_c{g}_l0": vars(gate)["peephole_weights"]
            for g, gate in zip("ifo", (gates[0], gates[1], gates[3]), strict=True)
        }
        signs = [1, 1, 1, 1]
    else:  # its update gate is 1 - z
        gates, found, signs = [part.reset_gate, part.update_gate, part.cell], {}, [1, -1, 1]
    pairs = list(zip(signs, gates, strict=True))
    found["weight_ih_l0"] = rows(*(s * g.weights for s, g in pairs))
    found["weight_hh_l0"] = rows(*(s * g.recurrent_weights for s, g in pairs))
    found["bias_ih_l0"] = np.concatenate([s * np.ravel(g.bias) for s, g in pairs])
    found["bias_hh_l0"] = np.zeros_like(found["bias_ih_l0"])
    initial = vars(part).get("init", vars(part).get("hid_init"))
    if initial is not None and kind == "GRULayer":
        found["h_0"] = np.asarray(initial, np.float32)[None]
    return {name: np.asarray(array, np.float32) for name, array in found.items()}, kind.removesuffix("Layer")


def prepare_madmom(layers: list[Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The layers of a network of madmom's as one function, the recurrent ones in fastrnn."""
    ready: list[Any] = []
    for layer in layers:
        ways = [layer.fwd_layer, layer.bwd_layer] if hasattr(layer, "fwd_layer") else [layer]
        if not hasattr(ways[0], "cell"):
            ready.append(layer)
            continue
        found: dict[str, np.ndarray] = {}
        kind = ""
        for way, suffix in zip(ways, ("", "_reverse"), strict=False):
            arrays, kind = layer_of_madmom(way)
            for name, array in arrays.items():
                key = name if name == "h_0" else name + suffix
                found[key] = np.concatenate([found[key], array]) if key in found else array
        ready.append(getattr(fastrnn, kind).from_state_dict(found).freeze())

    def run(x: np.ndarray) -> np.ndarray:
        for layer in ready:
            if hasattr(layer, "params"):
                x = layer(x)[0]
            else:
                x = x @ layer.weights + layer.bias
                x = 1 / (1 + np.exp(-x)) if layer.activation_fn[1] == "sigmoid" else x
        return x

    return run


@pytest.mark.parametrize(
    ("kind", "path", "options"),
    [
        ("beats", "models/beats/2016/beats_lstm_1.pkl", ["peepholes"]),
        ("beats_both", "models/beats/2015/beats_blstm_1.pkl", ["peepholes"]),
        ("bars", "models/downbeats/2016/downbeats_bgru_rhythmic_0.pkl", ["learned_state"]),
    ],
)
def test_madmom(kind: str, path: str, options: list[str]) -> None:
    """Peepholes; learned initial states and an update gate that is the other way round."""
    needs_option(*options)
    layers = real_models.madmom_layers(of("madmom", path))
    x = np.random.default_rng(1).random((60, real_models.madmom_width(layers[0]))).astype(np.float32)
    got = prepare_madmom(layers)(x)
    np.testing.assert_allclose(got.ravel(), expected(f"madmom_{kind}").ravel(), atol=1e-5)


# -- Keras ------------------------------------------------------------------------------------------------------------


def test_textgenrnn_writes_english() -> None:
    """Weights of Keras 2.1 in CuDNN's layout. Read in a wrong way, the model would not predict English."""
    door, h5py = pytest.importorskip("fastrnn.keras"), pytest.importorskip("h5py")
    path = of("textgenrnn", "textgenrnn_weights.hdf5")
    layers = door.load(path)
    assert list(layers) == ["rnn_1", "rnn_2"]
    numbers = real_models.letters(of("textgenrnn", "textgenrnn_vocab.json"))
    with h5py.File(path) as file:
        table, w = file["embedding/embedding/embeddings:0"][()], file["attention/attention/attention_W:0"][()]
        kernel, bias = file["output/output/kernel:0"][()], file["output/output/bias:0"][()]
    x = table[numbers]
    lower = layers["rnn_1"](x)[0]
    upper = layers["rnn_2"](lower)[0]
    whole = np.concatenate([x, lower, upper], axis=2)
    weight = np.exp(whole @ w - (whole @ w).max(axis=1, keepdims=True))
    mean = (whole * weight / weight.sum(axis=1, keepdims=True)).sum(axis=1)
    logits = mean @ kernel + bias
    logits -= np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)) + logits.max(
        1, keepdims=True
    )
    known = json.loads(of("textgenrnn", "textgenrnn_vocab.json").read_text())
    bits = -np.mean([logits[k, known[c]] for k, c in enumerate(real_models.TEXT)]) / np.log(2)
    assert bits < 2.5, bits


def test_chars2vec() -> None:
    """Weights alone of Keras 2.2.0, whose gates were hard_sigmoid: the file does not say so."""
    needs_option("activations")
    door, h5py = pytest.importorskip("fastrnn.keras"), pytest.importorskip("h5py")
    from keras_files import reference

    path = of("chars2vec", "trained_models/eng_50/weights.h5")
    with pytest.warns(UserWarning, match="weights alone of Keras 2.2.0: 'hard_sigmoid' is taken"):
        layers = door.load(path)
    assert list(layers) == ["lstm_1", "lstm_2"]
    x = np.eye(layers["lstm_1"].input_size, dtype=np.float32)[
        np.random.default_rng(0).integers(0, 26, (3, 12))
    ]
    with h5py.File(path) as file:
        for name, layer in layers.items():
            held = [file[f"{name}/{name}/{kind}:0"][()] for kind in ("kernel", "recurrent_kernel", "bias")]
            want = reference("LSTM", held, x, lambda a: np.clip(0.2 * a + 0.5, 0, 1))
            np.testing.assert_allclose(layer(x)[0], want, atol=1e-5)
            x = layer(x)[0]
