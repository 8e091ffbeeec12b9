"""What scikit-learn asks of an estimator: hyperparameters by name, features seen in fit, whether it is fitted."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn.models._errors import NotFittedError
from fastrnn.models._hyperparameters import check_hyperparameters

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]


class Estimator:
    """A dataclass of hyperparameters, of which ``fit`` makes a model."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyperparameters; `deep` is there for scikit-learn and changes nothing."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def set_params(self, **params: Any) -> Self:
        """Set hyperparameters and return the model; an unknown name raises a ValueError."""
        known = sorted(self.get_params())
        for name in params:
            expect(name in known, name, f"one of {known}", "another name")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in fit."""
        return int(self._of_config("n_features_in_", "n_features_in"))

    @property
    def feature_names_in_(self) -> Array:
        """Names of the columns, where fit has seen a DataFrame whose names are str."""
        return np.array(self._of_config("feature_names_in_", "feature_names"), dtype=object)

    def _of_config(self, name: str, key: str) -> Any:
        config = vars(self).get("config_", {})
        if key not in config:
            raise AttributeError(f"this {type(self).__name__} has no {name}")
        return config[key]

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
