"""Options of directions and of the initial state: reverse, merge, learned_state."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import (
    KIND,
    KINDS,
    Case,
    Variant,
    as_tuple,
    assert_close,
    assert_gradient,
    assert_same_bits,
    both_dtypes,
    make_case,
    make_layer,
    numeric_gradient,
    run_layer,
    run_reference,
    take_rows,
)

import fastrnn
from fastrnn import functional, io, nn

OPTIONS: dict[str, dict[str, Any]] = {
    "reverse": {"reverse": True},
    "reverse-learned": {"reverse": True, "learned_state": True},
    "sum": {"merge": "sum", "bidirectional": True},
    "mul": {"merge": "mul", "bidirectional": True, "learned_state": True},
    "ave": {"merge": "ave", "bidirectional": True},
    "learned": {"learned_state": True},
}
TABLE = [
    Variant(kind, layers, proj_size=4 if kind == "lstm" and layers == 2 else 0, **options)
    for kind in KINDS
    for layers in (1, 2)
    for options in OPTIONS.values()
]
ALL_ROWS = ["dense", "lengths", "reset", "lengths and reset"]
ROWS = pytest.mark.parametrize("rows", ALL_ROWS)
SMALL = [replace(v, I=2, H=3, T=4, proj_size=v.proj_size and 2, dtype=np.float64) for v in TABLE]


def with_rows(table: list[Variant]) -> Any:
    """Every variant with every kind of batch that it takes: a learned state refuses resets."""
    pairs = [(v, rows) for v in table for rows in ALL_ROWS if not (v.learned_state and "reset" in rows)]
    return pytest.mark.parametrize(("v", "rows"), pairs, ids=str)


@pytest.fixture
def threads() -> Iterator[Any]:
    """`fastrnn.set_num_threads`, undone afterwards."""
    before = fastrnn.get_num_threads()
    yield fastrnn.set_num_threads
    fastrnn.set_num_threads(before)


def case_of(v: Variant, rows: str, seed: int = 0) -> tuple[Case, dict[str, Any]]:
    """Return a case, without a state where it is learned, and the lengths and resets that go with its rows."""
    case = make_case(v, seed)
    if v.learned_state:
        case.state = None
    return case, {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}


@with_rows(both_dtypes(TABLE))
def test_equals_reference(v: Variant, rows: str) -> None:
    case, kwargs = case_of(v, rows)
    want = run_reference(v, case, **kwargs)
    assert_close(run_layer(make_layer(v, case.params), case, **kwargs), want, v.dtype)


@with_rows(SMALL)
def test_gradcheck(v: Variant, rows: str) -> None:
    case, kwargs = case_of(v, rows, seed=3)
    layer = make_layer(v, case.params)
    dstates = as_tuple(case.dstate)

    def loss() -> float:
        y, last = layer(case.x, case.state, **kwargs)
        ends = zip(as_tuple(last), dstates, strict=True)
        return float((y * case.dy).sum() + sum((s * d).sum() for s, d in ends))

    _, _, tape = layer.forward(case.x, case.state, **kwargs)
    g = layer.backward(tape, case.dy, case.dstate)
    assert_gradient(g.x, numeric_gradient(loss, case.x), "x")
    for name, array in layer.params.items():
        assert_gradient(g.params[name], numeric_gradient(loss, array), name)
    if case.state is not None:
        for one, state in zip(as_tuple(g.state), as_tuple(case.state), strict=True):
            assert_gradient(one, numeric_gradient(loss, state), "state")


@pytest.mark.parametrize("rows", ["dense", "lengths"])
@pytest.mark.parametrize("v", both_dtypes([v for v in TABLE if v.num_layers == 2]), ids=str)
def test_bits_depend_on_nothing_else(v: Variant, rows: str, threads: Any) -> None:
    """Training or inference, threads, checkpoints, frozen weights, a Ragged, and which sequences are neighbours."""
    v = replace(v, I=11, H=48, T=60, B=4, proj_size=v.proj_size and 20)
    case, kwargs = case_of(v, rows)
    layer = make_layer(v, case.params)
    threads(1)
    want = run_layer(layer, case, **kwargs)
    assert_same_bits(layer(case.x, case.state, **kwargs)[0], want["y"], "inference")
    for n in (2, 3):
        threads(n)
        assert_same_bits(run_layer(layer, case, **kwargs), want, f"{n} threads")
        assert_same_bits(run_layer(layer, case, **kwargs, checkpoint=7), want, f"{n} threads, checkpoints")
        assert_same_bits(layer(case.x, case.state, **kwargs)[0], want["y"], f"{n} threads, inference")
    layer.freeze()
    assert_same_bits(run_layer(layer, case, **kwargs), want, "frozen")
    layer.unfreeze()
    one = take_rows(case, [2]) if case.state is not None else take_rows(replace(case, state=case.dstate), [2])
    if case.state is None:
        one.state = None
    alone = run_layer(layer, one, **{key: value[..., [2]] for key, value in kwargs.items()})
    for name in ("y", "h_n", "dx", "dh_0"):
        assert_same_bits(alone[name], np.ascontiguousarray(want[name][:, [2]]), name)


@pytest.mark.parametrize("v", [v for v in TABLE if v.num_layers == 2], ids=str)
@pytest.mark.parametrize("B", [1, 3])
def test_long_sequences_share_directions_and_layers(v: Variant, B: int, threads: Any) -> None:
    """Sizes at which threads take chunks of steps of directions and layers of their own."""
    v = replace(v, I=8, H=64, T=300, B=B, proj_size=0)
    case, _ = case_of(v, "dense")
    layer = make_layer(v, case.params)
    threads(1)
    want = run_layer(layer, case)
    for n in (2, 4):
        threads(n)
        assert_same_bits(run_layer(layer, case), want, f"{n} threads")
        assert_same_bits(layer(case.x, case.state)[0], want["y"], f"{n} threads, inference")


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_ragged_and_batch_first(v: Variant) -> None:
    case, kwargs = case_of(v, "lengths")
    layer = make_layer(v, case.params)
    want = run_layer(layer, case, **kwargs)
    x, dy = (fastrnn.Ragged.from_padded(a, case.lengths) for a in (case.x, case.dy))
    y, _, tape = layer.forward(x, case.state)
    g = layer.backward(tape, dy, case.dstate)
    assert_same_bits(g.flat, np.concatenate([want["d" + name].ravel() for name in names(layer)]))
    assert_same_bits(y.values, fastrnn.Ragged.from_padded(want["y"], case.lengths).values)
    assert_same_bits(g.x.values, fastrnn.Ragged.from_padded(want["dx"], case.lengths).values)
    first = make_layer(v, case.params, batch_first=True)
    y, _, tape = first.forward(case.x.swapaxes(0, 1), case.state, lengths=case.lengths)
    assert_same_bits(np.ascontiguousarray(y.swapaxes(0, 1)), want["y"])
    g = first.backward(tape, case.dy.swapaxes(0, 1), case.dstate)
    assert_same_bits(np.ascontiguousarray(g.x.swapaxes(0, 1)), want["dx"])


def names(layer: Any) -> list[str]:
    return ["learned_" + name if name in ("h_0", "c_0") else name for name in layer.params]


@ROWS
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@KIND
def test_reverse_is_the_second_direction(kind: str, dtype: Any, rows: str) -> None:
    """The bits of the reverse half of a bidirectional layer, and of a forward layer on flipped sequences."""
    v = Variant(kind, bidirectional=True, I=9, H=13, dtype=dtype, proj_size=6 if kind == "lstm" else 0)
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    both = run_layer(make_layer(v, case.params), case, **kwargs)
    one = replace(v, bidirectional=False, reverse=True)
    params = {k.removesuffix("_reverse"): a for k, a in case.params.items() if k.endswith("_reverse")}

    def second(state: Any) -> Any:
        return tuple(s[1:] for s in state) if isinstance(state, tuple) else state[1:]

    half = replace(
        case, params=params, state=second(case.state), dstate=second(case.dstate), dy=case.dy[..., v.out :]
    )
    got = run_layer(make_layer(one, params), half, **kwargs)
    assert_same_bits(got["y"], np.ascontiguousarray(both["y"][..., v.out :]))
    for key in ("h_n", "c_n", "dh_0", "dc_0"):
        if key in got:
            assert_same_bits(got[key], both[key][1:], key)
    for key in params:
        assert_same_bits(got["d" + key], both[f"d{key}_reverse"], key)
    if rows == "lengths":
        ahead = make_layer(replace(one, reverse=False), params)
        for b, n in enumerate(case.lengths):
            state = as_tuple(second(case.state))
            first = tuple(np.ascontiguousarray(s[:, [b]]) for s in state)
            y, _ = ahead(np.ascontiguousarray(case.x[:n, [b]][::-1]), first if v.states == 2 else first[0])
            assert_same_bits(np.ascontiguousarray(y[::-1]), np.ascontiguousarray(got["y"][:n, [b]]))


@pytest.mark.parametrize("merge", ["sum", "mul", "ave"])
@KIND
def test_merge_is_that_of_the_two_halves(kind: str, merge: str) -> None:
    v = Variant(kind, bidirectional=True, T=40, H=32)
    case = make_case(v)
    y, last = make_layer(v, case.params)(case.x, case.state)
    a, b = np.split(y, 2, axis=2)
    want = {"sum": a + b, "mul": a * b, "ave": (a + b) * np.float32(0.5)}[merge]
    layer = make_layer(replace(v, merge=merge), case.params)
    got, final = layer(case.x, case.state)
    assert_same_bits(got, want)
    assert_same_bits(final, last)


@pytest.mark.parametrize("merge", ["sum", "mul", "ave"])
@pytest.mark.parametrize("bidirectional", ["dy_last", "dy"])
def test_dy_last_of_merged_directions(merge: str, bidirectional: str) -> None:
    v = Variant("lstm", 2, True, merge=merge)
    case = make_case(v)
    layer = make_layer(v, case.params)
    last = np.where(case.lengths > 0, case.lengths - 1, 0)
    dy = np.zeros_like(case.dy)
    d = case.dy[0]
    dy[last, np.arange(v.B)] = d * (case.lengths > 0)[:, None]
    want = run_layer(layer, case, dy, lengths=case.lengths)
    assert_close(run_layer(layer, case, None, dy_last=d, lengths=case.lengths), want, v.dtype)


def test_reverse_takes_dy_last() -> None:
    v = Variant("gru", 2, reverse=True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    dy = np.zeros_like(case.dy)
    dy[-1] = case.dy[0]
    assert_close(run_layer(layer, case, None, dy_last=case.dy[0]), run_layer(layer, case, dy), v.dtype)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_final_hidden_of_merged_directions(kind: str, merge: str) -> None:
    v = Variant(kind, 2, True, merge=merge, dtype=np.float64)
    case = make_case(v)
    layer = make_layer(v, case.params)
    _, state, tape = layer.forward(case.x)
    h = layer.final_hidden(state)
    a, b = as_tuple(state)[0][-2:]
    joined = {"concat": np.concatenate([a, b], axis=1), "sum": a + b, "mul": a * b, "ave": (a + b) / 2}
    assert_same_bits(h, joined[merge])
    dh = np.random.default_rng(0).standard_normal(h.shape)
    g = layer.backward(tape, dstate=layer.final_hidden_backward(dh, state))

    def loss() -> float:
        return float((layer.final_hidden(layer(case.x)[1]) * dh).sum())

    assert_gradient(g.x, numeric_gradient(loss, case.x))
    if merge == "mul":
        with pytest.raises(TypeError, match="state: expected the final state"):
            layer.final_hidden_backward(dh)


def test_a_chain_takes_merged_directions() -> None:
    for merge in ("concat", "sum", "mul", "ave"):
        rnn = fastrnn.GRU(3, 4, bidirectional=True, merge=merge, dtype=np.float64, rng=0)
        width = 8 if merge == "concat" else 4
        net = nn.Sequential(
            {"rnn": rnn, "last": nn.Last(), "head": nn.Linear(width, 2, dtype=np.float64, rng=0)}
        )
        x = np.random.default_rng(0).standard_normal((5, 2, 3))
        y, _, tape = net.forward(x)
        g = net.backward(tape, np.ones_like(y))

        def loss(net: Any = net, x: Any = x) -> float:
            return float(net(x)[0].sum() if isinstance(net(x), tuple) else net(x).sum())

        assert_gradient(g.x, numeric_gradient(loss, x), merge)


# -- learned initial states ---------------------------------------------------------------------------------


@KIND
def test_learned_state_is_used_where_none_is_given(kind: str) -> None:
    v = Variant(kind, 2, True, learned_state=True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    plain = make_layer(
        replace(v, learned_state=False),
        {key: a for key, a in case.params.items() if key not in ("h_0", "c_0")},
    )
    first = [np.repeat(case.params[key][:, None], v.B, axis=1) for key in ("h_0", "c_0")[: v.states]]
    state = tuple(first) if v.states == 2 else first[0]
    assert_same_bits(layer(case.x)[0], plain(case.x, state)[0])
    assert_same_bits(layer(case.x, case.state)[0], plain(case.x, case.state)[0])
    assert_same_bits(layer(None, steps=4)[0], plain(None, as_first(state), steps=4)[0])
    assert_same_bits(layer(case.x[:, 0])[0], plain(case.x[:, :1], as_first(state))[0][:, 0])
    got = run_layer(layer, case)  # a state is given, so the learned one gets no gradient
    assert not any(got[f"dlearned_{key}"].any() for key in ("h_0", "c_0")[: v.states])


def as_first(state: Any) -> Any:
    """Return the state of the first sequence."""
    parts = tuple(np.ascontiguousarray(s[:, :1]) for s in as_tuple(state))
    return parts if isinstance(state, tuple) else parts[0]


def test_one_part_of_a_state_may_be_learned() -> None:
    v = Variant("lstm", learned_state=True, dtype=np.float64)
    case = make_case(v)
    layer = make_layer(v, case.params)
    h, c = (np.repeat(case.params[key][:, None], v.B, axis=1) for key in ("h_0", "c_0"))
    assert_same_bits(layer(case.x, (case.state[0], None))[0], layer(case.x, (case.state[0], c))[0])
    assert_same_bits(layer(case.x, (None, case.state[1]))[0], layer(case.x, (h, case.state[1]))[0])
    _, _, tape = layer.forward(case.x, (case.state[0], None))
    g = layer.backward(tape, case.dy)
    assert not g.params["h_0"].any()
    np.testing.assert_allclose(g.params["c_0"], g.state[1].sum(axis=1), rtol=1e-12)


def test_learned_state_begins_as_zeros_and_changes_no_other_draw() -> None:
    learned, plain = fastrnn.LSTM(3, 4, 2, learned_state=True, rng=0), fastrnn.LSTM(3, 4, 2, rng=0)
    assert list(learned.params)[-2:] == ["h_0", "c_0"]
    assert learned.shapes["h_0"] == learned.shapes["c_0"] == (2, 4)
    assert_same_bits(learned.flat[: plain.flat.size].copy(), plain.flat)
    assert not learned.flat[plain.flat.size :].any()
    learned.flat[...] = 1
    fastrnn.init.torch_uniform(learned, rng=0)
    assert not learned.params["h_0"].any()
    fastrnn.init.xavier(learned, rng=0)
    fastrnn.init.orthogonal(learned, rng=0)
    fastrnn.init.forget_bias(learned)


def test_learned_state_can_be_learned() -> None:
    rnn = fastrnn.GRU(1, 8, learned_state=True, rng=0)
    head = nn.Linear(8, 1, rng=0)
    adam = fastrnn.optim.Adam([rnn, head], lr=0.05)
    x = np.zeros((3, 2, 1), np.float32)
    losses = []
    for _ in range(60):
        y, _, tape = rnn.forward(x)
        out, tape_head = head.forward(y)
        losses.append(float(((out - 0.7) ** 2).sum()))
        g_head = head.backward(tape_head, 2 * (out - np.float32(0.7)))
        adam.step([rnn.backward(tape, g_head.x), g_head])
    assert losses[-1] < 0.01 * losses[0]
    assert rnn.params["h_0"].any()


@pytest.mark.parametrize("frozen", [False, True])
@KIND
def test_a_stream_returns_to_the_learned_state(kind: str, frozen: bool) -> None:
    v = Variant(kind, 2, learned_state=True, proj_size=3 if kind == "lstm" else 0)
    case = make_case(v)
    layer = make_layer(v, case.params)
    if frozen:
        layer.freeze()
    want, last = layer(case.x)
    stream = layer.stream(v.B)
    for _ in range(2):
        assert_same_bits(np.stack([stream.step(x) for x in case.x]), want)
        assert_same_bits(stream.state, last)
        stream.reset()
    stream.run(case.x[:3])
    stream.reset([1])
    assert_same_bits(np.ascontiguousarray(stream.run(case.x)[:, [1]]), np.ascontiguousarray(want[:, [1]]))


# -- around the calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("v", [v for v in TABLE if v.num_layers == 2], ids=str)
def test_copies_pickles_files_and_reprs(v: Variant, tmp_path: Any) -> None:
    case, _ = case_of(v, "dense")
    layer = make_layer(v, case.params)
    want = layer(case.x, case.state)[0]
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same_bits(other(case.x, case.state)[0], want)
        assert repr(other) == repr(layer)
    again = eval(repr(layer), {"np": np, **vars(fastrnn)})
    assert repr(again) == repr(layer)
    io.save(tmp_path / "layer.npz", {"layer": layer})
    io.restore(tmp_path / "layer.npz", {"layer": again})
    assert_same_bits(again(case.x, case.state)[0], want)
    again.load_state_dict(layer.state_dict())
    assert pickle.loads(pickle.dumps(layer.freeze())).frozen


def test_reprs() -> None:
    assert repr(fastrnn.LSTM(3, 4, reverse=True)) == "LSTM(3, 4, reverse=True)"
    text = "GRU(3, 4, bidirectional=True, merge='sum', learned_state=True)"
    assert repr(fastrnn.GRU(3, 4, bidirectional=True, merge="sum", learned_state=True)) == text


def test_layers_of_an_older_version_can_be_unpickled() -> None:
    layer = fastrnn.GRU(3, 4, rng=0)
    state = layer.__getstate__()
    for name in ("reverse", "merge", "learned_state"):
        del state[name]
    old = fastrnn.GRU.__new__(fastrnn.GRU)
    old.__setstate__(state)
    x = np.ones((2, 1, 3), np.float32)
    assert_same_bits(old(x)[0], layer(x)[0])
    assert repr(old) == repr(layer)


@pytest.mark.parametrize("v", TABLE, ids=str)
def test_functional(v: Variant) -> None:
    case, _ = case_of(v, "dense")
    want = run_layer(make_layer(v, case.params), case)
    cell = v.kind.partition("_")[0]
    options: dict[str, Any] = {"reverse": v.reverse, "merge": v.merge}
    options |= {"nonlinearity": v.kind[4:]} if cell == "rnn" else {}
    options |= {"reset_after": v.kind == "gru"} if cell == "gru" else {}
    y, _ = getattr(functional, cell)(case.x, case.state, case.params, **options)
    assert_same_bits(y, want["y"])
    _, _, tape = getattr(functional, f"{cell}_forward")(case.x, case.state, case.params, **options)
    g = getattr(functional, f"{cell}_backward")(tape, case.dy, case.dstate)
    assert_same_bits(g.x, want["dx"])
    for name, shown in zip(case.params, names(make_layer(v)), strict=True):
        assert_same_bits(g.params[name], want["d" + shown], name)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fastrnn.GRU(3, 4, bidirectional=True, reverse=True), ValueError, "reverse: expected False"),
        (lambda: fastrnn.GRU(3, 4, merge="sum"), ValueError, "merge: expected 'concat' without bidir"),
        (
            lambda: fastrnn.RNN(3, 4, bidirectional=True, merge="max"),
            ValueError,
            "merge: expected 'concat', ",
        ),
        (
            lambda: fastrnn.LSTM(3, 4, reverse=True).stream(),
            ValueError,
            "stream: expected a layer that reads",
        ),
        (
            lambda: fastrnn.LSTM(3, 4, learned_state=True)(np.ones((2, 1, 3)), reset=np.ones((2, 1), bool)),
            ValueError,
            "reset: expected None for a layer with learned_state=True",
        ),
        (
            lambda: functional.gru(
                np.ones((2, 1, 3)), None, fastrnn.GRU(3, 4).state_dict() | {"h_0": np.ones((2, 4), "f")}
            ),
            ValueError,
            r"params: h_0: expected shape \(1, 4\), got \(2, 4\)",
        ),
    ],
)
def test_combinations_that_make_no_sense(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_weights_of_another_merge_do_not_fit() -> None:
    two = fastrnn.GRU(3, 4, 2, bidirectional=True)
    with pytest.raises(ValueError, match="weight_ih_l1: expected shape"):
        fastrnn.GRU(3, 4, 2, bidirectional=True, merge="sum").load_state_dict(two.state_dict())


def test_dropout_between_merged_layers() -> None:
    """The masks stand between layers, on what was merged."""
    v = Variant("gru", 3, True, merge="mul", dtype=np.float64)
    case = make_case(v)
    layer = make_layer(v, case.params, dropout=0.5)
    layer.rng = np.random.default_rng(1)
    y, _, tape = layer.forward(case.x, case.state)
    masks = np.random.default_rng(1).random((2, v.T * v.B, v.out), np.float32) >= 0.5
    factors = list(masks.reshape(2, v.T, v.B, v.out) * 2.0)
    want = run_reference(v, case, masks=factors)
    g = layer.backward(tape, case.dy, case.dstate)
    np.testing.assert_allclose(y, want["y"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(g.x, want["dx"], rtol=1e-9, atol=1e-11)
