"""Layers from state dicts and PyTorch's files, and where two engines part."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Variant, make_case, make_layer, variants

import fastrnn
from fastrnn import io

SIZES = ["input_size", "hidden_size", "num_layers", "bidirectional", "bias", "proj_size", "dtype"]


@pytest.mark.parametrize("v", [v for v in variants(I=3, H=5) if "options" not in str(v)], ids=str)
@pytest.mark.parametrize("prefix", ["", "model.rnn."])
def test_everything_is_found(v: Variant, prefix: str) -> None:
    options: dict[str, Any] = {
        "gru_before": {"reset_after": False},
        "rnn_relu": {"nonlinearity": "relu"},
    }.get(v.kind, {})
    layer = make_layer(v, make_case(v).params)
    state = {f"{prefix}{name}": array for name, array in layer.state_dict().items()}
    if prefix:
        state |= {"model.head.weight": np.ones((2, 2)), "other": np.ones(3)}
    made = type(layer).from_state_dict(state, prefix=prefix, **options)
    assert repr(made) == repr(layer)
    assert all(getattr(made, name) == getattr(layer, name) for name in SIZES)
    np.testing.assert_array_equal(made.flat, layer.flat)


def test_doubles_and_other_options() -> None:
    layer = fastrnn.GRU(3, 4, 2, dtype=np.float64)
    made = fastrnn.GRU.from_state_dict(layer.state_dict(), batch_first=True, dropout=0.5)
    assert (made.dtype, made.batch_first, made.dropout) == (np.float64, True, 0.5)
    assert fastrnn.GRU.from_state_dict(layer.state_dict(), dtype=np.float32).dtype == np.float32


def test_names_of_cells() -> None:
    layer = fastrnn.LSTM(3, 4)
    state = {f"rnn.{name.removesuffix('_l0')}": array for name, array in layer.state_dict().items()}
    np.testing.assert_array_equal(fastrnn.LSTM.from_state_dict(state, prefix="rnn.").flat, layer.flat)


class Own(fastrnn.LSTM):
    """A class of a user."""


def test_classes_of_users() -> None:
    assert type(Own.from_state_dict(fastrnn.LSTM(2, 3).state_dict())) is Own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_hh_l0": None}, "expected weight_ih_l0 and weight_hh_l0, got weight_ih_l0"),
        ({"weight_ih_l0": np.ones((9, 2))}, r"weight_ih_l0: expected 4 \* 3 rows, .*, got shape \(9, 2\)"),
        ({"weight_ih_l0": np.ones((12, 2), int)}, "weight_ih_l0: expected real floats, got int64"),
        ({"weight_ih_l0": np.ones(12)}, r"weight_ih_l0: expected two axes, got shape \(12,\)"),
        ({"weight_ih_l2": np.ones((12, 3))}, "expected layers 0 to 2, got only 0, 2"),
        ({"weight_ih_l99999": np.ones((12, 3))}, "expected layers 0 to 99999, got only 0, 99999"),
        ({"weight_ih_l1": np.ones((12, 3))}, "state_dict: missing weight_hh_l1"),
        ({"bias_hh_l0": None}, "state_dict: missing bias_hh_l0"),
        ({"bias_hh_l0": np.ones(11)}, r"bias_hh_l0: expected shape \(12,\), got \(11,\)"),
        ({"weight_hr_l0": np.ones((2, 3))}, r"weight_hh_l0: expected shape \(12, 2\), got \(12, 3\)"),
        ({"scale": np.ones(3)}, "expected the parameters of an LSTM, got also scale"),
    ],
    ids=str,
)
def test_state_dicts_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    state = fastrnn.LSTM(2, 3).state_dict() | change
    with pytest.raises(ValueError, match=message):
        fastrnn.LSTM.from_state_dict({name: array for name, array in state.items() if array is not None})


def test_the_error_says_which_prefix_is_missing() -> None:
    state = {f"gru.{name}": array for name, array in fastrnn.GRU(2, 3).state_dict().items()}
    with pytest.raises(ValueError, match=r"got names that all begin with 'gru.': prefix='gru.'"):
        fastrnn.GRU.from_state_dict(state)
    with pytest.raises(
        ValueError, match=r"expected 4 \* 3 rows, as an LSTM of 3 units has, got shape \(9, 2\)"
    ):
        fastrnn.LSTM.from_state_dict(state, prefix="gru.")
    with pytest.raises(TypeError, match="state_dict: expected a mapping, got list"):
        fastrnn.LSTM.from_state_dict([])  # type: ignore[arg-type]


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_files_of_pytorch(ending: str, torch: Any, tmp_path: Path) -> None:
    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(3, 4, 2, bidirectional=True)
            self.head = torch.nn.Linear(8, 2)

    net, path = Net(), tmp_path / f"a{ending}"
    torch.save(net.state_dict(), path)
    weights = io.load(path)
    assert weights.keys() == net.state_dict().keys()
    layer = fastrnn.GRU.from_state_dict(weights, prefix="gru.")
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    want = net.gru(torch.from_numpy(x))[0].detach().numpy()
    np.testing.assert_allclose(layer(x)[0], want, rtol=1.3e-6, atol=1e-5)


def test_checkpoints_and_small_floats(torch: Any, tmp_path: Path) -> None:
    held = {
        "epoch": 3,
        "model": {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2, dtype=torch.float16)},
    }
    torch.save(held | {"step": torch.tensor(7), "view": torch.arange(6.0).reshape(2, 3).T}, tmp_path / "a.pt")
    got = io.load(tmp_path / "a.pt")
    assert {name: array.dtype.name for name, array in got.items()} == {
        "model.a": "float32", "model.b": "float16", "step": "int64", "view": "float32",
    }  # fmt: skip
    np.testing.assert_array_equal(got["view"], np.arange(6.0).reshape(2, 3).T)


class Harmful:
    """What a pickle can hold: a call."""

    def __reduce__(self) -> Any:
        return sys.exit, ("the file was executed",)


def test_nothing_is_executed(torch: Any, tmp_path: Path) -> None:
    torch.save({"a": Harmful()}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"a.pt: expected a state dict, .* torch.load\(weights_only=True\) refuses"
    ):
        io.load(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t.ones(2), "expected a state dict, got Tensor"),
        (lambda t: {"a": t.ones(2, dtype=t.complex64)}, "a: expected real numbers, got torch.complex64"),
        (lambda t: {"a": t.ones(1).expand(10**9)}, "expected tensors of at most"),
        (lambda t: {"a": t.eye(2).to_sparse()}, "a: expected a dense tensor"),
    ],
)
def test_other_contents_are_refused(make: Any, message: str, torch: Any, tmp_path: Path) -> None:
    torch.save(make(torch), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt: " + message):
        io.load(tmp_path / "a.pt")


def test_files_of_other_kinds(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"expected a file of PyTorch 1.6 or newer, got another kind"):
        io.load(path)
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(
        ValueError, match=r"got a TorchScript program: save torch.jit.load\(path\).state_dict\(\)"
    ):
        io.load(path)
    with pytest.raises(ValueError, match=r"expected a name ending in"):
        io.save(path, {"a": np.ones(2)})


def test_without_pytorch_the_error_says_what_to_do(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ImportError, match=r"pip install 'fastrnn\[torch\]'. Or save the weights as .safetensors"
    ):
        io.load(tmp_path / "a.pt")


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_small_floats_in_safetensors(kind: str, torch: Any, tmp_path: Path) -> None:
    files = pytest.importorskip("safetensors.torch")
    net = torch.nn.LSTM(3, 4).to(getattr(torch, kind))
    files.save_file(net.state_dict(), tmp_path / "a.safetensors")
    layer = fastrnn.LSTM.from_state_dict(io.load(tmp_path / "a.safetensors"))
    assert layer.dtype == np.float32
    for name, array in net.float().state_dict().items():
        np.testing.assert_array_equal(layer.params[name], array.numpy())


# -- compare -----------------------------------------------------------------------------------------------------------


def drawn(layer: Any, T: int = 6, B: int = 3) -> np.ndarray:
    shape = (B, T, layer.input_size) if layer.batch_first else (T, B, layer.input_size)
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True}], ids=str)
def test_equal_outputs(options: dict[str, Any]) -> None:
    layer = fastrnn.LSTM(3, 4, **options)
    x = drawn(layer)
    found = io.compare(layer, layer(x)[0].astype(np.float64), x)
    assert found.equal
    assert found.first is None
    assert found.largest == 0
    assert "equal within the tolerance" in str(found)
    one = x[0] if layer.batch_first else x[:, 0]
    assert io.compare(layer, layer(one)[0], one).equal


@pytest.mark.parametrize("way", ["forward", "reverse"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_place_is_named(way: str, batch_first: bool) -> None:
    layer = fastrnn.GRU(3, 4, bidirectional=True, batch_first=batch_first)
    x = drawn(layer)
    y = layer(x)[0].copy()
    unit = 2 + 4 * (way == "reverse")
    for step, change in ((2, 0.25), (4, -0.5)):
        y[(1, step, unit) if batch_first else (step, 1, unit)] += change
    found = io.compare(layer, y, x)
    assert not found.equal
    assert found.worst is not None
    assert (found.worst.step, found.worst.sequence, found.worst.unit, found.worst.direction) == (4, 1, 2, way)
    assert found.largest == pytest.approx(0.5)
    assert found.first is not None  # the reverse direction begins at the end
    assert found.first.step == (4 if way == "reverse" else 2)
    assert found.first.expected - found.first.got == pytest.approx(-0.5 if way == "reverse" else 0.25)
    assert found.hint == f"only the {way} direction differs"


def test_hints() -> None:
    layer = fastrnn.LSTM(3, 4, bidirectional=True, rng=0)
    x = drawn(layer)
    y = layer(x)[0]
    halves = y[..., :4], y[..., 4:]
    for other, hint in [
        (y[::-1], "its steps in the reverse order"),
        (np.concatenate(halves[::-1], axis=2), "its directions in the other order"),
        (np.concatenate([halves[0], halves[1][::-1]], axis=2), "the order in which that direction runs"),
        (y + np.eye(3)[1][:, None], r"only sequences \[1\] differ"),
        (y + np.eye(8)[3] + np.eye(8)[6], "only 2 of 8 units differ"),
        (y + 1, "the first step differs in all units"),
    ]:
        assert re.search(hint, str(io.compare(layer, other, x)))
    wrong = fastrnn.LSTM(3, 4, rng=0)
    reference = wrong(x)[0]
    wrong.params["weight_hh_l0"][...] *= 0.5
    found = io.compare(wrong, reference, x)
    assert found.first is not None
    assert found.first.step == 1
    assert "the first step agrees" in found.hint


def test_padding_infinities_and_nan() -> None:
    layer = fastrnn.GRU(3, 4)
    x = drawn(layer)
    y, _ = layer(x, lengths=[6, 2, 0])
    other = y.copy()
    other[2:, 1] = other[:, 2] = 9  # as Keras repeats the last output
    assert io.compare(layer, other, x, lengths=[6, 2, 0]).equal
    other[3, 0, 1] = np.nan
    found = io.compare(layer, other, x, lengths=[6, 2, 0])
    assert found.first is not None
    assert (found.first.step, found.first.unit, found.largest) == (3, 1, np.inf)


def test_arguments_of_compare() -> None:
    layer = fastrnn.GRU(3, 4)
    x = drawn(layer)
    with pytest.raises(ValueError, match=r"reference_outputs: expected shape \(6, 3, 4\), got \(6, 3, 5\)"):
        io.compare(layer, np.ones((6, 3, 5)), x)
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN, got int"):
        io.compare(3, x, x)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reference_outputs: expected an array of real floats, got int64"):
        io.compare(layer, np.ones((6, 3, 4), int), x)
    with pytest.raises(ValueError, match="atol: expected a number of at least 0, got -1"):
        io.compare(layer, x, x, atol=-1)
