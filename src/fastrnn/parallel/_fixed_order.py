"""Gradients as sums over fixed shards in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _size, expect
from fastrnn.parallel._exchanges import Exchange

Array = NDArray[Any]
Node = list[Array]  # the results of one shard, or of several added up: loss, gradients

ALONE = Exchange()


def fixed_order(
    grad_of_shard: Callable[[Any], tuple[float, Any]],
    batch: Any,
    shards: int = 8,
    exchange: Exchange | None = None,
    *,
    reduction: str = "mean",
    seed: Any = None,
) -> tuple[float, list[Array]]:
    """Return the loss of a batch and its gradients, with bits that do not depend on the number of processes.

    The batch is cut into equal shards. The processes divide the shards among them, and the results of all are added
    as a binary tree whose shape depends on ``shards`` alone. Every process gets the same result. Call this function on
    every process, with the same batch. If that is large, let it be indices: a process reads only its own shards.

    Parameters
    ----------
    grad_of_shard : function of a shard
        Returns the loss of the shard and its gradients: a list, as an optimiser's ``step`` takes it, of arrays
        or of what ``backward`` returns. It must depend on the shard alone. Random numbers (dropout) belong to a
        generator that is seeded by step and shard, or come from ``batch``.
    batch : array or list [B]
        Cut along its first axis.
    shards : int
        Number of shards; it divides B. Another number gives other bits.
    exchange : Exchange, optional
        By default this process is alone.
    reduction : "mean" or "sum"
        What the results are: means over shards, as losses are that are means over a batch, or sums.
    seed : int or str, optional
        Whatever must agree between the processes besides shapes, such as a seed.

    Returns
    -------
    loss : float
    gradients : list of arrays
        Flat, for ``step`` of an optimiser.

    Raises
    ------
    ValueError
        The shards do not divide the batch, there are fewer of them than processes, or the processes disagree about
        shapes, ``shards`` or ``seed``. All processes raise an error, also where only one has failed.

    Notes
    -----
    The exchange takes log2(R) messages of the size of the gradient where R, the number of processes, is a power of
    two that divides ``shards``, and otherwise one gathering of R to 2 log2(shards) R of that size.
    """
    expect(reduction in ("mean", "sum"), "reduction", "'mean' or 'sum'", repr(reduction))
    exchange = ALONE if exchange is None else exchange
    results: list[Node] = []
    failure = None
    try:
        parts = _cut(batch, shards, exchange)
        for index in range(*_own(exchange.rank, exchange.size, shards)):
            loss, gradients = grad_of_shard(parts[index])
            results.append([np.array([loss], np.float64), *_flats(gradients)])
            sizes = [_sizes(result) for result in (results[0], results[-1])]
            expect(
                sizes[0] == sizes[1], "grad_of_shard", f"gradients of {sizes[0]} from every shard", sizes[1]
            )
    except Exception as error:  # the others must not wait for this process
        if exchange.size == 1:
            raise
        failure = error
    count = len(batch) if hasattr(batch, "__len__") else None
    _agree(exchange, (shards, count, seed, reduction, results and _sizes(results[0])), failure)
    total_loss, *totals = _sum(exchange, results, shards)
    scale = shards if reduction == "mean" else 1
    return float(total_loss[0]) / scale, [total / total.dtype.type(scale) for total in totals]


def _cut(batch: Any, shards: Any, exchange: Exchange) -> list[Any]:
    """Return the shards of a batch."""
    shards = _size("shards", shards)
    expect(hasattr(batch, "__len__"), "batch", "an array or list", type(batch).__name__, TypeError)
    size, rest = divmod(len(batch), shards)
    expect(size and not rest, "shards", f"a divisor of the batch's {len(batch)}", shards)
    expect(exchange.size <= shards, "shards", f"at least one for each of {exchange.size} processes", shards)
    return [batch[i * size : (i + 1) * size] for i in range(shards)]


def _own(rank: int, size: int, shards: int) -> tuple[int, int]:
    """Return the first of a process's shards and the one behind its last."""
    return rank * shards // size, (rank + 1) * shards // size


def _flats(gradients: Any) -> list[Array]:
    single = isinstance(gradients, np.ndarray) or hasattr(gradients, "flat")
    items: Sequence[Any] = [gradients] if single else gradients
    flats = [np.asarray(g if isinstance(g, np.ndarray) else g.flat).reshape(-1) for g in items]
    for flat in flats:
        expect(flat.dtype.kind == "f", "grad_of_shard", "gradients of floats", flat.dtype, TypeError)
    return flats


def _sizes(result: Node) -> list[tuple[int, str]]:
    return [(array.size, array.dtype.str) for array in result[1:]]


def _agree(exchange: Exchange, value: Any, failure: Exception | None) -> None:
    """Raise on every process unless all have the same value and none has failed."""
    if exchange.size == 1:
        return
    digest = hashlib.sha256(repr(value).encode()).digest()
    known = exchange.gather(np.frombuffer(digest + bytes([failure is not None]), np.uint8))
    if failure is not None:
        raise failure
    failed = np.flatnonzero(known[:, -1]).tolist()
    expect(not failed, "grad_of_shard and batch", "no error on any process", f"one on {failed}")
    others = np.flatnonzero((known != known[0]).any(axis=1)).tolist()
    what = "shards, batch size, seed and sizes of gradients"
    expect(not others, what, "the same on every process", f"other ones on {others} than on 0")


# -- the tree -----------------------------------------------------------------------------------------------


def _add(a: Node, b: Node) -> Node:
    return [one + other for one, other in zip(a, b, strict=True)]


def _nodes(first: int, last: int) -> list[tuple[int, int]]:
    """Return the largest aligned subtrees that lie within [first, last): their starts and sizes."""
    found = []
    while first < last:
        size = first & -first if first else 1 << (last - 1).bit_length()
        while first + size > last:
            size //= 2
        found.append((first, size))
        first += size
    return found


def _fold(leaves: dict[tuple[int, int], Node], start: int, size: int, shards: int) -> Node:
    """Return the sum of a subtree of which `leaves` has the parts. What lies beyond the last shard is left out."""
    known = leaves.get((start, size))
    if known is not None:
        return known
    half = size // 2
    left = _fold(leaves, start, half, shards)
    if start + half >= shards:
        return left
    return _add(left, _fold(leaves, start + half, half, shards))


def _sum(exchange: Exchange, results: list[Node], shards: int) -> Node:
    """Add the results of all shards in the order of one tree; `results` are those of this process."""
    whole = 1 << (shards - 1).bit_length()
    first, last = _own(exchange.rank, exchange.size, shards)
    leaves = {(first + i, 1): result for i, result in enumerate(results)}
    mine = [(n, _fold(leaves, *n, shards)) for n in _nodes(first, last)]
    if exchange.size == 1:
        leaves.update(mine)
        return _copy(_fold(leaves, 0, whole, shards))
    size = exchange.size
    if size & (size - 1) == 0 and shards % size == 0 and shards & (shards - 1) == 0:
        node, step = mine[0][1], 1
        while step < size:  # recursive doubling
            other = _unpack(exchange.swap(_pack(node), exchange.rank ^ step), node)
            node = _add(node, other) if exchange.rank & step == 0 else _add(other, node)
            step *= 2
        return _copy(node)
    places = [_nodes(*_own(rank, size, shards)) for rank in range(size)]
    most = max(map(len, places))
    sent = [_pack(node) for _, node in mine]
    sent += [np.zeros_like(sent[0])] * (most - len(sent))
    got = exchange.gather(np.stack(sent))
    known = {
        place: _unpack(got[rank, i], results[0])
        for rank, own in enumerate(places)
        for i, place in enumerate(own)
    }
    return _copy(_fold(known, 0, whole, shards))


def _copy(node: Node) -> Node:
    """Return arrays that nobody else has; 0 has no sign in them."""
    return [array + 0.0 for array in node]


def _pack(node: Node) -> Array:
    """Return the bytes of all arrays of a node."""
    return np.concatenate([np.ascontiguousarray(array).view(np.uint8) for array in node])


def _unpack(data: Array, like: Node) -> Node:
    arrays, at = [], 0
    for array in like:
        arrays.append(np.frombuffer(data[at : at + array.nbytes].tobytes(), array.dtype))
        at += array.nbytes
    return arrays
