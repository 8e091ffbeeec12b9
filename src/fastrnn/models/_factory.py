"""The factory: makes the modules of a model from its hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import fastrnn
from fastrnn import init
from fastrnn._parameters import GATES
from fastrnn.models._hyperparameters import DRAWN, INITS
from fastrnn.nn import Dropout, Embedding, Linear

if TYPE_CHECKING:
    from fastrnn.models._base import Model


class Factory:
    """Makes the modules of a model, and refuses to make more than `budget` parameters."""

    def __init__(self, model: Model, rng: np.random.Generator, budget: float) -> None:
        self.model, self.rng, self.budget = model, rng, budget

    def _spend(self, parameters: int) -> None:
        self.budget -= parameters
        if self.budget < 0:
            raise ValueError("the configuration asks for more weights than the file holds")

    def embedding(self, vocabulary: Sequence[Any], size: int) -> Embedding:
        """Make a table with a vector for every token."""
        self._spend(len(vocabulary) * size)
        return Embedding(len(vocabulary), size, dtype=self.model.dtype, rng=self.rng)

    def linear(self, inputs: int, outputs: int, activation: str | None = None) -> Linear:
        """Make an affine map, and an activation behind it."""
        self._spend((inputs + 1) * outputs)
        return Linear(inputs, outputs, activation=activation, dtype=self.model.dtype, rng=self.rng)

    def dropout(self) -> Dropout:
        """Make a dropout of the model's rate."""
        return Dropout(self.model.dropout, rng=self.rng)

    def recurrent(self, inputs: int, *, hidden: int = 0, bidirectional: bool = False) -> Any:
        """Make the recurrent layers of the model, initialised as its hyperparameters say."""
        model = self.model
        hidden = hidden or model.hidden_size
        directions = 1 + bidirectional
        for layer in range(model.num_layers):
            width = inputs if layer == 0 else hidden * directions
            self._spend(directions * GATES[model.cell] * hidden * (width + hidden + 2))
        name, _, nonlinearity = model.cell.partition("_")
        options: dict[str, Any] = {"nonlinearity": nonlinearity} if nonlinearity else {}
        options |= {"dropout": model.dropout if model.num_layers > 1 else 0.0, "bidirectional": bidirectional}
        options |= {"dtype": np.dtype(model.dtype), "rng": self.rng}
        layers = getattr(fastrnn, name.upper())(inputs, hidden, model.num_layers, **options)
        if model.init is not None:
            INITS[model.init](layers, *[self.rng] * (model.init in DRAWN))
        elif model.cell == "lstm":
            init.forget_bias(layers)
        return layers

    def stack(
        self, tokens: Sequence[Any] | None, inputs: int, outputs: int, *, bidirectional: bool = False
    ) -> dict[str, Any]:
        """Make recurrent layers and a linear layer behind them; before them an embedding, if there are tokens."""
        front = {} if tokens is None else {"embedding": self.embedding(tokens, inputs)}
        return front | {
            "drop_in": self.dropout(),
            "rnn": self.recurrent(inputs, bidirectional=bidirectional),
            "drop_out": self.dropout(),
            "head": self.linear((1 + bidirectional) * self.model.hidden_size, outputs),
        }
