"""Make the files beside this one: models of Keras 3, and what their recurrent layers return. Files are compressed.

``KERAS_BACKEND=torch python make.py``, with keras 3 and torch. Tests read the files with h5py alone.
"""

import lzma
from pathlib import Path

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent


def drawn(model: keras.Model) -> None:
    """Draw all weights, biases too, so that none is what a constructor makes."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(-0.6, 0.6, w.shape).astype(np.float32) for w in model.get_weights()])


def make(name: str, made: dict[str, keras.Layer], kinds: list[str]) -> None:
    """Write a model in which every layer reads the same x, and the outputs."""
    x = keras.Input((6, 3))
    model = keras.Model(x, {key: layer(x) for key, layer in made.items()})
    drawn(model)
    values = np.random.default_rng(1).uniform(-1, 1, (2, 6, 3)).astype(np.float32)
    outputs = {key: np.asarray(value) for key, value in model.predict(values, verbose=0).items()}
    np.savez(HERE / f"{name}.npz", x=values, **outputs)
    for kind in kinds:
        path = HERE / f"{name}{kind}"
        model.save_weights(path) if kind == ".weights.h5" else model.save(path)
        Path(f"{path}.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))  # HDF5 is mostly empty
        path.unlink()


plain = {
    "my_lstm": layers.LSTM(4, return_sequences=True, name="my_lstm"),
    "my_gru": layers.GRU(3, return_sequences=True, name="my_gru"),
    "before": layers.GRU(3, return_sequences=True, reset_after=False, name="before"),
    "elman": layers.SimpleRNN(3, activation="relu", use_bias=False, return_sequences=True, name="elman"),
    "both": layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both"),
    "of_cell": layers.RNN(layers.LSTMCell(2), return_sequences=True, name="of_cell"),
    "inner": keras.Sequential(
        [keras.Input((6, 3)), layers.Bidirectional(layers.GRU(2, return_sequences=True), name="deep")],
        name="inner",
    ),
}
make("plain", plain, [".keras", ".h5", ".weights.h5"])

options = {
    "hard": layers.LSTM(3, recurrent_activation="hard_sigmoid", return_sequences=True, name="hard"),
    "elu": layers.GRU(3, activation="elu", return_sequences=True, name="elu"),
    "turned": layers.LSTM(3, go_backwards=True, return_sequences=True, name="turned"),
    "summed": layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode="sum", name="summed"),
    "multiplied": layers.Bidirectional(
        layers.LSTM(2, return_sequences=True), merge_mode="mul", name="multiplied"
    ),
    "mean": layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True), merge_mode="ave", name="mean"),
}
make("options", options, [".keras"])
