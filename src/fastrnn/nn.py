"""Modules that stand before and behind recurrent layers: Embedding, Linear, Dropout, DotAttention; and Sequential.

They are used as the layers are. ``y, tape = module.forward(x)`` and ``g = module.backward(tape, dy)`` train, and
``y = module(x)`` runs inference. Parameters are views of one contiguous buffer, ``module.flat``, and their gradients
of ``g.flat``. Embedding, Linear and Dropout take a :class:`fastrnn.Ragged` too, and then return one.

:class:`Sequential` is a chain of such modules and of layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

import fastrnn._core as _core
from fastrnn import init
from fastrnn._arrays import (
    _float_dtype,
    _probability,
    _size,
    as_lengths,
    core_dtype,
    expect,
    floats,
    indices,
    readable,
    within,
)
from fastrnn._deprecated import warn_renamed
from fastrnn._parameters import Parameters
from fastrnn.gradients import Gradients
from fastrnn.ragged import Ragged

Array = NDArray[Any]
Seed = np.random.Generator | int | None

__all__ = ["DotAttention", "Dropout", "Embedding", "Last", "Linear", "Module", "Sequential"]

Method = TypeVar("Method", bound=Callable[..., Any])


class _RaggedTape(NamedTuple):
    """The tape of a pass over the values of a Ragged, with the lengths of its sequences."""

    tape: Any
    lengths: NDArray[np.int64]


def _forward_of_ragged(forward: Method) -> Method:
    """Let a module that treats each step by itself take a Ragged."""

    @functools.wraps(forward)
    def wrapper(self: Any, x: Any) -> Any:
        if not isinstance(x, Ragged):
            return forward(self, x)
        values = x.values
        if isinstance(self, Embedding) and values.ndim == 2:
            wanted = "a Ragged of one integer a step"
            expect(values.shape[1] == 1, "x", wanted, f"one of {values.shape[1]} numbers a step")
            values = values[:, 0]
        y, tape = forward(self, values)
        lengths = x.lengths.copy()
        return Ragged._of(y, lengths), _RaggedTape(tape, lengths)

    return wrapper  # type: ignore[return-value]


def _backward_of_ragged(backward: Method) -> Method:
    """Let the backward pass of such a module take a Ragged, or its values, and return dL/dx as a Ragged."""

    @functools.wraps(backward)
    def wrapper(self: Any, tape: Any, dy: Any, *, need_dx: bool = True) -> Gradients:
        if not isinstance(tape, _RaggedTape):
            expect(not isinstance(dy, Ragged), "dy", "an array, as x was one", "a Ragged", TypeError)
            return backward(self, tape, dy, need_dx=need_dx)  # type: ignore[no-any-return]
        if isinstance(dy, Ragged):
            fits = np.array_equal(dy.lengths, tape.lengths)
            expect(fits, "dy", "sequences of the lengths that x had", "other lengths")
            dy = dy.values
        g: Gradients = backward(self, tape.tape, dy, need_dx=need_dx)
        g.x = None if g.x is None else Ragged._of(g.x, tape.lengths)
        return g

    return wrapper  # type: ignore[return-value]


class Module(Parameters):
    """Base class of the modules: parameters, of which there may be none, with a forward and a backward pass."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]] | None = None, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__(shapes or {}, _float_dtype(dtype))

    def __call__(self, *args: Any) -> Any:
        """Run inference: the forward pass without its tape."""
        return self.forward(*args)[0]

    def forward(self, *args: Any) -> Any:
        """Return y and the tape that the backward pass needs."""
        raise NotImplementedError

    def backward(self, *args: Any, **kwargs: Any) -> Gradients:
        """Return the gradients of input and parameters, from the tape and the gradient of y.

        With ``need_dx=False`` that of the input is left out where it costs something.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        dtype = [] if self.flat.dtype == np.float32 else [f"dtype=np.{self.flat.dtype}"]
        return f"{type(self).__name__}({', '.join([*self._options(), *dtype])})"

    def _options(self) -> list[str]:
        """Return the arguments in the module's repr."""
        return []

    def _float(self, name: str, value: Any, last: int) -> Array:
        array = floats(name, value)
        expect(array.ndim != 0 and array.shape[-1] == last, name, f"shape [..., {last}]", array.shape)
        return array.astype(self.flat.dtype, copy=False)


class Embedding(Module):
    """Table of vectors that are looked up by integers, as ``torch.nn.Embedding``.

    Its parameter is ``weight`` [num_embeddings, embedding_dim].

    Parameters
    ----------
    num_embeddings : int
        Number of vectors.
    embedding_dim : int
        Size of a vector.
    padding_idx : int, optional
        The vector of this index begins as zeros and gets no gradient. A negative one counts from the end.
    dtype : float32 or float64
    rng : numpy Generator or seed, optional
        Draws the initial parameters, which are N(0, 1).

    Examples
    --------
    >>> Embedding(10, 4, rng=0)([[1, 2, 3]]).shape
    (1, 3, 4)
    >>> import fastrnn
    >>> Embedding(10, 4, padding_idx=0)(fastrnn.Ragged.from_list([[1, 2, 3], [4]]))
    Ragged(B=2, total=4, features=4, float32)
    """

    padding_idx: int | None = None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        self.num_embeddings = _size("num_embeddings", num_embeddings)
        self.embedding_dim = _size("embedding_dim", embedding_dim)
        super().__init__({"weight": (num_embeddings, embedding_dim)}, dtype)
        self.flat[...] = np.random.default_rng(rng).standard_normal(self.flat.size)
        if padding_idx is not None:
            index = _size("padding_idx", padding_idx, -self.num_embeddings)
            wanted = f"less than num_embeddings {num_embeddings}"
            expect(index < self.num_embeddings, "padding_idx", wanted, padding_idx)
            self.padding_idx = index % self.num_embeddings
            self.params["weight"][self.padding_idx] = 0

    @_forward_of_ragged
    def forward(self, x: ArrayLike | Ragged) -> tuple[Any, Any]:
        """Look up `x`, integers [...] in [0, num_embeddings); return [..., embedding_dim] and the tape.

        A Ragged holds its integers as values [total] or [total, 1].

        The tape refers to `x`: do not change it before backward.
        """
        ids = indices("x", x)
        within("x", ids, self.num_embeddings)
        y = _core.gather(self.params["weight"], np.ascontiguousarray(ids, np.int64).reshape(-1))
        return y.reshape(*ids.shape, self.embedding_dim), ids

    @_backward_of_ragged
    def backward(self, tape: Any, dy: ArrayLike | Ragged, *, need_dx: bool = True) -> Gradients:
        """Return the gradients from `dy` [..., embedding_dim]; ``x`` is None, because integers have none."""
        width = self.embedding_dim
        dy = self._float("dy", dy, width)
        expect(dy.shape[:-1] == tape.shape, "dy", f"shape {(*tape.shape, width)}", dy.shape)
        ids = np.ascontiguousarray(tape, np.int64).reshape(-1)
        rows = np.ascontiguousarray(dy).reshape(-1, width)
        table = _core.gather_gradient(self.num_embeddings, rows, ids)
        if self.padding_idx is not None:
            table[self.padding_idx] = 0
        return Gradients(x=None, state=None, shapes=self.shapes, flat=table.reshape(-1))

    def _options(self) -> list[str]:
        padding = [] if self.padding_idx is None else [f"padding_idx={self.padding_idx}"]
        return [str(self.num_embeddings), str(self.embedding_dim), *padding]


class Linear(Module):
    """Affine map ``y = x @ weight.T + bias``, as ``torch.nn.Linear``; weight [out_features, in_features].

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether there is a bias [out_features].
    activation : {None, "tanh", "relu", "sigmoid"}
        Applied to every output.
    dtype : float32 or float64
    rng : numpy Generator or seed, optional
        Draws the initial parameters, uniform within 1 / sqrt(in_features).

    Examples
    --------
    >>> Linear(4, 2, rng=0)(np.ones((5, 3, 4))).shape
    (5, 3, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: str | None = None,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        known = activation in (None, "tanh", "relu", "sigmoid")
        expect(known, "activation", "None, 'tanh', 'relu' or 'sigmoid'", repr(activation))
        self.activation = activation
        self.in_features = _size("in_features", in_features)
        self.out_features = _size("out_features", out_features)
        shapes: dict[str, tuple[int, ...]] = {"weight": (out_features, in_features)}
        super().__init__(shapes | ({"bias": (out_features,)} if bias else {}), dtype)
        init.torch_uniform(self, rng)

    @_forward_of_ragged
    def forward(self, x: ArrayLike | Ragged) -> tuple[Any, Any]:
        """Map `x` [..., in_features] to [..., out_features]; return that and the tape.

        The tape refers to `x`, to the weight and, with an activation, to the output: change none of them before
        backward.
        """
        x = self._float("x", x, self.in_features)
        y = _core.linear(
            x.reshape(-1, self.in_features),
            self.params["weight"],
            self.params.get("bias"),
            self.activation or "",
        )
        return y.reshape(*x.shape[:-1], self.out_features), (x, y if self.activation else None, self._version)

    @_backward_of_ragged
    def backward(self, tape: Any, dy: ArrayLike | Ragged, *, need_dx: bool = True) -> Gradients:
        """Return the gradients from `dy` [..., out_features].

        Without `need_dx`, ``x`` is None, which takes less time.
        """
        x, y, version = tape
        dy = self._float("dy", dy, self.out_features)
        expect(dy.shape[:-1] == x.shape[:-1], "dy", f"shape {(*x.shape[:-1], self.out_features)}", dy.shape)
        if version != self._version and need_dx:
            raise ValueError(
                "tape: expected the parameters to be those of its forward, got others: they were changed since by "
                f"{self._change}. Call backward before you change them, or forward again"
            )
        dx, flat = _core.linear_backward(
            x.reshape(-1, self.in_features), self.params["weight"], "bias" in self.params,
            dy.reshape(-1, self.out_features), self.activation or "", y, need_dx,
        )  # fmt: skip
        return Gradients(
            x=None if dx is None else dx.reshape(x.shape), state=None, shapes=self.shapes, flat=flat
        )

    def _options(self) -> list[str]:
        bias = [] if "bias" in self.params else ["bias=False"]
        activation = [f"activation={self.activation!r}"] if self.activation else []
        return [str(self.in_features), str(self.out_features), *bias, *activation]


class Dropout(Module):
    """Dropout of elements in the training pass (Srivastava et al. 2014); inference changes nothing.

    ``forward`` sets each element to zero with probability `p` and scales the rest by 1 / (1 - p). The masks are drawn
    from `rng`, so a seed fixes them.

    Examples
    --------
    >>> y, tape = Dropout(0.5, rng=0).forward(np.ones(4, np.float32))
    >>> sorted({float(v) for v in y}) == [0.0, 2.0]
    True
    """

    def __init__(self, p: float = 0.5, *, rng: Seed = None) -> None:
        super().__init__()
        self.p = _probability("p", p)
        self.rng = np.random.default_rng(rng)

    def __call__(self, x: ArrayLike | Ragged) -> Any:
        """Return `x` itself, because dropout is for training."""
        return x if isinstance(x, Ragged) else readable("x", x, "real floats")

    @_forward_of_ragged
    def forward(self, x: ArrayLike | Ragged) -> tuple[Any, Any]:
        """Return `x` [...] of float with elements dropped, and the tape, which is the scaled mask."""
        x = floats("x", x)
        if self.p == 0:
            return x, None
        mask = (self.rng.random(x.shape, dtype=np.float32) >= self.p).astype(x.dtype)
        mask /= 1 - self.p
        return x * mask, mask

    @_backward_of_ragged
    def backward(self, tape: Any, dy: ArrayLike | Ragged, *, need_dx: bool = True) -> Gradients:
        """Return the gradient with respect to `x`, from `dy` of the same shape."""
        dy = floats("dy", dy)
        if tape is not None:
            expect(dy.shape == tape.shape, "dy", f"shape {tape.shape}", dy.shape)
            dy = dy * tape
        return Gradients(x=dy, state=None, shapes={}, flat=self.flat.copy())

    def _options(self) -> list[str]:
        return [str(self.p)]


class DotAttention(Module):
    """At each step the mean of a memory, weighted by softmax(memory . query) (Luong et al. 2015, "dot").

    It has no parameters.

    Examples
    --------
    >>> query, memory = np.ones((5, 2, 4), np.float32), np.ones((7, 2, 4), np.float32)
    >>> DotAttention()(query, memory, [7, 3]).shape
    (5, 2, 4)
    """

    def forward(
        self, query: ArrayLike, memory: ArrayLike, lengths: ArrayLike | None = None
    ) -> tuple[Array, Any]:
        """Return the context [T, B, H] and the tape.

        Parameters
        ----------
        query : float [T, B, H]
        memory : float [S, B, H], of the dtype of ``query``
        lengths : int [B], optional
            How many steps of the memory count for each sequence; by default all. The context of a sequence of
            length 0 is zero.
        """
        q, m = floats("query", query), floats("memory", memory)
        expect(q.ndim == 3, "query", "shape [T, B, H]", q.shape)
        expect(
            m.ndim == 3 and m.shape[1:] == q.shape[1:],
            "memory",
            f"shape [S, {q.shape[1]}, {q.shape[2]}]",
            m.shape,
        )
        dtype = core_dtype(q)
        n = np.full(q.shape[1], len(m)) if lengths is None else as_lengths(lengths, q.shape[1], len(m))
        arrays = (*(np.ascontiguousarray(a, dtype) for a in (q, m)), np.ascontiguousarray(n, np.int64))
        context, p = _core.attend(*arrays)
        return context, (*arrays, p)

    def backward(self, tape: Any, dcontext: ArrayLike, *, need_dx: bool = True) -> Gradients:
        """Return the gradients from `dcontext` [T, B, H]: ``x`` is the pair (dquery, dmemory)."""
        query, memory, lengths, p = tape
        d = floats("dcontext", dcontext)
        expect(d.shape == query.shape, "dcontext", f"shape {query.shape}", d.shape)
        d = np.ascontiguousarray(d, query.dtype)
        return Gradients(_core.attend_backward(query, memory, lengths, p, d), None, {}, self.flat.copy())


class Last(Module):
    """Final hidden state of the recurrent layer before it, for :class:`Sequential`: many to one.

    Its output is ``layer.final_hidden(state)`` [B, D * output]: what a classifier of whole sequences reads.
    """

    def forward(self, *args: Any) -> Any:
        """Raise: it needs the state of the layer before it."""
        raise TypeError(
            "Last: expected to stand behind a recurrent layer in a Sequential, got a call by itself"
        )


from fastrnn._sequential import Sequential  # noqa: E402  it needs the classes above


def __getattr__(name: str) -> Any:
    if name == "Piece":
        warn_renamed("fastrnn.nn.Piece", "Module")
        return Module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
