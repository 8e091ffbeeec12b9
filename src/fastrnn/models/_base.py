"""What the models share: hyperparameters, the training loop with checkpoints, saving and loading.

A model is a dataclass of hyperparameters (so ``get_params``, ``set_params`` and ``sklearn.base.clone`` work).
What ``fit`` learns from the data besides weights (vocabulary, classes, scales) is ``config_``, plain JSON;
the weights are in ``pieces_``, a dict of layers. Both together are a safetensors file.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn import init, io, optim
from fastrnn.io import copy_into
from fastrnn.nn import Dropout, Embedding, Linear

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]
Callback = Callable[["Model", dict[str, float]], object]

CELLS: dict[str, tuple[str, dict[str, str], int]] = {  # class, options, gates
    "lstm": ("LSTM", {}, 4),
    "gru": ("GRU", {}, 3),
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}, 1),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}, 1),
}
OPTIMISERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}
MAY_CHANGE = ("epochs", "patience", "verbose")  # between a run and its continuation
FORMAT = "fastrnn.models.1"


class NotFittedError(ValueError, AttributeError):
    """The model has no weights yet."""


class Run:
    """One pass through the pieces of a model, forward and back; every piece at most once."""

    def __init__(self, pieces: Mapping[str, Any], train: bool) -> None:
        self.pieces, self.train = pieces, train
        self.tapes: dict[str, Any] = {}
        self.grads: dict[str, Any] = {}

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Run a piece forward: gives y, of a recurrent layer (y, state)."""
        if not self.train:
            return self.pieces[name](*args, **kwargs)
        *y, self.tapes[name] = self.pieces[name].forward(*args, **kwargs)
        return y[0] if len(y) == 1 else tuple(y)

    def back(self, name: str, dy: Any, *dstate: Any) -> Any:
        """Run a piece backward: gives its gradients, and keeps them for the optimiser."""
        self.grads[name] = self.pieces[name].backward(self.tapes.pop(name), dy, *dstate)
        return self.grads[name]


@dataclass(eq=False, kw_only=True)
class Model:
    """Hyperparameters and training of every model.

    Parameters
    ----------
    cell : "lstm", "gru", "rnn_tanh" or "rnn_relu"
    hidden_size, num_layers : int
    dropout : float
        on what enters and leaves the recurrent layers and between them.
    init : None (PyTorch's default), "orthogonal", "identity", "xavier" or "forget_bias"
        how the recurrent layers start; None gives an LSTM the forget bias 1 too.
    optimizer : "adam", "adamw", "sgd" or "rmsprop"
    lr : float
    schedule : "constant", "cosine" or "linear"
        how lr falls to 0 over all epochs.
    weight_decay : float
    clip : float or None
        greatest norm of the gradient.
    epochs, batch_size : int
    patience : int or None
        stop after so many epochs without a better validation loss; the best weights are kept.
    dtype : "float32" or "float64"
    random_state : int
        fixes everything that is drawn.
    verbose : bool
        show a progress bar.
    """

    cell: str = "lstm"
    hidden_size: int = 128
    num_layers: int = 1
    dropout: float = 0.0
    init: str | None = None
    optimizer: str = "adam"
    lr: float = 3e-3
    schedule: str = "constant"
    weight_decay: float = 0.0
    clip: float | None = 1.0
    epochs: int = 10
    batch_size: int = 32
    patience: int | None = None
    dtype: str = "float32"
    random_state: int = 0
    verbose: bool = True

    # ---- what a model defines

    def _build(self, make: Factory) -> dict[str, Any]:
        """Make the pieces from the hyperparameters and ``config_``."""
        raise NotImplementedError

    def _plan(self, data: Any, rng: np.random.Generator | None) -> list[Any]:
        """Cut the data into the batches of one epoch; `rng` None: in order, for evaluation."""
        rows = np.arange(len(data[0])) if rng is None else rng.permutation(len(data[0]))
        return [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]

    def _step(self, run: Run, data: Any, batch: Any) -> tuple[float, int]:
        """Do one batch, backward too if ``run.train``: gives the mean loss in nats and of how many it is."""
        raise NotImplementedError

    # ---- training

    def _fit(
        self,
        data: Any,
        config: dict[str, Any],
        validation: Any = None,
        callbacks: Iterable[Callback] = (),
        resume: str | os.PathLike[str] | None = None,
    ) -> Self:
        self._check_params()
        if self.patience is not None and validation is None:
            raise ValueError("patience: expected validation data to go with it, got None")
        self._start(config)
        steps = self.epochs * len(self._plan(data, np.random.default_rng(0)))  # evaluation may cut otherwise
        optimiser = self._optimiser(steps)
        weights = {f"{n}.{k}": a for n, p in self.pieces_.items() for k, a in p.params.items()}
        best, best_weights = math.inf, {k: a.copy() for k, a in weights.items()}
        if resume is not None and Path(resume).exists():
            best = self._resume(resume, optimiser, weights, best_weights)
        while len(self.history_) < self.epochs and not self._out_of_patience():
            log = self._epoch(data, optimiser)
            if validation is not None:
                log["val_loss"] = self._mean_loss(validation)
            watched = log.get("val_loss", -math.inf)  # without validation the last weights are the best
            if watched < best or watched == -math.inf:
                best = watched
                for name, array in weights.items():
                    best_weights[name][...] = array
            self.history_.append(log)
            if resume is not None:
                tensors = {f"weights.{k}": a for k, a in weights.items()}
                tensors |= {f"best.{k}": a for k, a in best_weights.items()}
                tensors |= {f"optimiser.{k}": a for k, a in optimiser.state_dict().items()}
                io.save(resume, tensors, self._metadata(history=self.history_, best=best))
            if any([callback(self, log) for callback in callbacks]):
                break
        if validation is not None:
            copy_into(weights, best_weights)
        return self

    def _start(self, config: dict[str, Any]) -> None:
        """Make fresh pieces."""
        self.config_ = config
        # One generator for weights and dropout masks alike; every epoch seeds it anew, so that a resumed run
        # draws what the whole run would have drawn.
        self._rng = np.random.default_rng(self.random_state)
        self.pieces_ = self._build(Factory(self, self._rng))
        self.history_: list[dict[str, float]] = []

    def _optimiser(self, steps: int) -> Any:
        schedules: dict[str, Any] = {"cosine": optim.cosine, "linear": optim.linear}
        lr = schedules[self.schedule](self.lr, steps) if self.schedule in schedules else self.lr
        return OPTIMISERS[self.optimizer](list(self.pieces_.values()), lr, weight_decay=self.weight_decay)

    def _epoch(self, data: Any, optimiser: Any) -> dict[str, float]:
        epoch = len(self.history_) + 1
        seed = np.random.default_rng([self.random_state, epoch])
        self._rng.bit_generator.state = seed.bit_generator.state
        plan = self._plan(data, self._rng)
        total, count, norm, began = 0.0, 0, math.nan, time.perf_counter()
        with _bar(plan, f"epoch {epoch}/{self.epochs}", self.verbose) as bar:
            for batch in bar:
                run = Run(self.pieces_, train=True)
                loss, n = self._step(run, data, batch)
                if not math.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss became {loss} in epoch {epoch}: try a smaller lr or clip"
                    )
                norm = self._update(run, optimiser)
                total, count = total + loss * n, count + n
                if self.verbose:
                    rate = count / (time.perf_counter() - began)
                    bar.set_postfix(loss=f"{total / count:.4f}", tokens_per_s=f"{rate:,.0f}", refresh=False)
        return {"epoch": epoch, "loss": total / max(count, 1), "grad_norm": norm}

    def _update(self, run: Run, optimiser: Any) -> float:
        grads = [run.grads[name] for name in self.pieces_]
        norm = math.nan if self.clip is None else optim.clip_grad_norm(grads, self.clip)
        optimiser.step(grads)
        return norm

    def _mean_loss(self, data: Any) -> float:
        """Give the loss over all the data, in nats."""
        results = [
            self._step(Run(self.pieces_, train=False), data, batch) for batch in self._plan(data, None)
        ]
        return sum(loss * n for loss, n in results) / max(sum(n for _, n in results), 1)

    def _out_of_patience(self) -> bool:
        losses = [log["val_loss"] for log in self.history_ if "val_loss" in log]
        since = len(losses) - 1 - losses.index(min(losses)) if losses else -1
        return self.patience is not None and since >= self.patience

    def _resume(self, path: Any, optimiser: Any, weights: dict[str, Array], best: dict[str, Array]) -> float:
        tensors, metadata = io.read(path)
        stored, own = _header(path, metadata), _header(path, self._metadata())
        for part in ("params", "config"):
            wrong = {k for k in {*stored[part], *own[part]} if stored[part].get(k) != own[part].get(k)}
            if stored["class"] != own["class"] or wrong - set(MAY_CHANGE):
                raise ValueError(
                    f"resume: {path} is of another run: {sorted(wrong) or stored['class']} differ"
                )
        parts: dict[str, dict[str, Array]] = {"weights": {}, "best": {}, "optimiser": {}}
        for name, array in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = array
        copy_into(weights, parts["weights"], f"resume: {path}")
        copy_into(best, parts["best"], f"resume: {path}")
        optimiser.load_state_dict(parts["optimiser"])
        self.history_ = list(stored["history"])
        return float(stored["best"])

    # ---- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write hyperparameters, configuration and weights to one ``.safetensors`` (or ``.npz``) file."""
        self._check_fitted()
        io.save(path, self.pieces_, self._metadata())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; a damaged or hostile file is a ValueError."""
        tensors, metadata = io.read(path)
        try:
            header = _header(path, metadata)
            known = {c.__name__: c for c in _subclasses(cls)}
            model: Any = known[header["class"]](**header["params"])
            model._check_params()
            model.config_, model.history_ = header["config"], []
            model._rng = np.random.default_rng(model.random_state)
            # A hostile configuration could ask for any size: there must be no more weights than the file has.
            model.pieces_ = model._build(Factory(model, model._rng, sum(a.size for a in tensors.values())))
            weights = {f"{n}.{k}": a for n, p in model.pieces_.items() for k, a in p.params.items()}
            copy_into(weights, tensors)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"{os.fspath(path)}: not a sound {cls.__name__} file: {error!r}") from error
        return model  # type: ignore[no-any-return]

    def _metadata(self, **more: Any) -> dict[str, str]:
        header = {"class": type(self).__name__, "params": self.get_params(), "config": self.config_, **more}
        return {FORMAT: json.dumps(header, default=lambda number: number.item())}

    # ---- scikit-learn

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the hyperparameters."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Set hyperparameters; an unknown one is a ValueError."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(f"{name}: expected one of {sorted(self.get_params())}")
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pieces_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags())

    def _check_fitted(self) -> None:
        if not hasattr(self, "pieces_"):
            # scikit-learn's own error class where it is in use, for those who catch it
            sklearn = sys.modules.get("sklearn.exceptions")
            error = sklearn.NotFittedError if sklearn else NotFittedError
            raise error(f"this {type(self).__name__} is not fitted yet: call fit first")

    def _check_params(self) -> None:
        choices: dict[str, Iterable[Any]] = {"cell": CELLS, "optimizer": OPTIMISERS}
        choices |= {"schedule": ("constant", "cosine", "linear"), "dtype": ("float32", "float64")}
        choices |= {"init": (None, "orthogonal", "identity", "xavier", "forget_bias")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {list(allowed)}, got {getattr(self, name)!r}")
        for f in fields(self):
            value = getattr(self, f.name)
            if str(f.type).startswith("int") and not (value is None and "None" in str(f.type)):
                least = 0 if f.name == "random_state" else 1
                if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
                    raise ValueError(f"{f.name}: expected an integer of at least {least}, got {value!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected 0 <= dropout < 1, got {self.dropout}")


class Factory:
    """Makes the pieces of a model, and refuses to make more than `budget` parameters."""

    def __init__(self, model: Model, rng: np.random.Generator, budget: float = math.inf) -> None:
        self.model, self.rng, self.budget = model, rng, budget

    def _spend(self, parameters: int) -> None:
        self.budget -= parameters
        if self.budget < 0:
            raise ValueError("the configuration asks for more weights than the file holds")

    def embedding(self, vocabulary: Sequence[Any], size: int) -> Embedding:
        """Make a table with a row for every symbol."""
        self._spend(len(vocabulary) * size)
        return Embedding(len(vocabulary), size, dtype=self.model.dtype, rng=self.rng)

    def linear(self, inputs: int, outputs: int) -> Linear:
        """Make an affine map."""
        self._spend((inputs + 1) * outputs)
        return Linear(inputs, outputs, dtype=self.model.dtype, rng=self.rng)

    def dropout(self) -> Dropout:
        """Make a dropout of the model's rate."""
        return Dropout(self.model.dropout, rng=self.rng)

    def recurrent(self, inputs: int, *, hidden: int = 0, bidirectional: bool = False) -> Any:
        """Make the recurrent layers of the model, initialised as it says."""
        model = self.model
        name, options, gates = CELLS[model.cell]
        hidden = hidden or model.hidden_size
        directions = 1 + bidirectional
        for layer in range(model.num_layers):
            width = inputs if layer == 0 else hidden * directions
            self._spend(directions * gates * hidden * (width + hidden + 2))
        dropout = model.dropout if model.num_layers > 1 else 0.0
        kwargs: dict[str, Any] = {"dropout": dropout, "bidirectional": bidirectional, **options}
        kwargs |= {"dtype": np.dtype(model.dtype), "rng": self.rng}
        layers = getattr(fastrnn, name)(inputs, hidden, model.num_layers, **kwargs)
        if model.init in ("orthogonal", "xavier"):
            getattr(init, model.init)(layers, self.rng)
        elif model.init == "identity":
            init.identity(layers)
        if model.init == "forget_bias" or (model.cell == "lstm" and model.init is None):
            init.forget_bias(layers)
        return layers


# ---- symbols and sequences


def vocabulary(
    sequences: Iterable[Iterable[Any]], special: Sequence[Any] = (None,), min_count: int = 1
) -> list[Any]:
    """Give `special`, then the symbols (str or int) by falling frequency; index 0 is for unknown ones."""
    counts: Counter[Any] = Counter()
    for sequence in sequences:
        counts.update(sequence)
    wrong = [s for s in counts if not isinstance(s, (str, int)) or isinstance(s, bool)]
    if wrong:
        raise TypeError(f"X: expected symbols that are str or int, got {type(wrong[0]).__name__}")
    common = [s for s, n in counts.items() if n >= min_count]
    return [*special, *sorted(common, key=lambda s: (-counts[s], str(s)))]


def encode(symbols: Iterable[Any], vocabulary: Sequence[Any]) -> Array:
    """Give the index of every symbol, 0 for an unknown one."""
    index = {s: i for i, s in enumerate(vocabulary) if s is not None}
    return np.array([index.get(s, 0) for s in symbols], np.intp)


def pad(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Give int sequences as one array [T, B], padded with 0, and their lengths."""
    lengths = np.array([len(s) for s in sequences], np.intp)
    out = np.zeros((int(lengths.max(initial=0)), len(sequences)), np.intp)
    for b, s in enumerate(sequences):
        out[: len(s), b] = s
    return out, lengths


def _bar(plan: list[Any], description: str, verbose: bool) -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("fit needs tqdm: pip install 'fastrnn[models]'") from error
    return tqdm(plan, desc=description, disable=not verbose)


def _header(path: Any, metadata: Mapping[str, str]) -> dict[str, Any]:
    header = json.loads(metadata.get(FORMAT, "{}"))
    if not isinstance(header, dict) or not {"class", "params", "config"} <= set(header):
        raise ValueError(f"{os.fspath(path)}: not a file of a fastrnn model")
    return header


def _subclasses(cls: type[Model]) -> list[type[Model]]:
    return [cls, *(c for sub in cls.__subclasses__() for c in _subclasses(sub))]
