"""What the configuration of a Keras model says about its recurrent layers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastrnn._arrays import expect

MAX_DEPTH = 60  # models inside models

CELLS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN", "CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
CELLS |= {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "RNN", "LSTMV2": "LSTM", "GRUV2": "GRU"}
REFUSED = re.compile(r"ConvLSTM|StackedRNNCells|Peephole")

# Keras' names of activation functions: fastrnn's.
FUNCTIONS: dict[str, Any] = {
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "linear": "linear",
    "softsign": "softsign",
    "softplus": "softplus",
    "elu": ("elu", 1.0),
    "leaky_relu": ("leaky_relu", 0.2),
}
HARD_SIGMOID_2 = ("hard_sigmoid", 0.2, 0.5)  # Keras up to 2: clip(0.2 x + 0.5, 0, 1)
HARD_SIGMOID_3 = ("hard_sigmoid", 1 / 6, 0.5)  # Keras 3: relu6(x + 3) / 6


@dataclass
class Described:
    """A recurrent layer as a configuration has it."""

    name: str
    place: tuple[str, ...]  # the names of the layers and models around it, from the outside in, and its own
    path: str  # where Keras 3 keeps it in its files
    cell: str
    config: Mapping[str, Any]
    bidirectional: bool = False
    merge: str = "concat"
    cudnn: bool = False


def snake_case(name: str) -> str:
    """Return a class's name as Keras 3 writes it in its files: "CuDNNLSTM" becomes "cu_dnnlstm"."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def described(config: Any, where: str) -> list[Described]:
    """Return the recurrent layers of a model's configuration, in its order."""
    expect(isinstance(config, Mapping), f"{where}: configuration", "a model", type(config).__name__)
    return list(_walk(config, (), "", where, 0))


def _walk(item: Any, place: tuple[str, ...], path: str, where: str, depth: int) -> Iterator[Described]:
    """Yield the recurrent layers in a serialized object."""
    expect(
        depth < MAX_DEPTH, f"{where}: configuration", f"at most {MAX_DEPTH} models inside one another", "more"
    )
    if not isinstance(item, Mapping):
        return
    kind, config = item.get("class_name"), item.get("config")
    if not isinstance(kind, str):
        return
    own = config.get("name") if isinstance(config, Mapping) else None
    name = own if isinstance(own, str) else str(item.get("name") or kind)
    inner = (*place, name)
    expect(not REFUSED.search(kind), f"{where}: layer {name!r}", "LSTM, GRU or SimpleRNN", kind)
    if kind in CELLS and isinstance(config, Mapping):
        yield Described(name, inner, path, CELLS[kind], config, cudnn=kind.startswith("CuDNN"))
    elif kind == "RNN" and isinstance(config, Mapping):
        yield from _of_cell(config, name, inner, path, where)
    elif kind == "Bidirectional" and isinstance(config, Mapping):
        yield _both_ways(config, name, inner, path, where)
    elif isinstance(config, Mapping) and isinstance(
        config.get("layer"), Mapping
    ):  # TimeDistributed and its like
        yield from _walk(config["layer"], inner, f"{path}/layer", where, depth + 1)
    else:
        layers = config.get("layers") if isinstance(config, Mapping) else config
        yield from _model(layers, inner, path, where, depth)


def _model(layers: Any, place: tuple[str, ...], path: str, where: str, depth: int) -> Iterator[Described]:
    """Yield the recurrent layers of a model. Keras 3 names its layers by their classes, and counts."""
    if not isinstance(layers, (list, tuple)):
        return
    used: dict[str, int] = {}
    for layer in layers:
        if not isinstance(layer, Mapping) or not isinstance(layer.get("class_name"), str):
            continue
        kind = snake_case(layer["class_name"])
        number = used.get(kind, 0)
        used[kind] = number + 1
        inside = f"{path}/layers/{kind}" + f"_{number}" * bool(number)
        yield from _walk(layer, place, inside.strip("/"), where, depth + 1)


def _of_cell(
    config: Mapping[str, Any], name: str, place: tuple[str, ...], path: str, where: str
) -> Iterator[Described]:
    """Yield the layer that RNN makes of a cell."""
    cell = config.get("cell")
    kind = cell.get("class_name") if isinstance(cell, Mapping) else None
    inner = cell.get("config") if isinstance(cell, Mapping) else None
    fits = kind in CELLS and isinstance(inner, Mapping)
    expect(fits, f"{where}: layer {name!r}", "a cell LSTMCell, GRUCell or SimpleRNNCell", kind)
    assert isinstance(inner, Mapping)
    shared = {key: config[key] for key in ("go_backwards", "time_major") if key in config}
    yield Described(name, place, path, CELLS[str(kind)], {**inner, **shared})


def _both_ways(
    config: Mapping[str, Any], name: str, place: tuple[str, ...], path: str, where: str
) -> Described:
    """Return the layer that Bidirectional makes of another."""
    what = f"{where}: layer {name!r}"
    found = []
    for key in ("layer", "backward_layer"):
        if isinstance(config.get(key), Mapping):
            found += list(_walk(config[key], place, path, where, 1))
    expect(found, what, "an LSTM, GRU or SimpleRNN inside", "none")
    first, last = found[0], found[-1]
    different = [
        key
        for key in ("units", "activation", "recurrent_activation", "use_bias", "reset_after")
        if first.config.get(key) != last.config.get(key)
    ]
    expect(first.cell == last.cell and not different, what, "two equal directions", f"different {different}")
    expect(not first.config.get("go_backwards"), what, "a first layer that runs forward", "go_backwards=True")
    merge = config.get("merge_mode", "concat")
    known = (None, "concat", "sum", "mul", "ave")
    expect(merge in known, f"{what}: merge_mode", "concat, sum, mul, ave or None", repr(merge))
    both = Described(name, place, path, first.cell, first.config, cudnn=first.cudnn)
    both.bidirectional, both.merge = True, merge or "concat"
    return both


def options(layer: Described, version: str, where: str, gates: str | None = None) -> dict[str, Any]:
    """Return the options of a layer that its configuration says; ``gates`` is the activation of gates not said."""
    what = f"{where}: layer {layer.name!r}"
    config = layer.config
    found: dict[str, Any] = {"batch_first": not config.get("time_major", False)}
    names = [config.get("activation", "tanh")]
    if layer.cell != "RNN":
        names.insert(0, config.get("recurrent_activation", gates or "sigmoid"))
    if layer.cudnn:
        names = ["sigmoid", "tanh"]
    functions = [_function(name, version, what) for name in names]
    if layer.cell == "LSTM":
        functions.append(functions[1])
    found["functions"] = tuple(functions)
    if layer.cell == "GRU" and layer.cudnn:
        found["reset_after"] = True
    elif layer.cell == "GRU" and "reset_after" in config:
        found["reset_after"] = bool(config["reset_after"])
    if config.get("go_backwards"):
        found["reverse"] = True
    if layer.merge != "concat":
        found["merge"] = layer.merge
    return found


def _function(name: Any, version: str, what: str) -> Any:
    """Return an activation by fastrnn's name."""
    if isinstance(name, Mapping):  # an object of a class, or a function that is registered
        inner = name.get("config")
        name = inner if isinstance(inner, str) else name.get("class_name")
    if name is None:
        return "linear"
    if name == "hard_sigmoid":
        if not version:
            expected = "a file that names its version of Keras, since two functions are called hard_sigmoid"
            warnings.warn(f"{what}: expected {expected}, got none: that of Keras 3 is taken", stacklevel=2)
        return HARD_SIGMOID_2 if version and int_of(version) < 3 else HARD_SIGMOID_3
    known = " or ".join(sorted([*FUNCTIONS, "hard_sigmoid"]))
    expect(isinstance(name, str) and name in FUNCTIONS, f"{what}: activation", known, repr(name))
    return FUNCTIONS[name]


def int_of(version: str) -> int:
    """Return the first number of a version; 3 if there is none."""
    head = re.match(r"\d{1,4}", version)
    return int(head[0]) if head else 3


def is_old(version: str) -> bool:
    """Whether a version is one whose LSTM and GRU had hard_sigmoid gates unless told otherwise: before 2.3."""
    numbers = [int(n) for n in re.findall(r"\d{1,4}", version)[:2]]
    return len(numbers) == 2 and tuple(numbers) < (2, 3) and "tf" not in version
