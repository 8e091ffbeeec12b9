"""Where the files of three generations of Keras keep the weights of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastrnn._arrays import expect, some
from fastrnn.keras._config import Described
from fastrnn.keras._hdf5 import Array, File

Arrays = list[list[Array]]  # for each direction its kernel, recurrent kernel and perhaps bias

KINDS = ("kernel", "recurrent_kernel", "bias")
CHECKPOINT = "_layer_checkpoint_dependencies"  # what TensorFlow's Keras 2.12 to 2.15 calls layers


# -- files in which each layer lists the names of its weights ------------------------------------------------


def _sets(file: File, group: Any) -> dict[str, list[Array]]:
    """Return the arrays of all recurrent weights below a layer, by the part of their names that they share."""
    names: dict[str, dict[str, str]] = {}
    for name in file.texts(group, "weight_names"):
        head, _, last = name.rpartition("/")
        kind = last.partition(":")[0]
        if kind in KINDS:
            names.setdefault(head, {})[kind] = name
    return {
        head: [file.array(file.child(group, kinds[kind])) for kind in KINDS if kind in kinds]
        for head, kinds in names.items()
        if "recurrent_kernel" in kinds and "kernel" in kinds
    }


def by_names(file: File, root: Any, layer: Described) -> Arrays:
    """Return the arrays of a layer that a configuration describes."""
    what = f"{file.where}: layer {layer.name!r}"
    top = layer.place[1] if len(layer.place) > 1 else layer.place[0]
    group = file.child(root, top)
    expect(file.is_group(group), what, f"weights in a group {top!r}", "none")
    sets = _sets(file, group)
    count = 1 + layer.bidirectional
    own = [arrays for head, arrays in sets.items() if layer.name in head.split("/")]
    found = own if len(own) == count else list(sets.values())
    expected = f"{count} set of weights" + "s" * (count - 1)
    expect(len(found) == count, what, expected, f"{len(found)}: {some(map(repr, sets))}")
    return found


def found_in_names(file: File, root: Any) -> Iterator[tuple[Described, Arrays]]:
    """Yield the recurrent layers of a file without a configuration."""
    for name in file.texts(root, "layer_names"):
        group = file.child(root, name)
        if not file.is_group(group):
            continue
        ways: dict[str, Arrays] = {}
        for head, arrays in _sets(file, group).items():
            parts = [part for part in head.split("/") if "_cell" not in part]
            outer = "/".join(p for p in parts if not p.startswith(("forward_", "backward_")))
            ways.setdefault(outer, []).append(arrays)
        for outer, found in ways.items():
            own = name if len(ways) == 1 else outer
            yield Described(own, (own,), "", "", {}, bidirectional=len(found) == 2), found


# -- files in which variables have numbers ------------------------------------------------------------------


def _variables(file: File, group: Any, cell: str = "cell") -> list[Array] | None:
    """Return the kernel, recurrent kernel and bias of a layer's cell."""
    held = file.child(group, f"{cell}/vars".strip("/"))
    if not file.is_group(held) or "1" not in held:
        return None
    return [file.array(file.child(held, number)) for number in ("0", "1", "2") if number in held]


def _directions(file: File, group: Any, bidirectional: bool) -> Arrays | None:
    """Return the arrays of a layer whose group this is."""
    inner = (
        [file.child(group, name) for name in ("forward_layer", "backward_layer")]
        if bidirectional
        else [group]
    )
    found = [_variables(file, item) if file.is_group(item) else None for item in inner]
    return (
        None
        if any(arrays is None for arrays in found)
        else [arrays for arrays in found if arrays is not None]
    )


def _name(file: File, group: Any) -> str:
    """Return the name of a layer that newer files hold, "" where there is none."""
    held = file.child(group, "vars")
    return file.text(held, "name") if file.is_group(held) else ""


def by_paths(file: File, root: Any, layer: Described) -> Arrays:
    """Return the arrays of a layer that a configuration describes."""
    path = layer.path
    if CHECKPOINT in root:
        path = path.replace("layers", CHECKPOINT)
    group = file.child(root, path)
    found = None
    if file.is_group(group) and _name(file, group) in ("", layer.name):
        found = _directions(file, group, layer.bidirectional)
    if found is None:  # a model written as a class keeps its layers elsewhere; newer files have their names
        for _, item in file.groups(root):
            if _name(file, item) == layer.name:
                found = _directions(file, item, layer.bidirectional) or found
    what = f"{file.where}: layer {layer.name!r}"
    expect(found is not None, what, f"weights in a group {path!r}", "none")
    assert found is not None
    return found


def found_in_paths(file: File, root: Any) -> Iterator[tuple[Described, Arrays]]:
    """Yield the recurrent layers of a file without a configuration, by their paths or by the names that it has."""
    done: set[str] = set()
    for path, group in file.groups(root):
        head, _, last = path.rpartition("/")
        if head in done or last in ("forward_layer", "backward_layer") or "optimizer" in path.split("/")[0]:
            continue
        both = _directions(file, group, True)
        found = both or _directions(file, group, False)
        if found is None and last.endswith("_cell"):  # a cell without a layer
            alone = _variables(file, group, "")
            found = None if alone is None or len(alone) < 2 else [alone]
        if found is None:
            continue
        parts = [part for part in path.split("/") if part not in ("layers", CHECKPOINT)]
        own = _name(file, group) or "/".join(parts)
        yield Described(own, ("model", *parts), path, "", {}, bidirectional=both is not None), found
