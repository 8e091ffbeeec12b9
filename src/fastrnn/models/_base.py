"""What the models share: hyperparameters, saving and loading. How they are trained is in ``_training``.

A model is a dataclass of hyperparameters, so ``get_params``, ``set_params`` and ``sklearn.base.clone`` work. What
``fit`` learns from the data besides weights (vocabulary, classes, scales) is ``config_``, a dict that fits JSON. The
weights are in ``modules_``, a dict of layers. A model's file holds both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import io
from fastrnn._arrays import expect
from fastrnn._deprecated import warn_renamed
from fastrnn.io import PathLike
from fastrnn.models._data import Vocabulary
from fastrnn.models._errors import NotFittedError, blamed_on
from fastrnn.models._factory import Factory
from fastrnn.models._files import FORMAT, VOCABULARIES, header_text, history_in, may_be_saved, read
from fastrnn.models._run import Run
from fastrnn.models._training import Callbacks, Checkpoint, Trainer, named
from fastrnn.models._views import curves, table

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FORMAT", "Callbacks", "Checkpoint", "Factory", "Model", "NotFittedError", "Run", "load"]

Array = NDArray[Any]


@dataclass(eq=False, kw_only=True)
class Model(Trainer):
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

    # -- what a model defines: the rest is in Trainer ---------------------------------------------------

    def _build(self, make: Factory) -> dict[str, Any]:
        """Make the modules of one network from the hyperparameters and ``config_``."""
        raise NotImplementedError

    def _start(self, config: dict[str, Any], budget: float = math.inf) -> None:
        known: dict[str, Any] = {k: Vocabulary(v) if k in VOCABULARIES else v for k, v in config.items()}
        self.config_ = known
        # Weights and dropout masks come from one generator. Every epoch seeds it anew, so that a resumed run draws
        # the same numbers as an uninterrupted one.
        self._rng = np.random.default_rng(self.random_state)
        self._made_with = self.get_params()
        make = Factory(self, self._rng, budget)
        self.modules_ = named([self._build(make) for _ in range(getattr(self, "n_estimators", 1))])
        self.history_ = []
        self._kept_optimiser = None  # of partial_fit

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


def _subclasses(cls: type[Model]) -> list[type[Model]]:
    return [cls, *(c for sub in cls.__subclasses__() for c in _subclasses(sub))]
