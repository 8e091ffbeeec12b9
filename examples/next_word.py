"""The next word: a language model over words, beside an interpolated Kneser-Ney trigram model.

The text is the lexicon of the Jargon File 4.4.7 (public domain, 1.5 MB of English), in the Debian package
jargon-text: `apt-get install jargon-text`, or unpack it as examples/README.md says. Every tenth entry is held
out. Both models see the same words; one that occurs less than five times in training is <unknown> to both.
Any other text: --text FILE. With --quick: Python's own help topics.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
from _common import BAR, BASELINE, MODEL, data, figure, parser, report

from fastrnn.demo import kneser_ney
from fastrnn.models import LanguageModel

UNKNOWN, ENTRY = "<unknown>", "<entry>"  # a rare word; where an entry begins
PROMPTS = ["in the early", "from the fact", "the term is used by hackers to", "see also {"]


def read(options: Any) -> list[list[str]]:
    """Return the entries (or paragraphs) of the text as lists of words and punctuation, in lower case."""
    if options.text:
        parts = options.text.read_text(encoding="utf-8").split("\n\n")
    elif options.quick:
        from pydoc_data.topics import topics

        parts = "\n\n".join(topics.values()).split("\n\n")[:1500]
    else:
        path = data("usr/share/doc/jargon-text/jargon.txt.gz", "apt-get install jargon-text")
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
        parts = re.split(r"\n\s*(?=:[^\n:]+: )", text)[1:]  # what stands before is the table of contents
    words = [re.findall(r"[a-z]+(?:['’-][a-z]+)*|\d+|[^\w\s]", part.lower()) for part in parts]
    return [[ENTRY, *row] for row in words if len(row) > 5]


def split(rows: list[list[str]], min_count: int) -> tuple[list[str], list[str], list[str]]:
    """Return the words to train on, those held out, and the vocabulary."""
    train = [word for i, row in enumerate(rows) if i % 10 for word in row]
    held_out = [word for row in rows[::10] for word in row]
    names, counts = np.unique(train, return_counts=True)
    known = set(names[counts >= min_count].tolist())
    train, held_out = ([w if w in known else UNKNOWN for w in part] for part in (train, held_out))
    return train, held_out, sorted({*known, UNKNOWN})


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 text")
    arguments.add_argument("--resume", type=Path, metavar="FILE.safetensors", help="checkpoint to go on from")
    options = arguments.parse_args()
    train, held_out, vocabulary = split(read(options), min_count=5)
    share = held_out.count(UNKNOWN) / len(held_out)
    print(f"{len(train):,} words to train on, {len(held_out):,} held out, {len(vocabulary):,} different ones")
    print(f"{share:.1%} of the held-out words are rare ones, {UNKNOWN}")

    index = {word: i for i, word in enumerate(vocabulary)}
    ids = [np.array([index[word] for word in part]) for part in (train, held_out)]
    trigram, bigram = (2 ** kneser_ney(*ids, len(vocabulary), order) for order in (3, 2))
    print(f"perplexity of the trigram model: {trigram:.1f}")

    size = {"hidden_size": 64, "embedding_size": 32, "epochs": 2} if options.quick else {}
    size = size or {"hidden_size": 256, "embedding_size": 128, "epochs": 5}
    model = LanguageModel(
        **size,  # type: ignore[arg-type]
        dropout=0.4,
        lr=4e-3,
        schedule="cosine",
        batch_size=20,
        steps=24,
        random_state=options.seed,
        verbose=BAR,
    )

    def measure(_: Any, log: dict[str, float]) -> None:
        print(
            f"epoch {log['epoch']}: perplexity {np.exp(log['val_loss']):.1f} (trigram {trigram:.1f})",
            flush=True,
        )

    model.fit(train, validation=held_out, callbacks=[measure], resume=options.resume)
    perplexity = model.perplexity(held_out)
    curve = [float(np.exp(log["val_loss"])) for log in model.history_]
    print("\n" + " ".join(model.generate(80, [ENTRY], temperature=0.7, rng=0)) + "\n")

    picture = options.out / "next_word.png"
    plot(picture, model, curve, {"trigram": trigram, "bigram": bigram})
    report("next_word", [("perplexity, held out", perplexity, trigram, "Kneser-Ney trigram")], picture)


def plot(path: Path, model: LanguageModel, curve: list[float], baselines: dict[str, float]) -> None:
    """Draw the perplexity by epoch, and what the model expects after some beginnings."""
    words = model.config_["vocabulary"]
    with figure(path, (10, 4.8)) as f:
        left, right = f.subplots(1, 2, width_ratios=[1, 1.25])
        epochs = range(1, len(curve) + 1)
        left.plot(epochs, curve, "o-", color=MODEL)
        left.annotate(
            f"LSTM: {min(curve):.0f}",
            (len(curve), curve[-1]),
            (0, -16),
            ha="right",
            color=MODEL,
            textcoords="offset points",
        )
        for (name, value), style in zip(baselines.items(), ("--", ":"), strict=True):
            left.axhline(value, color=BASELINE, linestyle=style)
            left.annotate(
                f"Kneser-Ney {name}: {value:.0f}",
                (len(curve), value),
                (0, 4),
                ha="right",
                textcoords="offset points",
            )
        left.set(xlabel="epoch", xticks=epochs, ylabel="perplexity on held-out text (lower is better)")
        left.set(
            title="As if choosing among how many words?", ylim=(0.85 * min(*curve, *baselines.values()), None)
        )
        left.margins(x=0.1)

        ticks, labels, y = [], [], 0.0
        for prompt in PROMPTS:
            p = model.predict_proba([ENTRY, *prompt.split()])
            right.text(0, y - 0.75, f"{prompt} …", style="italic", va="center")
            for i in np.argsort(-p)[:4]:
                right.barh(y, p[i], color=MODEL)
                right.annotate(f"{p[i]:.0%}", (p[i], y), (3, -3), fontsize=8, textcoords="offset points")
                ticks.append(y)
                labels.append("(a rare word)" if words[i] in (None, UNKNOWN) else f"“{words[i]}”")
                y += 0.8
            y += 1.2
        right.set_yticks(ticks, labels)
        right.set(xlabel="probability", title="The next word, says the LSTM")
        right.invert_yaxis()
        right.spines[["top", "right"]].set_visible(False)
        right.margins(x=0.15)


if __name__ == "__main__":
    main()
