"""What stands around a recurrent layer: Embedding, Linear, Dropout, DotAttention.

Each has the shape of the layers: ``y, tape = piece.forward(x)`` and ``g = piece.backward(tape, dy)``; calling
a piece runs inference. Parameters are views of one contiguous buffer, ``piece.flat``, and gradients of one
``g.flat``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

import fastrnn._core as _core
from fastrnn import init
from fastrnn._arrays import _float_dtype, _probability, _size, as_lengths, expect, floats, indices, within
from fastrnn.gradients import Gradients
from fastrnn.layers import Parameters

Array = NDArray[Any]
Seed = np.random.Generator | int | None

__all__ = ["DotAttention", "Dropout", "Embedding", "Linear"]


class Piece(Parameters):
    """Parameters with a forward and a backward pass; these here have none."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]] | None = None, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__(shapes or {}, _float_dtype(dtype))

    def __call__(self, *args: Any) -> Any:
        """Run inference, which is the forward pass without the tape."""
        return self.forward(*args)[0]

    def forward(self, *args: Any) -> Any:
        """Give y and the tape."""
        raise NotImplementedError

    def _float(self, name: str, value: ArrayLike, last: int) -> Array:
        array = floats(name, value)
        expect(array.ndim != 0 and array.shape[-1] == last, name, f"shape [..., {last}]", array.shape)
        return array.astype(self.flat.dtype, copy=False)


class Embedding(Piece):
    """Table of vectors looked up by integer, as ``torch.nn.Embedding``; weight [num_embeddings,
    embedding_dim].

    Initially N(0, 1).

    Examples
    --------
    >>> Embedding(10, 4, rng=0)([[1, 2, 3]]).shape
    (1, 3, 4)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, dtype: DTypeLike = np.float32, rng: Seed = None
    ) -> None:
        self.num_embeddings = _size("num_embeddings", num_embeddings)
        self.embedding_dim = _size("embedding_dim", embedding_dim)
        super().__init__({"weight": (num_embeddings, embedding_dim)}, dtype)
        self.flat[...] = np.random.default_rng(rng).standard_normal(self.flat.size)

    def forward(self, x: ArrayLike) -> tuple[Array, Array]:
        """Look up `x`, integers [...] in [0, num_embeddings): gives [..., embedding_dim] and the tape, which refers
        to `x`."""
        ids = indices("x", x)
        within("x", ids, self.num_embeddings)
        y = _core.gather(self.params["weight"], np.ascontiguousarray(ids, np.int64).reshape(-1))
        return y.reshape(*ids.shape, self.embedding_dim), ids

    def backward(self, tape: Array, dy: ArrayLike) -> Gradients:
        """Give the gradients from `dy` [..., embedding_dim]; ``x`` is None, integers have none."""
        width = self.embedding_dim
        dy = self._float("dy", dy, width)
        expect(dy.shape[:-1] == tape.shape, "dy", f"shape {(*tape.shape, width)}", dy.shape)
        ids = np.ascontiguousarray(tape, np.int64).reshape(-1)
        rows = np.ascontiguousarray(dy).reshape(-1, width)
        table = _core.gather_gradient(self.num_embeddings, rows, ids)
        return Gradients(x=None, state=None, shapes=self.shapes, flat=table.reshape(-1))


class Linear(Piece):
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
        For the initial parameters: uniform within 1 / sqrt(in_features).

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

    def forward(self, x: ArrayLike) -> tuple[Array, Any]:
        """Map `x` [..., in_features] to [..., out_features]; return that and the tape.

        The tape refers to `x` and, with an activation, to the output: change neither before backward.
        """
        x = self._float("x", x, self.in_features)
        y = _core.linear(
            x.reshape(-1, self.in_features),
            self.params["weight"],
            self.params.get("bias"),
            self.activation or "",
        )
        return y.reshape(*x.shape[:-1], self.out_features), (x, y if self.activation else None)

    def backward(self, tape: Any, dy: ArrayLike) -> Gradients:
        """Return the gradients from `dy` [..., out_features]."""
        x, y = tape
        dy = self._float("dy", dy, self.out_features)
        expect(dy.shape[:-1] == x.shape[:-1], "dy", f"shape {(*x.shape[:-1], self.out_features)}", dy.shape)
        dx, flat = _core.linear_backward(
            x.reshape(-1, self.in_features), self.params["weight"], "bias" in self.params,
            dy.reshape(-1, self.out_features), self.activation or "", y,
        )  # fmt: skip
        assert dx is not None
        return Gradients(x=dx.reshape(x.shape), state=None, shapes=self.shapes, flat=flat)


class Dropout(Piece):
    """Zero each element with probability `p` in ``forward`` and scale the rest by 1 / (1 - p); a call changes
    nothing.

    Srivastava et al. 2014. The masks are drawn from `rng`, so a seed fixes them.

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

    def __call__(self, x: ArrayLike) -> Array:
        """Give `x` itself: dropout is for training."""
        return np.asarray(x)

    def forward(self, x: ArrayLike) -> tuple[Array, Array | None]:
        """Give `x` [...] of float with elements dropped, and the tape (the scaled mask)."""
        x = floats("x", x)
        if self.p == 0:
            return x, None
        mask = (self.rng.random(x.shape, dtype=np.float32) >= self.p).astype(x.dtype)
        mask /= 1 - self.p
        return x * mask, mask

    def backward(self, tape: Array | None, dy: ArrayLike) -> Gradients:
        """Give the gradient with respect to `x` from `dy` of the same shape."""
        dy = np.asarray(dy)
        if tape is not None:
            expect(dy.shape == tape.shape, "dy", f"shape {tape.shape}", dy.shape)
            dy = dy * tape
        return Gradients(x=dy, state=None, shapes={}, flat=self.flat.copy())


class DotAttention(Piece):
    """Mean of a memory weighted by softmax(memory . query), at each step (Luong et al. 2015, "dot").

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
            How many places of the memory count for each sequence; all of them by default. A sequence of
            length 0 gets a context of zeros.
        """
        q, m = floats("query", query), floats("memory", memory)
        expect(q.ndim == 3, "query", "shape [T, B, H]", q.shape)
        expect(
            m.ndim == 3 and m.shape[1:] == q.shape[1:],
            "memory",
            f"shape [S, {q.shape[1]}, {q.shape[2]}]",
            m.shape,
        )
        dtype = np.float64 if q.dtype.itemsize > 4 else np.float32
        n = np.full(q.shape[1], len(m)) if lengths is None else as_lengths(lengths, q.shape[1], len(m))
        arrays = (*(np.ascontiguousarray(a, dtype) for a in (q, m)), np.ascontiguousarray(n, np.int64))
        context, p = _core.attend(*arrays)
        return context, (*arrays, p)

    def backward(self, tape: Any, dcontext: ArrayLike) -> Gradients:
        """Return the gradients from `dcontext` [T, B, H]: ``x`` is the pair (dquery, dmemory)."""
        query, memory, lengths, p = tape
        d = floats("dcontext", dcontext)
        expect(d.shape == query.shape, "dcontext", f"shape {query.shape}", d.shape)
        d = np.ascontiguousarray(d, query.dtype)
        return Gradients(_core.attend_backward(query, memory, lengths, p, d), None, {}, self.flat.copy())
