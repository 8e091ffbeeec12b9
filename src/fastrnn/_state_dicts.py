"""What the names and shapes of a state dict say about the layer that it is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn._arrays import expect, readable, some
from fastrnn._parameters import GATES, prefix_hint

NAME = re.compile(r"(weight_(?:ih|hh|hr|ci|cf|co)|bias_(?:ih|hh))_l(\d{1,5})(_reverse)?")
LEARNED = ("h_0", "c_0")


def options_of(cell: str, state: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a layer whose parameters a state dict holds, and those parameters.

    Raises
    ------
    ValueError
        The entries are not those of a layer of this cell. The message says which prefix they have.
    """
    expect(isinstance(state, Mapping), "state_dict", "a mapping", type(state).__name__, TypeError)
    expect(isinstance(prefix, str), "prefix", "a str", type(prefix).__name__, TypeError)
    own = {str(name)[len(prefix) :]: value for name, value in state.items() if str(name).startswith(prefix)}
    names = (
        "weight_ih",
        "weight_hh",
        "bias_ih",
        "bias_hh",
    )  # the names of a cell, such as torch.nn.LSTMCell's
    if "weight_ih" in own and "weight_ih_l0" not in own:
        own = {f"{name}_l0" if name in names else name: value for name, value in own.items()}
    named = {name: match for name in own if (match := NAME.fullmatch(name))}
    if "weight_ih_l0" not in named or "weight_hh_l0" not in named:
        hint = prefix_hint({"weight_ih_l0": (), "weight_hh_l0": ()}, state)
        got = f"names that {hint}" if hint else some(state) or "none"
        after = f" after {prefix!r}" * bool(prefix)
        raise ValueError(f"state_dict: expected weight_ih_l0 and weight_hh_l0{after}, got {got}")
    others = [name for name in own if name not in named and "." not in name and name not in LEARNED]
    expect(not others, "state_dict", f"the parameters of an {cell}", f"also {some(others)}")
    shapes = {}
    for name in named:
        array = readable(f"state_dict: {prefix}{name}", own[name], "real floats")
        expect(array.dtype.kind == "f", f"state_dict: {prefix}{name}", "real floats", array.dtype)
        shapes[name] = array.shape
    first, recurrent = shapes["weight_ih_l0"], shapes["weight_hh_l0"]
    for name, shape in (("weight_ih_l0", first), ("weight_hh_l0", recurrent)):
        expect(len(shape) == 2 and all(shape), f"state_dict: {prefix}{name}", "two axes", f"shape {shape}")
    projection = shapes.get("weight_hr_l0", ())
    gates = GATES["rnn_tanh" if cell == "RNN" else cell.lower()]
    hidden = projection[1] if len(projection) == 2 else recurrent[1]
    fits = first[0] == recurrent[0] == gates * hidden
    rows = f"{gates} * {hidden} rows, as an {cell} of {hidden} units has"
    expect(fits, f"state_dict: {prefix}weight_ih_l0", rows, f"shape {first}")
    found: dict[str, Any] = {"input_size": first[1], "hidden_size": hidden}
    numbers = {int(match[2]) for match in named.values()}
    found["num_layers"] = max(numbers) + 1
    gap = found["num_layers"] - len(numbers)
    expect(not gap, "state_dict", f"layers 0 to {max(numbers)}", f"only {some(sorted(numbers))}")
    found["bidirectional"] = "weight_ih_l0_reverse" in named
    found["bias"] = "bias_ih_l0" in named
    if projection:
        found["proj_size"] = projection[0]
    if "weight_ci_l0" in named:
        found["peepholes"] = True
    if "h_0" in own:
        found["learned_state"] = True
    array = readable("state_dict: weight_ih_l0", own["weight_ih_l0"], "real floats")
    found["dtype"] = np.float64 if array.dtype == np.float64 else np.float32
    return found, {name: own[name] for name in own if name in named or name in LEARNED}
