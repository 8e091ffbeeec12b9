"""Captioner: from features to a sentence, with the gradient of the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import expect
from fastrnn.models._data import finite
from fastrnn.models._errors import unchanged_on_failure
from fastrnn.models._factory import Factory
from fastrnn.models._inputs import array_of, check_names, names_of
from fastrnn.models._run import Run
from fastrnn.models._writer import Writer

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class Captioner(Writer):
    """From features to captions; a str is a sequence of characters, a list of str one of words.

    A decoder whose first state is made from features (Vinyals et al. 2015). `X` is an array of features [n, F]. `y`
    has the captions. h_0, and c_0 of an LSTM, is tanh(linear(features)). `fit` takes the features as they are. To
    train the network that makes them as well, use `partial_fit`, which returns their gradient.

    Parameters
    ----------
    embedding_size : int
    min_count : int
        rarer tokens are treated as one unknown token, which is never written.
    label_smoothing : float
    bucketing : bool
        whether the captions of a batch are of like length, so that less of it is padding.
    **hyperparameters
        of every model: see `Model`.

    Examples
    --------
    >>> features, captions = np.eye(3), ["a cat".split(), "a dog".split(), "two dogs".split()]
    >>> model = Captioner(hidden_size=16, epochs=60, lr=0.02, verbose=False).fit(features, captions)
    >>> model.predict(features[:1])
    [['a', 'cat']]
    """

    def partial_fit(
        self, X: ArrayLike, y: Sequence[Any], *, captions: Sequence[Any] | None = None
    ) -> tuple[float, Array]:
        """Take one step on one batch; return the loss and the gradient of the features [n, F].

        The first call starts the model: its vocabulary is that of `captions`, by default of `y`. `schedule` must be
        "constant".

        Raises
        ------
        FloatingPointError
            loss or gradient are not finite; the weights stay as they are.
        """
        with unchanged_on_failure(self):
            self._check_params()
            if "modules_" not in vars(self):
                self._made_with = self.get_params()
            expect(
                self.schedule == "constant",
                "schedule",
                "'constant', since steps have no end",
                repr(self.schedule),
            )
            if "modules_" not in vars(self):
                config = self._configure(X, y)
                target = {} if captions is None else self._configure_target(captions, "captions")
                self._start(config | target)
            if self._kept_optimiser is None:
                self._kept_optimiser = self._optimiser(steps=0)
            run = Run(self.modules_, train=True)
            data = self._prepare(X, y, self.config_)
            loss, _ = self._step(run, data, np.arange(len(data[1])))
            self._update(run, self._kept_optimiser, loss)
        return loss, run.grads["project"].x

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        x, names = array_of("X", X, "features [n, F]"), names_of(X)
        expect(x.ndim == 2, "X", "features [n, F]", f"shape {x.shape}")
        config = {"n_features": x.shape[1], "n_features_in": x.shape[1], **super()._configure(X, y)}
        return config if names is None else config | {"feature_names": names}

    def _sources(self, X: Any, config: dict[str, Any]) -> Array:
        check_names(type(self).__name__, names_of(X), config.get("feature_names"))
        x = array_of("X", X, "features [n, F]")
        expect(x.dtype.kind in "fiu", "X", "numbers", x.dtype)
        width = config["n_features"]
        expect(x.ndim == 2 and x.shape[1] == width, "X", f"shape [n, {width}]", x.shape)
        return finite(x, self._made.dtype)

    def _build(self, make: Factory) -> dict[str, Any]:
        size = (1 + (self.cell == "lstm")) * self.num_layers * self.hidden_size
        project = make.linear(self.config_["n_features"], size, "tanh")
        return {"project": project, **self._build_writer(make)}

    def _read(self, run: Run, sources: Sequence[Array]) -> tuple[Any, Any]:
        made = self._made
        joined = run("project", np.stack(sources))  # [n, parts * L * H]
        parts = joined.reshape(len(sources), -1, made.num_layers, made.hidden_size).transpose(1, 2, 0, 3)
        parts = np.ascontiguousarray(parts)
        return (tuple(parts) if made.cell == "lstm" else parts[0]), None

    def _read_back(self, run: Run, dstate: Any, dmemory: Any) -> None:
        parts = np.stack(dstate if isinstance(dstate, tuple) else (dstate,))
        run.back(parts.transpose(2, 0, 1, 3).reshape(parts.shape[2], -1), "project")
