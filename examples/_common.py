"""What the examples share: command line, the table of results, figures.

options = parser(__doc__).parse_args()
with figure(options.out / "task.png") as f:
    f.subplots().plot(...)
report("task", [("accuracy", 0.93, 0.71)], options.out / "task.png")
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

# The colours of every picture (Okabe and Ito 2008): readers who see no red or no green tell them apart.
MODEL, BASELINE = "#0072b2", "#7f7f7f"  # fastrnn, and what it is compared with
COLOURS = (MODEL, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
}
BAR = sys.stderr.isatty()  # a progress bar only where somebody watches
MISSING = 77  # exit code where something is not installed: tests skip then (Automake's code)

_began = time.perf_counter()
_options: dict[str, Any] = {}


class _Parser(argparse.ArgumentParser):
    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        options = super().parse_args(*args, **kwargs)
        options.out.mkdir(parents=True, exist_ok=True)
        _options.update(quick=options.quick, seed=options.seed)
        return options


def parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with --quick, --seed and --out; a directory that is missing is made."""
    made = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="less data and fewer epochs: seconds, for a test")
    made.add_argument("--seed", type=int, default=0)
    results = Path(__file__).parent / "results"
    made.add_argument("--out", type=Path, default=results, metavar="DIR", help="for picture and figures")
    return made


def package(module: str, install: str) -> Any:
    """Import a module, or end with one line that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        missing(f"needs {module}: {install}")


def data(path: str, install: str) -> Path:
    """Return a file of a Debian package, installed or unpacked in examples/data (README.md), or end with one line."""
    places = [Path("/", path), Path(__file__).parent / "data" / path]
    found = [place for place in places if place.exists()]
    return found[0] if found else missing(f"needs {places[0]} or {places[1]}: {install}")


def missing(what: str) -> NoReturn:
    """End because something is not installed."""
    print(f"{Path(sys.argv[0]).name}: {what}", file=sys.stderr)
    raise SystemExit(MISSING)


def report(name: str, rows: Sequence[Sequence[Any]], picture: Path) -> None:
    """Print the results, and write them to ``name.json`` beside the picture.

    Parameters
    ----------
    rows : list of (metric, fastrnn, baseline) or (metric, fastrnn, baseline, what the baseline is)
    """
    seconds = time.perf_counter() - _began
    table = [("metric", "fastrnn", "baseline", "")]
    table += [(r[0], _text(r[1]), _text(r[2]), r[3] if len(r) > 3 else "") for r in rows]
    widths = [max(len(row[i]) for row in table) for i in range(3)]
    print()
    for metric, model, baseline, what in table:
        line = f"{metric:<{widths[0]}} | {model:>{widths[1]}} | {baseline:>{widths[2]}}  {what}"
        print(line.rstrip())
    print(f"\n{seconds:.0f} s; picture: {picture}")
    keys = ("metric", "fastrnn", "baseline", "baseline_is")
    record = {"name": name, **_options, "seconds": round(seconds, 1)}
    record["cpu_seconds"] = round(time.process_time(), 1)  # of all threads: does not depend on other work
    record["rows"] = [dict(zip(keys, row, strict=False)) for row in rows]
    path = Path(picture).parent / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{float(value):.4g}"


@contextmanager
def figure(path: Path, size: tuple[float, float] = (8, 4.5)) -> Iterator[Any]:
    """Return a matplotlib Figure of `size` in inches in the common style, and save it."""
    from matplotlib import cycler, rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE | {"axes.prop_cycle": cycler(color=COLOURS)}):
        made = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(made)
        yield made
        made.savefig(path, dpi=110)
