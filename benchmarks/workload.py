"""The arrays of one case, shared by every engine, and the comparison of what the engines return."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from shapes import Case

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """Inputs of one case: `params` under PyTorch's names, x [T, B, I], dy [T, B, directions * H]."""

    case: Case
    params: Arrays
    x: np.ndarray
    dy: np.ndarray | None  # None in inference


def suffixes(case: Case) -> Iterator[tuple[int, str]]:
    """Yield (layer, suffix) for every layer and direction in PyTorch's order: l0, l0_reverse, l1, ..."""
    for layer in range(case.layers):
        yield layer, f"l{layer}"
        if case.bidirectional:
            yield layer, f"l{layer}_reverse"


def make_workload(case: Case, seed: int = 0) -> Workload:
    """Draw weights uniform in +-1/sqrt(H) (PyTorch's initialisation), x and dy standard normal."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(case.dtype)
    rows, bound = case.gates * case.H, 1 / np.sqrt(case.H)
    params: Arrays = {}
    for layer, suffix in suffixes(case):
        sizes = {
            "weight_ih": (rows, case.input_size(layer)),
            "weight_hh": (rows, case.H),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }
        for name, size in sizes.items():
            params[f"{name}_{suffix}"] = rng.uniform(-bound, bound, size).astype(dtype)
    x = rng.standard_normal((case.T, case.B, case.I), dtype=dtype)
    dy = None
    if case.mode == "train":
        dy = rng.standard_normal((case.T, case.B, case.directions * case.H), dtype=dtype)
    return Workload(case, params, x, dy)


def tolerance(case: Case) -> float:
    """Relative tolerance of `difference`: far above rounding, far below the effect of a wrong gate."""
    if case.dtype == "float64":
        return 1e-9
    return 1e-4 if case.mode == "infer" else 5e-4


def difference(expected: Arrays, got: Arrays, tol: float, *, shared: bool = False) -> str | None:
    """Return None when both hold the same arrays, else one line naming the first that differs.

    Equal means |a - b| <= tol * (|a| + max(1, largest |a| of the array)): sums over a long sequence cancel,
    so their rounding is relative to the terms and not to the result. `shared` compares the names both have.
    """
    if shared:
        expected = {name: value for name, value in expected.items() if name in got}
        got = {name: got[name] for name in expected}
    if missing := sorted(set(expected) ^ set(got)):
        return f"outputs: expected {sorted(expected)}, got {sorted(got)} (differ in {missing})"
    for name, want in expected.items():
        have = got[name]
        if have.shape != want.shape:
            return f"{name}: expected shape {want.shape}, got {have.shape}"
        scale = max(1.0, float(np.max(np.abs(want), initial=0.0)))
        gap = np.abs(have - want)
        if not bool(np.all(gap <= tol * (np.abs(want) + scale))):
            return f"{name}: differs by {float(np.max(gap)):.3g} at a scale of {scale:.3g}"
    return None
