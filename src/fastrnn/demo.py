"""A character language model, trained on text that comes with Python and compared with a trigram model.

The model is an embedding, an RNN, GRU or LSTM, and a linear layer. It is trained by truncated BPTT with carried state,
Adam and clipping.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn import init, io
from fastrnn._deprecated import renamed
from fastrnn.losses import linear_softmax_cross_entropy, log_softmax
from fastrnn.nn import Embedding, Linear
from fastrnn.optim import Adam, cosine

Array = NDArray[Any]

CELLS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
LEAST_TEXT = 2000  # characters: enough for a step of training and for a held-out part
STREAMS, STEPS = 32, 64  # the text is read at STREAMS places at once, and BPTT reaches back STEPS characters
EMBEDDING = 64
LEARNING_RATE, CLIP = 4e-3, 0.3
UNKNOWN = "\ufffd"  # stands for every character that the training text does not have


@dataclass
class CharacterModel:
    """Embedding, recurrent layer and output layer over the characters of a text."""

    characters: str
    cell: str
    hidden: int
    seed: int
    modules: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        layer = getattr(fastrnn, CELLS[self.cell])(EMBEDDING, self.hidden, rng=rng)
        if self.cell == "lstm":
            init.forget_bias(layer)
        self.modules = {
            "embedding": Embedding(len(self.characters), EMBEDDING, rng=rng),
            self.cell: layer,
            "head": Linear(self.hidden, len(self.characters), rng=rng),
        }

    def __call__(self, x: Array, state: Any = None) -> tuple[Array, Any]:
        """Return the logits [T, B, V] after each of the characters [T, B], and the state after all."""
        embedding, layer, head = self.modules.values()
        h, state = layer(embedding(x), state)
        return head(h), state

    def gradients(self, x: Array, targets: Array, state: Any) -> tuple[float, list[Any], Any]:
        """Return the mean loss in nats, the gradients of the modules in their order, and the state after `x`."""
        embedding, layer, head = self.modules.values()
        e, tape_e = embedding.forward(x)
        h, state, tape_h = layer.forward(e, state)
        loss, g_head = linear_softmax_cross_entropy(head, h, targets)
        assert g_head is not None
        g_layer = layer.backward(tape_h, g_head.x)
        return loss, [embedding.backward(tape_e, g_layer.x), g_layer, g_head], state

    def bits(self, text: Array) -> float:
        """Return the bits per character of `text` [N], read as one stream; the first two are not counted."""
        nats, state = 0.0, None
        for start in range(0, len(text) - 1, 1000):
            targets = text[start + 1 : start + 1001]
            x = text[start : start + len(targets)]
            logits, state = self(x[:, None], state)
            scores = log_softmax(logits)[np.arange(len(x)), 0, targets]
            nats -= float(scores[1:].sum() if start == 0 else scores.sum())
        return nats / math.log(2) / (len(text) - 2)

    def sample(self, length: int, rng: np.random.Generator, temperature: float = 0.7) -> str:
        """Return generated text that begins after a line break."""
        previous, state, out = max(self.characters.find("\n"), 0), None, []
        for _ in range(length):
            logits, state = self(np.array([[previous]]), state)
            scores = logits[0, 0].astype(np.float64) / temperature
            scores[self.characters.index(UNKNOWN)] = -np.inf
            p = np.exp(log_softmax(scores))
            previous = int(rng.choice(len(p), p=p / p.sum()))
            out.append(self.characters[previous])
        return "".join(out)


@renamed(symbols="vocabulary_size")
def kneser_ney(train: Array, held_out: Array, vocabulary_size: int, order: int = 3) -> float:
    """Return the bits per token that an interpolated Kneser-Ney model of `train` needs for `held_out`.

    Each order has one discount, n1 / (n1 + 2 n2). The first order - 1 tokens do not count. Chen and Goodman 1999.

    Parameters
    ----------
    train, held_out : int [N]
        Tokens from 0 to `vocabulary_size` - 1.
    vocabulary_size : int
    order : int
        Length of the longest n-gram; 3 is a trigram model.

    Examples
    --------
    >>> kneser_ney(np.array([0, 1] * 50), np.array([0, 1] * 50), 2) < 0.1
    True
    """

    def grams(text: Array) -> Array:
        code = np.zeros(len(text) - order + 1, np.int64)
        for i in range(order):
            code = code * vocabulary_size + text[i : i + len(code)]
        return code

    def look_up(keys: Array, values: Array, wanted: Array) -> Array:
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, values[at], 0)

    # The longest n-grams count by how often they occur, shorter ones by how many different tokens precede them.
    levels = [np.unique(grams(train), return_counts=True)]
    for n in range(order - 1, 0, -1):
        levels.append(np.unique(levels[-1][0] % vocabulary_size**n, return_counts=True))
    wanted = grams(held_out)
    p: Any = 1 / vocabulary_size
    for n, (codes, counts) in enumerate(reversed(levels), 1):
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        discount = once / (once + 2 * twice) if once else 0.5
        contexts, inverse = np.unique(codes // vocabulary_size, return_inverse=True)
        code = wanted % vocabulary_size**n
        total = look_up(contexts, np.bincount(inverse, counts), code // vocabulary_size)
        types = look_up(contexts, np.bincount(inverse), code // vocabulary_size)
        count = np.maximum(look_up(codes, counts, code) - discount, 0)
        p = np.where(total > 0, (count + discount * types * p) / np.maximum(total, 1), p)
    return float(-np.log2(p).mean())


def run(text: str, cell: str, hidden: int, epochs: int, seed: int, out: Path) -> int:
    """Train on `text`, print the results, write weights and picture into `out`; return the exit code."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("the demo needs tqdm: pip install 'fastrnn[demo]'") from error
    _figure()  # if matplotlib is missing, this fails before the training and not after it
    cut = len(text) - len(text) // 10
    characters = "".join(sorted(set(text[:cut]) | {UNKNOWN}))
    index = {c: i for i, c in enumerate(characters)}
    ids = np.array([index.get(c, index[UNKNOWN]) for c in text])
    train, held_out = ids[:cut], ids[cut:]
    trigram = kneser_ney(train, held_out, len(characters))
    print(
        f"{len(train):,} characters to train on, {len(held_out):,} held out, {len(characters)} different ones"
    )
    print(f"trigram model (interpolated Kneser-Ney): {trigram:.3f} bits per character on the held-out text")

    model = CharacterModel(characters, cell, hidden, seed)
    streams = min(STREAMS, (cut - 1) // STEPS)
    length = (cut - 1) // streams
    x = np.ascontiguousarray(train[: streams * length].reshape(streams, length).T)
    y = np.ascontiguousarray(train[1 : streams * length + 1].reshape(streams, length).T)
    starts = range(0, length, STEPS)
    modules = list(model.modules.values())
    optimiser = Adam(
        modules, cosine(LEARNING_RATE, epochs * len(starts), warmup=20, floor=LEARNING_RATE / 50)
    )
    losses: list[float] = []
    norms: list[float] = []
    held: list[tuple[int, float]] = []
    interrupted = False
    began = time.perf_counter()
    try:
        for epoch in range(1, epochs + 1):
            state, smooth = None, math.nan
            with tqdm(total=x.size, unit="char", unit_scale=True, desc=f"epoch {epoch}/{epochs}") as bar:
                for start in starts:
                    part = slice(start, start + STEPS)
                    loss, gradients, state = model.gradients(x[part], y[part], state)
                    norms.append(optimiser.step(gradients, clip_norm=CLIP) or 0.0)
                    losses.append(loss)
                    smooth = loss if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss
                    bar.set_postfix(loss=f"{smooth:.3f}", bpc=f"{smooth / math.log(2):.3f}", refresh=False)
                    bar.update(x[part].size)
            held.append((len(losses), model.bits(held_out)))
            result = f"held-out {held[-1][1]:.3f} bits per character (trigram {trigram:.3f})"
            print(f"epoch {epoch}: {result}, {time.perf_counter() - began:.0f} s")
        print(f"\n{model.sample(600, np.random.default_rng(seed))}\n")
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: saving what there is", file=sys.stderr)
    config = {"characters": characters, "cell": cell, "hidden_size": str(hidden), "seed": str(seed)}
    io.save(out / "weights.npz", model.modules, config)
    plot(out / "training.png", losses, norms, held, trigram, cell)
    print(f"wrote {out / 'weights.npz'} and {out / 'training.png'}")
    return 130 if interrupted else 0


def plot(
    path: Path,
    losses: list[float],
    norms: list[float],
    held: list[tuple[int, float]],
    trigram: float,
    cell: str,
) -> None:
    """Draw training and held-out loss, and the gradient norm before and after clipping."""
    figure = _figure()
    above, below = figure.subplots(2, 1, sharex=True)
    steps = np.arange(1, len(losses) + 1)
    above.plot(
        steps, np.array(losses) / math.log(2), color="tab:blue", alpha=0.5, linewidth=0.7, label="training"
    )
    if held:
        above.plot(*zip(*held, strict=True), "o-", color="tab:red", label="held out")
    above.axhline(trigram, color="gray", linestyle="--", label="trigram, held out")
    above.set(ylabel="bits per character", title=f"Character language model, {CELLS[cell]}")
    above.set_ylim(top=6)
    above.legend()
    below.plot(steps, norms, color="tab:orange", linewidth=0.7, label="before clipping")
    below.plot(steps, np.minimum(norms, CLIP), color="tab:green", linewidth=0.7, label="after clipping")
    below.set(xlabel="step", ylabel="gradient norm", yscale="log")
    below.legend()
    figure.savefig(path)


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the demo needs matplotlib: pip install 'fastrnn[demo]'") from error
    figure = Figure(figsize=(8, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise SystemExit(2)


def _integer(low: int, high: int) -> Any:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected an integer from {low} to {high}, got {value}")
        return number

    return parse


def read_text(path: Path | None) -> str:
    """Return the text of a file, or the text that comes with Python; raise ValueError with one line."""
    if path is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise ValueError("this Python comes without pydoc_data.topics: give a text with --text") from None
        return "\n\n".join(topics.values())
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--text: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"--text: {path} is not UTF-8 text: {error}") from None
    if len(text) < LEAST_TEXT:
        raise ValueError(f"--text: expected at least {LEAST_TEXT} characters, got {len(text)} in {path}")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run ``python -m fastrnn``; return the exit code."""
    parser = _Parser(prog="python -m fastrnn", description="fast RNN, LSTM and GRU on the CPU")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{demo}")
    demo = commands.add_parser("demo", help="train a character language model", description=__doc__)
    demo.add_argument("--cell", choices=CELLS, default="lstm")
    demo.add_argument("--hidden", type=_integer(1, 8192), default=256, metavar="N", help="units (256)")
    demo.add_argument(
        "--epochs", type=_integer(1, 10000), default=10, metavar="N", help="passes over the text (10)"
    )
    demo.add_argument(
        "--text", type=Path, metavar="FILE", help="UTF-8 text (default: Python's own help topics)"
    )
    demo.add_argument("--seed", type=_integer(0, 2**32 - 1), default=0, metavar="N")
    demo.add_argument(
        "--out", type=Path, default=Path("fastrnn-demo"), metavar="DIR", help="for weights and picture"
    )
    options = parser.parse_args(argv)
    try:
        text = read_text(options.text)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=options.out):
                pass
        except OSError as error:
            raise ValueError(f"--out: cannot write into {options.out}: {error.strerror}") from None
    except ValueError as error:
        demo.error(str(error))
    try:
        return run(text, options.cell, options.hidden, options.epochs, options.seed, options.out)
    except ImportError as error:
        print(f"{demo.prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
