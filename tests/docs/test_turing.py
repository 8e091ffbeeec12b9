"""The networks of examples/turing.py do what a plain interpreter does, step for step, and fail where it is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import turing


@pytest.mark.parametrize("width", [1, 2, 3, 31, 200])
def test_rule_110_on_a_tape(width: int) -> None:
    tape = np.random.default_rng(width).integers(2, size=width)
    got = turing.rule_110_by_network(tape, 100)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, turing.rule_110(tape, 100))


def test_rule_110_has_the_table_of_its_number() -> None:
    for number in range(8):
        tape = np.array([number >> 2 & 1, number >> 1 & 1, number & 1])
        assert turing.rule_110(tape, 1)[0, 1] == (0b01101110 >> number & 1)


def run_both(program: Any, state: str, stacks: list[list[int]]) -> tuple[str, list[int], list[int]]:
    expected = turing.interpret(program, state, stacks, 400)
    assert turing.StackMachine(program).run(state, stacks, len(expected) - 1) == expected
    return expected[-1]


@pytest.mark.parametrize("number", [0, 1, 2, 7, 12, 1023, 2**20 - 1, 0b1011011])
def test_increment(number: int) -> None:
    bits = [int(bit) for bit in reversed(f"{number:b}")] if number else []
    state, one, two = run_both(turing.increment(), "carry", [bits, []])
    assert (state, two) == ("done", [])
    assert sum(bit << i for i, bit in enumerate(one)) == number + 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "yes"),
        ("()", "yes"),
        (")(", "no"),
        ("(()", "no"),
        ("(()())()", "yes"),
        ("())", "no"),
        ("(" * 12 + ")" * 12, "yes"),
    ],
)
def test_brackets(text: str, answer: str) -> None:
    bits = ["()".index(letter) for letter in text]
    assert run_both(turing.brackets(), "read", [bits, []])[0] == answer


def test_walking_rule_110_is_rule_110() -> None:
    trace = turing.interpret(turing.walking_rule_110(), "00", [[1], []], 280)
    assert turing.StackMachine(turing.walking_rule_110()).run("00", [[1], []], 280) == trace
    sweeps = [one for state, one, two in trace if state == "00" and not two]
    assert len(sweeps) > 10
    tape = np.array([0] * 30 + [1])
    for sweep, expected in zip(sweeps[1:], turing.rule_110(tape, 30), strict=False):
        assert sweep == expected.tolist()[-len(sweep) :]
        assert not expected[: -len(sweep)].any()


def random_program(rng: np.random.Generator) -> Any:
    """Every transition of three states, none of which needs a bit that is not there."""
    program = {}
    for state in "abc":
        for a in turing.TOPS:
            for b in turing.TOPS:
                actions = [
                    str(rng.choice(turing.ACTIONS if top != "" else ("keep", "push 0", "push 1")))
                    for top in (a, b)
                ]
                program[state, a, b] = (str(rng.choice(list("abc"))), *actions)
    return program


def test_random_programs_at_every_depth_that_is_exact() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        program = random_program(rng)
        stacks = [rng.integers(2, size=rng.integers(turing.EXACT_DEPTH + 1)).tolist() for _ in "12"]
        expected = turing.interpret(program, "a", stacks, 60)
        deep = [i for i, (_, one, two) in enumerate(expected) if max(len(one), len(two)) > turing.EXACT_DEPTH]
        expected = expected[: deep[0]] if deep else expected
        assert turing.StackMachine(program).run("a", stacks, len(expected) - 1) == expected


def test_the_depth_is_a_limit() -> None:
    assert turing.EXACT_DEPTH <= turing.deepest_exact() <= turing.EXACT_DEPTH + 2
    deep = [1] * (turing.EXACT_DEPTH + 5)
    assert turing.decode(turing.encode(deep)) != deep
    assert turing.decode(turing.encode(deep[: turing.EXACT_DEPTH])) == deep[: turing.EXACT_DEPTH]


def test_a_pop_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty stack"):
        turing.interpret({("a", "", ""): ("a", "pop", "keep")}, "a", [[], []], 1)
