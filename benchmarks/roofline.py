"""The machine's limit for one case: multiply-adds at peak, weights read from the cache they fit in.

The recurrent product is sequential: step t needs the state of step t - 1, so the recurrent weights R pass
from their cache level to the registers once per step however many rows share them. Everything else (x W, and
in BPTT dX, dW, dR) is a product over the whole sequence and bound by the multiply-adds alone. Per layer and
direction, on n cores that share the hidden units:

    forward   = max(FLOP of x W / peak, W / read(W + R))
              + max(FLOP of h R / peak, R / read(W + R) + (T - 2) R / read(R))
    backward  = the same second term for dG R^T, + FLOP of dX, dW and dR / peak

(no state is given: the first of T steps has no recurrent product, and a sequence of one step does not read R),
where peak is n times the measured FMA rate of one core, and read(bytes) is n times the read bandwidth of the
smallest level that holds a core's share. Activations, the tape and Python count as nothing: a limit, not a
model. Arrays too large for the caches put a floor under it: x and y (and their gradients) at DRAM speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shapes import ITEMSIZE, Case

LEVELS = ("L1", "L2", "L3", "DRAM")


@dataclass(frozen=True)
class Limits:
    """Measured limits of one core: GFLOP/s by dtype, GB/s read from each level, cache sizes in bytes."""

    fma_gflops: dict[str, float]
    read_gbs: dict[str, float]
    cache_bytes: dict[str, float]

    @classmethod
    def measured(cls, raw: Any) -> Limits | None:
        """Build from `fastrnn._core.measure_limits()`; None when something is missing from it."""
        try:
            return cls(
                {name: float(raw["fma_gflops"][name]) for name in ITEMSIZE},
                {level: float(raw["read_gbs"][level]) for level in LEVELS},
                {level: float(raw["cache_bytes"][level]) for level in LEVELS[:3]},
            )
        except (KeyError, TypeError, ValueError):
            return None

    def level(self, share: float, cores: int) -> str:
        """Smallest level that holds `share` bytes of each of `cores` cores; only L3 is shared."""
        for level in ("L1", "L2"):
            if share <= self.cache_bytes[level]:
                return level
        return "L3" if share * cores <= self.cache_bytes["L3"] else "DRAM"

    def peak(self, dtype: str, cores: int) -> float:
        """FLOP/s of `cores` cores."""
        return self.fma_gflops[dtype] * 1e9 * cores

    def read(self, level: str, cores: int) -> float:
        """Bytes/s of `cores` cores from one level; DRAM is shared, so its figure is that of one core."""
        return self.read_gbs[level] * 1e9 * (1 if level == "DRAM" else cores)


@dataclass(frozen=True)
class Roofline:
    """Least time of a case in seconds, and what sets most of it: "fma", "L1", "L2", "L3" or "DRAM"."""

    seconds: float
    bound: str
    weights_level: str  # where a core's share of the recurrent weights fits


def roofline(case: Case, limits: Limits, threads: int) -> Roofline:
    """Return the least time of one call of `case` on `threads` cores (see the top of the file)."""
    size = ITEMSIZE[case.dtype]
    peak = limits.peak(case.dtype, threads)
    spent: dict[str, float] = {}
    weights_level = "L1"
    for layer in range(case.layers):
        inputs = case.input_size(layer)
        for _ in range(case.directions):
            w_bytes, r_bytes = (size * case.gates * case.H * width for width in (inputs, case.H))
            steps = ((case.T, inputs), (case.T - 1, case.H))
            flops = [2.0 * count * case.B * case.gates * case.H * width for count, width in steps]
            first = limits.level((w_bytes + (r_bytes if case.T > 1 else 0)) / threads, threads)
            later = limits.level(r_bytes / threads, threads)
            weights_level = max(weights_level, later, key=LEVELS.index)
            once = limits.read(first, threads)
            read_r = (
                r_bytes / once + (case.T - 2) * r_bytes / limits.read(later, threads) if case.T > 1 else 0.0
            )
            phases = [(flops[0] / peak, w_bytes / once, first), (flops[1] / peak, read_r, later)]
            if case.mode == "train":
                phases += [phases[1], ((2 * flops[0] + flops[1]) / peak, 0.0, first)]
            for arithmetic, reading, level in phases:
                bound = "fma" if arithmetic >= reading else level
                spent[bound] = spent.get(bound, 0.0) + max(arithmetic, reading)
    seconds = sum(spent.values())
    streamed = case.T * case.stream_bytes
    if streamed > limits.cache_bytes["L3"]:
        stream_seconds = streamed / limits.read("DRAM", threads)
        if stream_seconds > seconds:
            return Roofline(stream_seconds, "DRAM", weights_level)
    return Roofline(seconds, max(spent, key=lambda bound: spent[bound]), weights_level)
