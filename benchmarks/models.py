"""Real models in fastrnn and in the engines of their packages: how long they take, and how far their outputs differ.

    FASTRNN_PACKAGES=FOLDER python benchmarks/models.py

The folder is one that `tests/files/packages.py` filled; packages that are installed are found too. Engines take turns,
and each runs on one thread. A ratio is the median of the ratios of the rounds. Models that cannot be had are named and
left out.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np

import fastrnn
from fastrnn import io

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "files"))
packages, real_models, own_engines = map(importlib.import_module, ("packages", "real_models", "own_engines"))
Run = Callable[[], Any]


class Missing(Exception):
    """A package or an option is not there."""


def of(package: str, path: str) -> Path:
    """Return a file of a package."""
    found = packages.file_of(package, path)
    if found is None:
        raise Missing(packages.PACKAGES[package])
    return Path(found)


def sessions(path: Path, **options: Any) -> tuple[Any, Any]:
    """Return a whole ONNX model in onnxruntime and with its recurrent nodes in fastrnn, on one thread each."""
    import onnxruntime

    import fastrnn.onnx

    said = onnxruntime.SessionOptions()
    said.intra_op_num_threads = 1
    whole = onnxruntime.InferenceSession(path, said, providers=["CPUExecutionProvider"])
    return whole, fastrnn.onnx.accelerate(path, session_options=said, **options)


def silero_stream() -> tuple[str, str, Run, Run]:
    """One chunk of 32 ms after the other."""
    samples = real_models.audio()
    both = sessions(of("silero_vad", "data/silero_vad_16k_op15.onnx"))
    other, own = (lambda s=s: real_models.stream(s.run, samples) for s in both)
    return "silero-vad, 6 s of sound in chunks", "onnxruntime", other, own


def silero_sequence() -> tuple[str, str, Run, Run]:
    """All chunks in one call."""
    zeros = np.zeros((1, 1, 128), np.float32)
    feeds = {"input": np.concatenate(real_models.chunks(real_models.audio())), "h": zeros, "c": zeros}
    both = sessions(of("silero_vad", "data/silero_vad_16k_sequence.onnx"))
    other, own = (lambda s=s: s.run(None, feeds)[0] for s in both)
    return "silero-vad, 6 s of sound at once", "onnxruntime", other, own


def dksplit() -> tuple[str, str, Run, Run]:
    """Weights of 8 bits there, the same weights as float32 here."""
    both = sessions(of("dksplit", "models/dksplit-int8.onnx"), dequantize=True)
    feeds = {"chars": np.random.default_rng(2).integers(1, 27, (4, 24))}
    other, own = (lambda s=s: s.run(None, feeds)[0] for s in both)
    return "dksplit, 4 words of 24 letters", "onnxruntime, 8 bits", other, own


def medaka() -> tuple[str, str, Run, Run]:
    """A read of 10,000 positions, in float32."""
    try:
        import torch
    except ImportError:
        raise Missing("torch") from None
    torch.set_num_threads(1)
    archive = of("medaka", "data/r1041_e82_400bps_sup_v5.2.0_model_pt.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        held = io.load(real_models.medaka_weights(archive, Path(folder)))
    gru = torch.nn.GRU(10, 128, 2, bidirectional=True, batch_first=True)
    gru.load_state_dict(
        {name[4:]: torch.from_numpy(a) for name, a in held.items() if name.startswith("gru.")}
    )
    layer = fastrnn.GRU.from_state_dict(held, prefix="gru.", batch_first=True).freeze()
    x = np.random.default_rng(0).random((1, 10_000, 10)).astype(np.float32)

    def other() -> Any:
        with torch.inference_mode():
            return gru(torch.from_numpy(x))[0].numpy()

    return "medaka, a read of 10,000 positions", "PyTorch", other, lambda: layer(x)[0]


def madmom(path: str, title: str) -> tuple[str, str, Run, Run]:
    """3,000 frames; the layers in fastrnn are made once."""
    tests = importlib.import_module("test_real_models")
    found = of("madmom", path)
    parts = real_models.madmom_layers(found)
    x = np.random.default_rng(1).random((3000, real_models.madmom_width(parts[0]))).astype(np.float32)
    own_layers = own_engines.madmom(of("madmom", "ml/nn/layers.py").parent, found)
    try:
        ready = tests.prepare_madmom(parts)
    except (TypeError, ValueError) as error:
        raise Missing(f"an option of layers: {error}") from error

    def other() -> Any:
        y = x
        for layer in own_layers:
            y = layer.activate(y)
        return y.ravel()

    return title, "madmom (NumPy)", other, lambda: ready(x).ravel()


MODELS: list[Callable[[], tuple[str, str, Run, Run]]] = [
    silero_stream,
    silero_sequence,
    dksplit,
    medaka,
    lambda: madmom("models/beats/2016/beats_lstm_1.pkl", "madmom beats, peepholes, 3,000 frames"),
    lambda: madmom("models/downbeats/2016/downbeats_bgru_rhythmic_0.pkl", "madmom bars, GRU, 3,000 frames"),
]


def rows(rounds: int) -> Iterator[list[str]]:
    """Measure every model; yield the cells of its row."""
    for model in MODELS:
        try:
            title, engine, other, own = model()
        except Missing as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        difference = float(np.abs(np.asarray(other()) - np.asarray(own())).max())
        seconds: list[tuple[float, float]] = []
        for _ in range(rounds):
            pair = []
            for run in (other, own):
                run()
                start = time.perf_counter()
                run()
                pair.append(time.perf_counter() - start)
            seconds.append((pair[0], pair[1]))
        theirs, ours = (1000 * statistics.median(times) for times in zip(*seconds, strict=True))
        ratio = statistics.median(a / b for a, b in seconds)
        yield [title, engine, f"{difference:.1e}", f"{theirs:.3g}", f"{ours:.3g}", f"{ratio:.2f}"]


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=15)
    table = [["model", "engine", "largest difference", "engine, ms", "fastrnn, ms", "ratio"], ["---"] * 6]
    fastrnn.set_num_threads(1)
    for row in [*table, *rows(options.parse_args().rounds)]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
