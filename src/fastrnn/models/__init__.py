"""Whole models with ``fit``, ``predict``, ``score``, ``save`` and ``load``."""

from fastrnn.models._base import Model, NotFittedError, load
from fastrnn.models.captioner import Captioner
from fastrnn.models.forecaster import Forecaster
from fastrnn.models.language import LanguageModel
from fastrnn.models.regressor import SequenceRegressor
from fastrnn.models.sequences import SequenceClassifier, SequenceTagger
from fastrnn.models.translation import Seq2Seq

__all__ = [
    "Captioner",
    "Forecaster",
    "LanguageModel",
    "Model",
    "NotFittedError",
    "Seq2Seq",
    "SequenceClassifier",
    "SequenceRegressor",
    "SequenceTagger",
    "load",
]
