"""`bench.py --suite torch`: modules of fastrnn.torch beside those of torch.nn, in CPU time, taking turns.

Everything runs in this process with as many threads as `--threads` says, in both libraries. With more than one, set
OMP_WAIT_POLICY=passive. Outputs and gradients of both must agree before anything is timed. CPU time is that of all
threads of the process.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

KINDS = ("LSTM", "GRU", "RNN")
Calls = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Settings:
    """Rounds of turns, and the least CPU time of one turn."""

    threads: int = 1
    rounds: int = 7
    seconds: float = 0.05
    drawn: int = 60


@dataclass(frozen=True)
class Row:
    """One comparison: calls that do the same, and targets as (what, operator, number)."""

    title: str
    calls: Calls  # "fastrnn" and others
    targets: tuple[tuple[str, str, float], ...] = ()


def numbers(*shape: int, seed: int = 0) -> Any:
    """Seeded numbers as a tensor."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def modules(kind: str, *sizes: int, **options: Any) -> dict[str, Any]:
    """The layer of torch.nn and a converted copy."""
    import torch

    import fastrnn.torch

    theirs = getattr(torch.nn, kind)(*sizes, **options)
    return {"nn": theirs, "fastrnn": fastrnn.torch.convert(copy.deepcopy(theirs), verbose=False)}


def data_of(output: Any) -> Any:
    """The output as one tensor, of a PackedSequence too."""
    return output.data if hasattr(output, "batch_sizes") else output


def inference(module: Any, x: Any) -> Any:
    """A call without gradients."""
    import torch

    with torch.inference_mode():
        return data_of(module(x)[0])


def training(module: Any, x: Any, dy: Any) -> Any:
    """Forward, backward and zero_grad."""
    y = data_of(module(x)[0])
    y.backward(dy)
    found = [y.detach(), *(p.grad for p in module.parameters())]
    module.zero_grad()
    return found


def both(kind: str, x: Any, mode: str, *sizes: int, **options: Any) -> Calls:
    """Calls of both libraries that give the same numbers."""
    import torch

    made = modules(kind, *sizes, **options)
    calls: Calls = {}
    outputs = []
    for name, module in made.items():
        if mode == "inference":
            module.eval()
            calls[name] = partial(inference, module, x)
        else:
            dy = numbers(*inference(module, x).shape, seed=1)
            calls[name] = partial(training, module, x, dy)
        outputs.append(calls[name]())
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-3, atol=1e-3)
    return calls


def packed(lengths: Any, width: int) -> Any:
    """A PackedSequence of seeded numbers."""
    import torch

    return torch.nn.utils.rnn.pack_sequence(
        [numbers(int(n), width, seed=i) for i, n in enumerate(lengths)], enforce_sorted=False
    )


def rows(settings: Settings) -> Iterator[Callable[[], Row]]:
    """Builders of all rows."""
    for kind in KINDS:
        yield partial(one_step, kind, "inference", 8.0)
        yield partial(one_step, kind, "training", 60.0)
    for kind, target in (("LSTM", 1.15), ("GRU", 3.0), ("RNN", 3.0)):
        yield partial(dense, f"{kind} T100 B32 I64 H128", kind, (100, 32, 64), 128, target)
    yield partial(dense, "LSTM T50 B64 I256 H512", "LSTM", (50, 64, 256), 512, 1.2)
    for kind in ("LSTM", "GRU"):
        yield partial(ragged, f"{kind} packed, 3 to 200 steps, B32 H128", kind, 8.0)
    yield partial(
        ragged, "LSTM packed, 2 layers, bidirectional", "LSTM", 4.5, num_layers=2, bidirectional=True
    )
    yield over_core
    yield sharded
    yield sandwich
    rng = np.random.default_rng(0)
    for _ in range(settings.drawn):
        yield partial(drawn, *draw(rng))


def one_step(kind: str, mode: str, most: float) -> Row:
    """The cost of a call that computes almost nothing."""
    calls = both(kind, numbers(1, 1, 8), mode, 8, 16)
    targets = (("microseconds", "<=", most), ("nn / fastrnn", ">=", 1.0))
    return Row(f"{kind} T1 B1 I8 H16, {mode}", calls, targets)


def dense(title: str, kind: str, shape: tuple[int, ...], hidden: int, target: float) -> Row:
    """Forward and backward of a dense batch."""
    calls = both(kind, numbers(*shape), "training", shape[-1], hidden)
    return Row(f"{title}, training", calls, (("nn / fastrnn", ">=", target),))


def ragged(title: str, kind: str, target: float, **options: Any) -> Row:
    """Forward and backward of a PackedSequence."""
    x = packed(np.random.default_rng(0).integers(3, 201, 32), 64)
    calls = both(kind, x, "training", 64, 128, **options)
    return Row(f"{title}, training", calls, (("nn / fastrnn", ">=", target),))


def over_core() -> Row:
    """The module beside the layer on NumPy arrays, in a call of some milliseconds."""
    import fastrnn

    module = modules("LSTM", 64, 128)["fastrnn"]
    layer = fastrnn.LSTM(64, 128)
    layer.load_state_dict(module.state_dict())
    x, dy = numbers(100, 32, 64), numbers(100, 32, 128, seed=1)
    arrays = x.numpy(), dy.numpy()

    def core() -> Any:
        _, _, tape = layer.forward(arrays[0])
        return layer.backward(tape, arrays[1], need_dx=False)

    calls: Calls = {"core": core, "fastrnn": partial(training, module, x, dy)}
    return Row("LSTM T100 B32 I64 H128: module beside core", calls, (("fastrnn / core", "<=", 1.1),))


def sharded() -> Row:
    """Eight shards in a fixed order beside one batch."""
    import fastrnn
    from fastrnn.parallel import fixed_order

    gru = fastrnn.GRU(32, 128)
    x = numbers(50, 64, 32).numpy()
    dy = numbers(50, 64, 128, seed=1).numpy()

    def gradients(shard: Any) -> Any:
        _, _, tape = gru.forward(x[:, shard])
        return 0.0, gru.backward(tape, dy[:, shard], need_dx=False)

    calls: Calls = {
        f"{shards} shards": partial(fixed_order, gradients, np.arange(64), shards) for shards in (1, 8)
    }
    return Row("GRU T50 B64 H128 in shards", calls, (("8 shards / 1 shards", "<=", 1.15),))


def sandwich() -> Row:
    """A step of a GRU between two products of torch, beside its parts."""
    a, b = numbers(512, 512), numbers(512, 512, seed=1)
    step = both("GRU", numbers(50, 8, 64), "training", 64, 64)["fastrnn"]

    def products() -> Any:
        return a @ b, b @ a

    def together() -> Any:
        return a @ b, step(), b @ a

    calls: Calls = {"fastrnn": step, "products": products, "together": together}
    return Row("GRU T50 B8 H64 between products", calls, (("together / parts", "<=", 1.15),))


def draw(rng: np.random.Generator) -> tuple[Any, ...]:
    """A shape, a kind and a mode; the call takes no more than some 50 ms."""
    kind, mode = rng.choice(KINDS), rng.choice(["inference", "training"])
    while True:
        t, b, i, h = (int(2 ** rng.uniform(0, top)) for top in (8, 6, 8, 9))
        options = {
            "num_layers": int(rng.integers(1, 3)),
            "bidirectional": bool(rng.random() < 0.3),
            "batch_first": bool(rng.random() < 0.5),
        }
        if t * b * h * (i + h) * (1 + options["bidirectional"]) * options["num_layers"] < 3e8:
            return str(kind), str(mode), t, b, i, h, options


def drawn(kind: str, mode: str, t: int, b: int, i: int, h: int, options: dict[str, Any]) -> Row:
    """One of the drawn shapes."""
    shape = (b, t, i) if options["batch_first"] else (t, b, i)
    calls = both(kind, numbers(*shape), mode, i, h, **options)
    words = [w for w in ("bidirectional", "batch_first") if options[w]]
    title = " ".join([f"drawn: {kind} T{t} B{b} I{i} H{h} x{options['num_layers']}", *words])
    return Row(f"{title}, {mode}", calls, (("nn / fastrnn", ">=", 1.0),))


# -- timing -------------------------------------------------------------------------------------------------


def turn(call: Callable[[], Any], times: int) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def measure(row: Row, settings: Settings) -> dict[str, Any]:
    """Time the calls of a row in turns; returns its record."""
    times = {}
    for name, call in row.calls.items():
        call()
        once = max(turn(call, 3), 1e-7)
        times[name] = max(1, round(settings.seconds / once))
    samples: dict[str, list[float]] = {name: [] for name in row.calls}
    for number in range(settings.rounds):
        names = list(row.calls)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            samples[name].append(turn(row.calls[name], times[name]))
    record: dict[str, Any] = {
        "title": row.title,
        "microseconds": {name: statistics.median(s) * 1e6 for name, s in samples.items()},
        "outcomes": [],
    }
    for what, operator, target in row.targets:
        value = evaluate(what, samples)
        met = value <= target if operator == "<=" else value >= target
        record["outcomes"].append(
            {"name": what, "value": value, "op": operator, "target": target, "met": bool(met)}
        )
    return record


def evaluate(what: str, samples: dict[str, list[float]]) -> float:
    """A ratio of two calls, the median over the rounds; or the microseconds of fastrnn's."""
    if what == "microseconds":
        return statistics.median(samples["fastrnn"]) * 1e6
    if what == "together / parts":
        parts = [a + b for a, b in zip(samples["fastrnn"], samples["products"], strict=True)]
        return statistics.median(t / p for t, p in zip(samples["together"], parts, strict=True))
    above, below = what.split(" / ")
    return statistics.median(a / b for a, b in zip(samples[above], samples[below], strict=True))


def run(settings: Settings, show: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Measure all rows; each is printed as soon as it is there."""
    import torch

    import fastrnn

    torch.set_num_threads(settings.threads)
    fastrnn.set_num_threads(settings.threads)
    torch.manual_seed(0)
    found = []
    for build in itertools.chain(rows(settings)):
        record = measure(build(), settings)
        found.append(record)
        show(line(record))
    missed = [r["title"] for r in found if not all(o["met"] for o in r["outcomes"])]
    show(f"{len(found)} rows, {len(missed)} below their target")
    return found


def line(record: dict[str, Any]) -> str:
    """One row as text."""
    times = ", ".join(f"{name} {value:.1f} us" for name, value in record["microseconds"].items())
    outcomes = ", ".join(
        f"{o['name']} {o['value']:.2f} ({'' if o['met'] else 'MISSED '}{o['op']} {o['target']:g})"
        for o in record["outcomes"]
    )
    return f"{record['title']}: {times}; {outcomes}"
