"""Layers from Keras files: three generations of names, CuDNN's layout, configurations, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import GATES, arrays, layer, model, named, outputs, reference, unpacked, write
from onnx_graphs import needs

import fastrnn
from fastrnn.keras import load, state_dict

X = np.random.default_rng(5).uniform(-1, 1, (2, 6, 3)).astype(np.float32)
KIND = pytest.mark.parametrize("kind", GATES)


def y_of(made: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(made(x)[0])


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


# -- files that Keras 3 wrote ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_models_of_keras_3(ending: str, tmp_path: Path) -> None:
    layers, want = load(unpacked(f"plain{ending}", tmp_path)), outputs("plain")
    x = want.pop("x")
    want["deep"] = want.pop("inner")
    assert layers.keys() == want.keys()
    for name, made in layers.items():
        assert made.batch_first
        assert_close(y_of(made, x), want[name])


def test_weights_of_keras_3_with_a_configuration(tmp_path: Path) -> None:
    import zipfile

    weights = unpacked("plain.weights.h5", tmp_path)
    with zipfile.ZipFile(unpacked("plain.keras", tmp_path)) as archive:
        text = archive.read("config.json").decode()
    (tmp_path / "config.json").write_text(text)
    want = outputs("plain")
    x = want.pop("x")
    want["deep"] = want.pop("inner")
    for config in (text, json.loads(text), tmp_path / "config.json"):
        layers = load(weights, config=config)
        assert layers.keys() == want.keys()
        for name, made in layers.items():
            assert_close(y_of(made, x), want[name])


def test_weights_of_keras_3_alone(tmp_path: Path) -> None:
    """Activations are not in such a file: those that differ from the usual ones must be said."""
    path = unpacked("plain.weights.h5", tmp_path)
    with pytest.warns(
        UserWarning, match="expected a file that says the gates' activation, got weights alone"
    ):
        layers = load(path)
    want = outputs("plain")
    assert layers.keys() == {"my_lstm", "my_gru", "before", "elman", "both", "of_cell", "deep"}
    assert isinstance(layers["elman"], fastrnn.RNN)
    assert layers["elman"].nonlinearity == "tanh"  # it was relu
    x = want.pop("x")
    want["deep"] = want.pop("inner")
    for name in layers.keys() - {"elman"}:
        assert_close(y_of(layers[name], x), want[name])
    assert load(path, recurrent_activation="sigmoid").keys() == layers.keys()  # no warning


@needs("activations", "reverse", "merge")
def test_options_of_keras_3(tmp_path: Path) -> None:
    layers, want = load(unpacked("options.keras", tmp_path)), outputs("options")
    x = want.pop("x")
    assert layers.keys() == want.keys()
    want["turned"] = want["turned"][:, ::-1]  # in the order in which it ran
    for name, made in layers.items():
        assert_close(y_of(made, x), want[name])


# -- older files ---------------------------------------------------------------------------------------------------


@KIND
@pytest.mark.parametrize("head", ["{0}", "{0}/{1}_cell", "{0}/{1}_cell_3"])
@pytest.mark.parametrize("known", [True, False])
def test_names_of_keras_2(kind: str, head: str, known: bool, tmp_path: Path) -> None:
    held = arrays(kind)
    short = {"SimpleRNN": "simple_rnn"}.get(kind, kind.lower())
    weights = {
        "dense": {"dense/kernel:0": np.ones((2, 2), np.float32)},
        "my": named(head.format("my", short), held),
    }
    config = model({"class_name": "Dense", "config": {"name": "dense"}}, layer(kind, "my", reset_after=True))
    path = write(tmp_path / "a.h5", weights, config if known else None)
    layers = load(path)
    assert list(layers) == ["my"]
    assert_close(y_of(layers["my"], X), reference(kind, held, X))


@KIND
@pytest.mark.parametrize("known", [True, False])
def test_both_directions_of_keras_2(kind: str, known: bool, tmp_path: Path) -> None:
    ways = [arrays(kind, seed=k) for k in (1, 2)]
    cell = f"{kind.lower()}_cell"
    held = {"bi": named(f"bi/forward_a/{cell}_1", ways[0]) | named(f"bi/backward_a/{cell}_2", ways[1])}
    config = model({"class_name": "Bidirectional", "config": {"name": "bi", "layer": layer(kind, "a")}})
    made = load(write(tmp_path / "a.h5", held, config if known else None))["bi"]
    want = [reference(kind, ways[0], X), reference(kind, ways[1], X[:, ::-1])[:, ::-1]]
    assert_close(y_of(made, X), np.concatenate(want, axis=2))
    last = made.final_hidden(made(X)[1])  # what Bidirectional returns without return_sequences
    assert_close(last, np.concatenate([want[0][:, -1], want[1][:, 0]], axis=1))


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("known", ["cudnn", "plain", "no"])
def test_the_layout_of_cudnn(kind: str, known: str, tmp_path: Path) -> None:
    """Each gate's input kernel is transposed and kept in the other order of memory; there are two biases."""
    held = arrays(kind)
    gates = GATES[kind]
    kernel = np.hstack([k.reshape(k.shape[::-1], order="F").T for k in np.hsplit(held[0], gates)])
    recurrent = np.hstack([k.T for k in np.hsplit(held[1], gates)])
    bias = held[2].ravel() if kind == "GRU" else np.concatenate([0.25 * held[2], 0.75 * held[2]])
    kinds = {"cudnn": f"CuDNN{kind}", "plain": kind}
    said = {"recurrent_activation": "sigmoid"} if known == "plain" else {}
    config = model({"class_name": kinds[known], "config": {"name": "a"} | said}) if known != "no" else None
    path = write(tmp_path / "a.h5", {"a": named("a", [kernel, recurrent, bias])}, config, version="2.2.4")
    assert_close(y_of(load(path)["a"], X), reference(kind, held, X))


def test_names_of_tensorflows_keras(tmp_path: Path) -> None:
    """Version 2.12 to 2.15 called the layers "_layer_checkpoint_dependencies" in its .weights.h5."""
    import h5py

    held = arrays("LSTM")
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for number, array in enumerate(held):
            file[f"_layer_checkpoint_dependencies/lstm/cell/vars/{number}"] = array
    made = load(tmp_path / "a.weights.h5", recurrent_activation="sigmoid")
    assert_close(y_of(made["lstm"], X), reference("LSTM", held, X))
    config = model({"class_name": "InputLayer", "config": {"name": "i"}}, layer("LSTM", "named"))
    made = load(tmp_path / "a.weights.h5", config=config)
    assert_close(y_of(made["named"], X), reference("LSTM", held, X))


def test_models_inside_models_and_time_distributed(tmp_path: Path) -> None:
    inner = {
        "class_name": "Model",
        "config": {"name": "encoder", "layers": [layer("LSTM", "one"), layer("GRU", "two")]},
    }
    spread = {"class_name": "TimeDistributed", "config": {"name": "td", "layer": layer("GRU", "one")}}
    held = {
        "encoder": named("one/lstm_cell", arrays("LSTM", seed=1))
        | named("two/gru_cell", arrays("GRU", seed=2)),
        "td": named("td/gru_cell_1", arrays("GRU", seed=3)),
    }
    layers = load(write(tmp_path / "a.h5", held, model(inner, spread)))
    assert list(layers) == ["encoder/one", "two", "td/one"]
    for name, kind, seed in (("encoder/one", "LSTM", 1), ("two", "GRU", 2), ("td/one", "GRU", 3)):
        assert_close(y_of(layers[name], X), reference(kind, arrays(kind, seed=seed), X))


def test_long_lists_of_names_are_cut_up(tmp_path: Path) -> None:
    import h5py

    path = write(tmp_path / "a.h5", {"a": named("a", arrays("LSTM"))})
    with h5py.File(path, "a") as file:
        names = file["a"].attrs["weight_names"]
        del file["a"].attrs["weight_names"]
        file["a"].attrs["weight_names0"], file["a"].attrs["weight_names1"] = names[:2], names[2:]
    assert_close(y_of(load(path)["a"], X), reference("LSTM", arrays("LSTM"), X))


# -- what files do not say ----------------------------------------------------------------------------------------


def clipped(a: np.ndarray) -> np.ndarray:
    return np.clip(0.2 * a + 0.5, 0, 1)


@needs("activations")
@pytest.mark.parametrize(
    ("version", "gate"),
    [("2.2.4", clipped), ("3.1.0", lambda a: np.clip(a / 6 + 0.5, 0, 1)), ("2.10.0", clipped)],
)
def test_two_functions_are_called_hard_sigmoid(version: str, gate: Any, tmp_path: Path) -> None:
    config = model(layer("LSTM", "a", recurrent_activation="hard_sigmoid"))
    held = [3 * array for array in arrays("LSTM")]
    path = write(tmp_path / "a.h5", {"a": named("a", held)}, config, version)
    assert_close(y_of(load(path)["a"], X), reference("LSTM", held, X, gate))


@needs("activations")
def test_hard_sigmoid_without_a_version_warns(tmp_path: Path) -> None:
    config = model(layer("LSTM", "a", recurrent_activation="hard_sigmoid"))
    path = write(tmp_path / "a.h5", {"a": named("a", arrays("LSTM"))}, config, None)
    with pytest.warns(UserWarning, match="two functions are called hard_sigmoid"):
        load(path)


def test_weights_alone_of_old_versions_warn(tmp_path: Path) -> None:
    """Before 2.3 the gates were hard_sigmoid unless a model said otherwise."""
    for version, guess in (("2.2.4-tf", "sigmoid"), (None, "sigmoid")):
        path = write(tmp_path / "a.h5", {"a": named("a", arrays("LSTM"))}, None, version)
        with pytest.warns(UserWarning, match=f"layer 'a': .*'{guess}' is taken"):
            load(path)
        load(path, recurrent_activation="sigmoid")


@needs("activations")
def test_weights_alone_before_2_3_are_hard_sigmoid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"a": named("a", arrays("LSTM"))}, None, "2.2.4")
    with pytest.warns(UserWarning, match="layer 'a': .*'hard_sigmoid' is taken"):
        made = load(path)["a"]
    assert_close(y_of(made, X), reference("LSTM", arrays("LSTM"), X, clipped))


def test_a_gru_without_biases_warns_where_nothing_says_its_reset(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"a": named("a", arrays("GRU", bias=False))})
    with pytest.warns(UserWarning, match="reset_after=False is taken"):
        made = load(path)["a"]
    assert_close(y_of(made, X), reference("GRU", arrays("GRU", bias=False), X))


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (layer("LSTM", "a", activation="gelu"), "layer 'a': activation: expected .* got 'gelu'"),
        (layer("GRU", "a", reset_after=False), r"layer 'a': bias: expected shape \(12,\) with reset_after=False"),
        (layer("LSTM", "a"), r"layer 'a': recurrent_kernel: expected shape \[H, 4 H\], got \(4, 12\)"),
        (layer("LSTM", "b"), "layer 'b': expected weights in a group 'b', got none"),
        (layer("ConvLSTM2D", "a"), "layer 'a': expected LSTM, GRU or SimpleRNN, got ConvLSTM2D"),
        (
            {"class_name": "RNN", "config": {"name": "a", "cell": {"class_name": "Own", "config": {}}}},
            "layer 'a': expected a cell LSTMCell, GRUCell or SimpleRNNCell, got Own",
        ),
        (
            {"class_name": "Bidirectional", "config": {"name": "a", "layer": layer("GRU", "a"), "merge_mode": "max"}},
            "layer 'a': merge_mode: expected concat, sum, mul, ave or None, got 'max'",
        ),
        (
            {
                "class_name": "Bidirectional",
                "config": {"name": "a", "layer": layer("GRU", "a"), "backward_layer": layer("LSTM", "a")},
            },
            "layer 'a': expected two equal directions",
        ),
        ({"class_name": "Dense", "config": {"name": "a"}}, "expected a model with an LSTM, GRU or SimpleRNN"),
    ],
)  # fmt: skip
def test_refusals_name_the_layer(item: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "some.h5", {"a": named("a", arrays("GRU"))}, model(item))
    with pytest.raises(ValueError, match="some.h5: " + message):
        load(path)


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.h5")
    path = write(tmp_path / "a.h5", {"a": named("a", arrays("GRU"))})
    with pytest.raises(
        ValueError, match="recurrent_activation: expected None, 'sigmoid' or 'hard_sigmoid', got 'x'"
    ):
        load(path, recurrent_activation="x")
    with pytest.raises(TypeError, match="config: expected a path or a dict, got int"):
        load(path, config=3)  # type: ignore[arg-type]
    write(path, {"a": {"dense/kernel:0": np.ones((2, 2), np.float32)}})
    with pytest.raises(ValueError, match="expected weights of an LSTM, GRU or SimpleRNN, got none"):
        load(path)


# -- the way back ---------------------------------------------------------------------------------------------------


@KIND
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_is_the_way_back(kind: str, after: bool, bias: bool, tmp_path: Path) -> None:
    held = arrays(kind, after=after, bias=bias)
    config = model(layer(kind, "a", reset_after=after))
    made = load(write(tmp_path / "a.h5", {"a": named("a", held)}, config))["a"]
    back = state_dict(made)
    assert list(back) == ["kernel", "recurrent_kernel", "bias"][: len(held)]
    for one, other in zip(back.values(), held, strict=True):
        np.testing.assert_array_equal(one, other)


def test_state_dict_of_several_layers_and_directions() -> None:
    back = state_dict(fastrnn.LSTM(3, 4, 2, bidirectional=True))
    heads = [f"layer_{k}/{way}" for k in (0, 1) for way in ("forward", "backward")]
    names = [f"{head}/{name}" for head in heads for name in ("kernel", "recurrent_kernel", "bias")]
    assert list(back) == names
    assert back["layer_1/backward/kernel"].shape == (8, 16)
    with pytest.raises(ValueError, match="layer: expected parameters that Keras has too, got weight_hr_l0"):
        state_dict(fastrnn.LSTM(3, 4, proj_size=2))
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN, got int"):
        state_dict(3)  # type: ignore[arg-type]
