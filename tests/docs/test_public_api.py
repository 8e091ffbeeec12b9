"""The public names: every one is documented, visible to type checkers, and reachable by its old name for a while."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import demo, diagnostics, functional, io, models, nn
from fastrnn.layers import SHARED_PARAMETERS

PACKAGE = Path(fastrnn.__file__).parent
MODULES = [
    "cells",
    "config",
    "diagnostics",
    "functional",
    "gradients",
    "init",
    "io",
    "layers",
    "losses",
    "models",
]
MODULES += ["nn", "optim", "parallel", "ragged", "reference", "text"]
MODULES += ["keras"]
MODULES += ["onnx"] * (importlib.util.find_spec("onnx") is not None)


def public(module: Any) -> Iterator[tuple[str, Any]]:
    """The public functions and classes of a module, and the public methods and properties of the classes."""
    own = [
        n for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", "") == module.__name__
    ]
    for name in getattr(module, "__all__", own):
        thing = getattr(module, name)
        if not inspect.isclass(thing) and not inspect.isfunction(thing):
            continue
        yield name, thing
        for method in dir(thing) if inspect.isclass(thing) else ():
            value = inspect.getattr_static(thing, method)
            value = getattr(value, "fget", None) or getattr(value, "__func__", value)
            named = not method.startswith("_") or method == "__call__"
            if named and inspect.isfunction(value) and value.__module__.startswith("fastrnn"):
                yield f"{name}.{method}", value


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_documented(name: str) -> None:
    module = importlib.import_module(f"fastrnn.{name}")
    assert module.__doc__
    found = list(public(module))
    assert found
    for what, thing in found:
        assert inspect.getdoc(thing), what


@pytest.mark.parametrize("name", MODULES)
def test_functions_say_what_they_return(name: str) -> None:
    """A summary is an imperative, as in numpydoc: "Return ...", not "Give ..." or "Returns ..."."""
    for what, thing in public(importlib.import_module(f"fastrnn.{name}")):
        first = (inspect.getdoc(thing) or "").split()[0]
        assert first not in ("Give", "Gives", "Returns"), what


@pytest.mark.parametrize("layer", [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU])
def test_layers_document_every_argument(layer: type) -> None:
    documented = inspect.getdoc(layer) or ""
    assert not any(placeholder in documented for placeholder in SHARED_PARAMETERS)
    head = documented.partition("Examples")[0]
    names = [
        word.strip()
        for line in head.splitlines()
        if " : " in line
        for word in line.split(" : ")[0].split(",")
    ]
    assert names == list(inspect.signature(layer).parameters)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_functions_show_every_argument(cell: str) -> None:
    layer = getattr(fastrnn, cell.upper())
    call = set(inspect.signature(layer.__call__).parameters) - {"self"}
    assert call | {"params", "batch_first"} <= set(inspect.signature(getattr(functional, cell)).parameters)
    training = set(inspect.signature(layer.forward).parameters) - {"self"}
    shown = inspect.signature(getattr(functional, f"{cell}_forward")).parameters
    assert training | {"params", "batch_first", "dropout", "rng"} <= set(shown)
    assert all(p.kind is not p.VAR_KEYWORD for p in shown.values())


def test_typed_and_complete_for_editors() -> None:
    assert (PACKAGE / "py.typed").exists()
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(fastrnn.__all__) <= imported
    for name in fastrnn.__all__:
        assert getattr(fastrnn, name) is not None


def test_old_names_warn(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match=r"Piece is called Module now"):
        assert nn.Piece is nn.Module
    rng = np.random.default_rng(0)
    with pytest.warns(DeprecationWarning, match="rows is called sequences"):
        assert len(fastrnn.Ragged.from_list(rows=[np.ones((2, 3))])) == 1  # type: ignore[call-arg]
    stream = fastrnn.GRU(2, 3).stream(2)
    stream.step(rng.standard_normal((2, 2)))
    with pytest.warns(DeprecationWarning, match="rows is called sequences"):
        stream.reset(rows=[0])  # type: ignore[call-arg]
    assert not stream.state[0, 0].any()
    assert stream.state[0, 1].all()
    modules = {"head": nn.Linear(2, 3)}
    io.save(tmp_path / "weights.npz", modules)
    with pytest.warns(DeprecationWarning, match="pieces is called modules"):
        io.restore(tmp_path / "weights.npz", pieces=modules)  # type: ignore[call-arg]
    with pytest.warns(DeprecationWarning, match="symbols is called vocabulary_size"):
        demo.kneser_ney(np.array([0, 1] * 9), np.array([0, 1] * 9), symbols=2)  # type: ignore[call-arg]
    pyplot = pytest.importorskip("matplotlib.pyplot")
    _, axes = pyplot.subplots()
    with pytest.warns(DeprecationWarning, match="row is called sequence"):
        diagnostics.plot_hidden_states(np.ones((1, 3, 2, 4)), row=1, ax=axes)  # type: ignore[call-arg]
    pyplot.close()


def test_old_models_can_be_unpickled() -> None:
    model = models.LanguageModel(hidden_size=4, epochs=1, verbose=False).fit("abcd" * 20)
    with pytest.warns(DeprecationWarning, match="pieces_ is called modules_"):
        assert model.pieces_ is model.modules_
    state = dict(vars(model))
    state["pieces_"] = state.pop("modules_")
    old = models.LanguageModel.__new__(models.LanguageModel)
    old.__setstate__(state)
    assert old.predict("ab") == pickle.loads(pickle.dumps(model)).predict("ab") == model.predict("ab")
