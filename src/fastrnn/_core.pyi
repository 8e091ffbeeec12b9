from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike, NDArray

class PackedWeights:
    @property
    def nbytes(self) -> int: ...

class Tape:
    @property
    def nbytes(self) -> int: ...

class Network:
    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        num_layers: int,
        bidirectional: bool,
        bias: bool,
        batch_first: bool,
        is_double: bool,
        /,
    ) -> None: ...
    def forward(
        self,
        weights: tuple[NDArray[Any], ...] | PackedWeights,
        x: Any,
        state: Any,
        lengths: Any,
        reset: Any,
        steps: int | None,
        ragged: bool,
        keep: bool,
        checkpoint: int,
        masks: Callable[[int], NDArray[Any]] | None,
        scale: float,
        /,
    ) -> tuple[Any, ...]: ...
    def infer(
        self,
        weights: tuple[NDArray[Any], ...] | PackedWeights,
        x: Any,
        state: Any,
        reset: Any,
        steps: int | None,
        /,
    ) -> tuple[Any, Any]: ...
    def backward(self, tape: Tape, dy: Any, dstate: Any, /) -> tuple[Any, Any, NDArray[Any]]: ...
    def pack(self, weights: tuple[NDArray[Any], ...], /) -> PackedWeights: ...

class Stream:
    state: Any
    def __init__(self, network: Network, weights: PackedWeights, rows: int, /) -> None: ...
    def step(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def reset(self, rows: Any = None) -> None: ...

def config() -> dict[str, Any]: ...
def num_threads() -> int: ...
def set_num_threads(n: int, /) -> None: ...
def measure_limits() -> dict[str, Any]: ...
def run_fma(is_double: bool, threads: int, rounds: int) -> float: ...
def exchange_lines(rounds: int) -> int: ...
def shuffle_shares(seed: int) -> None: ...
def schedule(
    cell: str,
    total: int,
    steps: int,
    rows: int,
    input: int,
    hidden: int,
    recurrent: int,
    number: int,
    gates: int,
    threads: int,
    l2: int,
    layers: int = 1,
    directions: int = 1,
    packed: bool = False,
    panels: int = 8,
    backward: bool = False,
) -> tuple[int, str, bool, bool, bool, bool]: ...
def tanh(a: NDArray[Any], /) -> NDArray[Any]: ...
def sigmoid(a: NDArray[Any], /) -> NDArray[Any]: ...
