"""Speech detection in a stream, with the weights of silero-vad.

silero-vad is a small network that tells for every 32 ms of sound whether somebody speaks: convolutions around an LSTM.
`fastrnn.onnx.accelerate` cuts its ONNX file at the LSTM, runs that in fastrnn and the rest in onnxruntime. The stream
is made of recordings of a voice that names loudspeakers, with pauses and noise between them. The baseline is the whole
model in onnxruntime: both must take the same decisions. What is speech is known from the clean recordings: a chunk
counts as spoken if it is at most 30 dB below the loudest one of its recording.

    python examples/vad.py
"""

from __future__ import annotations

import importlib.util
import wave
from pathlib import Path
from typing import Any

import numpy as np
from _common import BASELINE, MODEL, data, figure, missing, package, parser, report
from numpy.typing import NDArray

RATE, CHUNK, CONTEXT = (
    16000,
    512,
    64,
)  # samples a second, of a chunk, and of the past that the model sees again
FOLDER = "usr/share/sounds/alsa"
WORDS = [
    "Front_Center",
    "Front_Left",
    "Front_Right",
    "Rear_Center",
    "Rear_Left",
    "Rear_Right",
    "Side_Left",
    "Side_Right",
]
Array = NDArray[Any]


def recording(name: str) -> Array:
    """Read a recording and bring it from 48 to 16 kHz, through a low pass of 97 samples."""
    with wave.open(str(data(f"{FOLDER}/{name}.wav", "apt-get install alsa-utils"))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        rate = file.getframerate()
    n = np.arange(-48, 49)
    low_pass = np.sinc(n * 0.95 * RATE / rate) * np.hamming(97)
    return np.convolve(samples, low_pass / low_pass.sum(), "same")[:: rate // RATE]


def sound(names: list[str], rng: np.random.Generator) -> tuple[Array, Array]:
    """Return recordings with pauses and quiet noise between them, and which chunks are spoken."""
    noise = recording("Noise")
    pieces, spoken = [], []
    for k, name in enumerate(names):
        pause = rng.integers(20, 40) * CHUNK
        quiet = 0.003 * rng.standard_normal(pause)
        if k % 3 == 1:  # noise alone must not be taken for speech
            quiet[CHUNK * 8 : CHUNK * 16] += 0.1 * noise[: CHUNK * 8]
        voice = recording(name)
        voice = voice[: len(voice) // CHUNK * CHUNK]
        loud = np.abs(voice).reshape(-1, CHUNK).max(axis=1)
        pieces += [quiet, voice + 0.003 * rng.standard_normal(len(voice))]
        spoken += [np.zeros(pause // CHUNK, bool), loud > loud.max() / 32]
    return np.concatenate(pieces).astype(np.float32), np.concatenate(spoken)


def probabilities(session: Any, samples: Array) -> Array:
    """Return the probability of speech of every chunk: the state goes from call to call."""
    state = np.zeros((2, 1, 128), np.float32)
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
    found = []
    for start in range(0, len(samples) - CHUNK + 1, CHUNK):
        chunk = padded[None, start : start + CONTEXT + CHUNK]
        probability, state = session.run(None, {"input": chunk, "state": state, "sr": np.array(RATE)})
        found.append(probability.item())
    return np.array(found)


options = parser(__doc__ or "").parse_args()
for module in ("onnx", "onnxruntime", "fastrnn.onnx"):
    package(module, "pip install 'fastrnn[onnx]'")
import onnxruntime  # noqa: E402

import fastrnn.onnx  # noqa: E402

spec = importlib.util.find_spec("silero_vad")
if spec is None or spec.origin is None:
    missing("needs silero_vad: pip install --no-deps silero-vad")
path = Path(spec.origin).parent / "data" / "silero_vad_16k_op15.onnx"  # nothing of the package is imported

samples, spoken = sound(WORDS[: 3 if options.quick else None], np.random.default_rng(options.seed))
ours = probabilities(fastrnn.onnx.accelerate(path), samples)
theirs = probabilities(onnxruntime.InferenceSession(path), samples)

with figure(options.out / "vad.png", (8, 4)) as f:
    top, bottom = f.subplots(2, 1, sharex=True, height_ratios=[1, 1])
    seconds = np.arange(len(samples)) / RATE
    top.plot(seconds[::8], samples[::8], color="0.4", linewidth=0.4)
    top.set_ylabel("sound")
    top.set_yticks([])
    chunks = np.arange(len(ours)) * CHUNK / RATE
    bottom.fill_between(chunks, spoken[: len(ours)], step="post", color="0.9", label="spoken")
    bottom.step(chunks, theirs, where="post", color=BASELINE, linewidth=4, alpha=0.6, label="onnxruntime")
    bottom.step(chunks, ours, where="post", color=MODEL, linewidth=1, label="fastrnn")
    bottom.axhline(0.5, color="0.6", linewidth=0.5)
    bottom.set_ylabel("probability of speech")
    bottom.set_xlabel("seconds")
    f.legend(loc="outside upper right", ncols=3, frameon=False)

said = spoken[: len(ours)]
runtime = "onnxruntime"
rows: list[tuple[Any, ...]] = [
    ("spoken chunks found", (ours > 0.5)[said].mean(), (theirs > 0.5)[said].mean(), runtime),
    (
        "chunks of pauses and noise taken for speech",
        (ours > 0.5)[~said].mean(),
        (theirs > 0.5)[~said].mean(),
        runtime,
    ),
    ("decisions that differ", float(((ours > 0.5) != (theirs > 0.5)).sum()), None),
    ("largest difference of a probability", float(np.abs(ours - theirs).max()), None),
]
report("vad", rows, options.out / "vad.png")
