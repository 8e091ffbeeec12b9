"""What the models share: hyperparameters, the training loop with checkpoints, saving and loading.

A model is a dataclass of hyperparameters, so ``get_params``, ``set_params`` and ``sklearn.base.clone`` work. What
``fit`` learns from the data besides weights (vocabulary, classes, scales) is ``config_``, a dict that fits JSON. The
weights are in ``modules_``, a dict of layers. A model's file holds both.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import io
from fastrnn._arrays import expect
from fastrnn._deprecated import warn_renamed
from fastrnn.io import PathLike
from fastrnn.models._errors import NotFittedError, blamed_on, unchanged_on_failure
from fastrnn.models._factory import Factory
from fastrnn.models._files import FORMAT, header_text, history_of, joined, read
from fastrnn.models._hyperparameters import OPTIMISERS, SCHEDULES, check_hyperparameters
from fastrnn.models._progress import progress
from fastrnn.models._run import Run

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FORMAT", "Factory", "Model", "NotFittedError", "Run"]

Array = NDArray[Any]
Callbacks = Iterable[Callable[["Model", dict[str, float]], object]]
Checkpoint = PathLike | None


@dataclass(eq=False, kw_only=True)
class Model:
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
        whether to show a progress bar.
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

    def _prepare(self, X: Any, y: Any, config: dict[str, Any]) -> Any:
        """Check data, and return them in the form in which `_plan` and `_step` take them."""
        raise NotImplementedError

    def _build(self, make: Factory) -> dict[str, Any]:
        """Make the modules from the hyperparameters and ``config_``."""
        raise NotImplementedError

    def _plan(self, data: Any, rng: np.random.Generator | None) -> list[Any]:
        """Cut the data into the batches of one epoch: drawn from `rng`, or in order where that is None."""
        order = np.arange(len(data[0])) if rng is None else rng.permutation(len(data[0]))
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def _step(self, run: Run, data: Any, batch: Any) -> tuple[float, int]:
        """Do one batch, backward too if ``run.train``; return the mean loss in nats and the number of targets."""
        raise NotImplementedError

    # -- training ---------------------------------------------------------------------------------------

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
        validation : another pair (X, y), or another X of a model without y
            its loss is measured after each epoch, and the weights with the smallest one are kept.
        callbacks : list of functions (model, log)
            called after each epoch. `log` has the epoch's loss, val_loss and grad_norm. Training ends when one of
            them returns True.
        resume : path ending in .safetensors or .npz
            the file of a checkpoint, which is written after each epoch. If it exists, training goes on from it and
            ends with the same bits as if it had never been interrupted.

        Raises
        ------
        ValueError, TypeError
            the message names the argument, what was expected and what came.
        FloatingPointError
            the loss or its gradient is no longer finite.
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
                with blamed_on("validation"):
                    X, y = (validation, None) if y is None else validation
                    held_out = self._prepare(X, y, config)
            self._start(config)
            # This counts batches of training; a model may cut the data otherwise for evaluation.
            optimiser = self._optimiser(self.epochs * len(self._plan(data, np.random.default_rng(0))))
            weights = self._weights()
            best = {} if validation is None else {name: array.copy() for name, array in weights.items()}
            if resume is not None:
                # A checkpoint is written at once: if the path cannot be written, no epoch is lost.
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
        """Make new modules, of no more than `budget` parameters."""
        self.config_ = config
        # Weights and dropout masks come from one generator. Every epoch seeds it anew, so that a resumed run draws
        # the same numbers as an uninterrupted one.
        self._rng = np.random.default_rng(self.random_state)
        self.modules_ = self._build(Factory(self, self._rng, budget))
        self._made_with = self.get_params()
        self.history_: list[dict[str, float]] = []
        self._kept_optimiser: Any = None  # of partial_fit

    def _weights(self) -> dict[str, Array]:
        return joined({name: module.params for name, module in self.modules_.items()})

    def _optimiser(self, steps: int) -> Any:
        lr = SCHEDULES[self.schedule](self.lr, steps)
        return OPTIMISERS[self.optimizer](list(self.modules_.values()), lr, weight_decay=self.weight_decay)

    def _epoch(self, data: Any, optimiser: Any) -> dict[str, float]:
        epoch = len(self.history_) + 1
        seed = np.random.default_rng([self.random_state, epoch])
        self._rng.bit_generator.state = seed.bit_generator.state
        plan = self._plan(data, self._rng)
        total, count, norm, began = 0.0, 0, math.nan, time.perf_counter()
        with progress(plan, f"epoch {epoch}/{self.epochs}", self.verbose) as bar:
            for batch in bar:
                run = Run(self.modules_, train=True)
                loss, n = self._step(run, data, batch)
                norm = self._update(run, optimiser, loss, f" in epoch {epoch}")
                total, count = total + loss * n, count + n
                if self.verbose:
                    rate = count / (time.perf_counter() - began)
                    bar.set_postfix(loss=f"{total / count:.4f}", tokens_per_s=f"{rate:,.0f}", refresh=False)
        return {"epoch": epoch, "loss": total / max(count, 1), "grad_norm": norm}

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

    def _waited(self) -> int:
        """Return the number of epochs since the smallest validation loss."""
        losses = [log["val_loss"] for log in self.history_ if "val_loss" in log]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    # -- files ------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write hyperparameters, configuration and weights to one ``.safetensors`` or ``.npz`` file.

        The hyperparameters are those that the weights were made with, even if `set_params` changed them since.
        """
        self._check_fitted()
        io.save(path, self._weights(), header_text(self._header()))

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Return a model from a file that `save` wrote; a damaged or hostile file raises a ValueError."""
        with blamed_on(f"{os.fspath(path)}: not a sound {cls.__name__} file"):
            tensors, header = read(path)
            classes = {c.__name__: c for c in _subclasses(cls)}
            held, wanted = header["class"], " or ".join(classes)
            expect(held in list(classes), "class", f"a file of a {wanted}", f"one of a {held}")
            model: Any = classes[held](**header["params"])
            model._check_params()
            # A hostile configuration could ask for any size, so no more weights are made than the file has.
            model._start(header["config"], sum(array.size for array in tensors.values()))
            io.copy_into(model._weights(), tensors)
        return model  # type: ignore[no-any-return]

    def _checkpoint(self, path: PathLike, optimiser: Any, best: dict[str, Array]) -> None:
        state = {"weights": self._weights(), "best": best, "optimiser": optimiser.state_dict()}
        io.save(path, joined(state), header_text({**self._header(), "history": self.history_}))

    def _continue(self, path: PathLike, optimiser: Any, best: dict[str, Array]) -> None:
        with blamed_on(f"resume: {os.fspath(path)}"):
            tensors, stored = read(path)
            history = history_of(stored, json.loads(header_text(self._header())[FORMAT]))
            state = optimiser.state_dict()
            io.copy_into(joined({"weights": self._weights(), "best": best, "optimiser": state}), tensors)
            optimiser.load_state_dict(state)
            self.history_ = history

    def _header(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "params": self._made_with, "config": self.config_}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Pickles of 0.1.0 have the modules under their old name.
        vars(self).update({"modules_" if name == "pieces_" else name: value for name, value in state.items()})

    @property
    def pieces_(self) -> dict[str, Any]:
        """The old name of ``modules_``."""
        warn_renamed("pieces_", "modules_")
        return self.modules_

    # -- scikit-learn -----------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyperparameters; `deep` is there for scikit-learn and changes nothing."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Set hyperparameters and return the model; an unknown name raises a ValueError."""
        for name, value in params.items():
            expect(name in self.get_params(), name, f"one of {sorted(self.get_params())}", "another name")
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return "modules_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags())

    def _check_fitted(self) -> None:
        if "modules_" not in vars(self):
            # Where scikit-learn is in use, its own error class, because callers may catch that.
            sklearn = sys.modules.get("sklearn.exceptions")
            error = sklearn.NotFittedError if sklearn else NotFittedError
            raise error(f"this {type(self).__name__} is not fitted yet: call fit first")

    def _check_params(self) -> None:
        check_hyperparameters(self)


def _subclasses(cls: type[Model]) -> list[type[Model]]:
    return [cls, *(c for sub in cls.__subclasses__() for c in _subclasses(sub))]
