"""The engines that packages with real models have of their own, loaded without the rest of those packages."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import real_models


def _loaded(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


def g2p_en(source: Path) -> Any:
    """An object whose ``predict(word)`` returns phonemes, computed in NumPy."""
    names = ["nltk", "nltk.corpus", "nltk.tokenize", "g2p_en", "g2p_en.expand"]
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in names}):
        return _loaded("g2p_en.g2p", source).G2p()


def madmom(folder: Path, path: Path) -> list[Any]:
    """The layers of a network of madmom's as its own objects, computed in NumPy; ``folder`` has its layers.py."""
    for name in ("madmom", "madmom.ml", "madmom.ml.nn"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    functions = _loaded("madmom.ml.nn.activations", folder / "activations.py")
    layers = _loaded("madmom.ml.nn.layers", folder / "layers.py")

    def real(part: Any) -> Any:
        if isinstance(part, real_models.Part):
            kind = getattr(layers, type(part).__name__)
            new = kind.__new__(kind)
            state = {key: real(value) for key, value in vars(part).items()}
            if hasattr(new, "__setstate__"):
                new.__setstate__(state)
            else:
                vars(new).update(state)
            return new
        return getattr(functions, part[1]) if isinstance(part, tuple) else part

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [real(layer) for layer in real_models.madmom_layers(path)]
