"""Who is speaking: multivariate series of unequal length (many to one).

Japanese Vowels (Kudo, Toyama and Shimbo 1999): nine men say /ae/; every utterance is 7 to 29 frames of 12 LPC
cepstrum coefficients. 270 utterances to learn from, 370 to recognise. The model gets a plain list of arrays
[T, 12]; there is no padding anywhere. Baseline: the nearest training utterance under dynamic time warping
(DTW), the usual yardstick for such data, computed here.

    pip install sktime        (only its data files are read; without its dependencies: --no-deps)
    python examples/classify_series.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _common import BASELINE, COLOURS, MODEL, figure, package, parser, report
from numpy.typing import NDArray

from fastrnn.models import SequenceClassifier

Array = NDArray[np.float64]


def utterances(path: Path) -> tuple[list[Array], NDArray[np.intp]]:
    """Read a .ts file: on a line the twelve coefficients, each a list over time, and the speaker."""
    X, y = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#@":
            *coefficients, speaker = line.split(":")
            X.append(np.array([np.fromstring(c, sep=",") for c in coefficients]).T)  # [T, 12]
            y.append(int(speaker))
    return X, np.array(y)


def dtw(a: Array, others: Array, lengths: NDArray[np.intp]) -> Array:
    """Return the DTW distances between a [T, D] and each of others [N, S, D], padded to S, in one go.

    d[i, j] = |a_i - b_j|^2 + min(d[i-1, j], d[i, j-1], d[i-1, j-1]); what stands after row n's last step has no
    influence on d[T, lengths[n]].
    """
    cost = np.square(a[:, None, None] - others.transpose(1, 0, 2)).sum(axis=-1)  # [T, S, N]
    d = np.full((len(a) + 1, others.shape[1] + 1, len(others)), np.inf)
    d[0, 0] = 0
    for i in range(1, d.shape[0]):
        for j in range(1, d.shape[1]):
            before = np.minimum(np.minimum(d[i - 1, j], d[i, j - 1]), d[i - 1, j - 1])
            d[i, j] = cost[i - 1, j - 1] + before
    return np.sqrt(d[len(a), lengths, np.arange(len(others))])


def nearest(X: list[Array], y: NDArray[np.intp], X_test: list[Array]) -> NDArray[np.intp]:
    """Return the label of the training series nearest to each test series; coefficients are standardised."""
    steps = np.concatenate(X)
    mean, scale = steps.mean(axis=0), steps.std(axis=0)
    lengths = np.array([len(x) for x in X])
    padded = np.zeros((len(X), lengths.max(), X[0].shape[1]))
    for row, x in zip(padded, X, strict=True):
        row[: len(x)] = (x - mean) / scale
    return np.array([y[np.argmin(dtw((x - mean) / scale, padded, lengths))] for x in X_test])


def main() -> None:
    options = parser(__doc__).parse_args()
    data = Path(package("sktime", "pip install sktime").__file__).parent / "datasets/data/JapaneseVowels"
    X, y = utterances(data / "JapaneseVowels_TRAIN.ts")
    X_test, y_test = utterances(data / "JapaneseVowels_TEST.ts")
    if options.quick:
        X_test, y_test = X_test[::6], y_test[::6]
    speakers = np.unique(y)

    model = SequenceClassifier(
        cell="gru", hidden_size=64, dropout=0.3, lr=3e-3, schedule="cosine", batch_size=16,
        epochs=6 if options.quick else 60, random_state=options.seed,
    ).fit(X, y)  # fmt: skip
    said, warped = model.predict(X_test), nearest(X, y, X_test)
    rows = [
        ("accuracy, 9 speakers", np.mean(said == y_test), np.mean(warped == y_test), "1-NN with DTW"),
        (
            f"errors of {len(y_test)}",
            str((said != y_test).sum()),
            str((warped != y_test).sum()),
            "1-NN with DTW",
        ),
    ]

    picture = options.out / "classify_series.png"
    with figure(picture, size=(9, 4)) as f:
        left, right = f.subplots(1, 2, width_ratios=[1.3, 1])
        for speaker, colour in ((1, COLOURS[1]), (4, COLOURS[0])):
            for n, i in enumerate(np.flatnonzero(y == speaker)[:6]):
                label = f"speaker {speaker}" if n == 0 else None
                left.plot(X[i][:, 0], color=colour, alpha=0.6, lw=1.2, label=label)
        left.set(xlabel="frame", ylabel="first cepstrum coefficient")
        left.set_title("Six utterances each of two of the nine speakers")
        left.legend(frameon=False)
        for shift, labels, colour, name in (
            (-0.2, said, MODEL, "fastrnn GRU"),
            (0.2, warped, BASELINE, "1-NN, DTW"),
        ):
            wrong = [np.mean(labels[y_test == s] != s) * 100 for s in speakers]
            right.bar(
                speakers + shift,
                wrong,
                0.4,
                color=colour,
                label=f"{name}: {np.mean(labels == y_test):.1%} right",
            )
        right.set(xlabel="speaker", ylabel="utterances taken for someone else's (%)", xticks=speakers)
        right.set_title(f"Errors on {len(y_test)} new utterances")
        right.legend(frameon=False)
    report("classify_series", rows, picture)


if __name__ == "__main__":
    main()
