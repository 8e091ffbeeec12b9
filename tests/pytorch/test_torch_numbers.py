"""fastrnn.torch gives the numbers of torch.nn: outputs, states and all gradients, for every variant and input."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from torch_cases import (
    CELLS,
    LAYERS,
    QUIET,
    assert_close,
    flat,
    gradients,
    leaves,
    make,
    numbers,
    pair,
    state,
    torch,
    weighted,
)

import fastrnn.torch

pytestmark = QUIET
pack = torch.nn.utils.rnn.pack_padded_sequence
VARIANTS = [
    (kind, layers, bidirectional, bias, proj)
    for kind in LAYERS
    for layers in (1, 2)
    for bidirectional in (False, True)
    for bias in (True, False)
    for proj in ((0, 3) if kind == "LSTM" else (0,))
]


def both(kind: str, inputs: Any, hx: Any, *args: Any, **options: Any) -> None:
    """Compare outputs and all gradients of the two modules."""
    results = []
    for module in pair(kind, *args, **options):
        x = inputs.data if hasattr(inputs, "batch_sizes") else inputs
        tensors = leaves(x, *([] if hx is None else flat(hx)))
        given = inputs._replace(data=tensors[0]) if hasattr(inputs, "batch_sizes") else tensors[0]
        first = None if hx is None else tuple(tensors[1:]) if len(tensors) > 2 else tensors[1]
        out = module(given, first)
        weighted(out).backward()
        results.append([*flat(out), *(t.grad for t in tensors), *gradients(module)])
    assert_close(results[1], results[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("kind", "layers", "bidirectional", "bias", "proj"), VARIANTS)
def test_every_variant(
    kind: str, layers: int, bidirectional: bool, bias: bool, proj: int, dtype: Any
) -> None:
    options = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, "dtype": dtype}
    if proj:
        options["proj_size"] = proj
    count = layers * (1 + bidirectional)
    hx: Any = state(kind, count, 4, proj or 7, dtype=dtype)
    if proj:
        hx = (hx[0], numbers(count, 4, 7, dtype=dtype))
    both(kind, numbers(6, 4, 5, dtype=dtype), hx, 5, 7, **options)
    both(kind, numbers(6, 4, 5, dtype=dtype), None, 5, 7, **options)
    packed = pack(numbers(6, 4, 5, dtype=dtype), torch.tensor([3, 6, 1, 6]), enforce_sorted=False)
    both(kind, packed, hx, 5, 7, **options)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_layouts_of_inputs(kind: str, batch_first: bool) -> None:
    options = {"num_layers": 2, "batch_first": batch_first}
    hx = state(kind, 2, 4, 7)
    wide = numbers(12, 10, 8)
    for x in (
        wide[:6, :4, :5],
        wide[::2, :4, 3:],
        wide.permute(1, 2, 0)[:6, 4:, :5],  # the features are not contiguous
        wide[:6, :1, :5].expand(6, 4, 5),
        wide[:1, :4, :5].expand(6, 4, 5),
        wide[:6, :4, :1].expand(6, 4, 5),
    ):
        both(kind, x.transpose(0, 1) if batch_first else x, hx, 5, 7, **options)
    both(kind, wide[:6, 0, :5], state(kind, 2, 7), 5, 7, **options)
    both(kind, wide[:6, 0, :5], None, 5, 7, **options)
    both(kind, wide[:1, :1, :5], state(kind, 2, 1, 7), 5, 7, **options)
    both(kind, pack(wide[:6, :4, :5], torch.tensor([6, 6, 6, 6])), hx, 5, 7, **options)
    both(kind, pack(wide[:6, :4, :5], torch.tensor([6, 4, 4, 1])), hx, 5, 7, **options)
    padded = wide[:4, :6, :5]
    packed = pack(padded, torch.tensor([2, 5, 6, 1]), batch_first=True, enforce_sorted=False)
    both(kind, packed, hx, 5, 7, **options)


@pytest.mark.parametrize("kind", LAYERS)
def test_no_sequences(api: Any, kind: str) -> None:
    module = make(api, kind, 5, 7)
    x = torch.zeros(6, 0, 5, requires_grad=True)
    y, last = module(x)
    assert y.shape == (6, 0, 7)
    assert all(t.shape == (1, 0, 7) for t in flat(last))
    y.sum().backward()
    assert x.grad is not None
    assert all(not g.any() for g in gradients(module))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_cells(kind: str, dtype: Any, bias: bool) -> None:
    for batch in ((3,), ()):
        x = numbers(*batch, 5, dtype=dtype)
        both(kind, x, state(kind, *batch, 7, dtype=dtype), 5, 7, bias=bias, dtype=dtype)
        both(kind, x, None, 5, 7, bias=bias, dtype=dtype)


def test_cell_with_relu() -> None:
    theirs = torch.nn.RNNCell(5, 7, nonlinearity="relu")
    own = fastrnn.torch.RNNCell(5, 7, nonlinearity="relu")
    own.load_state_dict(theirs.state_dict())
    assert_close(own(numbers(3, 5)), theirs(numbers(3, 5)))


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_gradcheck(api: Any, kind: str) -> None:
    cell = kind.endswith("Cell")
    module = make(api, kind, 2, 3, dtype=torch.float64)
    shape = (2,) if cell else (1, 2)
    first = leaves(*flat(state(kind, *shape, 3, dtype=torch.float64)))
    x = numbers(*(() if cell else (3,)), 2, 2, dtype=torch.float64).requires_grad_()

    def f(x: Any, *rest: Any) -> Any:
        hx, weights = rest[: len(first)], rest[len(first) :]
        named = dict(zip(dict(module.named_parameters()), weights, strict=True))
        args = (x, tuple(hx) if len(hx) == 2 else hx[0])
        return tuple(flat(torch.func.functional_call(module, named, args)))

    weights = leaves(*module.parameters())
    assert torch.autograd.gradcheck(f, (x, *first, *weights))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_lengths_equal_a_packed_sequence(kind: str, bidirectional: bool) -> None:
    theirs, own = pair(kind, 5, 7, num_layers=2, bidirectional=bidirectional)
    x, lengths = numbers(6, 4, 5), torch.tensor([3, 6, 1, 5])
    y, last = theirs(pack(x, lengths, enforce_sorted=False))
    want = [torch.nn.utils.rnn.pad_packed_sequence(y)[0], *flat(last)]
    weighted(want).backward()
    for given in (lengths, lengths.tolist(), lengths.to(torch.int32)):
        own.zero_grad()
        got = flat(own(x, lengths=given))
        assert_close(got, want)
        weighted(got).backward()
        assert_close(gradients(own), gradients(theirs))
    y, last = own(x, lengths=[0, 6, 0, 2])
    assert not y[:, 0].any()
    assert not flat(last)[0][:, 0].any()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_reset_equals_separate_segments(kind: str, batch_first: bool) -> None:
    theirs, own = pair(kind, 5, 7, batch_first=batch_first)
    x, flags = numbers(6, 3, 5), torch.zeros(6, 3, dtype=torch.bool)
    flags[2, 0] = flags[4, 0] = flags[0, 1] = True
    hx, parts = state(kind, 1, 3, 7), []
    for row in range(3):
        cuts = [0, *[t for t in flags[:, row].nonzero().flatten().tolist() if t], 6]
        for a, b in itertools.pairwise(cuts):
            new = bool(flags[a, row])
            first = None if new else tuple(h[:, row] for h in flat(hx))
            first = first if first is None or len(first) == 2 else first[0]
            parts.append(theirs(x[a:b, row], first)[0])
    want = torch.cat(parts).reshape(3, 6, 7)
    weighted(want).backward()
    swapped = x.transpose(0, 1), flags.t()
    inputs, resets = swapped if batch_first else (x, flags)
    got = own(inputs, hx, reset=resets)[0]
    got = got if batch_first else got.transpose(0, 1)
    assert_close(got, want)
    weighted(got).backward()
    assert_close(gradients(own), gradients(theirs))


@pytest.mark.parametrize("rate", [0.4, 1.0])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_follows_the_seed(kind: str, batch_first: bool, rate: float) -> None:
    """Equal seeds drop the same outputs as in torch.nn."""
    options = {"num_layers": 3, "dropout": rate, "bidirectional": True, "batch_first": batch_first}
    x = numbers(6, 4, 5)
    packed = pack(x, torch.tensor([6, 2, 4, 1]), batch_first=False, enforce_sorted=False)
    uniform = pack(x, torch.tensor([6, 6, 6, 6]))
    for inputs in (x, packed, uniform, x[:, 0]):
        results = []
        for module in pair(kind, 5, 7, **options):
            torch.manual_seed(5)
            out = module(inputs)
            weighted(out).backward()
            results.append([*flat(out), *gradients(module)])
        assert_close(results[1], results[0])
        torch.manual_seed(5)
        with torch.no_grad():  # dropout belongs to training, not to gradients
            again = module(inputs)
        assert all(torch.equal(a, b) for a, b in zip(flat(again), flat(out), strict=True))
        module.eval()
        assert_close(module(inputs), make_eval(kind, options, inputs))


def make_eval(kind: str, options: dict[str, Any], inputs: Any) -> Any:
    return make(torch.nn, kind, 5, 7, **options).eval()(inputs)


def test_reset_before() -> None:
    """The GRU of the first version of the paper, which torch.nn has not."""
    module = fastrnn.torch.GRU(5, 7, reset_after=False)
    layer = fastrnn.GRU(5, 7, reset_after=False)
    layer.load_state_dict(module.state_dict(keep_vars=False))
    y, h_n = module(numbers(6, 3, 5))
    want = layer(numbers(6, 3, 5).numpy())
    assert (y.detach().numpy() == want[0]).all()
    assert (h_n.detach().numpy() == want[1]).all()
    cell = fastrnn.torch.GRUCell(5, 7, reset_after=False)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in module.state_dict().items()})
    assert_close(cell(numbers(3, 5)), module(numbers(3, 5)[None])[1][0])


@pytest.mark.parametrize("kind", LAYERS)
def test_training_follows_torch(kind: str) -> None:
    """Twenty epochs with equal seeds: the loss stays that of torch.nn."""
    losses = []
    x, target = numbers(12, 16, 5), numbers(16, 3, seed=7)
    for module in pair(kind, 5, 16, num_layers=2, dropout=0.2):
        torch.manual_seed(0)
        head = torch.nn.Linear(16, 3)
        optimiser = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=0.01)
        for _ in range(20):
            optimiser.zero_grad()
            loss = torch.nn.functional.mse_loss(head(module(x)[0][-1]), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_inference_equals_training() -> None:
    """The same bits with and without gradients, frozen or not."""
    module = make(fastrnn.torch, "LSTM", 5, 7, num_layers=2)
    x = numbers(6, 3, 5)
    want = [t.detach() for t in flat(module(x))]
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(flat(module(x)), want, strict=True))
    module.freeze()
    assert all(torch.equal(a, b) for a, b in zip(flat(module(x)), want, strict=True))
    other = copy.deepcopy(module)
    assert other.frozen
    assert all(torch.equal(a, b) for a, b in zip(flat(other(x)), want, strict=True))
