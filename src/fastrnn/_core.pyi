from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike, NDArray

class PackedWeights:
    @property
    def nbytes(self) -> int: ...

class Tape:
    @property
    def nbytes(self) -> int: ...
    @property
    def weights(self) -> tuple[NDArray[Any], ...] | PackedWeights | None: ...

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
        reverse: bool = False,
        merge: str = "concat",
        learned_state: bool = False,
    ) -> None: ...
    def forward_layers(
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
    def backward(
        self,
        tape: Tape,
        dy: Any,
        dstate: Any,
        need_dx: bool = True,
        dy_last: Any = None,
    ) -> tuple[Any, Any, NDArray[Any]]: ...
    def backward_layers(
        self, tape: Tape, dy: Any, dstate: Any, need_dx: bool, dy_last: Any, dlayers: list[Any], /
    ) -> tuple[Any, Any, NDArray[Any]]: ...
    def pack(self, weights: tuple[NDArray[Any], ...], /) -> PackedWeights: ...

class Stream:
    state: Any
    def __init__(self, network: Network, weights: PackedWeights, rows: int, /) -> None: ...
    def step(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def reset(self, rows: Any = None) -> None: ...

def linear(
    x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None, activation: str = ""
) -> NDArray[Any]: ...
def linear_backward(
    x: NDArray[Any],
    weight: NDArray[Any],
    has_bias: bool,
    dy: NDArray[Any],
    activation: str = "",
    y: NDArray[Any] | None = None,
    need_dx: bool = True,
) -> tuple[NDArray[Any] | None, NDArray[Any]]: ...
def linear_cross_entropy(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    targets: NDArray[Any],
    weights: NDArray[Any] | None,
    row_weight: float,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    gradients: bool = True,
    need_dx: bool = True,
) -> tuple[float, NDArray[Any] | None, NDArray[Any] | None]: ...
def softmax_cross_entropy(
    logits: NDArray[Any],
    targets: NDArray[Any],
    weights: NDArray[Any] | None,
    row_weight: float,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    gradient: bool = True,
) -> tuple[float, NDArray[Any] | None]: ...
def attend(
    query: NDArray[Any], memory: NDArray[Any], lengths: NDArray[Any], /
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def attend_backward(
    query: NDArray[Any],
    memory: NDArray[Any],
    lengths: NDArray[Any],
    p: NDArray[Any],
    dcontext: NDArray[Any],
    /,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def gather(table: NDArray[Any], ids: NDArray[Any], /) -> NDArray[Any]: ...
def gather_gradient(rows: int, dy: NDArray[Any], ids: NDArray[Any], /) -> NDArray[Any]: ...
def squared_norm(gradients: list[NDArray[Any]], /) -> float: ...
def optimiser_step(
    optimiser: str,
    parameters: list[NDArray[Any]],
    gradients: list[NDArray[Any]],
    a: list[NDArray[Any] | None],
    b: list[NDArray[Any] | None],
    clip: float,
    decay: float = 0.0,
    keep: float = 1.0,
    first: float = 0.0,
    second: float = 0.0,
    eps: float = 0.0,
    rate: float = 0.0,
    nesterov: bool = False,
) -> float: ...
def config() -> dict[str, Any]: ...
def count_cpus(root: str, allowed: list[int]) -> dict[str, float]: ...
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
