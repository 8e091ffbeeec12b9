"""``python -m fastrnn``: the demo, and saved models that write, translate and forecast."""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

GENERATE = """Continue a text with a LanguageModel that its `save` has written.

The prompt is --prompt, or what comes on standard input if that is no terminal. A model of words takes and writes
words with spaces between them, and a model of characters takes and writes characters as they are."""
TRANSLATE = """Write a sequence for each line, with a Seq2Seq model that its `save` has written.

Lines come from a file or from standard input. A model of words takes lines as words with spaces between them, and a
model of characters takes them as they are. With --subwords, lines are cut into the sub-words of a file that
fastrnn.text.Subwords.save has written, and with --target-subwords what comes is put together again."""
FORECAST = """Forecast a series with a Forecaster that its `save` has written.

The series is a CSV file whose first line has the names of the columns; - is standard input. Columns that the model
does not know are left out. The forecast goes to standard output, as CSV."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m fastrnn``; return the exit code: 0, 1 for what cannot be done, 2 for wrong arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo"]:
        from fastrnn.demo import main as demo

        return demo(arguments)
    parser = _Parser(prog="python -m fastrnn", description="fast RNN, LSTM and GRU on the CPU")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("demo", help="train a character language model")
    for name, (add, run, text) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("model", type=Path, help="the model's file")
        add(command)
        command.set_defaults(run=run, parser=command)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ImportError, OSError, TypeError, ValueError) as error:
        where = (
            f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        )
        print(f"{options.parser.prog}: error: {' '.join(str(where).split())}", file=sys.stderr)
        return 1
    return 0


# -- generate --------------------------------------------------------------------------------------------------


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--length", type=_integer(0), default=500, metavar="N", help="tokens to write (500)")
    parser.add_argument("--prompt", metavar="TEXT", help="the text to continue")
    parser.add_argument(
        "--temperature", type=_number(0), default=1.0, metavar="X", help="0 is never random (1)"
    )
    parser.add_argument(
        "--top-k", type=_integer(1), metavar="N", help="draw among the N most probable tokens"
    )
    parser.add_argument(
        "--top-p", type=_number(0, 1), metavar="X", help="draw among those of probability X in all"
    )
    parser.add_argument(
        "--stop", action="append", metavar="TEXT", help="where to end; may be given several times"
    )
    parser.add_argument("--seed", type=_integer(0), metavar="N", help="for the same text every time")


def _generate(options: argparse.Namespace) -> None:
    model = _load(options.model, "LanguageModel")
    prompt = options.prompt
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
        prompt = prompt[:-1] if prompt.endswith("\n") else prompt
    characters = model.config_["text"]
    given = prompt if prompt is None or characters else _tokens(prompt, model.config_["kind"])
    stop = options.stop
    if stop is not None and not characters:
        stop = _tokens(" ".join(stop), model.config_["kind"])
    written = model.iter_generate(
        options.length, given, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p,
        stop=stop, rng=options.seed,
    )  # fmt: skip
    sys.stdout.write(prompt or "")
    space = "" if characters or not given else " "
    for token in written:
        sys.stdout.write(f"{space}{token}")
        sys.stdout.flush()
        space = "" if characters else " "
    sys.stdout.write("\n")


# -- translate -------------------------------------------------------------------------------------------------


def _add_translate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="-", help="lines to translate; - is standard input (-)")
    parser.add_argument(
        "--beam", type=_integer(1), default=4, metavar="N", help="candidates of beam search (4)"
    )
    parser.add_argument("--max-length", type=_integer(0), metavar="N", help="tokens of the longest output")
    parser.add_argument("--copy-unknown", action="store_true", help="copy unknown tokens from the source")
    parser.add_argument("--scores", action="store_true", help="write the score and a tab before each line")
    parser.add_argument("--subwords", type=Path, metavar="FILE", help="sub-words of the lines")
    parser.add_argument("--target-subwords", type=Path, metavar="FILE", help="sub-words of the output")


def _translate(options: argparse.Namespace) -> None:
    model = _load(options.model, "Seq2Seq")
    cut, join = _tools(options, model)
    with _opened(options.file) as file:
        for lines in _chunks(file, 256):
            sources = [cut(line.rstrip("\n")) for line in lines]
            extra = {"copy_unknown": True} if options.copy_unknown else {}
            written, scores = model.predict(
                sources, beam=options.beam, max_length=options.max_length, return_scores=True, **extra
            )
            for tokens, score in zip(written, scores, strict=True):
                print(f"{score:.4f}\t{join(tokens)}" if options.scores else join(tokens))
            sys.stdout.flush()


def _tools(options: argparse.Namespace, model: Any) -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    """Return what cuts a line into tokens, and what makes a line of tokens."""
    from fastrnn.text import Subwords

    source, target = (
        None if path is None else Subwords.load(path) for path in (options.subwords, options.target_subwords)
    )

    def cut(line: str) -> Any:
        kind = model.config_.get("source_kind")
        if source is not None:
            return source.encode(line)
        return line if kind == "characters" else _tokens(line, kind)

    def join(tokens: Any) -> str:
        if target is not None:
            return target.decode(tokens)
        return tokens if isinstance(tokens, str) else " ".join(map(str, tokens))

    return cut, join


# -- forecast --------------------------------------------------------------------------------------------------


def _add_forecast(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("series", help="CSV file; - is standard input")
    parser.add_argument("--horizon", type=_integer(1), metavar="N", help="steps (the model's own, or 1)")
    parser.add_argument("--future", metavar="FILE", help="CSV file of the known columns of the steps to come")
    parser.add_argument("--level", type=_number(0, 1), metavar="X", help="write bounds too, such as 0.9")
    parser.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="of futures that are drawn")


def _forecast(options: argparse.Namespace) -> None:
    model = _load(options.model, "Forecaster")
    names = model.config_.get("feature_names")
    columns = model._columns()
    missing = model._made.missing == "mask"
    header, series = _table(options.series, names, missing)
    width = model.config_["n_features"]
    if series.shape[1] != width:
        raise ValueError(f"{options.series}: expected {width} columns, as in fit, got {len(header)}")
    future = None
    if options.future is not None:
        places = columns.known or columns.covariates
        _, future = _table(options.future, None if names is None else [names[i] for i in places], False)
        if options.horizon is None and model._made.horizon is None:
            options.horizon = len(future)
    with warnings.catch_warnings():  # names were compared above
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        x = series if series.shape[1] > 1 else series[:, 0]
        parts = [np.asarray(model.predict(x, options.horizon, future=future))]
        if options.level is not None:
            parts += map(
                np.asarray,
                model.predict_interval(x, options.horizon, options.level, rng=options.seed, future=future),
            )
    titles = [(names or header)[i] for i in columns.targets]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    suffixes = ("", "_low", "_high")[: len(parts)]
    writer.writerow([f"{title}{suffix}" for title in titles for suffix in suffixes])
    table = np.stack([p.reshape(len(p), -1) for p in parts], axis=2)
    writer.writerows([[f"{value:.10g}" for value in row.ravel()] for row in table])


def _table(path: str, names: list[str] | None, missing: bool) -> tuple[list[str], Any]:
    """Return the header and the numbers [T, D] of a CSV file; of some columns where there are names."""
    with _opened(path) as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) < 2:
        raise ValueError(f"{path}: expected a line of names and lines of numbers, got {len(rows)} lines")
    header = [name.strip() for name in rows[0]]
    absent = [name for name in names or [] if name not in header]
    if absent:
        raise ValueError(f"{path}: expected the columns {names}, as in fit, got none of the names {absent}")
    places = [header.index(name) for name in names] if names else list(range(len(header)))
    table = np.empty((len(rows) - 1, len(places)))
    for t, row in enumerate(rows[1:]):
        if len(row) != len(header):
            raise ValueError(f"{path}, line {t + 2}: expected {len(header)} values, got {len(row)}")
        for j, place in enumerate(places):
            text = row[place].strip()
            try:
                value = float(text) if text else math.nan
            except ValueError:
                raise ValueError(f"{path}, line {t + 2}: expected a number, got {text!r}") from None
            if not (math.isfinite(value) or (missing and math.isnan(value))):
                raise ValueError(f"{path}, line {t + 2}: expected a finite number, got {text!r}")
            table[t, j] = value
    return header, table


# -- what they share -------------------------------------------------------------------------------------------


def _load(path: Path, kind: str) -> Any:
    from fastrnn import models

    if not path.exists():
        raise FileNotFoundError(2, "No such file", str(path))
    return getattr(models, kind).load(path)


def _tokens(text: str, kind: Any) -> list[Any]:
    """Return the words of a text, as integers for a model of integers."""
    words = text.split()
    if kind == "integers":
        try:
            return [int(word) for word in words]
        except ValueError as error:
            raise ValueError(f"expected integers, as in fit, got {text!r}") from error
    return list(words)


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdin
        return
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield file


def _chunks(file: TextIO, most: int) -> Iterator[list[str]]:
    """Yield lines, one by one from a terminal, else `most` at a time."""
    lines: list[str] = []
    for line in file:
        lines.append(line)
        if len(lines) == most or file.isatty():
            yield lines
            lines = []
    if lines:
        yield lines


def _integer(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number < 2**31:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got {text}")
        return number

    return parse


def _number(least: float, most: float = math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most or math.isinf(number):
            wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text}")
        return number

    return parse


_COMMANDS: dict[str, tuple[Any, Any, str]] = {
    "generate": (_add_generate, _generate, GENERATE),
    "translate": (_add_translate, _translate, TRANSLATE),
    "forecast": (_add_forecast, _forecast, FORECAST),
}
