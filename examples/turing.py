"""Expressive power: Elman networks whose weights are computed, not learned, run programs exactly.

Rule 110 (Cook 2004) on a tape: three relu units a cell, one step of the network for one step of the rule, in float32.

A machine with two stacks (Siegelmann and Sontag 1995), in float64. A stack of bits is one number q in [0, 1), its
top bit the first digit in base 4: bit b is the digit 2b + 1, and 0 the empty stack. With sigma(x), x limited to
[0, 1], the top is sigma(4q - 2), and sigma(4q) says whether there is one. In relu units, sigma(x) is
relu(x) - relu(x - 1).
Two stacks are a tape, so such a network is a Turing machine, as far as its numbers are exact: see EXACT_DEPTH.
Three programs: binary increment, balanced brackets, and Rule 110 by a head that walks over the tape. Rule 110 is
universal on an endless periodic background. The tape of the network ends after EXACT_DEPTH cells.

The baseline is a plain interpreter of the same program. No learning takes place here: that a network with such weights
exists does not mean that training finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _common import figure, parser, report

import fastrnn

# Bits in a stack for which float64 is exact. With d bits, q is a multiple of 4^-d. A transition adds multiples of
# 4^(1-d) below 16: 4^(d+1) <= 2^53.
EXACT_DEPTH = 25
HEAD = "#d55e00"  # its colour in the picture
STEPS_A_MOVE = 3  # of the network, for one move of the machine

KEEP, POP, PUSH0, PUSH1, SET0, SET1 = "keep", "pop", "push 0", "push 1", "set 0", "set 1"
ACTIONS = (KEEP, POP, PUSH0, PUSH1, SET0, SET1)
TOPS = ("", 0, 1)  # of a stack; "" is the empty one
Top = str | int
# (state, top of stack 1, top of stack 2) -> (next state, action on stack 1, action on stack 2); halts where none is
Program = dict[tuple[str, Top, Top], tuple[str, str, str]]


def relu_layer(inner: Any, bias: Any, dtype: Any) -> fastrnn.RNN:
    """Return the network h_t = relu(inner h_{t-1} + bias)."""
    layer = fastrnn.RNN(1, len(bias), nonlinearity="relu", dtype=dtype)
    layer.flat[:] = 0
    layer.params["weight_hh_l0"][:] = inner
    layer.params["bias_hh_l0"][:] = bias
    return layer


# ---- Rule 110 on a tape -------------------------------------------------------------------------------


def rule_110(tape: Any, steps: int) -> Any:
    """Return the tape [steps, n] after each step, by a plain interpreter; cells beyond both ends are 0."""
    tapes = []
    for _ in range(steps):
        padded = np.pad(tape, 1)
        number = 4 * padded[:-2] + 2 * padded[1:-1] + padded[2:]
        tape = 110 >> number & 1
        tapes.append(tape)
    return np.array(tapes)


def rule_110_by_network(tape: Any, steps: int) -> Any:
    """The same by a relu network of 3n units.

    A cell becomes (centre or right) and not (left and centre and right): relu(c + r) - relu(c + r - 1) is the first,
    relu(l + c + r - 2) the second. The three terms are the units; the cell is their sum, with signs.
    """
    n = len(tape)
    centre = np.eye(n)
    right, left = np.eye(n, k=1), np.eye(n, k=-1)
    cell = np.hstack([np.eye(n), -np.eye(n), -np.eye(n)])  # [n, 3n]: cells from units
    inner = np.vstack([centre + right, centre + right, left + centre + right]) @ cell
    bias = np.repeat([0, -1, -2], n)
    layer = relu_layer(inner, bias, np.float32)
    units, _ = layer(None, np.pad(tape, (0, 2 * n))[None, None].astype(np.float32), steps=steps)
    return units[:, 0] @ cell.T.astype(np.float32)


# ---- a machine with two stacks ------------------------------------------------------------------------


def interpret(program: Program, state: str, stacks: Sequence[Sequence[int]], moves: int) -> list[Any]:
    """Return (state, stack 1, stack 2) before the first and after each move; a stack begins with its top."""
    one, two = list(stacks[0]), list(stacks[1])
    trace = [(state, one, two)]
    for _ in range(moves):
        rule = program.get((state, one[0] if one else "", two[0] if two else ""))
        if rule is None:
            break
        state, *actions = rule
        one, two = (_act(action, stack) for action, stack in zip(actions, (one, two), strict=True))
        trace.append((state, one, two))
    return trace


def _act(action: str, stack: list[int]) -> list[int]:
    if action == KEEP:
        return stack
    if action in (PUSH0, PUSH1):
        return [int(action[-1]), *stack]
    if not stack:
        raise ValueError(f"program: expected no {action!r} on an empty stack")
    return stack[1:] if action == POP else [int(action[-1]), *stack[1:]]


def encode(stack: Sequence[int]) -> float:
    """Return the stack as a number in [0, 1), rounded where it has more bits than float64 holds."""
    number = 0.0
    for bit in reversed(stack):
        number = (number + 2 * bit + 1) / 4
    return number


def decode(number: float) -> list[int] | None:
    """Return the stack that a number stands for, or None where it stands for none."""
    bits = []
    while number:
        digit = int(4 * number)
        if digit not in (1, 3):
            return None
        bits.append(digit // 2)
        number = 4 * number - digit
    return bits


@dataclass
class Units:
    """Numbers the units of a network by name, and collects what each is computed from."""

    names: dict[Any, int]
    inner: Any
    bias: Any

    @classmethod
    def of(cls, names: Sequence[Any]) -> Units:
        return cls(
            {name: i for i, name in enumerate(names)}, np.zeros((len(names),) * 2), np.zeros(len(names))
        )

    def add(self, name: Any, terms: dict[Any, float], bias: float = 0) -> None:
        for term, factor in terms.items():
            self.inner[self.names[name], self.names[term]] += factor
        self.bias[self.names[name]] += bias


class StackMachine:
    """A program as a relu network in float64.

    A move takes three steps. The units stand in three groups, and each is computed from the one before it:
    A, states and stacks -> B, parts of sigma(4q) and sigma(4q - 2) -> C, one unit a transition -> A. The third
    that holds the machine goes around; the other two stay 0.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        states = {rule[0] for rule in program.values()} | {key[0] for key in program}
        self.states = sorted(states)
        # a machine without a transition for what it reads keeps everything
        rules = {(s, a, b): (s, KEEP, KEEP) for s in self.states for a in TOPS for b in TOPS} | program
        parts = ("q", *(f"q above {quarters}/4" for quarters in range(4)))
        self.units = units = Units.of(
            [("A", s) for s in self.states]
            + [("A", stack, action) for stack in (1, 2) for action in ACTIONS]
            + [("B", s) for s in self.states]
            + [("B", stack, part) for stack in (1, 2) for part in parts]
            + [("C", *key) for key in rules]
            + [("C", stack, part) for stack in (1, 2) for part in ("q", "q above 2/4", "q above 3/4")]
        )
        for state in self.states:
            units.add(("B", state), {("A", state): 1})
        for stack in (1, 2):
            q = {("A", stack, action): 1.0 for action in ACTIONS}  # one of them holds it, the others are 0
            units.add(("B", stack, "q"), q)
            for quarters in range(4):
                units.add(("B", stack, f"q above {quarters}/4"), {name: 4 for name in q}, -quarters)
            for part in ("q", "q above 2/4", "q above 3/4"):
                units.add(("C", stack, part), {("B", stack, part): 1})
        for key, (after, *actions) in rules.items():
            units.add(("C", *key), {("B", key[0]): 1}, -2)  # all three hold: their sum is 3
            for stack, top in zip((1, 2), key[1:], strict=True):
                terms, constant = self._reads(stack, top)
                units.add(("C", *key), terms, constant)
            units.add(("A", after), {("C", *key): 1})
            for stack, action in zip((1, 2), actions, strict=True):
                units.add(("A", stack, action), {("C", *key): 1})
        for stack in (1, 2):
            for action in ACTIONS:
                terms, constant = self._update(stack, action)
                units.add(("A", stack, action), terms, constant - 1)  # below 0 unless the action is taken
        self.layer = relu_layer(units.inner, units.bias, np.float64)

    @staticmethod
    def _reads(stack: int, top: Top) -> tuple[dict[Any, float], float]:
        """1 where the stack has this top, else 0, from group B."""
        one = {("B", stack, "q above 2/4"): 1.0, ("B", stack, "q above 3/4"): -1.0}
        some = {("B", stack, "q above 0/4"): 1.0, ("B", stack, "q above 1/4"): -1.0}
        if top == 1:
            return one, 0
        if top == 0:
            return some | {name: -factor for name, factor in one.items()}, 0
        return {name: -factor for name, factor in some.items()}, 1

    @staticmethod
    def _update(stack: int, action: str) -> tuple[dict[Any, float], float]:
        """The stack after an action, from group C."""
        q, above2, above3 = (("C", stack, part) for part in ("q", "q above 2/4", "q above 3/4"))
        if action == KEEP:
            return {q: 1}, 0
        if action == POP:  # 4q - 2 top - 1
            return {q: 4, above2: -2, above3: 2}, -1
        bit = int(action[-1])
        if action in (PUSH0, PUSH1):
            return {q: 1 / 4}, (2 * bit + 1) / 4
        return {q: 1, above2: -1 / 2, above3: 1 / 2}, bit / 2  # q + (bit - top) / 2

    def start(self, state: str, stacks: Sequence[Sequence[int]]) -> Any:
        h = np.zeros((1, 1, len(self.units.names)))
        h[0, 0, self.units.names["A", state]] = 1
        for stack, bits in zip((1, 2), stacks, strict=True):
            h[0, 0, self.units.names["A", stack, KEEP]] = encode(bits)
        return h

    def read(self, h: Any) -> tuple[str | None, list[int] | None, list[int] | None]:
        """Return (state, stack 1, stack 2); None where the numbers do not stand for one."""
        at = self.units.names
        on = [state for state in self.states if h[at["A", state]] == 1]
        stacks = [decode(sum(float(h[at["A", stack, action]]) for action in ACTIONS)) for stack in (1, 2)]
        return (on[0] if len(on) == 1 else None), stacks[0], stacks[1]

    def run(self, state: str, stacks: Sequence[Sequence[int]], moves: int) -> list[Any]:
        """Return what `interpret` returns, but go on with the same where the machine has halted."""
        h0 = self.start(state, stacks)
        y, _ = self.layer(None, h0, steps=STEPS_A_MOVE * moves)
        return [self.read(h) for h in (h0[0, 0], *y[STEPS_A_MOVE - 1 :: STEPS_A_MOVE, 0])]


def increment() -> Program:
    """Add 1 to the binary number on stack 1, whose lowest bit is its top; begin in "carry"."""
    program: Program = {}
    for b in TOPS:
        program["carry", 1, b] = ("carry", POP, PUSH0)
        program["carry", 0, b] = ("back", SET1, KEEP)
        program["carry", "", b] = ("back", PUSH1, KEEP)
    for a in TOPS:
        program["back", a, 0] = ("back", PUSH0, POP)
        program["back", a, ""] = ("done", KEEP, KEEP)
    return program


def brackets() -> Program:
    """Are the brackets on stack 1 (0 opens, 1 closes) balanced? Stack 2 counts; begin in "read"."""
    program: Program = {("read", "", ""): ("yes", KEEP, KEEP), ("read", "", 0): ("no", KEEP, KEEP)}
    for b in ("", 0):
        program["read", 0, b] = ("read", POP, PUSH0)
    program["read", 1, 0] = ("read", POP, POP)
    program["read", 1, ""] = ("no", KEEP, KEEP)
    return program


def walking_rule_110() -> Program:
    """Rule 110 by a head that walks: stack 1 is the tape to its right, stack 2 what is done; begin in "00".

    A state has the old values of the two cells that the head has passed. Each sweep makes the tape one cell longer to
    the left. Five states, two symbols.
    """
    program: Program = {}
    for passed in ("00", "01", "10", "11"):
        for b in TOPS:
            for right in (0, 1):
                new = 110 >> (int(passed, 2) * 2 + right) & 1
                program[passed, right, b] = (passed[1] + str(right), POP, (PUSH0, PUSH1)[new])
            new = 110 >> (int(passed, 2) * 2) & 1
            program[passed, "", b] = ("back", KEEP, (PUSH0, PUSH1)[new])
    for a in TOPS:
        for bit, push in ((0, PUSH0), (1, PUSH1)):
            program["back", a, bit] = ("back", push, POP)
        program["back", a, ""] = ("00", KEEP, KEEP)
    return program


def deepest_exact(limit: int = 40) -> int:
    """Return how many ones the network pushes and pops again without a mistake."""
    program: Program = {("push", a, b): ("push", KEEP, PUSH1) for a in TOPS for b in TOPS}
    program |= {("push", 1, b): ("push", POP, PUSH1) for b in TOPS}
    program |= {("push", "", b): ("pop", KEEP, KEEP) for b in TOPS}
    program |= {("pop", a, 1): ("pop", KEEP, POP) for a in TOPS}
    machine = StackMachine(program)
    for depth in range(1, limit):
        moves = 2 * depth + 1
        # ones are moved from stack 1 to stack 2, and popped there
        start = ("push", [([1] * depth), []])
        if machine.run(*start, moves) != interpret(program, *start, moves):
            return depth - 1
    return limit


def main() -> None:
    options = parser(__doc__).parse_args()
    rng = np.random.default_rng(options.seed)
    width, generations, numbers = (60, 40, 20) if options.quick else (160, 110, 200)

    tape = np.zeros(width, np.int64)
    tape[-1] = 1
    tapes = rule_110_by_network(tape, generations)
    rows: list[tuple[Any, ...]] = [
        ("Rule 110, float32: cells right", np.mean(tapes == rule_110(tape, generations)), 1.0)
    ]

    programs = {"increment": increment(), "brackets": brackets(), "walking Rule 110": walking_rule_110()}
    first = {"increment": "carry", "brackets": "read", "walking Rule 110": "00"}
    for name, program in programs.items():
        machine, right, moves = StackMachine(program), 0, 0
        for _ in range(numbers):
            bits = rng.integers(2, size=rng.integers(16)).tolist()
            expected = interpret(program, first[name], [bits, []], 200)
            trace = machine.run(first[name], [bits, []], len(expected) - 1)
            right += sum(got == want for got, want in zip(trace, expected, strict=True))
            moves += len(expected)
        rows.append((f"{name}, float64: moves right", right / moves, 1.0))
    rows.append(("bits in a stack until a mistake", float(deepest_exact()), None))

    walk = StackMachine(walking_rule_110()).run("00", [[1], []], 60 if options.quick else 130)
    path = options.out / "turing.png"
    with figure(path, (8, 4.6)) as f:
        tape_axis, walk_axis = f.subplots(1, 2)
        tape_axis.imshow(np.vstack([tape, tapes]), cmap="gray_r", aspect="auto", interpolation="nearest")
        tape_axis.set(
            title=f"Rule 110: {3 * width} relu units, float32", xlabel="cell", ylabel="step of the network"
        )
        draw_walk(walk_axis, walk)
        walk_axis.set(title="a head on two stacks, float64", xlabel="cell, from the right", ylabel="move")
        walk_axis.set_xticks(range(0, 11, 2))
        walk_axis.text(0.03, 0.9, "the head", color=HEAD, fontsize=12, transform=walk_axis.transAxes)
    report("turing", [(*row, "a plain interpreter" if row[2] else "") for row in rows], path)


def draw_walk(axis: Any, trace: list[Any]) -> None:
    """Draw the tape of each move: ones black, zeros light, the head between its two stacks in colour."""
    from matplotlib.colors import to_rgb

    longest = max(len(one) + len(two) for _, one, two in trace) + 1
    image = np.full((len(trace), longest, 3), 1.0)
    shades = np.array([[0.86] * 3, [0.0] * 3])
    for row, (_, one, two) in zip(image, trace, strict=True):
        cells = [*shades[two[::-1]], to_rgb(HEAD), *shades[one]]
        row[longest - len(cells) :] = cells
    axis.imshow(
        image, aspect="auto", interpolation="nearest", extent=(longest - 0.5, -0.5, len(trace) - 0.5, -0.5)
    )


if __name__ == "__main__":
    main()
