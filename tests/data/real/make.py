"""Make expected.npz: what real models return in their own engines, for the tests of real models.

``FASTRNN_PACKAGES=FOLDER python make.py`` with numpy, torch and onnxruntime; the folder is that of
``tests/files/packages.py``. Nothing of fastrnn is used.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "files"))
real_models, own_engines = map(importlib.import_module, ("real_models", "own_engines"))
file_of = importlib.import_module("packages").file_of

made = {}


def of(package, path):
    found = file_of(package, path)
    assert found, f"{package}/{path}"
    return found


def silero():
    samples = real_models.audio()
    session = onnxruntime.InferenceSession(of("silero_vad", "data/silero_vad.onnx"))
    made["silero_onnx"] = real_models.stream(session.run, samples)
    model = torch.jit.load(of("silero_vad", "data/silero_vad.jit"))
    with torch.no_grad():
        pieces = [samples[None, k : k + 512] for k in range(0, len(samples) - 511, 512)]
        made["silero_jit"] = np.array([model(torch.from_numpy(x), 16000).item() for x in pieces])


def g2p():
    own = own_engines.g2p_en(of("g2p_en", "g2p.py"))
    made["g2p_words"] = np.array([" ".join(own.predict(word)) for word in real_models.WORDS])


def medaka():
    with tempfile.TemporaryDirectory() as folder:
        path = real_models.medaka_weights(
            of("medaka", "data/r1041_e82_400bps_sup_v5.2.0_model_pt.tar.gz"), Path(folder)
        )
        held = torch.load(path, map_location="cpu", weights_only=True)
    gru = torch.nn.GRU(10, 128, 2, bidirectional=True, batch_first=True)
    gru.load_state_dict({name[4:]: value for name, value in held.items() if name.startswith("gru.")})
    x = np.random.default_rng(0).random((1, 10_000, 10))
    held = {name: value.double() for name, value in held.items()}  # in float32 it multiplies rounding by 1e4
    with torch.no_grad():
        y = gru.double()(torch.from_numpy(x))[0]
        logits = y @ held["linear.weight"].T + held["linear.bias"]
    made["medaka_y"] = y[0, ::2000].numpy()
    made["medaka_calls"] = logits[0].argmax(-1).numpy().astype(np.uint8)


def madmom():
    kinds = {
        "beats": "models/beats/2016/beats_lstm_1.pkl",
        "beats_both": "models/beats/2015/beats_blstm_1.pkl",
        "bars": "models/downbeats/2016/downbeats_bgru_rhythmic_0.pkl",
    }
    for kind, path in kinds.items():
        found = of("madmom", path)
        width = real_models.madmom_width(real_models.madmom_layers(found)[0])
        x = np.random.default_rng(1).random((60, width)).astype(np.float32)
        for layer in own_engines.madmom(of("madmom", "ml/nn/layers.py").parent, found):
            x = layer.activate(x)
        made[f"madmom_{kind}"] = x


def dksplit():
    session = onnxruntime.InferenceSession(of("dksplit", "models/dksplit-int8.onnx"))
    numbers = np.random.default_rng(2).integers(1, 27, (4, 24))
    made["dksplit"] = session.run(None, {"chars": numbers})[0]


for make in (silero, g2p, medaka, madmom, dksplit):
    make()
np.savez_compressed(HERE / "expected.npz", **made)
print({name: value.shape for name, value in made.items()})
