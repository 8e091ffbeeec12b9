"""fastrnn.functional: the same numbers as the classes, from parameters given as a dict, and nothing kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import KINDS, Variant, assert_same_bits, both_dtypes, make_case, make_layer, run_layer, variants

from fastrnn import functional


def options(v: Variant) -> dict[str, Any]:
    """What the parameters cannot say."""
    given = {name: value for name, value in v.options if name != "peepholes"}
    if v.kind.startswith("gru"):
        return {"reset_after": v.kind == "gru"} | given
    return {"nonlinearity": v.kind[4:]} | given if v.kind.startswith("rnn") else given


def functions(v: Variant) -> tuple[Any, Any, Any]:
    name = v.kind.split("_")[0]
    return tuple(getattr(functional, name + end) for end in ("", "_forward", "_backward"))


@pytest.mark.parametrize("rows", ["dense", "lengths and reset"])
@pytest.mark.parametrize("v", both_dtypes(variants()), ids=str)
def test_equals_the_class(v: Variant, rows: str) -> None:
    case = make_case(v)
    kwargs = {key: getattr(case, key) for key in ("lengths", "reset") if key in rows}
    infer, forward, backward = functions(v)
    want = run_layer(make_layer(v, case.params), case, **kwargs)
    y, last = infer(case.x, case.state, case.params, **options(v), **kwargs)
    assert_same_bits(y, want["y"])
    assert_same_bits((last if v.states == 2 else (last,))[0], want["h_n"])
    y, last, tape = forward(case.x, case.state, case.params, **options(v), **kwargs)
    g = backward(tape, case.dy, case.dstate)
    assert_same_bits(y, want["y"])
    assert_same_bits(g.x, want["dx"])
    assert_same_bits((g.state if v.states == 2 else (g.state,))[0], want["dh_0"])
    assert_same_bits(
        {"d" + key: p for key, p in g.params.items()}, {k: want[k] for k in want if k[1:] in case.params}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_may_lie_anywhere(kind: str) -> None:
    """Transposed, strided, wider: the numbers count."""
    v = Variant(kind, 2, True)
    case = make_case(v)
    infer, _, _ = functions(v)
    want, _ = infer(case.x, case.state, case.params, **options(v))
    params = {key: np.asfortranarray(p) for key, p in case.params.items()}
    assert_same_bits(infer(case.x, case.state, params, **options(v))[0], want)
    params = {key: np.repeat(p, 2, axis=-1)[..., ::2] for key, p in case.params.items()}
    assert_same_bits(infer(case.x, case.state, params, **options(v))[0], want)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_left_alone(kind: str) -> None:
    v = replace(Variant(kind, 2, True), dtype=np.float64)
    case = make_case(v)
    _, forward, backward = functions(v)
    before = {key: p.copy() for key, p in case.params.items()}
    _, _, tape = forward(case.x, case.state, case.params, **options(v))
    backward(tape, case.dy, case.dstate)
    assert_same_bits(case.params, before)
