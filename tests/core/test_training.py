"""What the core does around a recurrent layer: linear layers, cross-entropy, lookups, optimisers."""

import math

import numpy as np
import pytest
from conftest import numeric_gradient, run_python

import fastrnn
from fastrnn import _core, losses, optim

DTYPES = (np.float32, np.float64)
# edges: one number, less than a register, a register and one more, several panels, more rows than a chunk
SIZES = [(1, 1, 1), (3, 5, 2), (7, 17, 33), (130, 40, 65), (5, 0, 3), (0, 4, 3), (600, 24, 70)]


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-11}


def layer(inputs, outputs, dtype, bias=True, seed=0):
    made = fastrnn.Linear(max(inputs, 1), outputs, bias, dtype=dtype, rng=seed)
    return made


def digest(arrays):
    return [None if a is None else np.ascontiguousarray(a).tobytes() for a in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_linear_equals_numpy(rows, inputs, outputs, bias, dtype):
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, inputs)).astype(dtype)
    w = rng.standard_normal((outputs, inputs)).astype(dtype)
    b = rng.standard_normal(outputs).astype(dtype) if bias else None
    dy = rng.standard_normal((rows, outputs)).astype(dtype)
    wide = np.float64
    y = _core.linear(x, w, b)
    want = x.astype(wide) @ w.astype(wide).T + (0 if b is None else b)
    np.testing.assert_allclose(y, want, **tolerance(dtype))
    dx, flat = _core.linear_backward(x, w, bias, dy)
    np.testing.assert_allclose(dx, dy.astype(wide) @ w, **tolerance(dtype))
    dw, db = flat[: w.size].reshape(w.shape), flat[w.size :]
    np.testing.assert_allclose(
        dw, dy.T.astype(wide) @ x, rtol=2e-5, atol=2e-4 if dtype == np.float32 else 1e-9
    )
    assert db.size == (outputs if bias else 0)
    if bias:
        np.testing.assert_allclose(db, dy.astype(wide).sum(axis=0), rtol=2e-5, atol=1e-4)
    none, same = _core.linear_backward(x, w, bias, dy, need_dx=False)
    assert none is None
    assert same.tobytes() == flat.tobytes()


@pytest.mark.parametrize(
    ("name", "f", "df"),
    [
        ("tanh", np.tanh, lambda y: 1 - y * y),
        ("relu", lambda a: np.maximum(a, 0), lambda y: (y > 0) * 1.0),
        ("sigmoid", lambda a: 1 / (1 + np.exp(-a)), lambda y: y * (1 - y)),
    ],
)
def test_activations_of_linear(name, f, df):
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((40, 9)), rng.standard_normal((21, 9)), rng.standard_normal(21)
    dy = rng.standard_normal((40, 21))
    y = _core.linear(x, w, b, name)
    np.testing.assert_allclose(y, f(x @ w.T + b), rtol=1e-12)
    dx, flat = _core.linear_backward(x, w, True, dy, name, y)
    da = dy * df(y)
    np.testing.assert_allclose(dx, da @ w, rtol=1e-11)
    np.testing.assert_allclose(flat, np.concatenate([(da.T @ x).ravel(), da.sum(axis=0)]), rtol=1e-10)


def test_linear_takes_rows_that_lie_apart_and_long_sums():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9000, 12)).astype(np.float32)[::2, 2:9]
    dy = rng.standard_normal((4500, 3)).astype(np.float32)
    w = rng.standard_normal((3, 7)).astype(np.float32)
    np.testing.assert_allclose(_core.linear(x, w, None), x @ w.T, rtol=1e-4, atol=1e-5)
    _, flat = _core.linear_backward(x, w, True, dy)  # more terms than a block of the sums has
    want = np.concatenate([(dy.T.astype(float) @ x).ravel(), dy.astype(float).sum(axis=0)])
    np.testing.assert_allclose(flat, want, rtol=1e-5, atol=1e-4)


def reference_cross_entropy(z, t, w, s=0.0, q=0.0):
    """Return the loss and its gradient with respect to the logits, in float64."""
    z = z.astype(np.float64)
    rows, classes = np.arange(len(z)), z.shape[1]
    top = z.max(axis=1)
    lse = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
    p = np.exp(z - lse[:, None])
    loss = lse - (1 - s) * z[rows, t] - s * z.mean(axis=1) + q * lse**2
    dz = (1 + 2 * q * lse)[:, None] * p - s / classes
    dz[rows, t] -= 1 - s
    return float((w * loss).sum()), w[:, None] * dz


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("s", "q"), [(0.0, 0.0), (0.1, 0.0), (0.3, 0.01)])
@pytest.mark.parametrize(("rows", "inputs", "classes"), [(1, 1, 1), (7, 5, 3), (33, 8, 32), (250, 20, 97)])
def test_fused_cross_entropy_equals_its_parts(rows, inputs, classes, s, q, dtype):
    rng = np.random.default_rng(classes)
    head = fastrnn.Linear(inputs, classes, dtype=dtype, rng=1)
    x = rng.standard_normal((rows, inputs)).astype(dtype)
    t, w = rng.integers(0, classes, rows), rng.uniform(0, 2, rows)
    w[::5] = 0
    loss, g = losses.linear_softmax_cross_entropy(head, x, t, w, label_smoothing=s, z_loss=q, reduction="sum")
    z = x.astype(float) @ head.params["weight"].T.astype(float) + head.params["bias"]
    want, dz = reference_cross_entropy(z, t, w, s, q)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-11}
    np.testing.assert_allclose(loss, want, rtol=1e-5 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(g.x, dz @ head.params["weight"], **close)
    np.testing.assert_allclose(g.params["weight"], dz.T @ x, **close)
    np.testing.assert_allclose(g.params["bias"], dz.sum(axis=0), **close)
    alone, none = losses.linear_softmax_cross_entropy(
        head, x, t, w, label_smoothing=s, z_loss=q, reduction="sum", gradient=False
    )
    assert alone == loss
    assert none is None


def test_fused_cross_entropy_gradcheck():
    rng = np.random.default_rng(0)
    head = fastrnn.Linear(4, 6, dtype=np.float64, rng=1)
    x, t = rng.standard_normal((3, 2, 4)), rng.integers(0, 6, (3, 2))

    def loss(x):
        return losses.linear_softmax_cross_entropy(
            head, x, t, label_smoothing=0.1, z_loss=0.05, gradient=False
        )[0]

    _, g = losses.linear_softmax_cross_entropy(head, x, t, label_smoothing=0.1, z_loss=0.05)
    for array, gradient in ((x, g.x), (head.flat, g.flat)):
        want = numeric_gradient(lambda: loss(x), array)
        np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=1e-9)


def test_a_target_that_is_ignored_reaches_nothing():
    rng = np.random.default_rng(0)
    head, x = fastrnn.Linear(4, 5, rng=1), rng.standard_normal((6, 4)).astype(np.float32)
    t = np.array([0, -100, 2, 3, -100, 1])
    loss, g = losses.linear_softmax_cross_entropy(head, x, t, ignore_index=-100)
    kept = t != -100
    x[~kept] = np.nan
    again, same = losses.linear_softmax_cross_entropy(head, x, t, ignore_index=-100)
    short, _ = losses.linear_softmax_cross_entropy(head, x[kept], t[kept])
    assert again == loss
    np.testing.assert_allclose(short, loss, rtol=1e-12)
    assert np.isfinite(same.x).all()
    assert not same.x[~kept].any()
    np.testing.assert_array_equal(same.flat, g.flat)
    np.testing.assert_array_equal(same.x[kept], g.x[kept])


def test_nan_in_one_row_stays_there():
    rng = np.random.default_rng(0)
    head, x = fastrnn.Linear(8, 40, rng=1), rng.standard_normal((300, 8)).astype(np.float32)
    t = rng.integers(0, 40, 300)
    _, clean = losses.linear_softmax_cross_entropy(head, x, t)
    x[17, 3] = np.nan
    loss, g = losses.linear_softmax_cross_entropy(head, x, t)
    assert math.isnan(loss)
    assert np.isnan(g.x[17]).all()
    rest = np.arange(300) != 17
    assert g.x[rest].tobytes() == clean.x[rest].tobytes()
    z = np.zeros((4, 3))
    z[1, 0], z[2, 1] = np.nan, np.inf
    _, dz = losses.softmax_cross_entropy(z, [0, 1, 2, 0])
    assert np.isfinite(dz[[0, 3]]).all()
    assert np.isnan(dz[1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [0, 9]}, "targets: expected 0 <= target < 3"),
        ({"targets": [0]}, "targets: expected shape"),
        ({"targets": [0.0, 1.0]}, "targets: expected integers"),
        ({"x": np.zeros((2, 5))}, "x: expected shape"),
        ({"weights": [1.0, -1.0]}, "weights: expected no negative"),
        ({"z_loss": -1.0}, "z_loss: expected a number of at least 0"),
        ({"label_smoothing": 2.0}, "label_smoothing: expected"),
        ({"reduction": "none"}, "reduction: expected"),
        ({"linear": None}, "linear: expected a Linear"),
    ],
)
def test_bad_arguments_are_named(change, message):
    call = {"linear": fastrnn.Linear(4, 3, rng=0), "x": np.zeros((2, 4)), "targets": [0, 1]} | change
    with pytest.raises((ValueError, TypeError), match=message):
        losses.linear_softmax_cross_entropy(**call)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width", "count"), [(1, 1, 1), (5, 3, 40), (3000, 17, 2000), (4, 2, 0)])
def test_lookups_equal_numpy(rows, width, count, dtype):
    rng = np.random.default_rng(count)
    table = rng.standard_normal((rows, width)).astype(dtype)
    ids = rng.integers(0, rows, count)
    dy = rng.standard_normal((count, width)).astype(dtype)
    assert _core.gather(table, ids).tobytes() == table[ids].tobytes()
    want = np.zeros_like(table)
    for i, r in zip(ids, dy, strict=True):  # in their order: the same bits
        want[i] = want[i] + r
    got = _core.gather_gradient(rows, dy, ids)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("ids", [[-1], [5], [2**40]])
def test_lookups_refuse_ids_outside_the_table(ids):
    table = np.zeros((5, 2), np.float32)
    with pytest.raises(ValueError, match="ids: expected values from 0 to 4"):
        _core.gather(table, np.array(ids))
    with pytest.raises(ValueError, match="ids: expected values from 0 to 4"):
        _core.gather_gradient(5, np.zeros((1, 2), np.float32), np.array(ids))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 65536, 65537, 200_003])
def test_norm_and_clipping_in_the_step(n, dtype):
    rng = np.random.default_rng(n)
    g = rng.standard_normal(n).astype(dtype)
    a, b = np.ones(n, dtype), np.ones(n, dtype)
    norm = optim.SGD([a], lr=0.5).step([g], clip_norm=1.0)
    exact = math.sqrt(math.fsum((g.astype(float) ** 2).tolist()))
    assert norm == pytest.approx(exact, rel=1e-12)
    kept = g.copy()
    assert optim.clip_grad_norm([kept], 1.0) == norm
    optim.SGD([b], lr=0.5).step([kept])
    np.testing.assert_allclose(a, b, rtol=3e-3 if dtype == np.float16 else 1e-6)


def test_a_norm_that_is_not_finite_updates_nothing():
    for bad in (np.nan, np.inf):
        p = np.ones(4, np.float32)
        optimiser = optim.Adam([p])
        assert not math.isfinite(optimiser.step([np.array([1, bad, 0, 0], np.float32)], clip_norm=1.0))
        assert (p == 1).all()
        assert optimiser.steps == 0


def test_norm_of_large_gradients_does_not_overflow():
    g = np.full(10, 1e30, np.float32)
    assert optim.clip_grad_norm([g], 1.0) == pytest.approx(1e30 * math.sqrt(10), rel=1e-6)


def step_of_everything(threads):
    """Return the bytes of a whole training step on so many threads."""
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    try:
        rng = np.random.default_rng(0)
        embedding = fastrnn.Embedding(700, 48, rng=1)
        lstm, head = fastrnn.LSTM(48, 64, rng=2), fastrnn.Linear(64, 700, rng=3)
        optimiser = optim.Adam([embedding, lstm, head])
        ids = rng.integers(0, 700, (30, 24))
        for _ in range(3):
            e, tape_e = embedding.forward(ids)
            h, _, tape = lstm.forward(e)
            loss, g_head = losses.linear_softmax_cross_entropy(head, h, np.roll(ids, -1, axis=0))
            g_lstm = lstm.backward(tape, g_head.x)
            optimiser.step([embedding.backward(tape_e, g_lstm.x), g_lstm, g_head], clip_norm=0.5)
        y, tape = head.forward(h)
        g = head.backward(tape, y)
        return digest([np.array(loss), embedding.flat, lstm.flat, head.flat, y, g.x, g.flat])
    finally:
        fastrnn.set_num_threads(before)


def test_the_same_bits_for_any_number_of_threads():
    want = step_of_everything(1)
    for threads in (2, 3, 5):
        assert step_of_everything(threads) == want


def test_rows_have_the_same_bits_in_any_company():
    rng = np.random.default_rng(0)
    head = fastrnn.Linear(33, 130, rng=1)
    x = rng.standard_normal((301, 33)).astype(np.float32)
    t = rng.integers(0, 130, 301)
    y = head(x)
    _, g = losses.linear_softmax_cross_entropy(head, x, t, reduction="sum")
    for part in (slice(0, 1), slice(5, 6), slice(7, 10), slice(100, 301)):
        assert head(x[part]).tobytes() == y[part].tobytes()
        _, some = losses.linear_softmax_cross_entropy(head, x[part], t[part], reduction="sum")
        assert some.x.tobytes() == g.x[part].tobytes()


SETS = [s for s in _core.config()["available_kernel_sets"] if s != "sse2"]


@pytest.mark.skipif(len(SETS) < 2, reason="only one kernel set with fma can run here")
def test_kernel_sets_with_fma_agree():
    code = (
        "import hashlib, test_training as t;"
        "print(hashlib.sha256(repr(t.step_of_everything(1)).encode()).hexdigest())"
    )
    seen = set()
    for name in SETS:
        run = run_python("-c", code, FASTRNN_ISA=name)
        assert run.returncode == 0, run.stderr
        seen.add(run.stdout)
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("steps", "places", "batch", "width"), [(1, 1, 1, 1), (3, 5, 4, 7), (20, 37, 3, 33), (0, 4, 2, 3)]
)
def test_attention_equals_numpy(steps, places, batch, width, dtype):
    rng = np.random.default_rng(places)
    q = rng.standard_normal((steps, batch, width)).astype(dtype)
    m = rng.standard_normal((places, batch, width)).astype(dtype)
    d = rng.standard_normal((steps, batch, width)).astype(dtype)
    n = rng.integers(0, places + 1, batch)
    n[0] = places
    attention = fastrnn.nn.DotAttention()
    context, tape = attention.forward(q, m, n)
    dq, dm = attention.backward(tape, d).x
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-12}
    for b in range(batch):
        query, memory, d_b = (a.astype(float) for a in (q[:, b], m[: n[b], b], d[:, b]))
        scores = query @ memory.T
        p = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-1e30))
        p /= np.maximum(p.sum(axis=1, keepdims=True), 1e-300)
        dp = d_b @ memory.T
        ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(context[:, b], p @ memory, **close)
        np.testing.assert_allclose(dq[:, b], ds @ memory, **close)
        np.testing.assert_allclose(dm[: n[b], b], p.T @ d_b + ds.T @ query, **close)
        assert not dm[n[b] :, b].any()


def test_attention_names_what_is_wrong():
    attention, q = fastrnn.nn.DotAttention(), np.zeros((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="memory: expected shape"):
        attention.forward(q, np.zeros((5, 3, 3), np.float32))
    with pytest.raises(ValueError, match="lengths: expected values from 0 to 5"):
        attention.forward(q, np.zeros((5, 3, 4), np.float32), [1, 2, 6])
    _, tape = attention.forward(q, q)
    with pytest.raises(ValueError, match="dcontext: expected shape"):
        attention.backward(tape, q[:1])


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", None])
def test_linear_with_an_activation_gradcheck(activation):
    rng = np.random.default_rng(0)
    linear = fastrnn.Linear(3, 4, activation=activation, dtype=np.float64, rng=1)
    x, dy = rng.standard_normal((5, 3)), rng.standard_normal((5, 4))
    _, tape = linear.forward(x)
    g = linear.backward(tape, dy)
    for array, gradient in ((x, g.x), (linear.flat, g.flat)):
        want = numeric_gradient(lambda: (linear(x) * dy).sum(), array)
        np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=1e-8)


def test_an_unknown_activation_is_named():
    with pytest.raises(
        ValueError, match="activation: expected None, 'tanh', 'relu' or 'sigmoid', got 'gelu'"
    ):
        fastrnn.Linear(3, 4, activation="gelu")
