"""convert, revert, from_layer, freeze; and what keeps working on converted modules."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import run_python
from torch_cases import (
    CELLS,
    LAYERS,
    QUIET,
    assert_close,
    flat,
    gradients,
    make,
    numbers,
    pair,
    torch,
    weighted,
)

import fastrnn
import fastrnn.torch

pytestmark = QUIET
ALL = [*LAYERS, *CELLS]
parametrizations = torch.nn.utils.parametrizations
NAME = {True: "weight_hh", False: "weight_hh_l0"}


class Model(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 7, batch_first=True)
        self.parts = torch.nn.ModuleList([torch.nn.GRU(7, 7, batch_first=True), torch.nn.RNN(7, 7)])
        self.tied = self.parts[0]
        self.cell = torch.nn.GRUCell(7, 7)
        self.head = torch.nn.Linear(7, 2)

    def forward(self, x: Any) -> Any:
        x = self.lstm(x)[0]
        x = self.tied(self.parts[0](x)[0])[0]
        return self.head(self.cell(self.parts[1](x.transpose(0, 1))[0][-1]))


def test_importing_fastrnn_does_not_import_torch() -> None:
    code = "import sys, fastrnn, fastrnn.parallel, fastrnn.models; print('torch' in sys.modules)"
    assert run_python("-c", code).stdout.strip() == "False"
    code = "import sys; sys.modules['torch'] = None\nimport fastrnn.torch"
    assert "pip install 'fastrnn[torch]'" in run_python("-c", code).stderr


def test_a_whole_model(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = Model()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    calls: list[str] = []
    model.lstm.register_forward_hook(lambda *_: calls.append("forward"))
    model.lstm.register_forward_pre_hook(lambda *_: calls.append("before"))
    model.lstm.register_full_backward_hook(lambda *_: calls.append("backward"))
    x = numbers(3, 6, 5).requires_grad_()
    want = model(x)
    parameters = list(model.parameters())
    other = copy.deepcopy(model)
    assert fastrnn.torch.convert(model) is model
    assert capsys.readouterr().out.splitlines() == [
        "lstm: LSTM -> fastrnn.torch.LSTM",
        "parts.0: GRU -> fastrnn.torch.GRU",
        "parts.1: RNN -> fastrnn.torch.RNN",
        "cell: GRUCell -> fastrnn.torch.GRUCell",
    ]
    assert model.tied is model.parts[0]
    assert isinstance(model.tied, fastrnn.torch.GRU)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    calls.clear()
    got = model(x)
    assert_close(got, want)
    got.sum().backward()
    assert calls == ["before", "forward", "backward"]
    optimiser.step()
    assert not torch.equal(model.lstm.weight_hh_l0, other.lstm.weight_hh_l0)
    other(x).sum().backward()
    assert_close(gradients(model), gradients(other))

    fastrnn.torch.convert(model)
    assert capsys.readouterr().out == "nothing to convert: no LSTM, GRU, RNN or cell of torch.nn\n"
    got = model(x)
    assert fastrnn.torch.revert(model) is model
    assert [type(m) for m in model.modules()] == [type(m) for m in other.modules()]
    assert_close(model(x), got)


def test_what_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    class Own(torch.nn.LSTM):  # type: ignore[misc]
        pass

    model = torch.nn.ModuleDict(
        {
            "own": Own(2, 3),
            "small": torch.nn.GRU(2, 3).to(torch.bfloat16),
            "good": torch.nn.GRU(2, 3),
        }
    )
    fastrnn.torch.convert(model)
    lines = capsys.readouterr().out.splitlines()
    assert "own: left as it is: Own may compute" in lines[0]
    assert "small: left as it is: weight_ih_l0 is torch.bfloat16" in lines[1]
    assert lines[2:] == ["good: GRU -> fastrnn.torch.GRU"]
    assert [type(m).__module__ for m in model.children()][:2] == [__name__, "torch.nn.modules.rnn"]
    fastrnn.torch.convert(torch.nn.GRU(2, 3), verbose=False)
    assert not capsys.readouterr().out
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module"):
        fastrnn.torch.convert(Model)


def test_revert_refuses_what_torch_has_not() -> None:
    model = torch.nn.Sequential(fastrnn.torch.LSTM(2, 3), fastrnn.torch.GRU(2, 3, reset_after=False))
    with pytest.raises(ValueError, match="1 with reset_after=False"):
        fastrnn.torch.revert(model)
    assert isinstance(model[0], fastrnn.torch.LSTM)
    assert repr(model[1]) == "GRU(2, 3, reset_after=False)"


@pytest.mark.parametrize("kind", ALL)
def test_state_dicts_go_both_ways(kind: str) -> None:
    theirs = make(torch.nn, kind, 5, 7, seed=1)
    own = make(fastrnn.torch, kind, 5, 7, seed=2)
    own.load_state_dict(theirs.state_dict(), strict=True)
    x = numbers(*(() if kind in CELLS else (6,)), 3, 5)
    assert_close(own(x), theirs(x))
    back = make(torch.nn, kind, 5, 7, seed=3)
    back.load_state_dict(own.state_dict(), strict=True)
    assert_close(back(x), theirs(x))
    assert repr(own) == repr(theirs)


@pytest.mark.parametrize("kind", ALL)
def test_equal_seeds_make_equal_weights(kind: str) -> None:
    for one, other in zip(
        make(torch.nn, kind, 5, 7).parameters(), make(fastrnn.torch, kind, 5, 7).parameters(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ALL)
def test_copies_and_files(api: Any, kind: str) -> None:
    module = make(api, kind, 5, 7)
    x = numbers(*(() if kind in CELLS else (6,)), 3, 5)
    want = flat(module(x))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    others = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)]
    for other in others:
        assert type(other) is type(module)
        assert all(torch.equal(a, b) for a, b in zip(flat(other(x)), want, strict=True))
    with torch.no_grad():
        next(iter(module.parameters())).zero_()
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(flat(other(x)), want, strict=True))


@pytest.mark.parametrize("register", ["weight_norm", "orthogonal", "spectral_norm"])
@pytest.mark.parametrize("kind", ALL)
def test_parametrizations(kind: str, register: str) -> None:
    """Registered before converting, after it, and removed again."""
    name = NAME[kind in CELLS]
    x = numbers(*(() if kind in CELLS else (6,)), 3, 5)
    results = []
    for order in ("never", "before", "after"):
        module = make(torch.nn, kind, 5, 7)
        if order == "after":
            fastrnn.torch.convert(module, verbose=False)
        torch.manual_seed(1)
        getattr(parametrizations, register)(module, name)
        module.eval()  # spectral_norm goes on in training with every call
        if order == "before":
            fastrnn.torch.convert(module, verbose=False)
        assert isinstance(module, fastrnn.torch._module.FastModule) == (order != "never")
        out = module(x)
        weighted(out).backward()
        results.append([*flat(out), *gradients(module)])
        if order != "never":
            assert_close(flat(copy.deepcopy(module)(x)), flat(out))
            torch.nn.utils.parametrize.remove_parametrizations(module, name)
            assert type(module).__module__.startswith("fastrnn.torch")
            assert_close(flat(module(x)), flat(out))
            fastrnn.torch.revert(module)
            assert_close(flat(module(x)), flat(out))
    assert_close(results[1], results[0])
    assert_close(results[2], results[0])


def test_converting_one_copy_leaves_the_other() -> None:
    module = make(torch.nn, "LSTM", 5, 7)
    parametrizations.weight_norm(module, "weight_hh_l0")
    other = copy.deepcopy(module)
    fastrnn.torch.convert(module, verbose=False)
    assert isinstance(module, fastrnn.torch.LSTM)
    assert isinstance(other, torch.nn.LSTM)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_old_weight_norm() -> None:
    theirs, own = pair("LSTM", 5, 7)
    for module in (theirs, own):
        torch.nn.utils.weight_norm(module, "weight_hh_l0")
    x = numbers(6, 3, 5)
    for _ in range(2):
        assert_close(flat(own(x)), flat(theirs(x)))
        for module in (theirs, own):
            module.zero_grad()
            weighted(module(x)).backward()
            with torch.no_grad():
                module.weight_hh_l0_g.mul_(0.5)
        assert_close(gradients(own), gradients(theirs))


def test_flatten_parameters_does_nothing(api: Any) -> None:
    module = make(api, "GRU", 5, 7)
    before = [p.data_ptr() for p in module.parameters()]
    module.flatten_parameters()
    assert [p.data_ptr() for p in module.parameters()] == before


LAYERS_ON_NUMPY = [
    fastrnn.LSTM(5, 7, 2, bidirectional=True, proj_size=3, batch_first=True),
    fastrnn.GRU(5, 7, reset_after=False, dtype=np.float64),
    fastrnn.RNN(5, 7, nonlinearity="relu", bias=False),
    fastrnn.LSTMCell(5, 7),
    fastrnn.GRUCell(5, 7, bias=False),
    fastrnn.RNNCell(5, 7, nonlinearity="relu", dtype=np.float64),
]


@pytest.mark.parametrize("layer", LAYERS_ON_NUMPY, ids=repr)
def test_from_layer(layer: Any) -> None:
    module = fastrnn.torch.from_layer(layer)
    assert type(module).__name__ == type(layer).__name__
    x = numbers(*(() if "Cell" in type(layer).__name__ else (6,)), 3, 5).numpy().astype(layer.dtype)

    def compare() -> None:
        got, want = flat(module(torch.from_numpy(x))), layer(x)
        arrays = [want] if isinstance(want, np.ndarray) else [*want]
        arrays = [a for part in arrays for a in (part if isinstance(part, tuple) else (part,))]
        for one, other in zip(got, arrays, strict=True):
            assert (one.detach().numpy() == other).all()

    compare()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    weighted(module(torch.from_numpy(x))).backward()
    before = layer.flat.copy()
    optimiser.step()
    assert (layer.flat != before).any()
    compare()
    layer.flat *= 0.5
    compare()


def test_from_layer_refuses() -> None:
    with pytest.raises(TypeError, match="layer: expected a recurrent layer"):
        fastrnn.torch.from_layer(fastrnn.Linear(2, 3))
    with pytest.raises(ValueError, match="unfreeze"):
        fastrnn.torch.from_layer(fastrnn.GRU(2, 3).freeze())
    with pytest.raises(ValueError, match="layer: expected one without reverse and merge"):
        fastrnn.torch.from_layer(odd_layer())


def odd_layer() -> Any:
    layer = fastrnn.GRU(2, 3, reverse=True)
    layer.merge = "sum"
    return layer


@pytest.mark.parametrize("kind", ALL)
def test_freeze(kind: str) -> None:
    module = make(fastrnn.torch, kind, 5, 7)
    first = next(iter(module.parameters()))
    first.requires_grad_(False)
    x = numbers(*(() if kind in CELLS else (6,)), 3, 5)
    want = flat(module(x))
    assert module.freeze() is module
    assert module.freeze().frozen
    assert not any(p.requires_grad for p in module.parameters())
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(flat(module(x)), want, strict=True))
    x.requires_grad_()
    weighted(module(x)).backward()
    assert x.grad is not None
    other = pickle.loads(pickle.dumps(module))
    assert other.frozen
    assert all(torch.equal(a, b) for a, b in zip(flat(other(x)), want, strict=True))
    with torch.no_grad():
        first.mul_(2)
    with pytest.raises(ValueError, match="those that were frozen"):
        module(x)
    module.unfreeze()
    assert [p.requires_grad for p in module.parameters()][:2] == [False, True]
    assert not torch.equal(flat(module(x))[0], want[0])
    with pytest.raises(ValueError, match="weights: expected 'float32'"):
        module.freeze("float16")


def test_freeze_keeps_the_layout() -> None:
    module = make(fastrnn.torch, "GRU", 5, 7, batch_first=True).freeze()
    x = numbers(3, 6, 5)
    module(x)
    module.batch_first = False
    assert_close(
        module(x.transpose(0, 1))[0].transpose(0, 1), make(torch.nn, "GRU", 5, 7, batch_first=True)(x)[0]
    )
    parametrized = make(fastrnn.torch, "GRU", 5, 7)
    parametrizations.weight_norm(parametrized, "weight_hh_l0")
    with pytest.raises(ValueError, match="parametrized"):
        parametrized.freeze()
