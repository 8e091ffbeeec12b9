"""torch.compile, torch.export, torch.jit.trace and the operators behind them."""

from __future__ import annotations

import copy
import gc
import io
from typing import Any

import pytest
from torch_cases import (
    CELLS,
    LAYERS,
    QUIET,
    assert_close,
    flat,
    gradients,
    make,
    numbers,
    state,
    torch,
    weighted,
)

import fastrnn.torch
from fastrnn.torch import _operators

pytestmark = QUIET
ALL = [*LAYERS, *CELLS]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("LSTM", {"proj_size": 3}),
    ("GRU", {}),
    ("RNN_TANH", {"bias": False}),
    ("LSTMCell", {}),
    ("GRUCell", {}),
]


@pytest.fixture(autouse=True)
def _new_compiler() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def run(call: Any, module: Any, x: Any, hx: Any = None) -> list[Any]:
    module.zero_grad()
    x = x.clone().requires_grad_()
    out = call(x, hx)
    weighted(out).backward()
    return [*flat(out), x.grad, *[g.clone() for g in gradients(module)]]


def case(kind: str, options: dict[str, Any], steps: int = 6, batch: int = 3) -> tuple[Any, Any]:
    if kind in CELLS:
        return numbers(batch, 5), state(kind, batch, 7)
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    hx = state(kind, count, batch, options.get("proj_size", 7))
    if "proj_size" in options:
        hx = (hx[0], numbers(count, batch, 7))
    x = numbers(steps, batch, 5)
    return x.transpose(0, 1) if options.get("batch_first") else x, hx


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_compile_whole_graph(api: Any, kind: str, options: dict[str, Any]) -> None:
    """One graph, forward and backward, for other numbers of steps and sequences too."""
    module = make(api, kind, 5, 7, **options)
    if api is torch.nn:
        compiled = torch.compile(module, backend="aot_eager")  # Dynamo breaks the graph at torch.nn's layers
    else:
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for steps, batch in ((6, 3), (4, 3), (9, 5)):
        x, hx = case(kind, options, steps, batch)
        want = run(module, module, x, hx)
        assert_close(run(compiled, module, x, hx), want)
        with torch.no_grad():
            assert_close(flat(compiled(x, hx)), want[: len(flat(compiled(x, hx)))])


@pytest.mark.slow  # the compiler itself takes its time
def test_compile_with_inductor() -> None:
    """The default compiler, on a model with a converted layer in its middle."""
    torch.manual_seed(0)

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(20, 5)
            self.lstm = torch.nn.LSTM(5, 7, num_layers=2, dropout=0.3)
            self.head = torch.nn.Linear(7, 20)

        def forward(self, tokens: Any) -> Any:
            y = self.lstm(torch.relu(self.embedding(tokens)) * 2)[0]
            return self.head(torch.tanh(y)).square().mean()

    model = Model()
    tokens = torch.arange(18).reshape(6, 3)
    model.eval()
    model(tokens).backward()
    want = [g.clone() for g in gradients(model)]
    fastrnn.torch.convert(model, verbose=False)
    compiled = torch.compile(model, fullgraph=True)
    model.zero_grad()
    loss = compiled(tokens)
    loss.backward()
    assert_close(gradients(model), want)
    model.train()
    torch.manual_seed(1)
    one = compiled(tokens).item()
    other = compiled(tokens).item()
    torch.manual_seed(1)
    again = compiled(tokens).item()
    assert one == again
    assert one != other


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compile_with_lengths_reset_and_packed() -> None:
    module = make(fastrnn.torch, "LSTM", 5, 7)
    x, hx = case("LSTM", {})
    lengths, flags = torch.tensor([6, 2, 0]), torch.zeros(6, 3, dtype=torch.bool)
    flags[3, 0] = True

    def call(x: Any, hx: Any) -> Any:
        return module(x, hx, lengths=lengths, reset=flags)

    want = run(call, module, x, hx)
    assert_close(run(torch.compile(call, backend="aot_eager", fullgraph=True), module, x, hx), want)

    def packed(x: Any, hx: Any) -> Any:
        inputs = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 2, 3]), enforce_sorted=False)
        return module(inputs, hx)

    want = run(packed, module, x, hx)
    assert_close(run(torch.compile(packed, backend="aot_eager"), module, x, hx), want)


def test_a_loop_over_a_compiled_cell(api: Any) -> None:
    cell = make(api, "GRUCell", 5, 7)

    def loop(x: Any, h: Any) -> Any:
        for t in range(4):
            h = cell(x[t], h)
        return h

    x, h = numbers(4, 3, 5), numbers(3, 7)
    want = run(loop, cell, x, h)
    assert_close(run(torch.compile(loop, backend="aot_eager", fullgraph=True), cell, x, h), want)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_export(kind: str, options: dict[str, Any]) -> None:
    """A dynamic number of steps; saved, loaded, run and trained."""
    module = make(fastrnn.torch, kind, 5, 7, **options)
    x, hx = case(kind, options)
    axis = 1 if options.get("batch_first") else 0
    steps = torch.export.Dim("steps", min=2, max=100)
    fixed = (None, None) if isinstance(hx, tuple) else None
    shapes = ({axis: steps}, fixed) if kind not in CELLS else None
    program = torch.export.export(module, (x, hx), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for n in (6, 11) if kind not in CELLS else (6,):
        x, hx = case(kind, options, n)
        assert_close(flat(loaded(x, hx)), flat(module(x, hx)))
    want = run(module, module, x, hx)
    assert_close(run(loaded, loaded, x, hx)[: len(want)], want)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_trace(kind: str, options: dict[str, Any]) -> None:
    module = make(fastrnn.torch, kind, 5, 7, **options)
    x, hx = case(kind, options)
    traced = torch.jit.trace(module, (x, hx))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    x, hx = case(kind, options, 9)
    assert_close(run(loaded, loaded, x, hx), run(module, module, x, hx))


def operator_arguments(kind: str, dtype: Any = torch.float64, **options: Any) -> tuple[Any, ...]:
    module = make(fastrnn.torch, kind, 5, 7, dtype=dtype, **options)
    spec = module._spec(dtype, False)
    count = spec.num_layers * (1 + spec.bidirectional)
    x = numbers(6, 3, 5, dtype=dtype).requires_grad_()
    hx = flat(state(kind, count, 3, 7, dtype=dtype))
    lengths, flags = torch.tensor([6, 2, 3]), torch.zeros(6, 3, dtype=torch.bool)
    flags[4] = True
    masks = torch.rand(spec.num_layers - 1, 18, spec.width) > 0.5 if spec.num_layers > 1 else None
    return (
        x, list(module.parameters()), hx[0].requires_grad_(), hx[1].requires_grad_() if len(hx) > 1 else None,
        lengths, flags, None, masks, spec.cell, list(map(int, spec[1:8])), 0.5 if masks is not None else 0.0, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options"), [("LSTM", {"num_layers": 2}), ("GRU", {"bidirectional": True}), ("RNN_TANH", {})]
)
def test_opcheck(kind: str, options: dict[str, Any]) -> None:
    torch.library.opcheck(torch.ops.fastrnn.forward.default, operator_arguments(kind, **options))


def test_tapes_do_not_stay() -> None:
    arguments = operator_arguments("LSTM")
    gc.collect()
    before = len(_operators._tapes)
    out = torch.ops.fastrnn.forward(*arguments)
    assert len(_operators._tapes) == before + 1
    del out
    assert len(_operators._tapes) == before
    y = torch.ops.fastrnn.forward(*arguments)[0]
    first = torch.autograd.grad(y.sum(), arguments[0], retain_graph=True)[0]
    assert len(_operators._tapes) == before
    again = torch.autograd.grad(y.sum(), arguments[0])[0]  # the forward pass runs again
    assert torch.equal(first, again)


def test_meta_tensors_and_dispatch_modes() -> None:
    """Shapes without numbers, and counters of operations."""
    from torch.utils._python_dispatch import TorchDispatchMode

    module = make(fastrnn.torch, "LSTM", 5, 7, device="meta")
    y, (h_n, c_n) = module(torch.empty(6, 3, 5, device="meta"))
    assert (y.shape, h_n.shape, c_n.shape) == ((6, 3, 7), (1, 3, 7), (1, 3, 7))

    class Names(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    names: list[str] = []
    own = make(fastrnn.torch, "GRU", 5, 7)
    with Names():
        got = own(numbers(6, 3, 5))
    assert "fastrnn.forward.default" in names
    assert_close(flat(got), flat(copy.deepcopy(own)(numbers(6, 3, 5))))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Dynamo comments on the code that raises
def test_wrong_shapes_are_refused_when_compiled() -> None:
    module = make(fastrnn.torch, "GRU", 5, 7)
    compiled = torch.compile(module, backend="aot_eager")
    with pytest.raises(ValueError, match="input: expected shape"):
        compiled(numbers(6, 3, 4))
    with pytest.raises(TypeError, match=r"input: expected torch\.float32"):
        compiled(numbers(6, 3, 5).double())
