"""What the models of whole sequences share: inputs of tokens or numbers, recurrent layers, a final state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import Ragged
from fastrnn._arrays import expect
from fastrnn.models._base import Callbacks, Checkpoint, Model
from fastrnn.models._data import encode, expect_width, scale_of, scaled, vocabulary
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import NUMBERS, array_of, check_names, common_names, items, names_of, sequences_of
from fastrnn.models._run import Run

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class SequenceModel(Model):
    """An embedding if the sequences are of tokens, then recurrent layers and a linear layer."""

    inputs: str = "auto"
    bidirectional: bool = True
    embedding_size: int = 64
    min_count: int = 1
    _each_step: ClassVar[bool] = False  # whether there is a target at each step, or one for a sequence

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: ArrayLike | None = None,
        validation: Any = None,
        callbacks: Callbacks = (),
        resume: Checkpoint = None,
    ) -> Self:
        """Train on `X` and `y`, which the class describes; return the model.

        Parameters
        ----------
        sample_weight : array [n], optional
            how much each sequence counts in training; finite and not negative.
        validation, callbacks, resume
            as in `Model.fit`.
        """
        return self._fit(X, y, sample_weight, validation, callbacks, resume)

    def _input_config(self, X: Any) -> dict[str, Any]:
        """Learn what the sequences are: their kind, and vocabulary or scale."""
        sequences, kind = sequences_of(X, self.inputs)
        expect(sequences, "X", "at least 1 sequence", "0 sample(s)")
        config: dict[str, Any] = {"kind": kind}
        if kind == NUMBERS:
            config |= scale_of(sequences)
        else:
            config |= {"n_features": 1, "vocabulary": vocabulary(sequences, min_count=self.min_count)}
        shape: tuple[int, ...] = getattr(X, "shape", ())
        config["n_features_in"] = shape[1] if len(shape) == 2 else config["n_features"]
        names = _names(X)
        return config if names is None else config | {"feature_names": names}

    def _inputs(self, X: Any, config: dict[str, Any]) -> list[Array]:
        """Return every sequence as an array: scaled floats [T, D], or indices [T] of tokens."""
        check_names(type(self).__name__, _names(X), config.get("feature_names"))
        kind = config.get("kind", NUMBERS if "mean" in config else "mixed")
        sequences, _ = sequences_of(X, self._made.inputs, kind)
        expect(sequences, "X", "at least 1 sequence", "0")
        if "vocabulary" in config:
            return [encode(s, config["vocabulary"]) for s in sequences]
        for s in sequences:
            expect_width(s, config["n_features"], type(self).__name__)
        dtype = self._made.dtype
        return [scaled(s, config["mean"], config["scale"], dtype) for s in sequences]

    def _build_stack(self, make: Factory, outputs: int) -> dict[str, Any]:
        tokens = self.config_.get("vocabulary")
        width = len(self.config_["mean"]) if tokens is None else self.embedding_size
        return make.stack(tokens, width, outputs, bidirectional=self.bidirectional)

    def _forward(self, run: Run, inputs: Sequence[Array]) -> Array:
        """Return the input of the linear layer, one vector for each target of a batch."""
        x = np.concatenate(inputs)
        x = run("embedding", x) if "embedding" in self.modules_ else x
        y, state = run("rnn", Ragged(run("drop_in", x), list(map(len, inputs))))
        if self._each_step:
            last = y.values
        else:
            h = state[0] if isinstance(state, tuple) else state  # [L * D, B, H]
            last = np.concatenate(list(h[-1 - self._made.bidirectional :]), axis=1)
        return run("drop_out", last)  # type: ignore[no-any-return]

    def _back(self, run: Run, dlast: Array, inputs: Sequence[Array]) -> None:
        """Run everything before the linear layer backward."""
        dlast = run.back(dlast, "drop_out").x
        embedded = "embedding" in self.modules_
        if self._each_step:
            g = run.back(Ragged(dlast, list(map(len, inputs))), "rnn", need_dx=embedded)
        else:
            g = run.back(None, "rnn", state=self._state_gradient(dlast), need_dx=embedded)
        if embedded:
            run.back(g.x.values, "drop_in", "embedding")
        else:
            run.skip("drop_in")

    def _state_gradient(self, dlast: Array) -> Any:
        """Return the gradient of the final state, from that of the last layer's h with its directions joined."""
        directions = 1 + self._made.bidirectional
        dh = np.zeros((self._made.num_layers * directions, len(dlast), self._made.hidden_size), dlast.dtype)
        dh[-directions:] = np.split(dlast, directions, axis=1)
        return (dh, None) if self._made.cell == "lstm" else dh

    def _outputs(self, X: Any) -> tuple[Array, list[int]]:
        """Return the linear layer's outputs, one for each target, and the numbers of targets of the sequences."""
        self._check_fitted()
        inputs, run = self._inputs(X, self.config_), Run(self.modules_, train=False)
        batches = ([inputs[i] for i in batch] for batch in self._plan((inputs,), None))
        return np.concatenate([run("head", self._forward(run, batch)) for batch in batches]), self._counts(
            inputs
        )

    def _counts(self, inputs: Sequence[Array]) -> list[int]:
        """Return the number of targets of each sequence."""
        return [len(x) if self._each_step else 1 for x in inputs]

    def _sample_weights(self, sample_weight: Any, counts: list[int]) -> list[Array] | None:
        """Return the weight of each target, an array for each sequence; they are 1 on average over sequences."""
        if sample_weight is None:
            return None
        w = array_of("sample_weight", sample_weight, "numbers [n]")
        expect(w.dtype.kind in "fiub", "sample_weight", "numbers", w.dtype, TypeError)
        expect(w.shape == (len(counts),), "sample_weight", f"shape ({len(counts)},)", w.shape)
        w = w.astype(np.float64)
        sound = np.isfinite(w).all() and (w >= 0).all()
        expect(sound, "sample_weight", "finite numbers of at least 0", "others")
        expect(w.sum() > 0, "sample_weight", "a number above 0", "all weights are zero")
        return [np.full(n, weight) for n, weight in zip(counts, w / w.mean(), strict=True)]


def _names(X: Any) -> list[str] | None:
    own = names_of(X)
    if own is not None or hasattr(X, "__array__") or isinstance(X, str) or not hasattr(X, "__len__"):
        return own
    return common_names(items("X", X))
