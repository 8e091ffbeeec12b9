"""A chain of modules: forward in order, backward in reverse order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._arrays import expect
from fastrnn._parameters import accepted
from fastrnn._recurrent import Recurrent
from fastrnn.gradients import Gradients, note_change
from fastrnn.nn import DotAttention, Last, Linear, Module
from fastrnn.ragged import Ragged

Array = NDArray[Any]
States = Mapping[str, Any] | None


class ChainGradients:
    """What the backward pass of a :class:`Sequential` returns.

    Attributes
    ----------
    x : array or Ragged or None
        dL/dx of the first module; None for integers, and with ``need_dx=False``.
    states : dict of str to state
        The gradient of the initial state of each recurrent layer.
    modules : dict of str to Gradients
        The gradients of each module by its name.
    params : dict of str to array
        The gradient of each parameter: "lstm.weight_ih_l0" and so on.
    flats : list of arrays
        One for each module, in order: what an optimiser takes.
    """

    __slots__ = ("modules", "states", "x")

    def __init__(self, x: Any, states: dict[str, Any], modules: dict[str, Gradients]) -> None:
        self.x, self.states, self.modules = x, states, modules

    @property
    def params(self) -> dict[str, Array]:
        """The gradient of each parameter by the names of its module and of itself."""
        return {f"{n}.{k}": a for n, g in self.modules.items() for k, a in g.params.items()}

    @property
    def flats(self) -> list[Array]:
        """The gradients of each module as one array, in the order of the modules."""
        return [g.flat for g in self.modules.values()]

    def __repr__(self) -> str:
        return f"ChainGradients({', '.join(self.modules)}, sizes={[flat.size for flat in self.flats]})"


class ChainTape:
    """The tapes of the modules of a :class:`Sequential`, for one backward."""

    __slots__ = ("final", "tapes")

    def __init__(self, tapes: dict[str, Any], final: dict[str, Any]) -> None:
        self.tapes, self.final = tapes, final

    def __repr__(self) -> str:
        return f"ChainTape({', '.join(self.tapes)})"


def _sum(a: Any, b: Any) -> Any:
    """Return the sum of two gradients of a state, either of which, or a part of which, may be None."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, tuple):
        return tuple(_sum(one, other) for one, other in zip(a, b, strict=True))
    return np.asarray(a) + np.asarray(b)


class Sequential:
    """Modules and recurrent layers, one behind the other, with the backward pass in reverse order.

    Parameters
    ----------
    modules : dict of str to module, or list of modules
        RNN, LSTM, GRU, Embedding, Linear, Dropout and the like, in order. In a list they are named "0", "1" and so
        on. A name has no dot. A recurrent layer hands on its y. Behind one, :class:`Last` hands on its final hidden
        state instead.

    Optimisers take a Sequential as an item of their list, and its gradients in the same place; ``io.save`` and
    ``io.restore`` take it as a module. Every module keeps its own flat buffer: see ``flats``.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> from fastrnn import losses, nn, optim
    >>> net = nn.Sequential({
    ...     "embedding": fastrnn.Embedding(10, 8, rng=0),
    ...     "lstm": fastrnn.LSTM(8, 16, bidirectional=True, rng=0),
    ...     "last": nn.Last(),
    ...     "head": fastrnn.Linear(32, 2, rng=0),
    ... })
    >>> adam = optim.Adam([net], lr=0.05)
    >>> ids, labels = np.array([[1, 2], [3, 4], [5, 6]]), np.array([0, 1])  # [T, B], [B]
    >>> for _ in range(20):
    ...     logits, states, tape = net.forward(ids)
    ...     loss, dlogits = losses.softmax_cross_entropy(logits, labels)
    ...     adam.step([net.backward(tape, dlogits)])
    >>> loss < 0.1
    True
    >>> net(ids)[0].argmax(axis=1).tolist()
    [0, 1]
    """

    def __init__(self, modules: Mapping[str, Any] | list[Any] | tuple[Any, ...]) -> None:
        if isinstance(modules, (list, tuple)):
            modules = {str(i): module for i, module in enumerate(modules)}
        wanted = "a dict or list of modules"
        expect(isinstance(modules, Mapping), "modules", wanted, type(modules).__name__, TypeError)
        expect(len(modules), "modules", "at least one module", "none")
        before: Any = None
        for name, module in modules.items():
            named = isinstance(name, str) and name and "." not in name
            expect(named, "modules", "names that are str without a dot", repr(name))
            known = isinstance(module, (Recurrent, Module)) and not isinstance(module, DotAttention)
            expect(
                known, f"modules: {name}", "a recurrent layer or a module", type(module).__name__, TypeError
            )
            behind = not isinstance(module, Last) or isinstance(before, Recurrent)
            expect(behind, f"modules: {name}", "a recurrent layer before Last", type(before).__name__)
            before = module
        once = len({id(module) for module in modules.values()}) == len(modules)
        expect(once, "modules", "every module once", "one of them twice")
        self.modules: dict[str, Any] = dict(modules)

    def __call__(
        self,
        x: ArrayLike | Ragged,
        states: States = None,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Run inference: the forward pass without its tape."""
        y, final, _ = self._run(x, states, lengths, reset, False)
        return y, final

    def forward(
        self,
        x: ArrayLike | Ragged,
        states: States = None,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[Any, dict[str, Any], ChainTape]:
        """Run the modules in order, for training.

        Parameters
        ----------
        x : array or Ragged
            What the first module takes.
        states : dict of str to state, optional
            The initial state of each recurrent layer by its name, as a call returned it; by default zeros.
        lengths, reset
            Handed to every recurrent layer.

        Returns
        -------
        y : array or Ragged
            The output of the last module.
        states : dict of str to state
            The final state of each recurrent layer.
        tape
            For one :meth:`backward`.
        """
        y, final, tapes = self._run(x, states, lengths, reset, True)
        return y, final, ChainTape(tapes, final)

    def _run(self, x: Any, states: States, lengths: Any, reset: Any, train: bool) -> tuple[Any, Any, Any]:
        given = {} if states is None else states
        expect(isinstance(given, Mapping), "states", "a dict of states", type(given).__name__, TypeError)
        unknown = [n for n in given if not isinstance(self.modules.get(n), Recurrent)]
        expect(not unknown, "states", "names of recurrent layers", unknown)
        final: dict[str, Any] = {}
        tapes: dict[str, Any] = {}
        before = ""
        for name, module in self.modules.items():
            if isinstance(module, Last):
                x = self.modules[before].final_hidden(final[before])
            elif isinstance(module, Recurrent):
                call = module.forward if train else module
                out: tuple[Any, ...] = call(x, given.get(name), lengths=lengths, reset=reset)
                x, final[name] = out[:2]
                if train:
                    tapes[name] = out[2]
            elif train:
                x, tapes[name] = module.forward(x)
            else:
                x = module(x)
            before = name
        return x, final, tapes

    def backward(
        self,
        tape: ChainTape,
        dy: ArrayLike | Ragged | None = None,
        dstates: States = None,
        *,
        need_dx: bool = True,
    ) -> ChainGradients:
        """Run the modules backward in reverse order.

        Parameters
        ----------
        tape
            From :meth:`forward`. It serves one backward.
        dy : array or Ragged
            dL/dy. It may be None where the last module is a recurrent layer and `dstates` has its entry.
        dstates : dict of str to state, optional
            The gradient of the final state of a recurrent layer, by its name.
        need_dx : bool
            Whether the gradient of the first module's input is computed.

        Returns
        -------
        ChainGradients
            ``.x``, ``.states``, ``.params`` and ``.flats``.
        """
        expect(isinstance(tape, ChainTape), "tape", "a tape of forward", type(tape).__name__, TypeError)
        expect(tape.tapes.keys() <= self.modules.keys(), "tape", "a tape of these modules", repr(tape))
        given = {} if dstates is None else dict(dstates)
        unknown = [n for n in given if not isinstance(self.modules.get(n), Recurrent)]
        expect(not unknown, "dstates", "names of recurrent layers", unknown)
        grads: dict[str, Gradients] = {}
        first = next(iter(self.modules))
        names = list(self.modules)
        d: Any = dy
        needed = not isinstance(self.modules[names[-1]], Recurrent)
        expect(dy is not None or not needed, "dy", "the gradient of y", "None", TypeError)
        for name, before in zip(reversed(names), [*reversed(names[:-1]), ""], strict=True):
            module = self.modules[name]
            if isinstance(module, Last):
                grads[name] = Gradients(None, None, {}, module.flat.copy())
                given[before] = _sum(
                    self.modules[before].final_hidden_backward(d, tape.final[before]), given.get(before)
                )
                d = None
                continue
            costly = isinstance(module, (Recurrent, Linear))
            options = {"need_dx": False} if costly and name == first and not need_dx else {}
            args = (d, given.get(name)) if isinstance(module, Recurrent) else (d,)
            grads[name] = module.backward(tape.tapes[name], *args, **options)
            d = grads[name].x
        ordered = {name: grads[name] for name in names}
        states = {name: g.state for name, g in ordered.items() if g.state is not None}
        return ChainGradients(d, states, ordered)

    @property
    def params(self) -> dict[str, Array]:
        """All parameters by the names of their module and of themselves: "lstm.weight_ih_l0" and so on."""
        return {f"{n}.{k}": a for n, module in self.modules.items() for k, a in module.params.items()}

    @property
    def flats(self) -> list[Array]:
        """The flat buffer of each module, in order: what an optimiser updates."""
        return [module.flat for module in self.modules.values()]

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name."""
        return {name: array.copy() for name, array in self.params.items()}

    def load_state_dict(self, state: Mapping[str, Any], *, prefix: str = "", strict: bool = True) -> None:
        """Set every parameter; see :meth:`fastrnn.LSTM.load_state_dict`. All or nothing."""
        arrays = accepted({name: array.shape for name, array in self.params.items()}, state, prefix, strict)
        for module in self.modules.values():
            module._before_change("load_state_dict")
        for name, array in self.params.items():
            if name in arrays:
                array[...] = arrays[name]
                note_change(array, "load_state_dict")

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.modules.values())

    def __getitem__(self, name: str) -> Any:
        return self.modules[name]

    def __repr__(self) -> str:
        return f"Sequential({', '.join(f'{name}={module!r}' for name, module in self.modules.items())})"
