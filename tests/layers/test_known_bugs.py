"""What other implementations were known to break on, one test each, named by the report.

Numbers are issues of the repository in the test's name: pytorch/pytorch, microsoft/onnxruntime,
onnx/onnx-tensorflow, keras-team/keras, tensorflow/tensorflow, apache/mxnet; of 2201 only the number is known.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import (
    KIND,
    Variant,
    as_tuple,
    assert_close,
    assert_same_bits,
    make_case,
    make_layer,
    needs_proc,
    posix,
    run_layer,
    run_python,
    run_reference,
)

import fastrnn


@KIND
def test_pytorch_50192_sequences_of_no_steps(kind: str) -> None:
    """RNNs refused sequences of length zero, in a batch and alone; the state must come back unchanged."""
    v = Variant(kind, 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    none = np.zeros((0, v.B, v.I), np.float32)
    y, last, tape = layer.forward(none, case.state)
    assert y.shape == (0, v.B, 2 * v.H)
    assert_same_bits(as_tuple(last), as_tuple(case.state))
    g = layer.backward(tape, y, case.dstate)
    assert_same_bits(as_tuple(g.state), as_tuple(case.dstate))
    assert not g.flat.any()
    y, last = layer(case.x, case.state, lengths=[v.T, 0, 2])
    assert not y[:, 1].any()
    assert_same_bits(tuple(s[:, 1] for s in as_tuple(last)), tuple(s[:, 1] for s in as_tuple(case.state)))
    assert layer(none[:, 0])[0].shape == (0, 2 * v.H)


@KIND
def test_pytorch_4582_batches_of_no_rows(kind: str) -> None:
    """A batch without rows crashed; shapes must come out as for any other."""
    v = Variant(kind, 2, True)
    layer = make_layer(v)
    none = np.zeros((v.T, 0, v.I), np.float32)
    y, last, tape = layer.forward(none)
    assert y.shape == (v.T, 0, 2 * v.H)
    assert {s.shape for s in as_tuple(last)} == {(4, 0, v.H)}
    g = layer.backward(tape, y)
    assert g.x.shape == none.shape
    assert not g.flat.any()
    assert layer(none, lengths=np.zeros(0, int))[0].shape == y.shape


@pytest.mark.parametrize("wrong", [(2, 3, 8), (1, 3, 7), (4, 1, 7), (4, 2, 7), (4, 3, 1), (4, 7, 3), (12, 7)])
@KIND
def test_pytorch_3259_wrong_states_are_accepted(kind: str, wrong: tuple[int, ...]) -> None:
    """Initial states of wrong shapes were accepted where their number of elements or a broadcast fitted."""
    v = Variant(kind, 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    bad = np.zeros(wrong, np.float32)
    for state in [(bad, case.state[1]), (case.state[0], bad)] if v.states == 2 else [bad]:
        for call in (layer, layer.forward):
            with pytest.raises(ValueError, match=r"^state(\[[01]\])?: expected shape \(4, 3, 7\), got "):
                call(case.x, state)
    cell = fastrnn.GRUCell(5, 7)
    with pytest.raises(ValueError, match=r"^state(\[0\])?: expected shape \(3, 7\)"):
        cell(case.x[0], np.zeros((1, 7), np.float32))


def test_pytorch_6178_batch_of_the_cell_state() -> None:
    """h0 and c0 of different batch sizes went through to the kernels."""
    layer = fastrnn.LSTM(5, 7)
    x, h = np.zeros((6, 3, 5), np.float32), np.zeros((1, 3, 7), np.float32)
    for c in (h[:, :1], h[:, :2], np.zeros((1, 4, 7), np.float32)):
        with pytest.raises(ValueError, match=r"^state\[1\]: expected shape \(1, 3, 7\), got "):
            layer(x, (h, c))
        with pytest.raises(ValueError, match=r"^state\[0\]: expected shape \(1, 3, 7\), got "):
            layer(x, (c, h))


@KIND
def test_pytorch_619_non_contiguous_dy(kind: str) -> None:
    """Backward read a gradient that was expanded or transposed as if it were contiguous."""
    v = Variant(kind, 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case)
    for dy in (
        np.ascontiguousarray(case.dy.transpose(1, 0, 2)).transpose(1, 0, 2),
        np.ascontiguousarray(case.dy.transpose(2, 1, 0)).transpose(2, 1, 0),
        np.repeat(case.dy, 3, axis=0)[::3],
    ):
        assert_same_bits(run_layer(layer, case, dy=dy), want)
    expanded = np.broadcast_to(case.dy[:1, :1], case.dy.shape)
    assert_same_bits(run_layer(layer, case, dy=expanded), run_layer(layer, case, dy=expanded.copy()))


@pytest.mark.parametrize("shape", [(), (7,), (3, 7), (7, 3), (21,), (1, 1, 3, 7), (1, 3, 7, 1), (0,)])
@KIND
def test_pytorch_106769_state_of_wrong_rank(kind: str, shape: tuple[int, ...]) -> None:
    """A state with too few or too many dimensions was read out of bounds."""
    v = Variant(kind)
    case = make_case(v)
    layer, bad = make_layer(v, case.params), np.zeros(shape, np.float32)
    state = (bad, bad) if v.states == 2 else bad
    with pytest.raises(ValueError, match=r"^state(\[0\])?: expected shape \(1, 3, 7\), got "):
        layer(case.x, state)
    with pytest.raises(ValueError, match=r"^state(\[0\])?: expected shape "):
        layer(None, state, steps=4) if len(shape) not in (2, 3) else layer(case.x, state)
    y, _, tape = layer.forward(case.x)
    with pytest.raises(ValueError, match=r"^dstate(\[0\])?: expected shape \(1, 3, 7\), got "):
        layer.backward(tape, y, state)
    with pytest.raises(ValueError, match=r"^state(\[0\])?: expected shape \(1, 3, 7\), got "):
        layer.stream(3).state = (bad, np.zeros((1, 3, 7), np.float32)) if v.states == 2 else bad


@pytest.mark.parametrize("B", [1, 2, 3, 5, 8, 13, 64, 65])
@KIND
def test_pytorch_32023_79501_result_depends_on_the_batch(kind: str, B: int) -> None:
    """A row alone and the same row in a batch differed in the last bits."""
    v = Variant(kind, 2, True, I=33, H=48, T=5, B=B)
    case = make_case(v)
    layer = make_layer(v, case.params)
    whole = layer(case.x)[0]
    for b in {0, B // 2, B - 1}:
        assert_same_bits(layer(case.x[:, b : b + 1])[0][:, 0], whole[:, b])


@KIND
def test_report_2201_result_depends_on_threads(kind: str) -> None:
    """Another number of threads, another order of the sums, other bits."""
    v = Variant(kind, 1, True, I=64, H=128, T=20, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params)
    before = fastrnn.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3, 4, 7):
            fastrnn.set_num_threads(n)
            results.append(run_layer(layer, case))
    finally:
        fastrnn.set_num_threads(before)
    for other in results[1:]:
        assert_same_bits(other, results[0])


@posix
@pytest.mark.parametrize("used", ["before", "after"])
def test_pytorch_3490_123828_fork_hangs(used: str) -> None:
    """A child that used the library after the parent had, and a parent that goes on after its child."""
    code = f"""
import os
import numpy as np
import fastrnn
layer = fastrnn.LSTM(32, 128, rng=0)
x = np.ones((40, 64, 32), np.float32)
def train():
    y, _, tape = layer.forward(x)
    return layer.backward(tape, y).flat.tobytes()
want = train() if {used == "before"} else None
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        got = train()
        os._exit(0 if want is None or got == want else 1)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(codes, want is None or train() == want)
"""
    run = run_python("-c", code, OMP_NUM_THREADS="4")
    assert run.stdout.strip() == "[0, 0, 0] True", run.stderr


@needs_proc
def test_pytorch_41486_memory_of_threads_that_have_ended() -> None:
    """Every short-lived thread left memory behind; 300 of them, each with a call on several threads."""
    assert growth("threads") <= 1_000_000


@needs_proc
def test_pytorch_27971_memory_grows_with_shapes() -> None:
    """Compiled kernels were cached for every new shape without a bound; here nothing is cached."""
    assert growth("shapes") <= 1_000_000


def growth(what: str) -> int:
    code = f"""
import os, threading
import numpy as np
import fastrnn
layer = fastrnn.LSTM(32, 32, rng=0)
x = np.ones((64, 40, 32), np.float32)
def some(first, last):
    for i in range(first, last):
        if {what!r} == "threads":
            thread = threading.Thread(target=layer, args=(x[:20],))
            thread.start()
            thread.join()
        else:
            layer(x[: 1 + i % 31, : 1 + i % 19])
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
n = 300 if {what!r} == "threads" else 31 * 19
sizes = [some(i * n // 10, (i + 1) * n // 10) for i in range(10)]
print(min(sizes[6:]) - min(sizes[2:6]))  # single looks differ by what the allocator happens to hold
"""
    run = run_python("-c", code, OMP_NUM_THREADS="2", MALLOC_ARENA_MAX="2")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@KIND
def test_pytorch_9621_stack_grows_with_steps(kind: str) -> None:
    """The recorded graph was freed by recursion, a stack frame a step; here on a stack of 2.6 bytes a step."""
    layer = make_layer(Variant(kind, I=1, H=2))
    finished = []

    def work() -> None:
        y, _, tape = layer.forward(np.zeros((200_000, 1, 1), np.float32))
        finished.append(layer.backward(tape, dy_last=y[-1]).flat.shape)
        layer.forward(np.zeros((200_000, 1, 1), np.float32))  # freed without a backward

    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert finished == [layer.flat.shape]


@KIND
def test_onnxruntime_1193_outputs_behind_the_longest_row(kind: str) -> None:
    """Steps that no row reaches were left as the allocator gave them."""
    v = Variant(kind, 2, True, T=40, B=4, H=16)
    case = make_case(v)
    layer = make_layer(v, case.params)
    for lengths in ([3, 1, 2, 0], [5, 5, 5, 5], [0, 0, 0, 0]):
        for _ in range(3):
            junk = np.full((v.T, v.B, 2 * v.H), np.nan, np.float32)  # what the allocator may give next
            del junk
            y, _ = layer(case.x, lengths=lengths)
            assert not y[max(lengths) :].any()
            trained, _, tape = layer.forward(case.x, lengths=lengths)
            assert not trained[max(lengths) :].any()
            assert not layer.backward(tape, np.ones_like(y)).x[max(lengths) :].any()


@KIND
def test_onnxruntime_18672_second_run_differs(kind: str) -> None:
    """A buffer that the first run had left behind changed the second, with a shorter batch in between."""
    v = Variant(kind, 2, True, T=12, B=6)
    case = make_case(v)
    layer = make_layer(v, case.params)
    for frozen in (False, True):
        if frozen:
            layer.freeze()
        first = run_layer(layer, case, lengths=case.lengths)
        layer(case.x[:3, :2])
        layer(np.full((30, 9, v.I), 1e30, np.float32))
        assert_same_bits(run_layer(layer, case, lengths=case.lengths), first)


@KIND
def test_onnx_tensorflow_342_reverse_starts_at_each_row_end(kind: str) -> None:
    """With lengths, the reverse direction began at T, in the padding, instead of at each row's last step."""
    v = Variant(kind, bidirectional=True, T=6, B=3)
    case = make_case(v)
    layer = make_layer(v, case.params)
    lengths = [2, 6, 4]
    y, _ = layer(case.x, lengths=lengths)
    for b, n in enumerate(lengths):
        assert_same_bits(y[:n, b], layer(case.x[:n, b])[0])


@KIND
def test_keras_1300_masked_steps_update_through_the_bias(kind: str) -> None:
    """A padded step still moved the state, because zero input does not mean zero update; nor may it train."""
    v = Variant(kind, 2, True, T=7, B=3)
    case = make_case(v)
    for key in case.params:
        if "bias" in key:
            case.params[key] += np.float32(3)
    layer = make_layer(v, case.params)
    lengths = np.array([4, 0, 7])
    case.x[np.arange(v.T)[:, None] >= lengths] = 0
    whole = run_layer(layer, case, lengths=lengths)
    assert_same_bits(whole["h_n"][:, 1], as_tuple(case.state)[0][:, 1])
    _, last = layer(
        case.x[:4, :1], tuple(s[:, :1] for s in case.state) if v.states == 2 else case.state[:, :1]
    )
    assert_same_bits(as_tuple(last)[0][:, 0], whole["h_n"][:, 0])
    case.dy[np.arange(v.T)[:, None] >= lengths] = 100  # gradients of outputs that do not exist
    assert_same_bits(run_layer(layer, case, lengths=lengths), whole)


@pytest.mark.parametrize("filler", [1e30, -1e30, 3.4e38])
@KIND
def test_keras_449_large_padding(kind: str, filler: float) -> None:
    """Padding with 1e30 gave NaN, because masked steps were computed and then multiplied by zero."""
    v = Variant(kind, 2, True, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params)
    want = run_layer(layer, case, lengths=case.lengths)
    pad = np.arange(v.T)[:, None] >= case.lengths
    case.x[pad] = case.dy[pad] = filler
    assert_same_bits(run_layer(layer, case, lengths=case.lengths), want)


@KIND
def test_tensorflow_6209_nan_times_zero_in_masked_gradients(kind: str) -> None:
    """NaN in the padding met a zero mask in backward, and NaN * 0 is NaN, in every weight's gradient."""
    v = Variant(kind, 2, True, B=5)
    case = make_case(v)
    layer = make_layer(v, case.params)
    pad = np.arange(v.T)[:, None] >= case.lengths
    case.x[pad] = case.dy[pad] = np.nan
    for options in ({}, {"checkpoint": 2}, {"reset": case.reset}):
        got = run_layer(layer, case, lengths=case.lengths, **options)
        assert all(np.isfinite(value).all() for value in got.values())


@KIND
def test_mxnet_17898_dy_is_overwritten_before_the_reverse_direction_reads_it(kind: str) -> None:
    """The caller's gradients stay as they are, and the reverse direction sees all of them."""
    v = Variant(kind, 2, True)
    case = make_case(v)
    layer = make_layer(v, case.params)
    kept = [case.dy.copy(), *(d.copy() for d in as_tuple(case.dstate))]
    for a in (case.dy, *as_tuple(case.dstate)):
        a.flags.writeable = False
    assert_close(run_layer(layer, case), run_reference(v, case), np.float32)
    assert_same_bits((case.dy, *as_tuple(case.dstate)), tuple(kept))
    case.dy = case.dy.copy()
    case.dy[:, :, : v.H] = 0  # only the reverse direction's half
    assert_close(run_layer(layer, case), run_reference(v, case), np.float32)


@pytest.mark.parametrize("num_layers", [2, 3])
@KIND
def test_mxnet_17818_bias_gradients_of_stacked_layers(kind: str, num_layers: int) -> None:
    """The bias gradients of all layers but one came out as zeros."""
    v = Variant(kind, num_layers, True)
    case = make_case(v)
    got = run_layer(make_layer(v, case.params), case)
    assert_close(got, run_reference(v, case), np.float32)
    biases = [key for key in got if key.startswith("dbias")]
    assert len(biases) == 4 * num_layers
    assert all(np.abs(got[key]).max() > 1e-3 for key in biases)


@pytest.mark.parametrize("sizes", [(1, 9), (9, 1), (3, 8), (8, 3), (40, 5), (5, 40)])
@KIND
def test_mxnet_17479_input_size_unlike_hidden_size_when_stacked(kind: str, sizes: tuple[int, int]) -> None:
    """Upper layers read weights with the first layer's input size."""
    v = Variant(kind, 3, True, I=sizes[0], H=sizes[1])
    case = make_case(v)
    got, want = run_layer(make_layer(v, case.params), case), run_reference(v, case)
    for key, value in want.items():
        atol = 1e-5 * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(got[key], value, rtol=1.3e-6, atol=atol, err_msg=key)
