"""JAX: jit of lax.scan, x W of all steps hoisted out of the scan; training is one jit of forward and vjp.

What XLA makes of the scan depends on the weights' layout and on unrolling, and no choice is best for all
shapes, so `prepare` compiles the candidates and keeps the fastest.
"""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from timing import Prepared
from workload import suffixes

if TYPE_CHECKING:
    from collections.abc import Callable

    from shapes import Case
    from workload import Arrays, Workload

thorough = True  # try all candidates; bench.py --quick takes the first


def version() -> str:
    """Version of the installed package."""
    import jax

    return str(jax.__version__)


def unsupported(case: Case) -> str | None:
    """Nothing is."""
    return None


def cell(kind: str, hidden: int) -> Callable[..., Any]:
    """Return step(state, gx, R, b): gx [B, G*H] is x W + b_ih, R [H, G*H], b is b_hh."""
    import jax
    import jax.numpy as jnp

    def rnn(state: Any, gx: Any, r: Any, b: Any) -> tuple[Any, Any]:
        h = jnp.tanh(gx + state[0] @ r + b)
        return (h,), h

    def lstm(state: Any, gx: Any, r: Any, b: Any) -> tuple[Any, Any]:
        h, c = state
        i, f, g, o = jnp.split(gx + h @ r + b, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(state: Any, gx: Any, r: Any, b: Any) -> tuple[Any, Any]:
        gh = state[0] @ r + b
        reset, z = jnp.split(jax.nn.sigmoid(gx[..., : 2 * hidden] + gh[..., : 2 * hidden]), 2, axis=-1)
        n = jnp.tanh(gx[..., 2 * hidden :] + reset * gh[..., 2 * hidden :])
        h = n + z * (state[0] - n)
        return (h,), h

    return {"rnn": rnn, "lstm": lstm, "gru": gru}[kind]


def forward(case: Case, transposed: bool, unroll: int, params: Any, x: Any) -> tuple[Any, Any]:
    """Return y and the states of all layers; `transposed` says the weights come as [in, G*H]."""
    import jax
    import jax.numpy as jnp

    step = cell(case.kind, case.H)
    finals = []
    for _, group in itertools.groupby(suffixes(case), key=lambda item: item[0]):
        parts = []
        for _, suffix in group:
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            w, r, b_ih, b_hh = (params[f"{name}_{suffix}"] for name in names)
            if not transposed:
                w, r = w.T, r.T
            zeros = jnp.zeros((case.B, case.H), x.dtype)
            state, y = jax.lax.scan(
                lambda carry, gx, r=r, b=b_hh: step(carry, gx, r, b),
                (zeros, zeros) if case.kind == "lstm" else (zeros,),
                x @ w + b_ih,
                reverse=suffix.endswith("_reverse"),
                unroll=unroll,
            )
            parts.append(y)
            finals.append(state)
        x = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
    return x, tuple(jnp.stack(part) for part in zip(*finals, strict=True))


def training(case: Case, transposed: bool, unroll: int, params: Any, x: Any, dy: Any) -> tuple[Any, Any]:
    """Return outputs and the gradients of <y, dy> for all parameters and x."""
    import jax

    y, pullback, state = jax.vjp(partial(forward, case, transposed, unroll), params, x, has_aux=True)
    return (y, state), pullback(dy)


def read(transposed: bool, result: Any) -> Arrays:
    """Name the outputs, and the gradients of a training step."""
    (y, state), grads = result if isinstance(result[0], tuple) else (result, None)
    named = {"y": y, **dict(zip(("h_n", "c_n"), state, strict=False))}
    if grads is not None:
        params, named["dx"] = grads
        for name, value in params.items():
            named[f"d{name}"] = value.T if transposed and value.ndim == 2 else value
    return {name: np.asarray(value) for name, value in named.items()}


def candidate(workload: Workload, transposed: bool, unroll: int) -> Prepared:
    """One way to compile a workload."""
    import jax

    case = workload.case
    params = {
        name: jax.device_put(np.ascontiguousarray(value.T) if transposed and value.ndim == 2 else value)
        for name, value in workload.params.items()
    }
    arguments = [params, jax.device_put(workload.x)]
    if case.mode == "train":
        arguments.append(jax.device_put(workload.dy))
    function = training if case.mode == "train" else forward
    call = jax.jit(partial(function, case, transposed, unroll)).lower(*arguments).compile()

    def run() -> Any:
        return jax.block_until_ready(call(*arguments))

    return Prepared(run, partial(read, transposed))


def prepare(workload: Workload, threads: int) -> Prepared:
    """Prepare JAX for one workload; its thread count is fixed when it loads (`peers.limit_threads`)."""
    import jax

    case = workload.case
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    choices = [(False, 1), (True, 1)]
    if (
        case.T >= 8 and case.B * case.H <= 64
    ):  # unrolling saves loop overhead; larger steps it only slows down
        choices.append((True, 8))
    best, best_seconds = None, float("inf")
    for transposed, unroll in choices if thorough else choices[:1]:
        prepared = candidate(workload, transposed, unroll)
        prepared.run()
        seconds = float("inf")
        deadline = time.perf_counter() + 0.05
        while True:
            start = time.perf_counter()
            prepared.run()
            now = time.perf_counter()
            seconds = min(seconds, now - start)
            if now > deadline:
                break
        if seconds < best_seconds:
            best, best_seconds = prepared, seconds
    assert best is not None
    return best
