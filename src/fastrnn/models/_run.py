"""A run: one pass through the modules of a model, forward and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastrnn.gradients import Gradients
from fastrnn.losses import linear_softmax_cross_entropy


class Run:
    """One pass through the modules of a model, forward and back; every module at most once."""

    def __init__(self, modules: Mapping[str, Any], train: bool) -> None:
        self.modules, self.train = modules, train
        self.tapes: dict[str, Any] = {}
        self.grads: dict[str, Any] = {}
        self.looks: Any = None  # where attention looked in inference, [B, T, S]
        self.guide: Any = None  # what pulls attention in training, [B, T, S]

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Run a module forward; return y, or (y, state) of a recurrent layer."""
        if not self.train:
            return self.modules[name](*args, **kwargs)
        *y, self.tapes[name] = self.modules[name].forward(*args, **kwargs)
        return y[0] if len(y) == 1 else tuple(y)

    def loss(
        self,
        name: str,
        x: Any,
        targets: Any,
        weights: Any = None,
        *,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> Any:
        """Return the cross-entropy of a linear module's outputs, and the gradient of the module's input.

        That gradient is None where nothing is trained. The module's own is kept for the optimiser.
        """
        smoothing = label_smoothing if self.train else 0.0
        loss, g = linear_softmax_cross_entropy(
            self.modules[name],
            x,
            targets,
            weights,
            label_smoothing=smoothing,
            gradient=self.train,
            **options,
        )
        if g is None:
            return loss, None
        self.grads[name] = g
        return loss, g.x

    def back(self, dy: Any, *names: str, state: Any = None, need_dx: bool = True) -> Any:
        """Run modules backward, one after the other, and return the gradients of the last one.

        The gradients of all of them are kept for the optimiser. `state` is the gradient of the final state of the
        first one. Without `need_dx` the last one, which reads data, leaves out the gradient of its input.
        """
        for name in names:
            args = (dy,) if state is None else (dy, state)
            options = {} if need_dx or name != names[-1] else {"need_dx": False}
            self.grads[name] = self.modules[name].backward(self.tapes.pop(name), *args, **options)
            dy, state = self.grads[name].x, None
        return self.grads[names[-1]]

    def skip(self, name: str) -> None:
        """Leave out the backward pass of a module without parameters, whose input needs no gradient."""
        del self.tapes[name]
        self.grads[name] = Gradients(None, None, {}, self.modules[name].flat.copy())
