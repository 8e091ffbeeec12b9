"""What PyTorch does around a module works, or raises an error that says what does not."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
from torch.utils.checkpoint import checkpoint
from torch_cases import (
    CELLS,
    LAYERS,
    QUIET,
    REFUSED,
    assert_close,
    flat,
    gradients,
    leaves,
    make,
    numbers,
    state,
    torch,
    weighted,
)

import fastrnn.torch

pytestmark = QUIET
ALL = [*LAYERS, *CELLS]


def inputs(kind: str, dtype: Any = None) -> Any:
    return numbers(*(() if kind in CELLS else (6,)), 3, 5, dtype=dtype)


def grads_of(module: Any, x: Any, **backward: Any) -> list[Any]:
    module.zero_grad()
    weighted(module(x)).backward(**backward)
    return [g.clone() for g in gradients(module)]


# -- must work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_retain_graph(api: Any, kind: str) -> None:
    module, x = make(api, kind, 5, 7), inputs(kind).requires_grad_()
    loss = weighted(module(x))
    once = torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True)
    for _ in range(2):
        again = torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(again, once, strict=True))
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("kind", LAYERS)
def test_retain_graph_with_dropout(api: Any, kind: str) -> None:
    module, x = make(api, kind, 5, 7, num_layers=2, dropout=0.5), inputs(kind)
    loss = weighted(module(x))
    one, other = (torch.autograd.grad(loss, list(module.parameters()), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_checkpoint(api: Any, kind: str, use_reentrant: bool) -> None:
    module, x = make(api, kind, 5, 7), inputs(kind).requires_grad_()
    want = grads_of(module, x)
    module.zero_grad()
    # the older kind of checkpoint knows no nested outputs
    weighted(checkpoint(lambda x: tuple(flat(module(x))), x, use_reentrant=use_reentrant)).backward()
    assert all(torch.equal(a, b) for a, b in zip(gradients(module), want, strict=True))


@pytest.mark.parametrize("kind", ALL)
def test_saved_tensors_may_be_packed(api: Any, kind: str) -> None:
    module, x = make(api, kind, 5, 7), inputs(kind)
    want = grads_of(module, x)
    with torch.autograd.graph.save_on_cpu():
        got = grads_of(module, x)
    assert_close(got, want)


@pytest.mark.parametrize("kind", ALL)
def test_only_what_needs_a_gradient_gets_one(api: Any, kind: str) -> None:
    module, x = make(api, kind, 5, 7), inputs(kind)
    want = grads_of(module, x)
    module.weight_hh_l0.requires_grad_(False) if kind in LAYERS else module.weight_hh.requires_grad_(False)
    module.zero_grad()
    weighted(module(x)).backward()
    for (name, parameter), expected in zip(module.named_parameters(), want, strict=True):
        if "weight_hh" in name:
            assert parameter.grad is None
        else:
            assert_close(parameter.grad, expected)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    assert not flat(module(x))[0].requires_grad
    x = inputs(kind).requires_grad_()
    weighted(module(x)).backward()
    assert x.grad is not None


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_without_a_gradient(api: Any, kind: str) -> None:
    """A loss of one output alone: the others have no gradient."""
    module, x = make(api, kind, 5, 7), inputs(kind)
    results = []
    for index in range(3 if kind == "LSTM" else 2):
        module.zero_grad()
        flat(module(x))[index].sum().backward()
        results.append(gradients(module)[0].clone())
    assert all(r.any() for r in results)
    assert not torch.equal(results[0], results[1])


@pytest.mark.parametrize("kind", ALL)
def test_functional_call_and_grad(api: Any, kind: str) -> None:
    module, x = make(api, kind, 5, 7), inputs(kind)
    want = grads_of(module, x)
    named = {name: p.detach() * 1 for name, p in module.named_parameters()}

    def loss(params: Any, x: Any) -> Any:
        return weighted(torch.func.functional_call(module, params, (x,)))

    got = torch.func.grad(loss)(named, x)
    assert_close([got[name] for name in named], want)
    value, again = torch.func.vjp(loss, named, x)[0], torch.func.grad(loss)(named, x)
    assert_close(value, loss(named, x))
    assert_close(list(again.values()), want)
    zeros = {name: torch.zeros_like(p) for name, p in named.items()}
    assert not torch.equal(loss(zeros, x), loss(named, x))


@pytest.mark.parametrize("in_dim", [0, 2])
@pytest.mark.parametrize("kind", ALL)
def test_vmap_over_inputs(kind: str, in_dim: int) -> None:
    """What torch.nn's layers do not have."""
    module = make(fastrnn.torch, kind, 5, 7)
    xs = torch.stack([inputs(kind) * (i + 1) for i in range(3)], in_dim)
    want = [flat(module(x)) for x in xs.unbind(in_dim)]
    got = flat(torch.vmap(module, in_dims=in_dim)(xs))
    for i, tensor in enumerate(got):
        assert_close(tensor, torch.stack([w[i] for w in want]))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_vmap_of_all_arguments(kind: str, batch_first: bool) -> None:
    module = make(fastrnn.torch, kind, 5, 7, batch_first=batch_first)
    xs, hx = numbers(4, 6, 3, 5), state(kind, 1, 6 if batch_first else 3, 7)
    lengths = torch.tensor([3, 1, 2, 3, 3, 1] if batch_first else [6, 1, 4])
    got = flat(torch.vmap(lambda x: module(x, hx, lengths=lengths))(xs))
    want = [flat(module(x, hx, lengths=lengths)) for x in xs]
    for i, tensor in enumerate(got):
        assert_close(tensor, torch.stack([w[i] for w in want]))
    alone = flat(torch.vmap(module)(xs[:, :, 0]))
    want = [flat(module(x)) for x in xs[:, :, 0]]
    for i, tensor in enumerate(alone):
        assert_close(tensor, torch.stack([w[i] for w in want]))


@pytest.mark.parametrize("kind", ALL)
def test_gradient_of_a_vmap(kind: str) -> None:
    module = make(fastrnn.torch, kind, 5, 7)
    xs = torch.stack([inputs(kind) * (i + 1) for i in range(3)])
    module.zero_grad()
    sum(weighted(module(x)) for x in xs).backward()
    want = [g.clone() for g in gradients(module)]
    named = {name: p.detach() for name, p in module.named_parameters()}

    def loss(params: Any) -> Any:
        def one(x: Any) -> Any:
            return weighted(torch.func.functional_call(module, params, (x,)))

        return torch.vmap(one, randomness="same")(xs).sum()

    got = torch.func.grad(loss)(named)
    assert_close([got[name] for name in named], want)


@pytest.mark.parametrize("kind", ALL)
def test_autocast(api: Any, kind: str) -> None:
    """Under autocast the result is near; fastrnn computes in the parameters' dtype and returns it."""
    module, x = make(api, kind, 5, 7), inputs(kind)
    want = flat(module(x))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = flat(module(torch.nn.Identity()(x).bfloat16()))[0]
        if api is fastrnn.torch:
            assert got.dtype == torch.float32
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)
    got.float().sum().backward()
    assert gradients(module)[0].dtype == torch.float32


@pytest.mark.parametrize("kind", ALL)
def test_no_grad_and_inference_mode(api: Any, kind: str) -> None:
    module, x = make(api, kind, 5, 7), inputs(kind)
    with torch.no_grad():
        assert not any(t.requires_grad for t in flat(module(x)))
    with torch.inference_mode():
        assert all(t.is_inference() for t in flat(module(x)))
    module(x)


@pytest.mark.parametrize("kind", ALL)
def test_changes_of_parameters_are_seen(api: Any, kind: str) -> None:
    """In place, through .data, by a new Parameter, by another dtype and by shared memory."""
    module, x = make(api, kind, 5, 7), inputs(kind)
    name = "weight_ih_l0" if kind in LAYERS else "weight_ih"
    other = make(torch.nn, kind, 5, 7)

    def check(dtype: Any = None) -> None:
        other.load_state_dict(module.state_dict())
        if dtype is not None:
            other.to(dtype)
        assert_close(flat(module(x)), flat(other(x)))

    check()
    getattr(module, name).data.mul_(1.5)
    check()
    with torch.no_grad():
        getattr(module, name).add_(0.1)
    check()
    setattr(module, name, torch.nn.Parameter(getattr(module, name).detach() * 2))
    check()
    getattr(module, name).data = getattr(module, name).data.t().contiguous().t()
    check()
    module.share_memory()
    getattr(module, name).data.mul_(0.5)
    check()
    module.double()
    x = x.double()
    check(torch.float64)


def test_square_weights_may_be_transposed_in_place(api: Any) -> None:
    """A weight whose address stays and whose layout does not."""
    module, x = make(api, "RNN_TANH", 7, 7), numbers(6, 3, 7)
    module(x)
    address = module.weight_hh_l0.data_ptr()
    module.weight_hh_l0.data = module.weight_hh_l0.data.t()
    assert module.weight_hh_l0.data_ptr() == address
    other = make(torch.nn, "RNN_TANH", 7, 7)
    other.load_state_dict(module.state_dict())
    assert_close(flat(module(x)), flat(other(x)))


def test_threads() -> None:
    """Four threads train copies and one shared module at once."""
    module = make(fastrnn.torch, "GRU", 5, 7)
    x = numbers(6, 3, 5)
    want = grads_of(module, x)
    results: dict[int, Any] = {}

    def work(i: int) -> None:
        own = copy.deepcopy(module)
        for _ in range(20):
            results[i] = grads_of(own, x)
            module(x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for got in results.values():
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


class Numbers(torch.utils.data.Dataset):  # type: ignore[misc]
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return numbers(6, 5, seed=index)


def test_data_loader_with_workers(api: Any) -> None:
    module = make(api, "GRU", 5, 7, batch_first=True)
    module(numbers(2, 6, 5))  # the core has threads before the fork
    loader = torch.utils.data.DataLoader(
        Numbers(), batch_size=4, num_workers=2, multiprocessing_context="fork"
    )
    total = [module(x)[0].sum() for x in loader]
    sum(total).backward()
    assert gradients(module)[0].any()


def test_memory_stays_flat() -> None:
    """Forward passes without backward leave nothing behind, and neither do training steps."""
    psutil = pytest.importorskip("psutil")
    module, x = make(fastrnn.torch, "LSTM", 16, 64), numbers(50, 8, 16)
    process = psutil.Process()

    def work() -> None:
        for _ in range(100):
            module(x)
        for _ in range(100):
            module.zero_grad()
            module(x[:5])[0].sum().backward()

    work()
    before = process.memory_info().rss
    for _ in range(3):
        work()
    assert process.memory_info().rss - before < 1 << 20


# -- must raise -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_double_backward_is_refused(kind: str) -> None:
    module, x = make(fastrnn.torch, kind, 5, 7), inputs(kind).requires_grad_()
    (dx,) = torch.autograd.grad(weighted(module(x)), x, create_graph=True)
    dx.detach().sum()  # as long as nobody differentiates it, it is a gradient like any other
    with pytest.raises(NotImplementedError, match="second derivatives"):
        dx.sum().backward()
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.func.grad(lambda x: torch.func.grad(lambda x: weighted(module(x)))(x).sum())(x.detach())


@pytest.mark.parametrize("kind", ALL)
def test_forward_mode_is_refused(kind: str) -> None:
    module, x = make(fastrnn.torch, kind, 5, 7), inputs(kind)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(module, (x,), (x,))
    for part in (x, *module.parameters()):  # not even where nothing requires a gradient
        part.requires_grad_(False)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        with pytest.raises(NotImplementedError, match="forward-mode"):
            module(dual)


@pytest.mark.parametrize("kind", ALL)
def test_per_sample_gradients_are_refused(kind: str) -> None:
    module = make(fastrnn.torch, kind, 5, 7)
    xs = torch.stack([inputs(kind)] * 3)
    named = {name: p.detach() for name, p in module.named_parameters()}

    def loss(params: Any, x: Any) -> Any:
        return weighted(torch.func.functional_call(module, params, (x,)))

    with pytest.raises(NotImplementedError, match="per-sample"):
        torch.vmap(torch.func.grad(loss), in_dims=(None, 0), randomness="same")(named, xs)
    batched = {name: torch.stack([p] * 3) for name, p in named.items()}
    with pytest.raises(NotImplementedError, match="batched"):
        torch.vmap(loss, randomness="same")(batched, xs)


@pytest.mark.parametrize("kind", ALL)
def test_script_is_refused(kind: str) -> None:
    module = torch.nn.Sequential(make(fastrnn.torch, kind, 5, 7))
    with pytest.raises(TypeError, match=r"fastrnn\.torch\.revert"):
        torch.jit.script(module)


@pytest.mark.parametrize("what", ["x", "y", "parameter"])
@pytest.mark.parametrize("kind", ALL)
def test_changes_before_backward_are_noticed(kind: str, what: str) -> None:
    """Torch.nn's own layers do not notice all of them."""
    module, x = make(fastrnn.torch, kind, 5, 7), inputs(kind)
    out = flat(module(x))
    loss = weighted(out)
    with torch.no_grad():
        {"x": x, "y": out[0], "parameter": next(iter(module.parameters()))}[what].mul_(2)
    if what == "y" and kind in CELLS:  # backward does not read the state that the caller got
        want = grads_of(make(fastrnn.torch, kind, 5, 7), x)
        loss.backward()
        assert all(torch.equal(a, b) for a, b in zip(gradients(module), want, strict=True))
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", ALL)
def test_arguments_that_do_not_fit(api: Any, kind: str) -> None:
    module, x = make(api, kind, 5, 7), inputs(kind)
    shape = (3, 7) if kind in CELLS else (1, 3, 7)
    hx = state(kind, *shape)
    module(x, hx)

    def refused(*args: Any, match: str) -> None:
        for grad in (True, False):
            with torch.set_grad_enabled(grad), pytest.raises(REFUSED) as caught:
                module(*args)
            if api is fastrnn.torch:
                assert not isinstance(caught.value, RuntimeError)
                assert match in str(caught.value)

    refused(x[..., :4], hx, match="input: expected shape")
    refused(x[None, None], match="input: expected shape")
    refused(x.double(), hx, match="input: expected torch.float32")
    refused(x.long(), hx, match="input: expected torch.float32")
    refused(x, map_state(hx, lambda h: h.double()), match="hx")
    if kind not in CELLS:
        refused(x, map_state(hx, lambda h: h[:, :2]), match="hx")
        refused(x[:, 0], hx, match="hx")
        refused(x, map_state(hx, lambda h: h.expand(2, 3, 7)), match="hx")
    refused(x, map_state(hx, lambda h: h[..., :6]), match="hx")
    if api is fastrnn.torch:
        refused(x, hx[0] if isinstance(hx, tuple) else (hx, hx), match="hx: expected a")
        refused(x.numpy(), match="input")
        refused(x, map_state(hx, lambda h: h.numpy()), match="hx")


def map_state(hx: Any, f: Any) -> Any:
    return tuple(map(f, hx)) if isinstance(hx, tuple) else f(hx)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ALL)
def test_half_parameters_are_refused(kind: str, dtype: Any) -> None:
    module = make(fastrnn.torch, kind, 5, 7).to(dtype)
    with pytest.raises(TypeError, match=r"call \.float\(\)"):
        module(inputs(kind, dtype=torch.float32).to(dtype))


@pytest.mark.parametrize("kind", ALL)
def test_other_devices_are_refused(kind: str) -> None:
    """Fake tensors say that they are on another device, without one being there."""
    from torch._subclasses import FakeTensorMode

    module = make(fastrnn.torch, kind, 5, 7)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(inputs(kind).shape, device="cuda")
        with pytest.raises(ValueError, match="expected a tensor on the CPU, got one on cuda"):
            module(x)


def test_steps_that_do_not_fit() -> None:
    module, x = make(fastrnn.torch, "GRU", 5, 7), numbers(6, 3, 5)
    packed = torch.nn.utils.rnn.pack_sequence([x[:, 0], x[:3, 1]])
    for lengths in ([6, 3], [7, 1, 1], [-1, 1, 1]):
        with pytest.raises(ValueError, match="lengths"):
            module(x, lengths=lengths)
    with pytest.raises(TypeError, match="lengths"):
        module(x, lengths=torch.ones(3))
    with pytest.raises(ValueError, match="reset"):
        module(x, reset=torch.zeros(3, 6, dtype=torch.bool))
    with pytest.raises(TypeError, match="reset"):
        module(x, reset=torch.zeros(6, 3))
    with pytest.raises(ValueError, match="lengths: expected None"):
        module(packed, lengths=[6, 3])
    with pytest.raises(ValueError, match="reset: expected None"):
        module(packed, reset=torch.zeros(9, dtype=torch.bool))


def test_flags_may_change_after_the_call() -> None:
    """Buffers of flags and lengths are reused by those who collect data."""
    module, x = make(fastrnn.torch, "GRU", 5, 7), numbers(6, 3, 5)
    flags, lengths = torch.zeros(6, 3, dtype=torch.bool), np.array([6, 2, 3])
    results = []
    for change in (False, True):
        flags[:] = False
        flags[3, 0], lengths[:] = True, [6, 2, 3]
        loss = weighted(module(x, reset=flags, lengths=lengths))
        first = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
        if change:
            flags[:], lengths[:] = True, 1
        second = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
        results += [first, second]
    assert all(torch.equal(a, b) for r in results for a, b in zip(r, results[0], strict=True))


def test_leaves_keep_their_gradients() -> None:
    """Gradients of two calls add up, as those of any module."""
    module, x = make(fastrnn.torch, "LSTM", 5, 7), numbers(6, 3, 5)
    once = grads_of(module, x)
    weighted(module(x)).backward()
    assert_close(gradients(module), [2 * g for g in once])
    (h,) = leaves(numbers(1, 3, 7))
    module(x, (h, h))[0].sum().backward()
    assert h.grad is not None
