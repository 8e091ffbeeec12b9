"""Learning-rate schedules: functions of the number of steps taken so far. They keep no state."""

from __future__ import annotations

import math

from fastrnn._arrays import at_least_zero, positive


class Schedule:
    """A learning rate that depends on the number of steps taken so far."""

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        raise NotImplementedError


class _Falling(Schedule):
    """Rises linearly to `peak` over `warmup` steps, then falls to `floor` at `steps`, as `_remaining` says."""

    name = ""

    def __init__(self, peak: float, steps: int, warmup: int, floor: float) -> None:
        self.peak, self.floor = at_least_zero("peak", peak), at_least_zero("floor", floor)
        at_least_zero("steps", steps)
        at_least_zero("warmup", warmup)
        self.steps, self.warmup = steps, warmup

    def _remaining(self, done: float) -> float:
        """Return what is left of the way down, from 1 at `done` = 0 to 0 at 1."""
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.floor + (self.peak - self.floor) * self._remaining(done)

    def __repr__(self) -> str:
        options = f", warmup={self.warmup}" * (self.warmup != 0) + f", floor={self.floor}" * (self.floor != 0)
        return f"{self.name}({self.peak}, {self.steps}{options})"


class _Cosine(_Falling):
    name = "cosine"

    def _remaining(self, done: float) -> float:
        return (1 + math.cos(math.pi * done)) / 2


class _Linear(_Falling):
    name = "linear"

    def _remaining(self, done: float) -> float:
        return 1 - done


class _Exponential(Schedule):
    """Multiplies by `decay` over each `every` steps: smoothly, or at once after them."""

    def __init__(self, lr: float, decay: float, every: int, smooth: bool) -> None:
        self.lr, self.decay = at_least_zero("lr", lr), at_least_zero("decay", decay)
        self.every, self.smooth = positive("every", every), smooth

    def __call__(self, step: int) -> float:
        power = step / self.every if self.smooth else step // self.every
        return float(self.lr * self.decay**power)

    def __repr__(self) -> str:
        name = "exponential" if self.smooth else "step_decay"
        return f"{name}({self.lr}, {self.decay}, every={self.every})"


def cosine(peak: float, steps: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Rise linearly to `peak` over `warmup` steps, then follow half a cosine down to `floor` at `steps`.

    Loshchilov and Hutter 2017.

    Examples
    --------
    >>> cosine(1.0, 4)
    cosine(1.0, 4)
    >>> [cosine(1.0, 4)(t) for t in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """
    return _Cosine(peak, steps, warmup, floor)


def linear(peak: float, steps: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Rise linearly to `peak` over `warmup` steps, then fall linearly to `floor` at `steps`.

    Examples
    --------
    >>> [linear(1.0, 4)(t) for t in (0, 1, 4)]
    [1.0, 0.75, 0.0]
    """
    return _Linear(peak, steps, warmup, floor)


def exponential(lr: float, decay: float, *, every: int = 1) -> Schedule:
    """Multiply by `decay` over each `every` steps, smoothly.

    Examples
    --------
    >>> exponential(1.0, 0.25, every=2)(1)
    0.5
    """
    return _Exponential(lr, decay, every, smooth=True)


def step_decay(lr: float, decay: float, *, every: int) -> Schedule:
    """Multiply by `decay` after each `every` steps, at once.

    Examples
    --------
    >>> [step_decay(1.0, 0.5, every=2)(t) for t in range(4)]
    [1.0, 1.0, 0.5, 0.5]
    """
    return _Exponential(lr, decay, every, smooth=False)
