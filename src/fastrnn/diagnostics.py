"""What happens inside recurrent layers: gradients back in time, hidden states, and what rounded weights change.

`gradient_flow` and `hidden_states` return arrays whose first axis is over layers and directions. `plot_gradient_flow`
and `plot_hidden_states` draw them, and `plot_gates` draws what ``layer.trace`` returned. Plots need matplotlib.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn._arrays import as_array, as_lengths, expect, readable
from fastrnn._deprecated import renamed
from fastrnn.layers import LSTM, Recurrent
from fastrnn.ragged import Ragged
from fastrnn.reference import join, join_backward
from fastrnn.reference.activations import activate

Array = NDArray[Any]

__all__ = ["QuantizeError", "gradient_flow", "hidden_states", "plot_gates", "plot_gradient_flow"]
__all__ += ["plot_hidden_states", "quantize_error"]


class QuantizeError(NamedTuple):
    """The difference between the outputs of rounded weights and those of float32."""

    largest: float
    mean: float


def quantize_error(
    layer: Any,
    x: Any,
    state: Any = None,
    *,
    weights: Literal["bfloat16", "int8"] | None = None,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
) -> QuantizeError:
    """Return by how much outputs change, on data of yours, with weights of 8 or 16 bits.

    The layer itself does not change.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        Of float32, frozen or not.
    x, state, lengths, reset
        As in a call of the layer.
    weights : {"bfloat16", "int8"}, optional
        By default those that the layer is frozen with, or "int8".

    Returns
    -------
    QuantizeError
        ``largest`` and ``mean``: of the magnitudes of the differences of all outputs y. Where the float32 layer gives
        NaN, nothing is compared. Padding counts as equal.

    Raises
    ------
    ValueError
        The layer is of float64, or a weight is NaN or infinite.

    Examples
    --------
    >>> import fastrnn
    >>> lstm = fastrnn.LSTM(3, 4, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((5, 2, 3), np.float32)
    >>> 0 < quantize_error(lstm, x).mean < quantize_error(lstm, x).largest < 0.05
    True
    """
    expect(isinstance(layer, Recurrent), "layer", "an RNN, LSTM or GRU", type(layer).__name__, TypeError)
    known = weights in (None, "bfloat16", "int8")
    expect(known, "weights", "'bfloat16' or 'int8'", repr(weights))
    if weights is None:
        weights = "bfloat16" if layer.weights_dtype == "bfloat16" else "int8"
    exact, rounded = copy.deepcopy(layer).freeze(), copy.deepcopy(layer).freeze(weights=weights)
    outputs = [one(x, state, lengths=lengths, reset=reset)[0] for one in (exact, rounded)]
    want, got = (y.values if isinstance(y, Ragged) else y for y in outputs)
    difference = np.abs(got.astype(np.float64) - want)[~np.isnan(want)]
    if not difference.size:
        return QuantizeError(0.0, 0.0)
    return QuantizeError(float(difference.max()), float(difference.mean()))


def gradient_flow(
    layer: Any,
    x: Any,
    dy: ArrayLike | None = None,
    *,
    state: Any = None,
    lengths: ArrayLike | None = None,
    wrt: Literal["h", "c", "both"] = "h",
) -> Any:
    """Return the norm of dL/dh_t, or of dL/dc_t, at every step t. Where it vanishes, nothing is learned from that step.

    The norm is over the sequences of the batch and the units. dL/dh_t counts every path from h_t to the loss: through
    the output, through later steps and through the layer above. It is computed in float64, one step at a time and
    without dropout, so it is slower than training. A sequence counts up to its length. NaN stays NaN. Pascanu et al.
    2013.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
    x, lengths
        As in a call of the layer.
    dy : float array as `y` of the call, optional
        dL/dy; by default the loss is the sum of the last layer's final hidden states.
    state
        As in a call of the layer. For an unbatched `x` it may also have the batch axis.
    wrt : "h", "c" or "both"
        With respect to which state. "c", the cell state of an LSTM, is where its gradient flows over long times. It
        counts the path through h_t too. "both" returns the two by name, and `plot_gradient_flow` draws them together.

    Returns
    -------
    float64 [L * D, T], or a dict {"dL/dh": array, "dL/dc": array}
        In the order of ``h_n``.

    Raises
    ------
    ValueError, TypeError
        The message names the argument, what was expected and what came.

    Examples
    --------
    >>> import fastrnn
    >>> (flow,) = gradient_flow(fastrnn.RNN(1, 20, rng=0), np.zeros((50, 1, 1)))
    >>> bool(flow[0] < 1e-6 * flow[-1])  # vanished on the way back
    True
    >>> gradient_flow(fastrnn.LSTM(1, 20), np.zeros((50, 1, 1)), wrt="c").shape
    (1, 50)
    """
    expect(wrt in ("h", "c", "both"), "wrt", "'h', 'c' or 'both'", repr(wrt))
    expect(wrt == "h" or isinstance(layer, LSTM), "wrt", "'h' for a layer without c", repr(wrt))
    batch = _Batch(layer, x, lengths, np.float64)
    runs = list(batch.runs(state))
    norms = {name: np.zeros((len(runs), len(batch.x))) for name in ("dL/dh", "dL/dc")}
    above: Any = None if dy is None else batch.output_gradient(dy)
    for top in range(len(runs) - batch.directions, -1, -batch.directions):
        outputs = [run[3] for run in runs[top : top + batch.directions]]
        parts = batch.last_steps() if above is None else join_backward(above, outputs, layer.merge)
        below: Any = 0.0
        for i, part in enumerate(parts):
            ordered = batch.ordered(i)
            dh, dc, dx = _bptt(*runs[top + i][:3], ordered(part), batch.valid)
            for name, gradient in zip(norms, (dh, dc), strict=True):
                norms[name][top + i] = np.linalg.norm(ordered(gradient), axis=(1, 2))
            below = below + ordered(dx)
        above = below
    return norms if wrt == "both" else norms[f"dL/d{wrt}"]


def hidden_states(layer: Any, x: Any, *, state: Any = None, lengths: ArrayLike | None = None) -> Array:
    """Return h_t of every layer and direction; a call returns only those of the last layer.

    The arguments are those of `gradient_flow`.

    Returns
    -------
    array [L * D, T, B, output]
        In the order of ``h_n``, time first, with the same bits as inside a call. It is 0 beyond the length of a
        sequence. B is 1 for an unbatched `x`.

    Examples
    --------
    >>> import fastrnn
    >>> hidden_states(fastrnn.GRU(3, 4, num_layers=2), np.ones((5, 1, 3), np.float32)).shape
    (2, 5, 1, 4)
    """
    return np.stack([y for *_, y in _Batch(layer, x, lengths).runs(state)])


def plot_gradient_flow(flow: ArrayLike | Mapping[str, ArrayLike], *, ax: Any = None) -> Any:
    """Draw what `gradient_flow` returned, or several such arrays by name, on a logarithmic axis; return the axes.

    Zeros and NaN leave a gap. Without `ax` it makes a new pyplot figure.
    """
    ax = _axes("plot_gradient_flow", ax)
    flows = dict(flow) if isinstance(flow, Mapping) else {"": flow}
    for name, values in flows.items():
        norms = np.atleast_2d(np.asarray(readable("flow", values, "numbers"), np.float64))
        expect(norms.ndim == 2, "flow", "shape [T] or [L * D, T]", norms.shape)
        for i, norm in enumerate(norms):
            label = " ".join([name] * bool(name) + [f"h_n[{i}]"] * (len(norms) > 1))
            ax.plot(np.arange(len(norm)), np.where(norm > 0, norm, np.nan), label=label or None)
    known = isinstance(flow, Mapping) and set(flow) == {"dL/dh", "dL/dc"}
    ax.set(xlabel="step t", ylabel="norm of the gradient" if known else "norm of dL/dh_t", yscale="log")
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    return ax


@renamed(row="sequence")
def plot_hidden_states(states: ArrayLike, *, layer: int = -1, sequence: int = 0, ax: Any = None) -> Any:
    """Draw a heat map over time of what `hidden_states` returned; return the axes.

    Parameters
    ----------
    states : array [L * D, T, B, output], or [T, output] of one sequence
    layer, sequence : int
        Which layer and direction, and which sequence of the batch, is drawn.
    ax : axes of matplotlib, optional
        By default those of a new pyplot figure.
    """
    ax = _axes("plot_hidden_states", ax)
    h = np.asarray(readable("states", states, "numbers"), np.float64)
    expect(h.ndim in (2, 4), "states", "shape [L * D, T, B, output] or [T, output]", h.shape)
    h = h if h.ndim == 2 else h[layer, :, sequence]
    bound = np.abs(h[np.isfinite(h)]).max(initial=0) or 1.0
    image = ax.imshow(h.T, aspect="auto", cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    ax.set(xlabel="step t", ylabel="unit")
    ax.figure.colorbar(image, ax=ax, label="h_t")
    return ax


def plot_gates(
    trace: Mapping[str, Any],
    part: str = "l0",
    *,
    sequence: int = 0,
    batch_first: bool = False,
    names: Sequence[str] | None = None,
    steps: Sequence[str] | None = None,
) -> Any:
    """Draw heat maps over time of what ``layer.trace`` returned: the gates and states of one sequence.

    Parameters
    ----------
    trace : dict of arrays
        From ``layer.trace``.
    part : str
        The layer and direction, as names of parameters end: "l0", "l1_reverse".
    sequence : int
        Which sequence of the batch is drawn.
    batch_first : bool
        Whether the arrays are [B, T, H], as those of a layer with ``batch_first``.
    names : list of str, optional
        What is drawn, such as ["f", "c"]; by default the gates and states, without pre-activations.
    steps : list of str, optional
        A label for each step, such as the words of a sentence.

    Returns
    -------
    list of axes
        One below the other in a new pyplot figure.

    Examples
    --------
    >>> import fastrnn
    >>> inside = fastrnn.LSTM(3, 4).trace(np.ones((5, 3), np.float32))
    >>> axes = plot_gates(inside, names=["f", "c"])  # doctest: +SKIP
    """
    found = [name.removesuffix(f"_{part}") for name in trace if name.endswith(f"_{part}")]
    found = [name for name in found if "_l" not in name]
    expect(found, "part", "the end of a name in the trace", repr(part))
    wanted = [name for name in found if name != "a" and not name.startswith("a_")] if names is None else names
    for name in wanted:
        expect(name in found, "names", f"some of {found}", repr(name))
    expect(len(wanted) > 0, "names", f"some of {found}", "none")
    drawn = [_one_sequence(trace[f"{name}_{part}"], sequence, batch_first) for name in wanted]
    labels = None if steps is None else [str(step) for step in steps]
    fits = labels is None or len(labels) == len(drawn[0])
    expect(fits, "steps", f"{len(drawn[0])} labels", len(labels or ()))
    pyplot = _pyplot("plot_gates")
    figure, grid = pyplot.subplots(
        len(drawn), 1, sharex=True, squeeze=False, figsize=(6.4, 1.0 + 1.2 * len(drawn)), layout="constrained"
    )
    axes = list(grid[:, 0])
    for ax, name, values in zip(axes, wanted, drawn, strict=True):
        gate = name in ("i", "f", "o", "r", "z")
        bound = 1.0 if gate else float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0
        colours = {"cmap": "viridis", "vmin": 0.0} if gate else {"cmap": "RdBu_r", "vmin": -bound}
        image = ax.imshow(values.T, aspect="auto", interpolation="nearest", vmax=bound, **colours)
        ax.set(ylabel=name)
        figure.colorbar(image, ax=ax)
    if labels is None:
        axes[-1].set(xlabel="step t")
    else:
        axes[-1].set_xticks(range(len(labels)), labels, rotation=60, ha="right")
    return axes


def _one_sequence(value: Any, sequence: int, batch_first: bool) -> Array:
    """Return one sequence [T, H] of an array of a trace."""
    if isinstance(value, Ragged):
        return value.to_list()[sequence].astype(np.float64)
    array = np.asarray(readable("trace", value, "numbers"), np.float64)
    expect(array.ndim in (2, 3), "trace", "arrays [T, B, H] or [T, H]", array.shape)
    if array.ndim == 2:
        return array
    return array[sequence] if batch_first else array[:, sequence]


class _Batch:
    """The input of a layer, time first, and each direction of each layer as a layer of its own."""

    def __init__(self, layer: Any, x: Any, lengths: Any, dtype: DTypeLike | None = None) -> None:
        expect(isinstance(layer, Recurrent), "layer", "an RNN, LSTM or GRU", type(layer).__name__, TypeError)
        self.layer, self.dtype = layer, np.dtype(layer.dtype if dtype is None else dtype)
        self.directions = 1 + layer.bidirectional
        self.batch_first = layer.batch_first and not isinstance(x, Ragged)
        if isinstance(x, Ragged):
            expect(lengths is None, "lengths", "None with a Ragged x", "an array")
            x, lengths = x.to_padded(), x.lengths
        x = as_array("x", x, self.dtype)
        self.x = self._time_first("x", x, layer.input_size)
        self.unbatched = x.ndim == 2
        fits = lengths is None or not self.unbatched
        expect(fits, "lengths", "None for an unbatched sequence", "an array")
        steps, batch, _ = self.x.shape
        self.lengths = as_lengths(np.full(batch, steps) if lengths is None else lengths, batch, steps)
        times = np.arange(steps)[:, None]
        self.valid = times < self.lengths  # [T, B]
        self._reversed = np.where(self.valid, self.lengths - 1 - times, times)[..., None]

    def _time_first(self, name: str, value: Any, width: int) -> Array:
        array = as_array(name, value, self.dtype)
        if array.ndim == 3 and self.batch_first:
            array = array.swapaxes(0, 1)
        array = array[:, None] if array.ndim == 2 else array
        wanted = f"shape (T, B, {width}) or (T, {width})"
        expect(array.ndim == 3 and array.shape[2] == width, name, wanted, np.shape(value))
        return array

    def reverse(self, array: Array) -> Array:
        """Return an array [T, B, ...] with every sequence reversed within its length."""
        return np.take_along_axis(array, self._reversed, axis=0)

    def ordered(self, direction: int) -> Any:
        """Return the function that brings an array [T, B, ...] into the order of a direction, and back."""
        return self.reverse if direction or self.layer.reverse else np.asarray

    def output_gradient(self, dy: Any) -> Array:
        """Return dL/dy, time first, and 0 beyond the lengths."""
        width = self.layer._output_width
        if isinstance(dy, Ragged):
            fits, got = np.array_equal(dy.lengths, self.lengths), dy.lengths.tolist()
            expect(fits, "dy", f"sequences of lengths {self.lengths.tolist()}", got)
            dy = dy.to_padded(batch_first=self.batch_first)
        above = self._time_first("dy", dy, width)
        steps_batch = self.x.shape[:2]
        expect(above.shape[:2] == steps_batch, "dy", f"{steps_batch} steps and sequences", above.shape[:2])
        return np.where(self.valid[..., None], above, 0.0)

    def last_steps(self) -> list[Array]:
        """Return dL/dh of a loss that is the sum of the final states: 1 at the last step of each direction."""
        times = np.arange(len(self.x))[:, None]
        ends = [times == self.lengths - 1, (times == 0) & self.valid]
        ends = ends[1:] if self.layer.reverse else ends[: self.directions]
        width = self.layer.proj_size or self.layer.hidden_size
        return [np.repeat(end[..., None], width, axis=2) * 1.0 for end in ends]

    def first_state(self, state: Any) -> Any:
        """Check a state as a call does; return it with the batch axis.

        A part that is None becomes the learned state, or zeros.
        """
        layer = self.layer
        if state is None and layer.learned_state:
            state = (
                (None, None)
                if isinstance(layer, LSTM)
                else self._state_part("state", None, layer.hidden_size)
            )
        if state is None:
            return None
        if not isinstance(layer, LSTM):
            return self._state_part("state", state, layer.hidden_size)
        pair = isinstance(state, (tuple, list)) and len(state) == 2
        expect(pair, "state", "a pair (h, c)", type(state).__name__, TypeError)
        h = self._state_part("state[0]", state[0], layer.proj_size or layer.hidden_size)
        return h, self._state_part("state[1]", state[1], layer.hidden_size)

    def _state_part(self, name: str, value: Any, width: int) -> Array:
        shape = (self.layer.num_layers * self.directions, self.x.shape[1], width)
        if value is None:
            learned = self.layer.params.get("c_0" if name == "state[1]" else "h_0")
            zeros = np.zeros(shape, self.dtype)
            return zeros if learned is None else zeros + learned[:, None]
        array = as_array(name, value, self.dtype)
        array = array[:, None] if self.unbatched and array.ndim == 2 else array
        expect(array.shape == shape, name, f"shape {shape}", np.shape(value))
        return array

    def runs(self, state: Any) -> Iterator[tuple[Recurrent, Array, Any, Array]]:
        """Yield for each direction of each layer: it as a layer, its input, its initial state, and its h."""
        x, below, state = self.x, [], self.first_state(state)
        for i in range(self.layer.num_layers * self.directions):
            level, direction = divmod(i, self.directions)
            ordered = self.ordered(direction)
            one = _alone(self.layer, level, direction, x.shape[2], self.dtype)
            first = _map(lambda s, i=i: s[i : i + 1], state)
            y = ordered(one(ordered(x), first, lengths=self.lengths)[0])
            yield one, ordered(x), first, y
            below.append(y)
            if len(below) == self.directions:
                x, below = join(below, self.layer.merge), []


def _alone(layer: Any, level: int, direction: int, inputs: int, dtype: Any) -> Recurrent:
    """Return one direction of one layer as a layer of its own, with a copy of the weights."""
    options = {"reset_after": layer.reset_after} if hasattr(layer, "reset_after") else {}
    options |= layer._chosen.alone(direction) if layer._chosen else {}
    options |= {"proj_size": layer.proj_size} if layer.proj_size else {}
    one: Recurrent = type(layer)(inputs, layer.hidden_size, bias=layer.bias, dtype=dtype, rng=0, **options)
    if one._chosen:
        one._chosen.draws = False
    end = f"_l{level}" + "_reverse" * direction
    one.load_state_dict({name: layer.params[name.removesuffix("_l0") + end] for name in one.params})
    return one


def _bptt(one: Recurrent, x: Array, state: Any, dy: Array, valid: Array) -> tuple[Array, Array, Array]:
    """Return dL/dh, dL/dc and dL/dx of every step, from a tape for each; they are 0 where a step is not `valid`.

    dL/dc has no width for cells without c.
    """
    tapes, through = [], []
    for x_t, on in zip(x, valid, strict=True):
        before = state
        _, state, tape = one.forward(x_t[None], state, lengths=on.astype(np.int64))
        tapes.append(tape)
        if isinstance(state, tuple):
            through.append(_dh_dc(one, x_t, before, state[1][0]))
    dh, dx = np.zeros_like(dy), np.zeros_like(x)
    dc = np.zeros((*x.shape[:2], one.hidden_size if through else 0))
    after = _map(np.zeros_like, state)
    for t in range(len(x) - 1, -1, -1):
        h = after[0] if isinstance(after, tuple) else after
        h += dy[t]
        dh[t] = np.where(valid[t][:, None], h[0], 0.0)
        if through:
            later = h[0] @ one.params["weight_hr_l0"] if one.proj_size else h[0]
            dc[t] = np.where(valid[t][:, None], after[1][0] + later * through[t], 0.0)
        g = one.backward(tapes[t], None, after)
        dx[t], after = g.x[0], g.state
    return dh, dc, dx


def _dh_dc(one: Recurrent, x_t: Array, state: Any, c: Array) -> Array:
    """Return the derivative of h_t before its projection with respect to c_t: o y'(c) + o' p y(c) [B, H]."""
    last = slice(3 * one.hidden_size, None)  # gates i, f, g, o
    z = x_t @ one.params["weight_ih_l0"][last].T
    if state is not None:
        z = z + state[0][0] @ one.params["weight_hh_l0"][last].T
    if one.bias:
        z = z + one.params["bias_ih_l0"][last] + one.params["bias_hh_l0"][last]
    chosen = one._chosen
    assert chosen is not None
    if chosen.zoneout_c:  # h_t is computed from the cell state before zoneout
        return np.zeros_like(c)
    p = one.params["weight_co_l0"] if chosen.peepholes else 0.0
    *_, of_o, of_c = chosen.functions[0]
    o, slope_o = activate(of_o, z + p * c, chosen.clip)
    y, slope_y = activate(of_c, c)
    return np.asarray((1 - chosen.zoneout_h) * (o * slope_y + slope_o * p * y))


def _map(f: Any, state: Any) -> Any:
    """Apply `f` to a state, or to both parts of it."""
    return None if state is None else tuple(map(f, state)) if isinstance(state, (tuple, list)) else f(state)


def _axes(name: str, ax: Any) -> Any:
    return _pyplot(name).subplots()[1] if ax is None else ax


def _pyplot(name: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(f"{name} needs matplotlib: pip install 'fastrnn[demo]'") from error
    return pyplot
