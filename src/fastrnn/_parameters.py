"""Named parameters in one contiguous buffer, and their state dicts."""

from __future__ import annotations

import copy
import math
import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import as_array, expect, misfits, readable, some
from fastrnn._constraints import Constraint
from fastrnn.gradients import note_change, register, views_of

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]

# The core's names of the cells, and how many gates the rows of a weight matrix hold.
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_before": 3}


def parameter_shapes(
    gates: int,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    directions: int,
    proj_size: int,
    *,
    merge: str = "concat",
    states: int = 0,
    peepholes: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the parameters of a recurrent layer, in the order of the flat buffer.

    ``states``: how many arrays of learned initial state there are, h_0 and c_0.
    """
    output = proj_size or hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(num_layers):
        inputs = input_size if layer == 0 else output if merge != "concat" else directions * output
        for suffix in ("", "_reverse")[:directions]:
            shapes[f"weight_ih_l{layer}{suffix}"] = (gates * hidden_size, inputs)
            shapes[f"weight_hh_l{layer}{suffix}"] = (gates * hidden_size, output)
            if bias:
                shapes[f"bias_ih_l{layer}{suffix}"] = (gates * hidden_size,)
                shapes[f"bias_hh_l{layer}{suffix}"] = (gates * hidden_size,)
            if proj_size:
                shapes[f"weight_hr_l{layer}{suffix}"] = (proj_size, hidden_size)
            for gate in "ifo" * peepholes:
                shapes[f"weight_c{gate}_l{layer}{suffix}"] = (hidden_size,)
    for name, width in (("h_0", output), ("c_0", hidden_size))[:states]:
        shapes[name] = (num_layers * directions, width)
    return shapes


class Changes:
    """The lock of whoever overwrites parameters as a whole, freezes them or makes them writeable again.

    One lock serves all layers, because these calls are rare. Calls of a layer do not take it.
    """

    lock = threading.RLock()

    @classmethod
    def renew(cls) -> None:
        """Forget a thread that held the lock when this process was forked: it does not exist here."""
        cls.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Changes.renew)


def accepted(
    shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Any], prefix: str = "", strict: bool = True
) -> dict[str, Array]:
    """Return those arrays of a state dict that parameters of these shapes take, by the parameters' names."""
    expect(isinstance(state, Mapping), "state_dict", "a mapping", type(state).__name__, TypeError)
    expect(isinstance(prefix, str), "prefix", "a str", type(prefix).__name__, TypeError)
    own = {n.removeprefix(prefix): v for n, v in state.items() if not prefix or str(n).startswith(prefix)}
    if not strict:
        own = {name: value for name, value in own.items() if name in shapes}
        expect(own or not shapes, "state_dict", f"some of the names {some(shapes)}", some(state))
    if own.keys() != shapes.keys():
        hint = prefix_hint(shapes, state)
        if hint and not any(name in own for name in shapes):
            wanted = f"the names {some(shapes)}" + f" after {prefix!r}" * bool(prefix)
            raise ValueError(f"state_dict: expected {wanted}, got names that {hint}")
    arrays = {name: readable(f"state_dict: {prefix}{name}", v, "real floats") for name, v in own.items()}
    wrong = misfits({n: s for n, s in shapes.items() if strict or n in arrays}, arrays)
    wrong += [
        f"{name}: expected real floats, got {arrays[name].dtype}"
        for name in shapes
        if name in arrays and arrays[name].dtype.kind != "f"
    ]
    if wrong:
        raise ValueError("state_dict: " + some(wrong, "; "))
    return arrays


def prefix_hint(shapes: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Say which prefix makes the names of a state dict those of the parameters; "" if none does."""
    name = next(iter(shapes), "")
    found = [str(key).removesuffix(name) for key in state if name and str(key).endswith(name)]
    fitting = [p for p in found if p and all(p + other in state for other in shapes)]
    if not fitting:
        return ""
    every = len(fitting) == 1 and all(str(key).startswith(fitting[0]) for key in state)
    begin = "all begin with" if every else "begin with" if len(fitting) == 1 else "begin with one of"
    return f"{begin} {some(map(repr, fitting))}: prefix={fitting[0]!r}"


class Parameters:
    """Named parameters that are views of one contiguous buffer.

    To assign to ``flat``, or to a name in ``params``, is to overwrite the numbers in that buffer. Copies are
    independent: those of ``copy.copy``, ``copy.deepcopy`` and pickle. A layer and its optimiser that are copied
    in one call stay together: the new optimiser updates the new layer.
    """

    _version = 0  # how often a function of this package has changed the parameters
    _change = ""  # what did so last
    _constraints: Mapping[str, Constraint] = {}  # by the names of parameters

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]) -> None:
        self.shapes = dict(shapes)
        size = sum(math.prod(shape) for shape in self.shapes.values())
        if size * dtype.itemsize > sys.maxsize:
            raise MemoryError(f"parameters: {size} numbers of {dtype} cannot be addressed")
        self._flat: Array = _aligned_zeros(size, dtype)
        self.params: dict[str, Array] = views_of(self._flat, self.shapes)
        register(self, self._flat)

    @property
    def flat(self) -> Array:
        """All parameters in one contiguous buffer."""
        return self._flat

    @flat.setter
    def flat(self, value: Any) -> None:
        if value is not self._flat:  # `layer.flat -= step` assigns the array to itself
            array = as_array("flat", value, self._flat.dtype)
            expect(array.shape == self._flat.shape, "flat", f"shape {self._flat.shape}", array.shape)
            with Changes.lock:
                self._before_change("flat")
                self._flat[...] = array
        note_change(self._flat, "an assignment to flat")

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name.

        >>> import fastrnn
        >>> list(fastrnn.GRU(2, 3).state_dict())
        ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
        """
        return {name: value.copy() for name, value in self.params.items()}

    def load_state_dict(self, state: Mapping[str, Any], *, prefix: str = "", strict: bool = True) -> None:
        """Set every parameter.

        Parameters
        ----------
        state : dict of str to array
            As :meth:`state_dict` returns it. Tensors of other libraries are taken where NumPy can read them.
        prefix : str
            Only the entries whose names begin with it are taken, without it: "gru." for the layer ``gru`` of a model.
        strict : bool
            Whether every parameter must be there, and nothing else. Otherwise the entries that have the names of
            parameters are taken; at least one must be there.

        Raises
        ------
        ValueError
            Entries are missing, unexpected or of another shape. The message names them, and nothing is changed.

        Examples
        --------
        >>> import fastrnn
        >>> a, b = fastrnn.GRU(2, 3), fastrnn.GRU(2, 3)
        >>> b.load_state_dict(a.state_dict())
        >>> bool((a.flat == b.flat).all())
        True
        >>> model = {f"encoder.gru.{name}": array for name, array in a.state_dict().items()}
        >>> b.load_state_dict(model, prefix="encoder.gru.")
        """
        arrays = accepted(self.shapes, state, prefix, strict)
        with Changes.lock:
            self._before_change("load_state_dict")
            for name, array in arrays.items():
                self.params[name][...] = array
        note_change(self._flat, "load_state_dict")

    def constrain(self, name: str, *, mask: Any = None, sign: Any = None) -> Self:
        """Keep numbers of a parameter at 0, or from having the wrong sign; return the object.

        The constraint holds from now on. It is applied at once, and again after every step of an optimiser, every
        function of `fastrnn.init`, every loading of weights, and every assignment to ``flat`` or to an entry of
        ``params``. Numbers that are written into an array (``layer.flat[...] = 1``) are not noticed; assign the array
        to itself to apply it (``layer.flat = layer.flat``). Copies and pickles keep the constraint, files of weights
        hold numbers only.

        Parameters
        ----------
        name : str
            The parameter, such as "weight_hh_l0".
        mask : bool array, optional
            False where numbers are kept at 0: connections that do not exist.
        sign : array of -1, 0 and 1, optional
            The sign that a number may have; 0 stands for either. A number of the wrong sign becomes 0. In W_hh the
            column is the unit that a connection comes from. So Dale's law, by which a unit excites or inhibits all
            others, is a sign for each column: an array [H].

            Both are broadcast to the shape of the parameter. In a matrix of several gates, an array [H, ...] is that
            of every gate. Without either the constraint is lifted.

        Raises
        ------
        ValueError, TypeError
            There is no such parameter, a shape does not fit, or the layer is frozen.

        Notes
        -----
        An optimiser's step followed by this projection is projected gradient descent. Moments that an optimiser keeps
        are not changed. Trained recurrent networks with Dale's law: Song, Yang and Wang 2016.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> rnn = fastrnn.RNN(2, 4, rng=0)
        >>> sparse = np.ones((4, 4), bool)
        >>> np.fill_diagonal(sparse, False)  # no unit feeds itself
        >>> _ = rnn.constrain("weight_hh_l0", mask=sparse, sign=[1, 1, 1, -1])
        >>> fastrnn.optim.SGD([rnn], lr=1.0).step([np.ones_like(rnn.flat)])
        >>> bool((rnn.params["weight_hh_l0"][:, :3] >= 0).all()), float(rnn.params["weight_hh_l0"].trace())
        (True, 0.0)
        """
        expect(name in self.shapes, "name", f"one of {some(self.shapes)}", repr(name))
        rest = {key: value for key, value in self._constraints.items() if key != name}
        if mask is not None or sign is not None:
            rest[name] = Constraint(self.shapes[name], self._gate_rows(name), mask, sign)
        with Changes.lock:
            self._before_change("constrain")
            self._constraints = rest
        note_change(self._flat, "constrain")
        return self

    def _gate_rows(self, name: str) -> int:
        """Return how many rows a gate has, where a parameter stacks several of them; else 0."""
        return 0

    def _changed(self, how: str) -> None:
        """Take note that the parameters have other numbers now, so that older tapes are not used."""
        for name, constraint in self._constraints.items():
            if self.params[name].flags.writeable:
                constraint.apply(self.params[name])
        self._version, self._change = self._version + 1, how

    def _before_change(self, what: str) -> None:
        """Raise where the parameters must not be overwritten; ``what`` is the name of the method that would."""

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        return f"{type(self).__name__}({shapes}; {self._flat.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        # The views are made again: a pickled view is an array of its own, no longer part of the buffer.
        return {name: value for name, value in self.__dict__.items() if name != "params"}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__dict__.update(kept)
        _own_memory(self._flat)
        # Others may have been copied together with this very array, so it is kept where it can be. Only an array
        # of another kind, such as joblib's memory maps, is replaced by a copy.
        self._flat = np.require(self._flat, requirements=["C", "A", "W", "E"])
        self.params = views_of(self._flat, self.shapes)
        register(self, self._flat)

    def __copy__(self) -> Parameters:
        return copy.deepcopy(self)


def _aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """Return zeros that begin with a cache line: calls of a few steps read the parameters where they are."""
    line = 64
    memory = np.zeros(size + line // dtype.itemsize, dtype)
    first = -memory.ctypes.data % line // dtype.itemsize
    return memory[first : first + size]


def _own_memory(array: Array) -> None:
    """Move an array that pickle has just made, and that nobody has a view of, into memory of its own.

    NumPy lets a large array lie in the bytes of the pickle. Once read-only, it could never be written again, so a
    copy of a layer could be frozen and not unfrozen. The array stays the same object, which an optimiser that was
    pickled with it holds too.
    """
    if type(array) is np.ndarray and (isinstance(array.base, bytes) or not array.flags.writeable):
        # NumPy copies what it reads in the other byte order.
        swapped = array.byteswap().tobytes()
        state: Any = (1, array.shape, array.dtype.newbyteorder(), False, swapped)
        array.__setstate__(state)
