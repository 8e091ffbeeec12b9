"""Is a sentence in favour or against? And what a bag of words cannot know: the order.

Opinions: 10,605 sentences from film reviews, each with the mean of at least 20 human ratings from -4 to 4
(Hutto and Gilbert 2014). They are in the source package of vaderSentiment, not in its wheel:
`pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 -d examples/data`. The model learns four
degrees, and from their probabilities says in favour or against; the baseline is a logistic regression on the
same words as a bag.

Order: does the writer like the acting? "The acting is not dull but the plot is weak": yes; "the acting is dull
but the plot is not weak": no. Every generated sentence comes with such a twin of the very same words.
"""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from _common import BAR, BASELINE, COLOURS, MODEL, figure, missing, package, parser, report

from fastrnn.models import SequenceClassifier

SOURCE = "vaderSentiment-3.3.2.tar.gz"
COMMAND = "pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 -d examples/data"
PRAISE = ["good", "great", "clever", "funny", "moving", "brilliant", "charming", "superb", "fresh"]
BLAME = ["bad", "dull", "stupid", "tedious", "cold", "awful", "bland", "clumsy", "weak"]
SHOWN = [
    "the acting is not dull but the plot is weak",
    "the acting is dull but the plot is not weak",
    "on the whole the plot is superb and the acting is not bad",
    "on the whole the plot is not superb and the acting is bad",
    "the plot is fresh but the acting is not clever",
    "the plot is not fresh but the acting is clever",
]
ASIDES = [
    "",
    "to be fair",
    "as far as i can tell",
    "on the whole",
    "all things considered",
    "in this version",
]


def snippets() -> tuple[list[list[str]], Any]:
    """Return the sentences as lists of words, and their ratings [n]."""
    path = Path(__file__).parent / "data" / SOURCE
    if not path.exists():
        missing(f"needs {path}: {COMMAND}")

    def inside(archive: bytes, name: str) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = next(m for m in tar.getmembers() if m.name.endswith(name))
            return tar.extractfile(member).read()  # type: ignore[union-attr]

    inner = inside(path.read_bytes(), "hutto_ICWSM_2014.tar.gz")
    text = inside(inner, "movieReviewSnippets_GroundTruth.txt").decode("utf-8", "replace")
    rows = [line.split("\t") for line in text.splitlines()]
    words = [re.findall(r"[a-z]+(?:'[a-z]+)*|[^\w\s]", row[2].lower()) for row in rows]
    return words, np.array([float(row[1]) for row in rows])


def twins(n: int, rng: np.random.Generator) -> tuple[list[list[str]], Any]:
    """Make 2 n sentences, one after the other the same words with "not" in either place, and the answers."""
    rows, labels = [], []
    for _ in range(n):
        topics = [["acting", "plot"], ["plot", "acting"]][rng.integers(2)]
        good = rng.integers(2, size=2)
        words = [str(rng.choice(PRAISE if g else BLAME)) for g in good]
        aside, link = str(rng.choice(ASIDES)), ("but", "and")[rng.integers(2)]
        for negated in (0, 1):
            parts = [f"the {t} is {'not ' * (negated == i)}{words[i]}" for i, t in enumerate(topics)]
            rows.append(f"{aside} {parts[0]} {link} {parts[1]}".split())
            acting = topics.index("acting")
            labels.append(bool(good[acting]) != (negated == acting))
    return rows, np.array(labels)


def bag_of_words(train: list[list[str]], labels: Any, test: list[list[str]]) -> Any:
    """Return the probability that each test sentence is in favour, by logistic regression on which words occur."""
    text = package("sklearn.feature_extraction.text", "pip install scikit-learn")
    linear = package("sklearn.linear_model", "pip install scikit-learn")
    bag = text.CountVectorizer(analyzer=lambda words: words, binary=True)
    model = linear.LogisticRegression(max_iter=1000).fit(bag.fit_transform(train), labels)
    return model.predict_proba(bag.transform(test))[:, 1]


def accuracy(p: Any, labels: Any) -> float:
    return float(np.mean((p > 0.5) == labels))


def opinions(options: Any) -> tuple[float, float, float]:
    """Return the accuracies of the model, of the bag of words, and of the mean of both."""
    words, ratings = snippets()
    order = np.random.default_rng(options.seed).permutation(len(words))[: 900 if options.quick else None]
    n_test = 300 if options.quick else 2000
    held_out, rest = order[:n_test], order[n_test:]
    test, train = ([words[i] for i in part] for part in (held_out, rest))
    degrees = np.digitize(ratings, [-1.5, 0, 1.5])
    model = SequenceClassifier(
        hidden_size=64,
        embedding_size=64,
        min_count=3,
        dropout=0.65,
        optimizer="adamw",
        weight_decay=0.05,
        schedule="cosine",
        epochs=2 if options.quick else 12,
        random_state=options.seed,
        verbose=BAR,
    )
    model.fit(train, degrees[rest])
    p = model.predict_proba(test)[:, 2:].sum(axis=1)
    bag = bag_of_words(train, ratings[rest] > 0, test)
    in_favour = ratings[held_out] > 0
    for i in np.argsort(-np.abs(p - bag))[:3]:
        print(
            f"{p[i]:.2f} (bag of words {bag[i]:.2f}, rated {ratings[held_out[i]]:+.1f}): {' '.join(test[i])}"
        )
    return accuracy(p, in_favour), accuracy(bag, in_favour), accuracy((p + bag) / 2, in_favour)


def main() -> None:
    options = parser(__doc__).parse_args()
    mine, bag, both = opinions(options)

    rng = np.random.default_rng(options.seed)
    (train, y), (test, answers) = twins(200 if options.quick else 1500, rng), twins(500, rng)
    reader = SequenceClassifier(
        hidden_size=32,
        embedding_size=16,
        bidirectional=False,
        lr=5e-3,
        epochs=2 if options.quick else 12,
        random_state=options.seed,
        verbose=BAR,
    )
    reader.fit(train, y)
    ordered = accuracy(reader.predict_proba(test)[:, 1], answers)
    bag_ordered = accuracy(bag_of_words(train, y, test), answers)

    picture = options.out / "sentiment.png"
    plot(picture, {"film reviews": (mine, bag), "order of words": (ordered, bag_ordered)}, reader)
    what = "bag of words, logistic regression"
    rows = [
        ("film reviews: accuracy", mine, bag, what),
        ("film reviews: accuracy of the mean of both", both, bag, what),
        ("order of words: accuracy", ordered, bag_ordered, what),
    ]
    report("sentiment", rows, picture)


def plot(path: Path, results: dict[str, tuple[float, float]], reader: SequenceClassifier) -> None:
    """Draw the accuracies, and what the model says of three pairs of twins."""
    with figure(path, (10, 4.2)) as f:
        left, right = f.subplots(1, 2, width_ratios=[1, 1.7])
        for i, (name, color) in enumerate((("LSTM", MODEL), ("bag of words", BASELINE))):
            x, y = np.arange(len(results)) + 0.4 * i - 0.2, [100 * r[i] for r in results.values()]
            left.bar(x, y, 0.36, color=color, label=name)
            for a, b in zip(x, y, strict=True):
                left.text(a, b + 1, f"{b:.0f}", ha="center")
        left.axhline(50, color="black", linewidth=0.8, linestyle=":")
        left.set_xticks(range(len(results)), list(results))
        left.set(ylabel="sentences judged right, %", ylim=(0, 118), title="Accuracy (dotted: guessing)")
        left.legend(loc="upper center", ncols=2)

        p = reader.predict_proba([sentence.split() for sentence in SHOWN])[:, 1]
        for i, sentence in enumerate(SHOWN):
            y = i + 0.4 * (i // 2)  # twins stand together
            likes = p[i] > 0.5
            right.barh(y, p[i] - 0.5, 0.45, left=0.5, color=COLOURS[0] if likes else COLOURS[1])
            text = sentence.replace("not", r"$\bf{not}$") + ("  → likes it" if likes else "  → does not")
            right.text(0.01, y - 0.43, text, va="center", bbox={"fc": "white", "lw": 0, "pad": 0.5})
        right.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
        right.set(xlim=(0, 1), ylim=(-0.8, 6.2), yticks=[], xlabel="P(the writer likes the acting)")
        right.set_title("Does the writer like the acting? Twins have the same words")
        right.invert_yaxis()


if __name__ == "__main__":
    main()
