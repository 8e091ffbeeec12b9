"""Training: epochs, validation, metrics, callbacks, checkpoints, and several networks from several seeds."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import io
from fastrnn._arrays import expect
from fastrnn.io import PathLike
from fastrnn.models._data import bucketed
from fastrnn.models._errors import Interrupted, blamed_on, unchanged_on_failure
from fastrnn.models._estimator import Estimator
from fastrnn.models._files import check_log, header_text, history_of, joined, plain, read
from fastrnn.models._hyperparameters import OPTIMISERS, SCHEDULES
from fastrnn.models._inputs import few, items, take_rows
from fastrnn.models._metrics import measured, scorers
from fastrnn.models._progress import Progress
from fastrnn.models._run import Run

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]
Callbacks = Iterable[Callable[[Any, dict[str, Any]], object]]
Checkpoint = PathLike | None


@dataclass(frozen=True)
class Task:
    """What a network is trained on, and what happens after each epoch."""

    data: Any
    held_out: Any  # as `data`, or None
    validation: tuple[Any, Any]  # the same as X and y, for metrics
    metrics: Mapping[str, Any]
    callbacks: list[Any]
    resume: Checkpoint


class Trainer(Estimator):
    """The training of every model, which says in `_plan` and `_step` what a batch is and what is done with it."""

    cell: str
    optimizer: str
    lr: float
    schedule: str
    weight_decay: float
    clip: float | None
    epochs: int
    patience: int | None
    random_state: int
    verbose: bool
    modules_: dict[str, Any]
    config_: dict[str, Any]
    history_: list[dict[str, Any]]
    _made_with: dict[str, Any]
    _rng: np.random.Generator
    _kept_optimiser: Any
    _place: tuple[int, int] | None = None  # of a network among several
    _extra = "sample_weight"  # what fit takes for each sequence beside X and y

    # -- what a model defines ---------------------------------------------------------------------------

    def _configure(self, X: Any, y: Any) -> dict[str, Any]:
        """Learn from the data what is not a weight."""
        raise NotImplementedError

    def _prepare(self, X: Any, y: Any, config: dict[str, Any], extra: Any = None) -> Any:
        """Check data, and return them in the form in which `_plan` and `_step` take them."""
        raise NotImplementedError

    def _start(self, config: dict[str, Any], budget: float = math.inf) -> None:
        """Make new modules, of no more than `budget` parameters."""
        raise NotImplementedError

    def _lengths(self, data: Any) -> list[Any]:
        """Return what says how long each sequence is, for batches of like ones."""
        return [len(x) for x in data[0]]

    def _plan(self, data: Any, rng: np.random.Generator | None) -> list[Any]:
        """Cut the data into the batches of one epoch: drawn from `rng`, or in order where that is None."""
        made = self._made
        order = np.arange(len(data[0])) if rng is None else rng.permutation(len(data[0]))
        if rng is not None and getattr(made, "bucketing", False):
            return bucketed(order, self._lengths(data), made.batch_size, rng)
        return [order[i : i + made.batch_size] for i in range(0, len(order), made.batch_size)]

    def _step(self, run: Run, data: Any, batch: Any) -> tuple[float, int]:
        """Do one batch, backward too if ``run.train``; return the mean loss in nats and the number of targets."""
        raise NotImplementedError

    def _scored(self, X: Any) -> Any:
        """Return for metrics what `_hold_out` has held out."""
        return X

    # -- fit --------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: Any = None,
        metrics: Any = (),
        callbacks: Callbacks = (),
        resume: Checkpoint = None,
    ) -> Self:
        """Train on `X` and `y`, which the class describes; return the model.

        Parameters
        ----------
        validation : pair (X, y), or another X of a model without y, or a fraction such as 0.2
            its loss is measured after each epoch, and the weights with the smallest one are kept. A fraction of the
            data is held out of training: sequences drawn at random, or the end of a text or of each series.
        metrics : list of str and functions (model, X, y), or dict of them by name
            measured on the validation data after each epoch, and kept in the log as "val_" and their name. A str is
            "score", for the model's own, or the name of one of scikit-learn's scorers, such as "f1_macro".
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
        return self._fit(X, y, None, validation, metrics, callbacks, resume)

    def _fit(
        self,
        X: Any,
        y: Any,
        extra: Any,
        validation: Any,
        metrics: Any,
        callbacks: Callbacks,
        resume: Checkpoint,
    ) -> Self:
        expect(isinstance(callbacks, Iterable), "callbacks", "a list", type(callbacks).__name__, TypeError)
        callbacks = list(callbacks)
        odd = [type(callback).__name__ for callback in callbacks if not callable(callback)]
        expect(not odd, "callbacks", "functions (model, log)", few(odd), TypeError)
        measures = scorers(metrics)
        with unchanged_on_failure(self):
            self._check_params()
            for name, needed in (("patience", self.patience is not None), ("metrics", bool(measures))):
                expect(validation is not None or not needed, name, "validation data to go with it", "None")
            self._made_with = self.get_params()
            if isinstance(validation, (int, float, np.number)) and not isinstance(validation, bool):
                expect(0 < validation < 1, "validation", "a fraction between 0 and 1, or data", validation)
                (X, y, extra), validation = self._hold_out(X, y, extra, float(validation))
            elif validation is not None and y is not None:
                fits = isinstance(validation, (tuple, list)) and len(validation) == 2
                got = type(validation).__name__
                expect(fits, "validation", "a pair (X, y), or a fraction such as 0.2", got)
            config = self._configure(X, y)
            data, held_out, pair = self._prepare(X, y, config, extra), None, (X, y)
            if validation is not None:
                with blamed_on("validation"):
                    X, y = (validation, None) if y is None else validation
                    held_out, pair = self._prepare(X, y, config), (X, y)
            self._train_all(config, Task(data, held_out, pair, measures, callbacks, resume))
        return self

    def _train_all(self, config: dict[str, Any], task: Task) -> None:
        """Train the network, or one after the other where there are several, each with a seed of its own."""
        count = getattr(self._made, "n_estimators", 1)
        if count == 1:
            self._start(config)
            self._train(task)
            return
        trained: list[Any] = []
        try:
            for i in range(count):
                member = self._member(i, count)
                member._start(config)
                trained.append(member)
                member._train(replace(task, resume=_numbered(task.resume, i)))
        except Interrupted:
            self._become([m for m in trained if m.history_] or trained[:1])
            raise
        self._become(trained)

    def _member(self, i: int, count: int) -> Any:
        """Return a model like this one, with one network and the seed of number `i`."""
        member = copy.copy(self)
        for name in ("modules_", "history_", "config_"):
            vars(member).pop(name, None)
        member.set_params(n_estimators=1, random_state=self.random_state + i)
        member._made_with, member._place = member.get_params(), (i + 1, count)
        return member

    def _become(self, members: list[Any]) -> None:
        """Become the mean of the members."""
        self.config_, self._rng = members[0].config_, members[0]._rng
        self._made_with = self.get_params() | {"n_estimators": len(members)}
        self.modules_ = named([member.modules_ for member in members])
        self.history_ = [log for member in members for log in member.history_]
        self._kept_optimiser = None

    def _networks(self) -> list[dict[str, Any]]:
        """Return the modules of each network: one, or `n_estimators`."""
        count = getattr(self._made, "n_estimators", 1)
        if count == 1:
            return [self.modules_]
        parts = [(name.partition("."), module) for name, module in self.modules_.items()]
        return [{name: module for (n, _, name), module in parts if n == str(i)} for i in range(count)]

    def _train(self, task: Task) -> None:
        """Train from the start, or from a checkpoint; keep what was learned if Ctrl-C ends it."""
        held_out, resume = task.held_out, task.resume
        # This counts batches of training; a model may cut the data otherwise for evaluation.
        optimiser = self._optimiser(self.epochs * len(self._plan(task.data, np.random.default_rng(0))))
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
                log = self._epoch(task, optimiser)
                # Bound at once: an interrupt sees the best weights and their loss, or neither.
                best, self.history_ = (
                    _copies(weights) if held_out is not None and self._waited(log) == 0 else best,
                    [*self.history_, log],
                )
                if resume is not None:
                    self._checkpoint(resume, optimiser, best)
                known = len(log)
                going = not self._call(task.callbacks, log, resume)
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

    def _hold_out(self, X: Any, y: Any, extra: Any, fraction: float) -> tuple[Any, Any]:
        """Return (X, y, extra) for training, and (X, y) or X to hold out."""
        n = len(items("X", X))
        for name, part in (("y", y), (self._extra, extra)):
            if part is not None:
                given = len(part) if hasattr(part, "__len__") else type(part).__name__
                expect(given == n, name, f"one for each of the {n} of X", given)
        count = max(1, round(fraction * n))
        expect(count < n, "validation", f"less than all of {n} sequences", f"a fraction of {fraction}")
        order = np.random.default_rng([self.random_state, 1]).permutation(n)
        held = self._choose_held_out(y, order, count)
        kept = np.setdiff1d(np.arange(n), held)
        first = tuple(None if part is None else take_rows(part, kept) for part in (X, y, extra))
        return first, take_rows(X, held) if y is None else (take_rows(X, held), take_rows(y, held))

    def _choose_held_out(self, y: Any, order: Array, count: int) -> Array:
        """Return the indices of the sequences to hold out: `count` of those in `order`."""
        return np.sort(order[:count])

    # -- an epoch ---------------------------------------------------------------------------------------

    @property
    def _made(self) -> Any:
        """The hyperparameters that the weights were made with, which set_params does not change."""
        return SimpleNamespace(**vars(self).get("_made_with", self.get_params()))

    def _weights(self) -> dict[str, Array]:
        return joined({name: module.params for name, module in self.modules_.items()})

    def _optimiser(self, steps: int) -> Any:
        lr = SCHEDULES[self.schedule](self.lr, steps)
        return OPTIMISERS[self.optimizer](list(self.modules_.values()), lr, weight_decay=self.weight_decay)

    def _epoch(self, task: Task, optimiser: Any) -> dict[str, Any]:
        epoch = len(self.history_) + 1
        seed = np.random.default_rng([self.random_state, epoch])
        self._rng.bit_generator.state = seed.bit_generator.state
        plan = self._plan(task.data, self._rng)
        total, count, norm = 0.0, 0, math.nan
        title, place = f"epoch {epoch}/{self.epochs}", {}
        if self._place is not None:
            title, place = f"model {self._place[0]}/{self._place[1]}, {title}", {"estimator": self._place[0]}
        with closing(Progress(plan, title, self.verbose)) as shown:
            for batch in shown:
                run = Run(self.modules_, train=True)
                loss, n = self._step(run, task.data, batch)
                norm = self._update(run, optimiser, loss, f" in epoch {epoch}")
                total, count = total + loss * n, count + n
                shown.show(count, loss=total / max(count, 1))
            log = place | {"epoch": epoch, "loss": total / max(count, 1), "grad_norm": norm}
            if task.held_out is not None:
                results = {"val_loss": self._mean_loss(task.held_out)}
                if task.metrics:
                    X, y = task.validation
                    results |= measured(task.metrics, self, self._scored(X), y)
                log |= results
                shown.show(count, loss=log["loss"], **results)
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

    # -- checkpoints ------------------------------------------------------------------------------------

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


def named(networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the modules of several networks as one dict, with names such as "1.rnn"; those of one as they are."""
    if len(networks) == 1:
        return networks[0]
    return {f"{i}.{name}": module for i, modules in enumerate(networks) for name, module in modules.items()}


def _numbered(path: Checkpoint, i: int) -> Checkpoint:
    """Return the path of the checkpoint of network `i`: run.npz, run.1.npz and so on."""
    if path is None or i == 0:
        return path
    given = Path(path)
    return given.with_suffix(f".{i}{given.suffix}")


def _copies(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in arrays.items()}
