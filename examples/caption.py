"""Image to sentence: a convolutional network in PyTorch and a caption model in fastrnn, trained as one.

A scene is one or two handwritten digits (scikit-learn's, 8 x 8) on a canvas of 24 x 24, and its caption says
what stands where. PyTorch computes features [n, F]; `Captioner.partial_fit` takes them, does its own step and
hands back dL/dfeatures, from which PyTorch goes on. Digits of the test scenes never occur in training. The
baseline is the most frequent caption of each, which is all one can say without looking.
Needs torch and scikit-learn.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _common import BASELINE, COLOURS, MODEL, figure, package, parser, report

from fastrnn.models import Captioner

SIZE = 24
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def scene(digits: tuple[Any, Any], rng: np.random.Generator) -> tuple[Any, list[str]]:
    """Draw one scene: gives the image [SIZE, SIZE] from 0 to 1 and the words of its caption."""
    image = np.zeros((SIZE, SIZE), np.float32)

    def put(row: int, column: int) -> str:
        """Put a digit into the cell, up to 2 pixels off its middle."""
        i = rng.integers(len(digits[0]))
        y, x = np.clip(np.array([row, column]) * 8 + rng.integers(-2, 3, 2), 0, SIZE - 8)
        image[y : y + 8, x : x + 8] = np.maximum(image[y : y + 8, x : x + 8], digits[0][i])
        return NAMES[digits[1][i]]

    row, column = rng.integers(3, size=2)
    kind = rng.integers(3)
    if kind == 0:
        caption = f"a {put(row, column)} at the {ROWS[row]} {COLUMNS[column]}"
    elif kind == 1:
        first, second = put(row, 0), put(row, 2)
        caption = f"a {first} to the left of a {second}"
        if first == second:
            caption = f"two {first}s side by side"
    else:
        first, second = put(0, column), put(2, column)
        caption = f"a {first} above a {second}"
        if first == second:
            caption = f"two {first}s one above the other"
    caption = caption.replace("a eight", "an eight").replace("sixs", "sixes")
    return np.clip(image + 0.1 * rng.standard_normal(image.shape, np.float32), 0, 1), caption.split()


def scenes(digits: tuple[Any, Any], n: int, rng: np.random.Generator) -> tuple[Any, list[list[str]]]:
    """Draw `n` scenes: images [n, 1, SIZE, SIZE] and captions."""
    drawn = [scene(digits, rng) for _ in range(n)]
    return np.stack([image for image, _ in drawn])[:, None], [caption for _, caption in drawn]


def main() -> None:
    options = parser(__doc__).parse_args()
    torch = package("torch", "pip install torch==2.13.0")
    datasets = package("sklearn.datasets", "pip install scikit-learn")
    steps, batch = (40, 32) if options.quick else (2500, 64)

    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    digits = datasets.load_digits()
    order = rng.permutation(len(digits.target))
    images, labels = digits.images[order].astype(np.float32) / 16, digits.target[order]
    training, unseen = (images[400:], labels[400:]), (images[:400], labels[:400])
    test_x, test_y = scenes(unseen, 200 if options.quick else 1000, rng)

    nn, layers, channels = torch.nn, [], 1
    for out, pool in ((24, 2), (48, 2), (96, 2)):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(pool)]
        channels = out
    # Features of variance 1: without the last normalisation the decoder learns to ignore them.
    cnn = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 9, 128), nn.BatchNorm1d(128))
    adam = torch.optim.Adam(cnn.parameters(), lr=2e-3)
    captioner = Captioner(hidden_size=96, embedding_size=32, cell="gru", lr=4e-3, random_state=options.seed)
    vocabulary = scenes(training, 2000, np.random.default_rng(1))[1]

    def write(x: Any) -> list[list[str]]:
        cnn.eval()
        with torch.no_grad():
            features = cnn(torch.from_numpy(x)).numpy()
        cnn.train()
        return captioner.predict(features)

    curve: list[tuple[int, float]] = []
    every = steps // (4 if options.quick else 15)
    for step in range(1, steps + 1):
        x, y = scenes(training, batch, rng)
        features = cnn(torch.from_numpy(x))
        loss, dfeatures = captioner.partial_fit(features.detach().numpy(), y, captions=vocabulary)
        adam.zero_grad()
        features.backward(torch.from_numpy(dfeatures))  # the gradient crosses from fastrnn to PyTorch
        for group in adam.param_groups:
            group["lr"] = 2e-3 * (1 - (step - 1) / steps)
        adam.step()
        if step % every == 0:
            curve.append((step, exact(write(test_x), test_y)))
            print(f"step {step}: loss {loss:.3f}, captions without a mistake: {curve[-1][1]:.1%}", flush=True)

    written = write(test_x)
    common = Counter(" ".join(y) for y in vocabulary).most_common(1)[0][0].split()
    always = [common] * len(test_y)
    picture = options.out / "caption.png"
    plot(picture, curve, exact(always, test_y), test_x, written, test_y)
    rows = [
        ("captions without a mistake", exact(written, test_y), exact(always, test_y)),
        ("words right", words_right(written, test_y), words_right(always, test_y)),
    ]
    what = f"always “{' '.join(common)}”"
    report("caption", [(*row, what) for row in rows], picture)


def exact(written: list[list[str]], right: list[list[str]]) -> float:
    """Return the share of captions without any mistake."""
    return float(np.mean([a == b for a, b in zip(written, right, strict=True)]))


def words_right(written: list[list[str]], right: list[list[str]]) -> float:
    """Return the share of words that stand where they should."""
    hits = sum(a == b for w, r in zip(written, right, strict=True) for a, b in zip(w, r, strict=False))
    return hits / sum(max(len(w), len(r)) for w, r in zip(written, right, strict=True))


def plot(
    path: Path, curve: Any, baseline: float, images: Any, written: list[list[str]], right: list[list[str]]
) -> None:
    """Draw the learning curve, and test scenes with what was written: the first ones, and mistakes last."""
    wrong = [i for i in range(len(right)) if written[i] != right[i]][:2]
    shown = [i for i in range(len(right)) if i not in wrong][: 6 - len(wrong)] + wrong
    with figure(path, (10, 5)) as f:
        left, gallery = f.subfigures(1, 2, width_ratios=[1, 1.9])
        axes = left.subplots()
        steps, shares = zip(*curve, strict=True)
        axes.plot(steps, shares, "o-", color=MODEL, markersize=4, label="PyTorch CNN + fastrnn")
        axes.axhline(baseline, color=BASELINE, linestyle="--", label="most frequent caption")
        axes.set(xlabel="step", ylabel="unseen scenes captioned without a mistake", ylim=(-0.03, 1.03))
        axes.set_title("Learning, both parts at once")
        axes.legend(loc="upper left")
        gallery.suptitle("Scenes it has never seen, and the captions it wrote (mistakes in orange)")
        for ax, i in zip(gallery.subplots(2, 3).flat, shown, strict=True):
            ax.imshow(images[i, 0], cmap="gray_r")
            ax.set(xticks=[], yticks=[])
            good = written[i] == right[i]
            text = textwrap.fill(" ".join(written[i]), 30)
            if not good:
                text = textwrap.fill(f"“{' '.join(written[i])}” (right: {' '.join(right[i])})", 30)
            ax.set_xlabel(text, fontsize=9, color=COLOURS[0] if good else COLOURS[1])


if __name__ == "__main__":
    main()
