"""The parts that models are made of, one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastrnn.models import SequenceClassifier
from fastrnn.models._errors import unchanged_on_failure
from fastrnn.models._factory import Factory
from fastrnn.models._files import history_of

MAKE: dict[str, tuple[Any, int]] = {
    "embedding": (lambda make: make.embedding("abc", 4), 12),
    "linear": (lambda make: make.linear(4, 2), 10),
    "recurrent": (lambda make: make.recurrent(3, hidden=2), 4 * 2 * (3 + 2 + 2)),
    "both directions": (
        lambda make: make.recurrent(3, hidden=2, bidirectional=True),
        2 * 4 * 2 * (3 + 2 + 2),
    ),
}


@pytest.mark.parametrize("name", MAKE)
def test_a_factory_makes_no_more_parameters_than_it_may(name: str) -> None:
    build, size = MAKE[name]
    model, rng = SequenceClassifier(hidden_size=2), np.random.default_rng(0)
    assert build(Factory(model, rng, size)).flat.size == size
    with pytest.raises(ValueError, match="the configuration asks for more weights than the file holds"):
        build(Factory(model, rng, size - 1))


def test_a_failure_leaves_no_attribute_behind() -> None:
    model = SimpleNamespace(kept=1, lost=2)

    def fail() -> None:
        with unchanged_on_failure(model):
            model.kept, model.new = 3, 4
            del model.lost
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert vars(model) == {"kept": 1, "lost": 2}
    with unchanged_on_failure(model):
        model.new = 4
    assert model.new == 4


@pytest.mark.parametrize("part", ["class", "params", "config"])
def test_a_history_is_that_of_the_same_run(part: str) -> None:
    own: dict[str, Any] = {"class": "A", "params": {"lr": 1.0, "epochs": 3}, "config": {"text": True}}
    other: dict[str, Any] = {"class": "B", "params": {"lr": 2.0, "epochs": 3}, "config": {"text": False}}
    history = [{"epoch": 1, "loss": 2.0}]
    assert history_of(own | {"history": history}, own) == history
    assert history_of(own | {"history": history, "params": {"lr": 1.0, "epochs": 9}}, own) == history
    named = {"class": "class", "params": "lr", "config": "text"}[part]
    with pytest.raises(ValueError, match=rf"expected a checkpoint of this run, but \['{named}'\] differ"):
        history_of(own | {"history": history, part: other[part]}, own)
