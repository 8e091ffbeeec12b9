"""The core checks the weights it is given, since it reads as many numbers as their shapes say."""

import numpy as np
import pytest

import fastrnn
from fastrnn import _core


def network(is_double=False, hidden=4):
    return _core.Network("lstm", 3, hidden, 0, 1, False, True, False, is_double)


def weights(dtype=np.float32, hidden=4):
    return fastrnn.LSTM(3, hidden, dtype=dtype, rng=0)._arrays


X = np.ones((5, 2, 3), np.float32)


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    b = raw[1:].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


WRONG = {
    "one is missing": lambda w: w[:-1],
    "one too many": lambda w: (*w, w[0]),
    "a row is missing": lambda w: (w[0][:-1], *w[1:]),
    "a column is missing": lambda w: (np.ascontiguousarray(w[0][:, :-1]), *w[1:]),
    "transposed": lambda w: (w[0], np.ascontiguousarray(w[1]).T, *w[2:]),
    "strided": lambda w: (np.repeat(w[0], 2, axis=1)[:, ::2], *w[1:]),
    "unaligned": lambda w: (unaligned(w[0]), *w[1:]),
    "another dtype": lambda w: (w[0].astype(np.float64), *w[1:]),
    "another byte order": lambda w: (w[0].astype(">f4"), *w[1:]),
    "a list": lambda w: (w[0].tolist(), *w[1:]),
    "a number": lambda w: (np.array(1, np.float32), *w[1:]),
    "None": lambda w: (None, *w[1:]),
    "a bias with two axes": lambda w: (*w[:3], w[3].reshape(2, -1)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_weights_are_refused(wrong):
    net, bad = network(), wrong(weights())
    with pytest.raises(ValueError, match="weights"):
        net.infer(bad, X, None, None, None)
    with pytest.raises(ValueError, match="weights"):
        net.forward(bad, X, None, None, None, None, False, True, 0, None, 1.0)
    with pytest.raises(ValueError, match="weights"):
        net.pack(bad)


def test_the_message_names_the_array_and_both_shapes():
    w = weights()
    with pytest.raises(
        ValueError,
        match=r"weights\[0\]: expected .* float32 of shape \(16, 3\), got float32 of shape \(15, 3\)",
    ):
        network().pack((w[0][:-1], *w[1:]))


def test_weights_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="weights: expected a tuple of arrays or packed weights, got list"):
        network().infer(list(weights()), X, None, None, None)
    with pytest.raises(TypeError, match="weights: expected a tuple of arrays, got NoneType"):
        network().pack(None)


@pytest.mark.parametrize("options", [{"hidden": 5}, {"dtype": np.float64}])
def test_packed_weights_of_another_network_are_refused(options):
    other = network(options.get("dtype") == np.float64, options.get("hidden", 4))
    packed = other.pack(weights(**options))
    with pytest.raises(ValueError, match="packed weights of this network"):
        network().infer(packed, X, None, None, None)
    with pytest.raises(ValueError, match="packed weights of this network"):
        _core.Stream(network(), packed, 1)


def test_masks_of_a_wrong_size_or_dtype_are_refused():
    layer = fastrnn.LSTM(3, 4, num_layers=2, rng=0)
    for masks in (np.ones(7, bool), np.ones((1, 10, 4), np.uint8), [True]):
        with pytest.raises(ValueError, match="masks"):
            layer._network.forward(
                layer._weights,
                X,
                None,
                None,
                None,
                None,
                False,
                True,
                0,
                lambda *sizes, masks=masks: masks,
                1.0,
            )


def test_large_outputs_have_an_array_as_base():
    x = np.zeros((200, 32, 3), np.float32)
    y, _ = fastrnn.GRU(3, 64, rng=0)(x)
    assert y.nbytes >= 1 << 16
    assert type(y.base) is np.ndarray
    assert type(y[::2].base) is np.ndarray
    assert y.flags.writeable
    assert y.flags.c_contiguous


def test_dx_is_left_out_where_it_is_not_needed():
    layer = fastrnn.LSTM(3, 4, rng=0)
    _, _, tape = layer.forward(X)
    _, _, again = layer.forward(X)
    dy = np.ones((5, 2, 4), np.float32)
    dx, dstate, flat = layer._network.backward(tape, dy, None)
    none, same_dstate, same_flat = layer._network.backward(again, dy, None, need_dx=False)
    assert dx.shape == X.shape
    assert none is None
    assert flat.tobytes() == same_flat.tobytes()
    assert dstate[0].tobytes() == same_dstate[0].tobytes()


def test_a_stream_of_two_directions_is_refused():
    layer = fastrnn.GRU(3, 4, bidirectional=True, rng=0)
    with pytest.raises(
        ValueError, match=r"^stream: expected a network of one direction, got a bidirectional one"
    ):
        _core.Stream(layer._network, layer._network.pack(layer._arrays), 2)


def test_the_last_step_and_all_steps_are_given_apart():
    layer = fastrnn.GRU(3, 4, rng=0)
    _, _, tape = layer.forward(X)
    dy = np.ones((5, 2, 4), np.float32)
    with pytest.raises(ValueError, match=r"^dy_last: expected None where dy is given, got an array"):
        layer._network.backward(tape, dy, None, dy_last=dy[0])
    with pytest.raises(ValueError, match=r"^dy_last: expected shape \(2, 4\), got \(5, 2, 4\)"):
        layer._network.backward(tape, None, None, dy_last=dy)
    assert tape.weights is layer._arrays
    layer._network.backward(tape, None, None, dy_last=dy[0])
    assert tape.weights is None
