"""fastrnn as an engine. Inference is measured frozen, as the peers that pack weights at load are."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from timing import Prepared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shapes import Case
    from workload import Arrays, Workload


def version() -> str:
    """Version of the installed package."""
    import fastrnn

    return str(fastrnn.__version__)


def unsupported(case: Case) -> str | None:
    """Nothing is."""
    return None


def layer(workload: Workload, *, freeze: bool) -> Any:
    """Build the layer of a workload with its weights."""
    import fastrnn

    case = workload.case
    cls = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[case.kind]
    built = cls(
        case.I, case.H, num_layers=case.layers, bidirectional=case.bidirectional, dtype=np.dtype(case.dtype)
    )
    built.load_state_dict(workload.params)
    if freeze:
        built.freeze()
    return built


@contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Run the body with `threads` threads."""
    import fastrnn

    before = fastrnn.get_num_threads()
    if before == threads:
        yield
        return
    fastrnn.set_num_threads(threads)
    try:
        yield
    finally:
        fastrnn.set_num_threads(before)


def state_arrays(state: Any) -> Arrays:
    """h_n, or h_n and c_n, by name."""
    return {"h_n": state[0], "c_n": state[1]} if isinstance(state, tuple) else {"h_n": state}


def read_inference(result: Any) -> Arrays:
    """Name the outputs of `layer(x)`."""
    y, state = result
    return {"y": y, **state_arrays(state)}


def read_training(result: Any) -> Arrays:
    """Name the outputs and gradients of a training step."""
    y, state, grads = result
    named = {"y": y, **state_arrays(state), "dx": grads.x}
    return named | {f"d{name}": value for name, value in grads.params.items()}


def train(built: Any, x: Any, dy: Any, **options: Any) -> tuple[Any, Any, Any]:
    """Forward and BPTT: outputs, state and all gradients."""
    y, state, tape = built.forward(x, **options)
    return y, state, built.backward(tape, dy)


def prepare(workload: Workload, threads: int, *, freeze: bool = True, **options: Any) -> Prepared:
    """Prepare fastrnn for one workload; `options` go to every call (lengths, reset, checkpoint)."""
    context = partial(threads_set, threads)
    if workload.case.mode == "infer":
        built = layer(workload, freeze=freeze)
        return Prepared(partial(built, workload.x, **options), read_inference, context)
    built = layer(workload, freeze=False)
    return Prepared(partial(train, built, workload.x, workload.dy, **options), read_training, context)
