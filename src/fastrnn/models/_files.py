"""Files of models and checkpoints: named arrays, and a header in their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import io
from fastrnn._arrays import expect
from fastrnn.io import PathLike

Array = NDArray[Any]

FORMAT = "fastrnn.models.1"  # where the metadata keep the header
VOCABULARIES = ("vocabulary", "source", "target")
CONFIG: dict[
    str, type | tuple[type, ...]
] = {  # types of the values of config_, or of each element of its lists
    **dict.fromkeys(VOCABULARIES, (str, int, type(None))),
    **dict.fromkeys(("mean", "scale", "target_mean", "target_scale", "class_weights"), float),
    **dict.fromkeys(("text", "one_dimensional"), bool),
    **dict.fromkeys(("longest", "n_features", "n_features_in", "targets"), int),
    **dict.fromkeys(("embedding_size", "known"), int),
    **dict.fromkeys(("kind", "source_kind", "feature_names", "scaling"), (str, type(None))),
    "classes": (str, int, float),
}
SAVED = (int, float, str, type(None))  # what the log of an epoch may hold
MAY_CHANGE = {"epochs", "patience", "verbose"}  # hyperparameters, between a run and its continuation


def header_text(header: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that hold a header."""
    params = dict(header["params"])
    if isinstance(params.get("class_weight"), Mapping):  # JSON has no keys but str
        params["class_weight"] = [list(pair) for pair in params["class_weight"].items()]
    if params.get("embedding") is not None:  # the weights that came of it are in the file
        params["embedding"] = None
    return {FORMAT: json.dumps({**header, "params": params}, default=lambda number: number.item())}


def read(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the header of a model's file or checkpoint."""
    tensors, metadata = io.read(path)
    return tensors, _header(metadata.get(FORMAT, "{}"))


def plain(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header as it is read from a file."""
    return _header(header_text(header)[FORMAT])


def _header(text: str) -> dict[str, Any]:
    header: Any = json.loads(text)
    if not isinstance(header, dict) or not {"class", "params", "config"} <= set(header):
        raise ValueError("not a file of a fastrnn model")
    for key, value in header["config"].items():
        if not all(isinstance(v, CONFIG[key]) for v in (value if isinstance(value, list) else [value])):
            raise ValueError(f"config: {key} is not of its type")
    config = header["config"]
    sizes = {len(config[key]) for key in ("mean", "scale") if key in config}
    if sizes and sizes != {config["n_features"]}:
        raise ValueError("config: mean and scale are not of n_features")
    for key in ("targets", "known"):
        if not set(config.get(key, [])) <= set(range(max(sizes, default=0))):
            raise ValueError(f"config: {key} are not columns")
    if "target_mean" in config and len(config["target_mean"]) != len(config["target_scale"]):
        raise ValueError("config: target_mean and target_scale are not of one length")
    if isinstance(header["params"].get("class_weight"), list):
        header["params"]["class_weight"] = dict(header["params"]["class_weight"])
    if isinstance(header["params"].get("quantiles"), list):
        header["params"]["quantiles"] = tuple(header["params"]["quantiles"])
    return dict(header)


def history_of(stored: Mapping[str, Any], own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the history in the header `stored` of a checkpoint, which must be of the run whose header is `own`."""
    differ = {"class"} if stored["class"] != own["class"] else set()
    for part in ("params", "config"):
        keys = {*stored[part], *own[part]} - MAY_CHANGE
        differ |= {k for k in keys if stored[part].get(k) != own[part].get(k)}
    if differ:
        raise ValueError(f"expected a checkpoint of this run, but {sorted(differ)} differ")
    return history_in(stored["history"])


def history_in(logs: Any) -> list[dict[str, Any]]:
    """Check and return the history of a file."""
    history = [dict(log) for log in logs]
    if not all(isinstance(value, SAVED) for log in history for value in log.values()):
        raise ValueError("expected numbers and str in the history")
    return history


def may_be_saved(name: Any, value: Any) -> bool:
    """Return whether an entry of the log of an epoch can be written to a file."""
    value = value.item() if isinstance(value, np.generic) else value
    return isinstance(name, str) and isinstance(value, SAVED)


def check_log(log: Mapping[Any, Any]) -> None:
    """Raise if a checkpoint cannot hold what callbacks have put into the log of an epoch."""
    for name, value in log.items():
        expect(isinstance(name, str), "callbacks", "names in the log that are str", repr(name), TypeError)
        got = f"{type(value).__name__} for {name!r}"
        expect(may_be_saved(name, value), "callbacks", "numbers and str in the log", got, TypeError)


def joined(parts: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Return named groups of named arrays as one dict, with names such as "head.weight"."""
    return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
