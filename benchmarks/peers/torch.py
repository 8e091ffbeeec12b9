"""PyTorch: nn.RNN, nn.LSTM, nn.GRU; inference_mode, or autograd.grad of y for x and every parameter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from timing import Prepared

if TYPE_CHECKING:
    from shapes import Case
    from workload import Arrays, Workload


def version() -> str:
    """Version of the installed package."""
    import torch

    return str(torch.__version__)


def unsupported(case: Case) -> str | None:
    """Nothing is."""
    return None


def module(workload: Workload) -> Any:
    """Build the nn module of a workload with its weights."""
    import torch

    case = workload.case
    cls = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case.kind]
    built = cls(
        case.I, case.H, case.layers, bidirectional=case.bidirectional, dtype=getattr(torch, case.dtype)
    )
    built.load_state_dict({name: torch.from_numpy(value) for name, value in workload.params.items()})
    return built


def state_arrays(state: Any) -> Arrays:
    """h_n, or h_n and c_n, by name."""
    if isinstance(state, tuple):
        return {"h_n": state[0].detach().numpy(), "c_n": state[1].detach().numpy()}
    return {"h_n": state.detach().numpy()}


def read_inference(result: Any) -> Arrays:
    """Name the outputs of a forward call."""
    y, state = result
    return {"y": y.numpy(), **state_arrays(state)}


def read_training(names: list[str], result: Any) -> Arrays:
    """Name the outputs and gradients of a training step."""
    (y, state), grads = result
    named = {"y": y.detach().numpy(), **state_arrays(state)}
    return named | dict(zip(names, (grad.numpy() for grad in grads), strict=True))


def train(built: Any, x: Any, dy: Any, wanted: list[Any]) -> tuple[Any, Any]:
    """Forward and backward; autograd.grad rather than .backward, which would add into .grad."""
    import torch

    y, state = built(x)
    return (y, state), torch.autograd.grad(y, wanted, dy)


def prepare(workload: Workload, threads: int) -> Prepared:
    """Prepare PyTorch for one workload."""
    import torch

    torch.set_num_threads(threads)
    built = module(workload)
    x = torch.from_numpy(workload.x)
    if workload.case.mode == "infer":
        return Prepared(partial(built.eval(), x), read_inference, torch.inference_mode)
    x.requires_grad_()
    names = ["dx", *(f"d{name}" for name, _ in built.named_parameters())]
    run = partial(train, built, x, torch.from_numpy(workload.dy), [x, *built.parameters()])
    return Prepared(run, partial(read_training, names))
