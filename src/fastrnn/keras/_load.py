"""Layers from the files that Keras writes."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastrnn import _conversion
from fastrnn._arrays import expect
from fastrnn._conversion import Weights
from fastrnn._recurrent import Recurrent
from fastrnn.keras._config import Described, described, int_of, is_old, options
from fastrnn.keras._groups import Arrays, by_names, by_paths, found_in_names, found_in_paths
from fastrnn.keras._hdf5 import File
from fastrnn.keras._weights import cell_of, converted

PathLike = str | os.PathLike[str]
MEMBERS = ("config.json", "metadata.json", "model.weights.h5")  # of a .keras archive


def load(
    path: PathLike,
    *,
    config: PathLike | Mapping[str, Any] | None = None,
    recurrent_activation: str | None = None,
) -> dict[str, Recurrent]:
    """Return the recurrent layers of a Keras model by their names.

    Files are those of ``model.save`` (``.keras`` and ``.h5``) and of ``save_weights`` (``.weights.h5``, and ``.h5`` or
    ``.hdf5`` of older versions), from Keras 2 on. LSTM, GRU and SimpleRNN become layers with ``batch_first=True``,
    also in Bidirectional, TimeDistributed, RNN and models inside models; so do CuDNNLSTM and CuDNNGRU.

    A layer returns what Keras returns with ``return_sequences=True``, with these differences: in the padding behind
    ``lengths`` y is 0, where Keras repeats the last output. A layer with ``go_backwards`` has ``reverse=True``: its y
    is in the order of time, Keras' in that of the passes. For Bidirectional without ``return_sequences`` use
    :meth:`~fastrnn.LSTM.final_hidden`.

    Parameters
    ----------
    path : path
    config : path or dict, optional
        What ``model.to_json()`` returns, for a file of weights alone, which does not say activations.
    recurrent_activation : str, optional
        The activation of gates where a file does not say it: "sigmoid" or "hard_sigmoid".

    Returns
    -------
    dict of str to LSTM, GRU or RNN
        float64 where the weights are, otherwise float32. Layers with equal names in different models have the name of
        the model before theirs.

    Raises
    ------
    ValueError
        The file is not sound, or a layer has something that no layer of fastrnn has. The message names the layer.
    ImportError
        h5py is not installed: ``pip install 'fastrnn[keras]'``.

    Warns
    -----
    UserWarning
        The file does not say what the gates' activation is, and versions of Keras differ; or it does not say whether a
        GRU without biases resets before or after the product.

    Examples
    --------
    >>> import fastrnn.keras
    >>> layers = fastrnn.keras.load("model.keras")  # doctest: +SKIP
    """
    where = os.fspath(path)
    expect(recurrent_activation in (None, "sigmoid", "hard_sigmoid"), "recurrent_activation",
           "None, 'sigmoid' or 'hard_sigmoid'", repr(recurrent_activation))  # fmt: skip
    given = None if config is None else _given(config)
    try:
        if zipfile.is_zipfile(path):
            members = _members(Path(path), where)
            version = str(members["metadata.json"].get("keras_version") or "")
            with File(io.BytesIO(members["model.weights.h5"]), where) as file:
                return _layers(file, given or members["config.json"], version, recurrent_activation)
        with File(path, where) as file:
            held = file.text(file.root, "model_config")
            own = json.loads(held) if held else None
            return _layers(file, given or own, _version(file), recurrent_activation)
    except (ValueError, ImportError, FileNotFoundError, PermissionError, IsADirectoryError) as error:
        if isinstance(error, ValueError) and not str(error).startswith(where):
            raise ValueError(f"{where}: {error}") from error
        raise
    except Exception as error:  # hostile bytes can make a parser raise anything
        raise ValueError(f"{where}: not a sound Keras file: {error}") from error


def _given(config: PathLike | Mapping[str, Any]) -> Any:
    """Return the configuration that the caller gives."""
    if isinstance(config, Mapping):
        return config
    wanted = "a path or a dict"
    expect(isinstance(config, (str, os.PathLike)), "config", wanted, type(config).__name__, TypeError)
    text = (
        str(config)
        if isinstance(config, str) and config.lstrip().startswith("{")
        else Path(config).read_text()
    )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config: expected the text of model.to_json(), got {error}") from error


def _members(path: Path, where: str) -> dict[str, Any]:
    """Return what a .keras archive holds. Nothing is unpacked beyond the size of the file."""
    size = path.stat().st_size
    found: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        missing = [name for name in MEMBERS if name not in names]
        expect(not missing, where, f"an archive of Keras with {', '.join(MEMBERS)}", f"none with {missing}")
        for name in MEMBERS:
            member = archive.getinfo(name)
            plain = (
                member.compress_type == zipfile.ZIP_STORED
                and member.compress_size == member.file_size <= size
            )
            expect(
                plain,
                f"{where}: {name}",
                "a member that is not compressed",
                f"{member.file_size} bytes compressed",
            )
            data = archive.read(member)
            found[name] = json.loads(data) if name.endswith(".json") else data
    expect(isinstance(found["metadata.json"], dict), f"{where}: metadata.json", "a dict", "another value")
    return found


def _version(file: File) -> str:
    """Return the version of Keras that a file names, "" if none."""
    weights = file.child(file.root, "model_weights")
    groups = [file.root] + ([weights] if file.is_group(weights) else [])
    return next((text for group in groups if (text := file.text(group, "keras_version"))), "")


def _layers(file: File, config: Any, version: str, gates: str | None) -> dict[str, Recurrent]:
    """Return the layers of a file, with a configuration or without."""
    weights = file.child(file.root, "model_weights")
    root = weights if file.is_group(weights) else file.root
    named = "layer_names" in root.attrs or "layer_names0" in root.attrs
    if config is not None:
        wanted = described(config, file.where)
        expect(wanted, file.where, "a model with an LSTM, GRU or SimpleRNN", "none in its configuration")
        found: list[tuple[Described, Arrays]]
        found = [(layer, (by_names if named else by_paths)(file, root, layer)) for layer in wanted]
    else:
        found = list((found_in_names if named else found_in_paths)(file, root))
        expect(found, file.where, "weights of an LSTM, GRU or SimpleRNN", "none")
    names = [layer.name for layer, _ in found]
    made: dict[str, Recurrent] = {}
    for layer, arrays in found:
        name = layer.name if names.count(layer.name) == 1 else "/".join(layer.place[1:] or layer.place)
        made[name] = _layer(file, layer, arrays, config is not None, version, gates)
    return made


def _layer(
    file: File, layer: Described, arrays: Arrays, known: bool, version: str, gates: str | None
) -> Recurrent:
    where = f"{file.where}: layer {layer.name!r}"
    cell = layer.cell or cell_of(arrays[0], where)
    layer.cell = cell
    cudnn = (
        arrays[0][2].ndim == 1 and arrays[0][2].size == 2 * arrays[0][1].shape[-1]
        if len(arrays[0]) > 2
        else False
    )
    layer.cudnn = layer.cudnn or (not known and bool(cudnn))
    if not known and gates is None and cell != "RNN" and not layer.cudnn:
        gates = _guessed(version, where)
    said = options(layer, version, file.where, gates)
    after = said.pop("reset_after", None)
    pairs: list[Weights] = []
    for direction in arrays:
        weights, after = converted(direction, cell, where, after)
        pairs.append(weights)
    expect(len(pairs) == 1 + layer.bidirectional, where, f"{1 + layer.bidirectional} directions", len(pairs))
    sizes = {(w.sizes, w.bias_ih is None, w.weight_ih.dtype) for w in pairs}
    expect(len(sizes) == 1, where, "two directions of equal sizes", len(sizes))
    if cell == "GRU":
        if after is None:
            after = int_of(version) >= 3 or "tf" in version
            warnings.warn(
                f"{where}: expected to read whether it resets after the product, got a GRU without biases and without "
                f"its configuration: reset_after={after} is taken",
                stacklevel=4,
            )
        if not after:
            said["reset_after"] = False
    functions = said.pop("functions")
    said |= _conversion.activations(cell, [functions] * len(pairs))
    return _conversion.build(where, cell, [pairs], **said)


def _guessed(version: str, where: str) -> str:
    """Return the activation of gates that a version has unless told otherwise; warn where that is a guess."""
    old = is_old(version)
    if not old and version and "tf" not in version and int_of(version) >= 2:
        return "sigmoid"
    guess = "hard_sigmoid" if old else "sigmoid"
    came = f"weights alone of Keras {version}" if version else "weights alone without a version"
    warnings.warn(
        f"{where}: expected a file that says the gates' activation, got {came}: {guess!r} is taken, with which gates "
        f"differ by up to 0.13 from the other one; pass recurrent_activation= or config= to say it",
        stacklevel=5,
    )
    return guess
