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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn import init, io, optim
from fastrnn._arrays import expect
from fastrnn.io import PathLike
from fastrnn.losses import linear_softmax_cross_entropy
from fastrnn.nn import Dropout, Embedding, Linear

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]
Callbacks = Iterable[Callable[["Model", dict[str, float]], object]]
Checkpoint = PathLike | None
Seed = np.random.Generator | int | None

CELLS: dict[str, tuple[str, dict[str, str], int]] = {  # class, options, gates
    "lstm": ("LSTM", {}, 4),
    "gru": ("GRU", {}, 3),
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}, 1),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}, 1),
}
OPTIMISERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}
SCHEDULES: dict[str, Any] = {"constant": lambda lr, _: lr, "cosine": optim.cosine, "linear": optim.linear}
INITS: dict[str, Any] = {"identity": init.identity, "forget_bias": init.forget_bias}
INITS |= {"orthogonal": init.orthogonal, "xavier": init.xavier}
DRAWN = ("orthogonal", "xavier")
CHOICES: dict[str, Iterable[str]] = {"cell": CELLS, "optimizer": OPTIMISERS, "schedule": SCHEDULES}
CHOICES |= {"init": INITS, "dtype": ("float32", "float64")}
BELOW_ONE, ABOVE_ZERO = ("dropout", "label_smoothing"), ("clip",)
MAY_CHANGE = {"epochs", "patience", "verbose"}  # between a run and its continuation
CONFIG: dict[str, type | tuple[type, ...]] = {  # what may stand in config_; of lists, in each place
    **dict.fromkeys(("vocabulary", "source", "target"), (str, int, type(None))),
    **dict.fromkeys(("mean", "scale"), float),
    **dict.fromkeys(("text", "one_dimensional"), bool),
    **dict.fromkeys(("longest", "n_features"), int),
    "classes": (str, int, float),
}
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

    def loss(
        self, name: str, x: Any, targets: Any, weights: Any = None, *, label_smoothing: float = 0.0
    ) -> Any:
        """Return the cross-entropy of a linear piece's outputs, and the gradient of what goes into it.

        That gradient is None where nothing is trained. The piece's own is kept for the optimiser.
        """
        smoothing = label_smoothing if self.train else 0.0
        loss, g = linear_softmax_cross_entropy(
            self.pieces[name], x, targets, weights, label_smoothing=smoothing, gradient=self.train
        )
        if g is None:
            return loss, None
        self.grads[name] = g
        return loss, g.x

    def back(self, dy: Any, *names: str, state: Any = None) -> Any:
        """Run pieces backward, one after the other: gives the last one's gradients, keeps all for the optimiser.

        `state` is the gradient of the first one's final state.
        """
        for name in names:
            args = (dy,) if state is None else (dy, state)
            self.grads[name] = self.pieces[name].backward(self.tapes.pop(name), *args)
            dy, state = self.grads[name].x, None
        return self.grads[names[-1]]


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

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        """Learn from the data what is not a weight."""
        raise NotImplementedError

    def _prepare(self, X: Any, y: Any, config: dict[str, Any]) -> Any:
        """Check data, and bring them into the form in which `_plan` and `_step` take them."""
        raise NotImplementedError

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

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: Any = None,
        callbacks: Callbacks = (),
        resume: Checkpoint = None,
    ) -> Self:
        """Train on `X` and `y`, as the class describes them.

        Parameters
        ----------
        validation : another pair (X, y), or another X of a model without y
            the loss on it is measured after each epoch, and the weights with the least are kept.
        callbacks : list of functions (model, log)
            called after each epoch with its loss, val_loss and grad_norm; training ends where one gives True.
        resume : path ending in .safetensors or .npz
            of a checkpoint, written after each epoch. If the file exists, training goes on from it, to the
            same bits as if it had never been interrupted.

        Raises
        ------
        ValueError, TypeError
            naming the argument, what was expected and what came.
        FloatingPointError
            where the loss or its gradient is no longer finite.
        """
        expect(isinstance(callbacks, Iterable), "callbacks", "a list", type(callbacks).__name__, TypeError)
        callbacks = list(callbacks)
        with unchanged_on_failure(self):
            self._check_params()
            if self.patience is not None:
                expect(validation is not None, "patience", "validation data to go with it", "None")
            config = self._configure(X, y)
            data, held_out = self._prepare(X, y, config), None
            if validation is not None:
                with _blamed_on("validation"):
                    X, y = (validation, None) if y is None else validation
                    held_out = self._prepare(X, y, config)
            self._start(config)
            # The batches of training are counted: evaluation may cut the data otherwise.
            optimiser = self._optimiser(self.epochs * len(self._plan(data, np.random.default_rng(0))))
            weights = self._weights()
            best = {} if validation is None else {name: array.copy() for name, array in weights.items()}
            if resume is not None:
                # One is written at once, so that a path that cannot be written shows before an epoch is lost.
                (self._continue if Path(resume).exists() else self._checkpoint)(resume, optimiser, best)
        while len(self.history_) < self.epochs and (self.patience is None or self._waited() < self.patience):
            log = self._epoch(data, optimiser)
            if validation is not None:
                log["val_loss"] = self._mean_loss(held_out)
            self.history_.append(log)
            if self._waited() == 0:
                io.copy_into(best, {name: weights[name] for name in best})
            if resume is not None:
                self._checkpoint(resume, optimiser, best)
            if any([callback(self, log) for callback in callbacks]):
                break
        io.copy_into({name: weights[name] for name in best}, best)
        return self

    def _start(self, config: dict[str, Any], budget: float = math.inf) -> None:
        """Make fresh pieces, of no more than `budget` parameters."""
        self.config_ = config
        # One generator for weights and dropout masks alike; every epoch seeds it anew, so that a resumed run
        # draws what the whole run would have drawn.
        self._rng = np.random.default_rng(self.random_state)
        self.pieces_ = self._build(Factory(self, self._rng, budget))
        self._made_with = self.get_params()
        self.history_: list[dict[str, float]] = []
        self._kept_optimiser: Any = None  # of partial_fit

    def _weights(self) -> dict[str, Array]:
        return _flat({name: piece.params for name, piece in self.pieces_.items()})

    def _optimiser(self, steps: int) -> Any:
        lr = SCHEDULES[self.schedule](self.lr, steps)
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
                norm = self._update(run, optimiser, loss, f" in epoch {epoch}")
                total, count = total + loss * n, count + n
                if self.verbose:
                    rate = count / (time.perf_counter() - began)
                    bar.set_postfix(loss=f"{total / count:.4f}", tokens_per_s=f"{rate:,.0f}", refresh=False)
        return {"epoch": epoch, "loss": total / max(count, 1), "grad_norm": norm}

    def _update(self, run: Run, optimiser: Any, loss: float, when: str = "") -> float:
        """Take a step, where all is finite, and give the norm of the gradient."""
        grads = [run.grads[name] for name in self.pieces_]
        problem = "became {}" + f"{when}: lr too high, or no clip?"
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss {problem.format(loss)}")
        norm: float = optimiser.step(grads, clip_norm=math.inf if self.clip is None else self.clip)
        if not math.isfinite(norm):  # nothing was updated
            raise FloatingPointError(f"the norm of the gradient {problem.format(norm)}")
        return norm

    def _mean_loss(self, data: Any) -> float:
        """Give the loss over all the data, in nats."""
        run = Run(self.pieces_, train=False)
        results = [self._step(run, data, batch) for batch in self._plan(data, None)]
        return sum(loss * n for loss, n in results) / max(sum(n for _, n in results), 1)

    def _waited(self) -> int:
        """Give the number of epochs since the least validation loss."""
        losses = [log["val_loss"] for log in self.history_ if "val_loss" in log]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    # ---- files

    def save(self, path: PathLike) -> None:
        """Write hyperparameters, configuration and weights to one ``.safetensors`` (or ``.npz``) file.

        The hyperparameters are those that the weights were made with, whatever `set_params` changed since.
        """
        self._check_fitted()
        io.save(path, self._weights(), self._metadata())

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read what `save` wrote; a damaged or hostile file is a ValueError."""
        with _blamed_on(f"{os.fspath(path)}: not a sound {cls.__name__} file"):
            tensors, header = _read(path)
            classes = {c.__name__: c for c in _subclasses(cls)}
            held, wanted = header["class"], " or ".join(classes)
            expect(held in list(classes), "class", f"a file of a {wanted}", f"one of a {held}")
            model: Any = classes[held](**header["params"])
            model._check_params()
            # A hostile configuration could ask for any size: there must be no more weights than the file has.
            model._start(header["config"], sum(array.size for array in tensors.values()))
            io.copy_into(model._weights(), tensors)
        return model  # type: ignore[no-any-return]

    def _checkpoint(self, path: PathLike, optimiser: Any, best: dict[str, Array]) -> None:
        state = {"weights": self._weights(), "best": best, "optimiser": optimiser.state_dict()}
        io.save(path, _flat(state), self._metadata(history=self.history_))

    def _continue(self, path: PathLike, optimiser: Any, best: dict[str, Array]) -> None:
        with _blamed_on(f"resume: {os.fspath(path)}"):
            tensors, stored = _read(path)
            own = json.loads(self._metadata()[FORMAT])
            differ = {"class"} if stored["class"] != own["class"] else set()
            for part in ("params", "config"):
                keys = {*stored[part], *own[part]} - MAY_CHANGE
                differ |= {k for k in keys if stored[part].get(k) != own[part].get(k)}
            if differ:
                raise ValueError(f"expected a checkpoint of this run, but {sorted(differ)} differ")
            state, history = optimiser.state_dict(), [dict(log) for log in stored["history"]]
            if not all(isinstance(number, (int, float)) for log in history for number in log.values()):
                raise ValueError("expected numbers in the history")
            io.copy_into(_flat({"weights": self._weights(), "best": best, "optimiser": state}), tensors)
            optimiser.load_state_dict(state)
            self.history_ = history

    def _metadata(self, **more: Any) -> dict[str, str]:
        header = {"class": type(self).__name__, "params": self._made_with, "config": self.config_, **more}
        return {FORMAT: json.dumps(header, default=lambda number: number.item())}

    # ---- scikit-learn

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the hyperparameters."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Set hyperparameters; an unknown one is a ValueError."""
        for name, value in params.items():
            expect(name in self.get_params(), name, f"one of {sorted(self.get_params())}", "another name")
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
        for f in fields(self):
            value, kind = getattr(self, f.name), str(f.type)
            fits: Any
            if value is None and "None" in kind:
                continue
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if f.name in CHOICES:
                fits, expected = value in list(CHOICES[f.name]), f"one of {list(CHOICES[f.name])}"
            elif kind.startswith("int"):
                least = 0 if f.name == "random_state" else 1
                fits = isinstance(value, (int, np.integer)) and number and least <= value < 2**63
                expected = f"an integer of at least {least}"
            elif kind.startswith("float"):
                limit = 1 if f.name in BELOW_ONE else math.inf
                above = number and (value > 0 if f.name in ABOVE_ZERO else value >= 0)
                fits, start = above and value < limit, "0 <" if f.name in ABOVE_ZERO else "0 <="
                expected = f"{start} {f.name} < {limit}"
            else:
                fits, expected = value in (True, False), "True or False"
            expect(fits, f.name, expected, repr(value))


class Factory:
    """Makes the pieces of a model, and refuses to make more than `budget` parameters."""

    def __init__(self, model: Model, rng: np.random.Generator, budget: float) -> None:
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
        if model.init is not None:
            INITS[model.init](layers, *[self.rng] * (model.init in DRAWN))
        elif model.cell == "lstm":
            init.forget_bias(layers)
        return layers

    def stack(
        self, symbols: Sequence[Any] | None, inputs: int, outputs: int, *, bidirectional: bool = False
    ) -> dict[str, Any]:
        """Make an embedding in front (if there are symbols), recurrent layers, and a linear layer behind."""
        front = {} if symbols is None else {"embedding": self.embedding(symbols, inputs)}
        return front | {
            "drop_in": self.dropout(),
            "rnn": self.recurrent(inputs, bidirectional=bidirectional),
            "drop_out": self.dropout(),
            "head": self.linear((1 + bidirectional) * self.model.hidden_size, outputs),
        }


# ---- symbols and sequences


def vocabulary(
    sequences: Iterable[Iterable[Any]], special: Sequence[Any] = (None,), min_count: int = 1, name: str = "X"
) -> list[Any]:
    """Give `special`, then the symbols (str or int) by falling frequency; index 0 is for unknown ones."""
    counts: Counter[Any] = Counter()
    with _symbols(name):
        for sequence in sequences:
            counts.update(sequence)
    kinds = {type(s).__name__ for s in counts if not isinstance(s, (str, int)) or isinstance(s, bool)}
    expect(not kinds, name, "symbols that are str or int", ", ".join(kinds), TypeError)
    common = [s for s, n in counts.items() if n >= min_count]
    return [*special, *sorted(common, key=lambda s: (-counts[s], str(s)))]


def encode(symbols: Iterable[Any], vocabulary: Sequence[Any], name: str = "X") -> Array:
    """Give the index of every symbol, 0 for an unknown one."""
    index = {s: i for i, s in enumerate(vocabulary) if s is not None}
    with _symbols(name):
        return np.array([index.get(s, 0) for s in symbols], np.intp)


@contextmanager
def _symbols(name: str) -> Iterator[None]:
    """Name the argument where something is no sequence, or no symbol that can be looked up."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{name}: expected sequences of symbols that are str or int, got {error}") from error


def sized(name: str, value: Any) -> Any:
    """Give a value that has a length."""
    expect(hasattr(value, "__len__"), name, "a sequence", type(value).__name__, TypeError)
    return value


def pad(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Give int sequences as one array [T, B], padded with 0, and their lengths."""
    lengths = np.array([len(s) for s in sequences], np.intp)
    out = np.zeros((int(lengths.max(initial=0)), len(sequences)), np.intp)
    for b, s in enumerate(sequences):
        out[: len(s), b] = s
    return out, lengths


def scale_of(rows: Sequence[Array]) -> dict[str, Any]:
    """Give mean and standard deviation of every feature of sequences [T, D]; without steps one has no D."""
    filled = [row for row in rows if row.size]
    if not filled:
        raise ValueError(f"X: got 0 feature(s) (shape=({len(rows)}, 0)) while a minimum of 1 is required.")
    widths = sorted({row.shape[1] for row in filled})
    expect(len(widths) == 1, "X", "sequences [T, D] of one D", widths)
    steps = np.concatenate(filled)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = steps.mean(axis=0), steps.std(axis=0)
    expect(np.isfinite(std).all(), "X", "numbers whose variance is finite in float64", "greater ones")
    scale = np.where(std > 0, std, 1.0).tolist()
    return {"n_features": widths[0], "mean": mean.tolist(), "scale": scale}


def scaled(row: Array, config: Mapping[str, Any], dtype: str) -> Array:
    """Give a sequence [T, D] less the mean, in standard deviations."""
    mean, scale = np.array(config["mean"]), np.array(config["scale"])
    fits = not row.size or row.shape[1] == len(mean)
    expect(fits, "X", f"{len(mean)} values a step, as in fit", f"{row.shape}. Reshape your data")
    with np.errstate(over="ignore"):
        return finite((row.reshape(-1, len(mean)) - mean) / scale, dtype)


def finite(x: Array, dtype: str) -> Array:
    """Give `x` in a dtype in which it must be finite."""
    with np.errstate(over="ignore"):
        x = x.astype(dtype, copy=False)
    expect(np.isfinite(x).all(), "X", f"numbers that are finite in {dtype}", "NaN or infinity")
    return x


# ---- states


def each(f: Callable[[Any], Any], state: Any) -> Any:
    """Apply `f` to a state [L, B, H], or to each of a tuple of them."""
    return tuple(each(f, s) for s in state) if isinstance(state, tuple) else f(state)


def take(state: Any, rows: Array) -> Any:
    """Give the rows of a state, or of lengths [B]."""
    return each(lambda s: None if s is None else np.take(s, rows, axis=min(1, s.ndim - 1)), state)


# ---- the rest


def _bar(plan: list[Any], description: str, verbose: bool) -> Any:
    if not verbose:
        return nullcontext(plan)
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("fit needs tqdm for verbose=True: pip install 'fastrnn[demo]'") from error
    return tqdm(plan, desc=description)


def _flat(parts: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


@contextmanager
def unchanged_on_failure(model: Model) -> Iterator[None]:
    """Give a model back all that it was, where the block fails."""
    kept = dict(vars(model))
    try:
        yield
    except BaseException:
        vars(model).clear()
        vars(model).update(kept)
        raise


@contextmanager
def _blamed_on(what: str) -> Iterator[None]:
    """Turn whatever bad data provoke into a ValueError that begins with `what`."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        text = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{what}: {text}") from error


def _read(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Give the arrays and the header of a model's file or checkpoint."""
    tensors, metadata = io.read(path)
    header = json.loads(metadata.get(FORMAT, "{}"))
    if not isinstance(header, dict) or not {"class", "params", "config"} <= set(header):
        raise ValueError("not a file of a fastrnn model")
    for key, value in header["config"].items():
        if not all(isinstance(v, CONFIG[key]) for v in (value if isinstance(value, list) else [value])):
            raise ValueError(f"config: {key} is not of its type")
    sizes = {len(header["config"][key]) for key in ("mean", "scale") if key in header["config"]}
    if sizes and sizes != {header["config"]["n_features"]}:
        raise ValueError("config: mean and scale are not of n_features")
    return tensors, header


def _subclasses(cls: type[Model]) -> list[type[Model]]:
    return [cls, *(c for sub in cls.__subclasses__() for c in _subclasses(sub))]
