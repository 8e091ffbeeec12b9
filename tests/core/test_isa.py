"""The other kernel sets of this CPU, each in a process of its own, and how far they agree."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python

from fastrnn import _core

SETS = _core.config()["available_kernel_sets"]
TESTS = Path(__file__).parents[1]
FILES = ["layers/test_shapes.py", "core/test_math.py", "layers/test_bitwise.py"]

DIGEST = """
import hashlib
from conftest import KINDS, Variant, make_case, make_layer, run_layer
import numpy as np
digest = hashlib.sha256()
for kind in KINDS:
    for dtype in (np.float32, np.float64):
        for H in (7, 16, 50):
            proj_size = 5 if kind == "lstm" else 0
            v = Variant(kind, 2, True, I=H + 1, H=H, T=9, B=6, dtype=dtype, proj_size=proj_size)
            case = make_case(v)
            for value in run_layer(make_layer(v, case.params), case, lengths=case.lengths).values():
                digest.update(value.tobytes())
print(digest.hexdigest())
"""


@functools.cache
def digest(name: str) -> str:
    run = run_python("-c", DIGEST, FASTRNN_ISA=name)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("name", SETS)
def test_kernel_set_is_the_one_asked_for(name: str) -> None:
    run = run_python("-c", "from fastrnn import _core; print(_core.config()['kernel_set'])", FASTRNN_ISA=name)
    assert run.stdout.strip() == name, run.stderr


@pytest.mark.parametrize("name", [n for n in SETS if n != _core.config()["kernel_set"]])
@pytest.mark.parametrize("file", FILES)
def test_whole_file(file: str, name: str) -> None:
    """This process has run these files with its own kernel set."""
    run = run_python(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS / file), FASTRNN_ISA=name
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


@pytest.mark.skipif(not {"avx2", "avx512"} <= set(SETS), reason="this CPU has not got both AVX2 and AVX-512")
def test_sets_with_fma_agree_bit_for_bit() -> None:
    """Where products are fused the same arithmetic runs, only in wider registers."""
    assert digest("avx2") == digest("avx512")


SMALL_DIGEST = """
import hashlib
from conftest import KINDS, Variant, make_case, make_layer
digests = []
for kinds in (("rnn_relu",), KINDS):
    digest = hashlib.sha256()
    for kind in kinds:
        for weights in ("int8", "bfloat16") if kinds is KINDS else ("int8",):
            for I, H, B in ((9, 7, 6), (30, 16, 1), (70, 130, 3), (5, 33, 40)):
                v = Variant(kind, 2, True, I=I, H=H, T=9, B=B, proj_size=5 if kind == "lstm" else 0)
                case = make_case(v)
                y, _ = make_layer(v, case.params).freeze(weights=weights)(case.x, lengths=case.lengths)
                digest.update((y + 0).tobytes())
    digests.append(digest.hexdigest())
print(*digests)
"""


@functools.cache
def small_digests(name: str, vnni: str = "1") -> list[str]:
    run = run_python("-c", SMALL_DIGEST, FASTRNN_ISA=name, FASTRNN_VNNI=vnni)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.mark.parametrize("name", SETS)
def test_sets_agree_with_small_weights(name: str) -> None:
    """The products of integers on all sets; the cells, and all of bfloat16, on those that have fma."""
    ways = [small_digests(name)] + ([small_digests(name, vnni="0")] if name == "avx512" else [])
    for integers, everything in ways:
        assert integers == small_digests(SETS[0])[0]
        if name != "sse2":
            assert everything == small_digests(SETS[0])[1]


ONE_STEP = """
import sys
from conftest import KINDS, Variant, make_case, make_layer
import numpy as np
out = {}
for kind in KINDS:
    for dtype in (np.float32, np.float64):
        for H in (7, 50, 200):
            v = Variant(kind, I=H // 2, H=H, T=1, B=8, dtype=dtype)
            case = make_case(v)
            _, state = make_layer(v, case.params)(case.x, case.state)
            terms = 0  # sum of the magnitudes of all that is added in a pre-activation
            for a, name in ((case.x[0], "ih"), (case.state[0] if kind == "lstm" else case.state, "hh")):
                weight = case.params[f"weight_{name}_l0"]
                terms = terms + abs(a.reshape(8, -1)) @ abs(weight.T) + abs(case.params[f"bias_{name}_l0"])
            largest = terms.reshape(8, -1, H).max(1)
            for name, value in zip("hc", state if kind == "lstm" else (state,)):
                key = f"{kind}-{dtype.__name__}-{H}-{name}"
                out[key], out[key + "-terms"] = value[0], largest
np.savez(sys.argv[1], **out)
"""


@pytest.mark.skipif(not {"sse2", "avx2"} <= set(SETS), reason="this CPU has not got both SSE2 and AVX2")
def test_a_step_of_sse2_is_near(tmp_path: Path) -> None:
    """Without fma every product is rounded once more: after one step at most 2 ULP of the summed magnitudes.

    (Of the value itself no such bound exists: terms may cancel.)
    """
    got = {}
    for name in ("sse2", "avx2"):
        run = run_python("-c", ONE_STEP, str(tmp_path / f"{name}.npz"), FASTRNN_ISA=name)
        assert run.returncode == 0, run.stderr
        got[name] = np.load(tmp_path / f"{name}.npz")
    differing = 0
    for key in got["avx2"].files:
        if key.endswith("-terms"):
            continue
        one, other, terms = got["sse2"][key], got["avx2"][key], got["avx2"][key + "-terms"]
        assert (abs(one - other) <= 2 * np.spacing(np.maximum(terms, 1))).all(), key
        differing += (one != other).sum()
    assert differing > 100  # else these were not two kernel sets


# what the compiler itself calls
PLAIN_C = {
    "memcpy",
    "memset",
    "memmove",
    "_GLOBAL_OFFSET_TABLE_",
}


def objects() -> list[Path]:
    return sorted(
        p for p in (TESTS.parent / "build").rglob("*.o") if "kernels_" in str(p.parent.parent.parent)
    )


def set_and_number(path: Path) -> str:
    return str(path).split("kernels_")[-1].split(".dir")[0]


@pytest.mark.skipif(not objects(), reason="no build directory with the kernels' objects")
@pytest.mark.parametrize("path", objects(), ids=set_and_number)
def test_kernels_keep_to_themselves(path: Path) -> None:
    """A weak symbol outside the namespace could replace another object's, compiled for a smaller CPU."""
    name = set_and_number(path).split("_")[0]
    listing = subprocess.run(["nm", "-C", str(path)], text=True, capture_output=True, check=True).stdout
    symbols = [line[17:].split(" ", 1) for line in listing.splitlines()]
    assert len(symbols) > 20
    for kind, symbol in symbols:
        if kind == "U":
            own = f"fastrnn::{name}::add_general_cells<" in symbol  # the other object of the set
            assert own or symbol.split("@")[0] in PLAIN_C, symbol
        elif kind not in "rdb":
            assert f"fastrnn::{name}::" in symbol, f"{kind} {symbol}"


# What the core keeps between calls; docs/guarantees.md says what each is and who writes it.
KEPT = (
    "kernels()::set",
    "caches()::sizes",
    "thread_limits()::limits",
    "::wanted",
    "::limit_when_set",
    "::active",
    "::most_seen",
    "::seen_at",
    "::contention",
    "was_preempted()::seen",
    "::pool",  # of helpers, and of memory
    "::last_call",
    "::last_call_ended",
    "::shuffle_state",
    "__tls_guard",
)
CONSTANT = (
    "::tiles<",
    "::entries",
    "vtable for",
    "typeinfo for",
    "::natural",
    "::last_first",
    "::zeros",
    "Sums<float>::block",
    "Sums<double>::block",
    "::__digits",
)


def core_objects() -> list[Path]:
    """The objects of the engine, the kernels and the runtime, in whatever build directories there are."""
    root = TESTS.parent
    sources = {p.stem for p in (root / "src" / "cpp").glob("*/*.cpp") if p.parent.name != "bindings"}
    return sorted(
        p
        for p in (root / "build").rglob("*.o")
        if p.name.split(".")[0] in sources and p.parent.name != "bindings"
    )


@pytest.mark.skipif(not core_objects(), reason="no build directory with the core's objects")
def test_nothing_mutable_is_shared_by_calls() -> None:
    """Scratch memory belongs to a call, so that calls from several threads cannot share it."""
    for path in core_objects():
        listing = subprocess.run(["nm", "-C", str(path)], text=True, capture_output=True, check=True).stdout
        for line in listing.splitlines():
            kind, symbol = line[17:].split(" ", 1)
            if kind not in "bBdDsSgGuvV" or symbol.startswith(("guard variable for", "DW.ref.")):
                continue
            assert symbol.endswith(KEPT) or any(word in symbol for word in CONSTANT), (
                f"{path}: {kind} {symbol}"
            )
