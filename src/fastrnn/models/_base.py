"""What the models share: hyperparameters, the training loop with checkpoints, saving and loading.

A model is a dataclass of hyperparameters, so ``get_params``, ``set_params`` and ``sklearn.base.clone`` work. What
``fit`` learns from the data besides weights (vocabulary, classes, scales) is ``config_``, a dict that fits JSON. The
weights are in ``modules_``, a dict of layers. A model's file holds both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import io
from fastrnn._arrays import expect
from fastrnn._deprecated import warn_renamed
from fastrnn.io import PathLike
from fastrnn.models._data import Vocabulary
from fastrnn.models._errors import Interrupted, NotFittedError, blamed_on, unchanged_on_failure
from fastrnn.models._estimator import Estimator
from fastrnn.models._factory import Factory
from fastrnn.models._files import (
    FORMAT,
    VOCABULARIES,
    check_log,
    header_text,
    history_in,
    history_of,
    joined,
    may_be_saved,
    plain,
    read,
)
from fastrnn.models._hyperparameters import OPTIMISERS, SCHEDULES
from fastrnn.models._inputs import few, items, take_rows
from fastrnn.models._progress import Progress
from fastrnn.models._run import Run
from fastrnn.models._views import curves, table

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FORMAT", "Factory", "Model", "NotFittedError", "Run", "load"]

Array = NDArray[Any]
Callbacks = Iterable[Callable[["Model", dict[str, Any]], object]]
Checkpoint = PathLike | None


@dataclass(eq=False, kw_only=True)
class Model(Estimator):
    """Hyperparameters and training of every model.

    Parameters
    ----------
    cell : "lstm", "gru", "rnn_tanh" or "rnn_relu"
    hidden_size, num_layers : int
    dropout : float
        probability with which an input, an output and what passes between the recurrent layers is dropped.
    init : None (PyTorch's default), "orthogonal", "identity", "xavier" or "forget_bias"
        initial weights of the recurrent layers; with None, an LSTM also starts with a forget bias of 1.
    optimizer : "adam", "adamw", "sgd" or "rmsprop"
    lr : float
    schedule : "constant", "cosine" or "linear"
        the way in which lr falls to 0 over all epochs, unless it is constant.
    weight_decay : float
    clip : float or None
        largest norm of the gradient; a larger one is scaled down.
    epochs, batch_size : int
    patience : int or None
        number of epochs without a better validation loss after which training stops; the best weights are kept.
    dtype : "float32" or "float64"
    random_state : int
        seed of all random numbers: weights, dropout and the order of the batches.
    verbose : bool
        whether to show the progress of fit: as a bar where tqdm is installed, else as one line an epoch.

    Attributes
    ----------
    modules_ : dict of layers
        the network, by the names that `summary` prints.
    config_ : dict
        what fit has learned besides weights: the kind of the sequences, vocabularies, classes, scales.
    history_ : list of dict
        one for each epoch, with epoch, loss, grad_norm, val_loss (if there are validation data) and what callbacks
        have added. A file keeps the numbers and str among them.
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

    # -- what a model defines ---------------------------------------------------------------------------

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        """Learn from the data what is not a weight."""
        raise NotImplementedError

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], sample_weight: Any = None) -> Any:
        """Check data, and return them in the form in which `_plan` and `_step` take them."""
        raise NotImplementedError

    def _build(self, make: Factory) -> dict[str, Any]:
        """Make the modules from the hyperparameters and ``config_``."""
        raise NotImplementedError

    def _plan(self, data: Any, rng: np.random.Generator | None) -> list[Any]:
        """Cut the data into the batches of one epoch: drawn from `rng`, or in order where that is None."""
        order = np.arange(len(data[0])) if rng is None else rng.permutation(len(data[0]))
        size = self._made.batch_size
        return [order[i : i + size] for i in range(0, len(order), size)]

    def _step(self, run: Run, data: Any, batch: Any) -> tuple[float, int]:
        """Do one batch, backward too if ``run.train``; return the mean loss in nats and the number of targets."""
        raise NotImplementedError

    # -- training ---------------------------------------------------------------------------------------

    def _start(self, config: dict[str, Any], budget: float = math.inf) -> None:
        """Make new modules, of no more than `budget` parameters."""
        known: dict[str, Any] = {k: Vocabulary(v) if k in VOCABULARIES else v for k, v in config.items()}
        self.config_ = known
        # Weights and dropout masks come from one generator. Every epoch seeds it anew, so that a resumed run draws
        # the same numbers as an uninterrupted one.
        self._rng = np.random.default_rng(self.random_state)
        self._made_with = self.get_params()
        self.modules_ = self._build(Factory(self, self._rng, budget))
        self.history_: list[dict[str, Any]] = []
        self._kept_optimiser: Any = None  # of partial_fit

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: Any = None,
        callbacks: Callbacks = (),
        resume: Checkpoint = None,
    ) -> Self:
        """Train on `X` and `y`, which the class describes; return the model.

        Parameters
        ----------
        validation : pair (X, y), or another X of a model without y, or a fraction such as 0.2
            its loss is measured after each epoch, and the weights with the smallest one are kept. A fraction of the
            data is held out of training: sequences drawn at random, or the end of a text or of each series.
        callbacks : list of functions (model, log)
            called after each epoch. `log` has the epoch's loss, val_loss and grad_norm; a callback may add numbers
            and str of its own. Training ends when one of them returns True, and for no other value.
        resume : path ending in .safetensors or .npz
            the file of a checkpoint, which is written after each epoch. If it exists, training goes on from it and
            ends with the same bits as if it had never been interrupted.

        Raises
        ------
        ValueError, TypeError
            the message names the argument, what was expected and what came.
        FloatingPointError
            the loss or its gradient is no longer finite.
        KeyboardInterrupt
            Ctrl-C: the model keeps its history and its weights, the best ones if there are validation data.

        After any other error the model is what it was before.
        """
        return self._fit(X, y, None, validation, callbacks, resume)

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, validation: Any, callbacks: Callbacks, resume: Checkpoint
    ) -> Self:
        expect(isinstance(callbacks, Iterable), "callbacks", "a list", type(callbacks).__name__, TypeError)
        callbacks = list(callbacks)
        odd = [type(callback).__name__ for callback in callbacks if not callable(callback)]
        expect(not odd, "callbacks", "functions (model, log)", few(odd), TypeError)
        with unchanged_on_failure(self):
            self._check_params()
            if self.patience is not None:
                expect(validation is not None, "patience", "validation data to go with it", "None")
            self._made_with = self.get_params()
            if isinstance(validation, (int, float, np.number)) and not isinstance(validation, bool):
                expect(0 < validation < 1, "validation", "a fraction between 0 and 1, or data", validation)
                (X, y, sample_weight), validation = self._hold_out(X, y, sample_weight, float(validation))
            elif validation is not None and y is not None:
                pair = isinstance(validation, (tuple, list)) and len(validation) == 2
                got = type(validation).__name__
                expect(pair, "validation", "a pair (X, y), or a fraction such as 0.2", got)
            config = self._configure(X, y)
            data, held_out = self._prepare(X, y, config, sample_weight), None
            if validation is not None:
                with blamed_on("validation"):
                    X, y = (validation, None) if y is None else validation
                    held_out = self._prepare(X, y, config)
            self._start(config)
            self._train(data, held_out, callbacks, resume)
        return self

    def _train(self, data: Any, held_out: Any, callbacks: list[Any], resume: Checkpoint) -> None:
        """Train from the start, or from a checkpoint; keep what was learned if Ctrl-C ends it."""
        # This counts batches of training; a model may cut the data otherwise for evaluation.
        optimiser = self._optimiser(self.epochs * len(self._plan(data, np.random.default_rng(0))))
        weights = self._weights()
        best = {} if held_out is None else _copies(weights)
        if resume is not None:
            # A checkpoint is written at once: if the path cannot be written, no epoch is lost.
            (self._continue if Path(resume).exists() else self._checkpoint)(resume, optimiser, best)
        going = True
        try:
            while (
                going
                and len(self.history_) < self.epochs
                and (self.patience is None or self._waited() < self.patience)
            ):
                log = self._epoch(data, held_out, optimiser)
                # Bound at once: an interrupt sees the best weights and their loss, or neither.
                best, self.history_ = (
                    _copies(weights) if held_out is not None and self._waited(log) == 0 else best,
                    [*self.history_, log],
                )
                if resume is not None:
                    self._checkpoint(resume, optimiser, best)
                known = len(log)
                going = not self._call(callbacks, log, resume)
                if resume is not None and len(log) > known:  # callbacks have added to the log
                    self._checkpoint(resume, optimiser, best)
        except KeyboardInterrupt:
            kept = "its last weights"
            if held_out is not None and self.history_:
                io.copy_into(weights, best)
                kept = f"the weights of epoch {len(self.history_) - self._waited()}, the best by val_loss,"
            more = "" if resume is None else f" To go on, call fit with resume={os.fspath(resume)!r} again."
            epoch = min(len(self.history_) + 1, self.epochs)
            text = f"fit was interrupted in epoch {epoch}. The model keeps {kept} and history_.{more}"
            raise Interrupted(text) from None
        if held_out is not None:
            io.copy_into(weights, best)

    def _call(self, callbacks: list[Any], log: dict[str, Any], resume: Checkpoint) -> bool:
        """Call the callbacks after an epoch; return whether one of them ends training."""
        own = dict(log)
        # An array or a truthy result that is meant for somebody else does not end training.
        results = [callback(self, log) for callback in callbacks]
        for name, value in own.items():
            expect(log.get(name) is value, "callbacks", f"the log's {name} as it was", repr(log.get(name)))
        if resume is not None:
            check_log(log)
        return any(isinstance(result, (bool, np.bool_)) and bool(result) for result in results)

    def _hold_out(self, X: Any, y: Any, sample_weight: Any, fraction: float) -> tuple[Any, Any]:
        """Return (X, y, sample_weight) for training, and (X, y) or X to hold out."""
        n = len(items("X", X))
        if y is not None:
            given = len(y) if hasattr(y, "__len__") else type(y).__name__
            expect(given == n, "y", f"one for each of the {n} of X", given)
        count = max(1, round(fraction * n))
        expect(count < n, "validation", f"less than all of {n} sequences", f"a fraction of {fraction}")
        order = np.random.default_rng([self.random_state, 1]).permutation(n)
        held = self._choose_held_out(y, order, count)
        kept = np.setdiff1d(np.arange(n), held)
        weight = None if sample_weight is None else np.asarray(sample_weight)[kept]
        first = take_rows(X, kept), None if y is None else take_rows(y, kept), weight
        return first, take_rows(X, held) if y is None else (take_rows(X, held), take_rows(y, held))

    def _choose_held_out(self, y: Any, order: Array, count: int) -> Array:
        """Return the indices of the sequences to hold out: `count` of those in `order`."""
        return np.sort(order[:count])

    @property
    def _made(self) -> Any:
        """The hyperparameters that the weights were made with, which set_params does not change."""
        return SimpleNamespace(**vars(self).get("_made_with", self.get_params()))

    def _weights(self) -> dict[str, Array]:
        return joined({name: module.params for name, module in self.modules_.items()})

    def _optimiser(self, steps: int) -> Any:
        lr = SCHEDULES[self.schedule](self.lr, steps)
        return OPTIMISERS[self.optimizer](list(self.modules_.values()), lr, weight_decay=self.weight_decay)

    def _epoch(self, data: Any, held_out: Any, optimiser: Any) -> dict[str, Any]:
        epoch = len(self.history_) + 1
        seed = np.random.default_rng([self.random_state, epoch])
        self._rng.bit_generator.state = seed.bit_generator.state
        plan = self._plan(data, self._rng)
        total, count, norm = 0.0, 0, math.nan
        with closing(Progress(plan, f"epoch {epoch}/{self.epochs}", self.verbose)) as shown:
            for batch in shown:
                run = Run(self.modules_, train=True)
                loss, n = self._step(run, data, batch)
                norm = self._update(run, optimiser, loss, f" in epoch {epoch}")
                total, count = total + loss * n, count + n
                shown.show(count, loss=total / max(count, 1))
            log = {"epoch": epoch, "loss": total / max(count, 1), "grad_norm": norm}
            if held_out is not None:
                log["val_loss"] = self._mean_loss(held_out)
                shown.show(count, loss=log["loss"], val_loss=log["val_loss"])
        return log

    def _update(self, run: Run, optimiser: Any, loss: float, when: str = "") -> float:
        """Take a step if loss and gradient are finite; return the norm of the gradient."""
        grads = [run.grads[name] for name in self.modules_]
        problem = "became {}" + f"{when}: lr too high, or no clip?"
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss {problem.format(loss)}")
        norm: float = optimiser.step(grads, clip_norm=math.inf if self.clip is None else self.clip)
        if not math.isfinite(norm):  # nothing was updated
            raise FloatingPointError(f"the norm of the gradient {problem.format(norm)}")
        return norm

    def _mean_loss(self, data: Any) -> float:
        """Return the loss over all the data, in nats."""
        run = Run(self.modules_, train=False)
        results = [self._step(run, data, batch) for batch in self._plan(data, None)]
        return sum(loss * n for loss, n in results) / max(sum(n for _, n in results), 1)

    def _waited(self, *following: dict[str, Any]) -> int:
        """Return the number of epochs since the smallest validation loss, after the history and what follows it."""
        losses = [log["val_loss"] for log in (*self.history_, *following) if "val_loss" in log]
        losses = [math.inf if math.isnan(loss) else loss for loss in losses]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    # -- looking at a model -----------------------------------------------------------------------------

    def summary(self) -> None:
        """Print the modules of the fitted model and their numbers of parameters."""
        self._check_fitted()
        print(table(type(self).__name__, self.modules_))

    def plot_history(self, ax: Any = None) -> Any:
        """Draw loss and val_loss by epoch with matplotlib, and return the axes.

        Parameters
        ----------
        ax : matplotlib axes, optional
            by default those of a new figure.
        """
        self._check_fitted()
        return curves(self.history_, ax)

    # -- files ------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write hyperparameters, configuration, history and weights to one ``.safetensors`` or ``.npz`` file.

        The hyperparameters are those that the weights were made with, even if `set_params` changed them since.
        """
        self._check_fitted()
        log = [{k: v for k, v in entry.items() if may_be_saved(k, v)} for entry in self.history_]
        io.save(path, self._weights(), header_text({**self._header(), "log": log}))

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Return a model from a file that `save` wrote; a damaged or hostile file raises a ValueError."""
        with blamed_on(f"{os.fspath(path)}: not a sound {cls.__name__} file"):
            tensors, header = read(path)
            classes = {c.__name__: c for c in _subclasses(cls)}
            got = "a checkpoint of fit(..., resume=path): fit goes on from it"
            expect("history" not in header, "path", "a file that save wrote", got)
            held, wanted = header["class"], " or ".join(classes)
            expect(held in list(classes), "class", f"a file of a {wanted}", f"one of a {held}")
            model: Any = classes[held](**header["params"])
            model._check_params()
            # A hostile configuration could ask for any size, so no more weights are made than the file has.
            model._start(header["config"], sum(array.size for array in tensors.values()))
            io.copy_into(model._weights(), tensors)
            model.history_ = history_in(header.get("log", []))
        return model  # type: ignore[no-any-return]

    def _checkpoint(self, path: PathLike, optimiser: Any, best: dict[str, Array]) -> None:
        state = {"weights": self._weights(), "best": best, "optimiser": optimiser.state_dict()}
        io.save(path, joined(state), header_text({**self._header(), "history": self.history_}))

    def _continue(self, path: PathLike, optimiser: Any, best: dict[str, Array]) -> None:
        with blamed_on(f"resume: {os.fspath(path)}"):
            tensors, stored = read(path)
            wanted = "the history that a checkpoint of fit has"
            got = f"a saved model without one: {type(self).__name__}.load reads it"
            expect("history" in stored, "path", wanted, got)
            history = history_of(stored, plain(self._header()))
            state = optimiser.state_dict()
            io.copy_into(joined({"weights": self._weights(), "best": best, "optimiser": state}), tensors)
            optimiser.load_state_dict(state)
            self.history_ = history

    def _header(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "params": self._made_with, "config": self.config_}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Pickles of 0.1.0 have the modules under their old name.
        # Those before n_features_in_ was a property have it as an attribute.
        old = {"pieces_": "modules_"}
        vars(self).update({old.get(name, name): v for name, v in state.items() if name != "n_features_in_"})

    @property
    def pieces_(self) -> dict[str, Any]:
        """The old name of ``modules_``."""
        warn_renamed("pieces_", "modules_")
        return self.modules_


def load(path: PathLike) -> Model:
    """Return a model of whatever class from a file that its `save` wrote.

    Examples
    --------
    >>> import os, tempfile
    >>> from fastrnn.models import LanguageModel, load
    >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
    >>> LanguageModel(hidden_size=4, epochs=1, verbose=False).fit("abc" * 9).save(path)
    >>> type(load(path)).__name__
    'LanguageModel'
    """
    return Model.load(path)


def _copies(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in arrays.items()}


def _subclasses(cls: type[Model]) -> list[type[Model]]:
    return [cls, *(c for sub in cls.__subclasses__() for c in _subclasses(sub))]
