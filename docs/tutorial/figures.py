"""Draws the figures of the tutorial, each from what the code of its page has computed.

python docs/tutorial/figures.py          all of them
python docs/tutorial/figures.py 05 06    those of some pages

One style for all: colours that colour-blind readers can tell apart (Okabe and Ito 2008), baselines in gray, labels
beside what they name instead of legends, units on the axes, 700 pixels wide.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLUE, ORANGE, GREEN, PURPLE, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
INK, GRAY, LIGHT = "#222222", "#767676", "#dddddd"
STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "lines.linewidth": 1.8,
}

Known = dict[str, Any]


def label(ax: Any, x: float, y: float, text: str, color: str = INK, **options: Any) -> None:
    """Write beside a line what it is, on a white ground."""
    options = {"va": "center", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8}} | options
    ax.text(x, y, text, color=color, **options)


def sequences(known: Known, figure: Any) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    words = known["words"]
    longest = max(map(len, words))
    for row, word in enumerate(words):
        for column in range(longest):
            inside = column < len(word)
            left.add_patch(_box(column, row, BLUE if inside else LIGHT))
            left.text(
                column + 0.5,
                row + 0.5,
                word[column] if inside else "",
                ha="center",
                va="center",
                color="white",
            )
    left.set(
        xlim=(0, longest),
        ylim=(len(words), 0),
        title=f"padded: {longest * len(words)} places, {sum(map(len, words))} letters",
    )
    per_row = 15
    for i, (letter, word) in enumerate((c, n) for n, w in enumerate(words) for c in w):
        row, column = divmod(i, per_row)
        right.add_patch(_box(column, 1.6 * row + 1, BLUE if word % 2 == 0 else VERMILION))
        right.text(column + 0.5, 1.6 * row + 1.5, letter, ha="center", va="center", color="white")
    right.set(
        xlim=(0, per_row),
        ylim=(len(words), 0),
        title=f"Ragged: {sum(map(len, words))} places, and the lengths",
    )
    for ax in (left, right):
        ax.set_axis_off()
        ax.set_aspect("equal")


def _box(x: float, y: float, color: str, width: float = 1, height: float = 1, **options: Any) -> Any:
    from matplotlib.patches import FancyBboxPatch

    style = f"round,pad=-0.06,rounding_size={min(width, height) * 0.12}"
    return FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=color, edgecolor="none", **options)


def order(known: Known, figure: Any) -> None:
    ax = figure.subplots()
    names = ["bag of words", "one-hot at fixed places", "recurrent network"]
    values = [known["of_bag"], known["of_places"], known["of_network"]]
    for row, (pair, color) in enumerate(zip(values, (GRAY, GRAY, BLUE), strict=True)):
        for part, value in enumerate(pair):
            y = row + 0.36 * part
            ax.barh(y, value, 0.32, color=color, alpha=1 if part else 0.55)
            label(ax, value + 0.015, y, f"{value:.0%}  {'longer sentences' if part else 'as in training'}")
    ax.axvline(0.5, color=INK, linewidth=1, linestyle=":", zorder=0)
    label(ax, 0.5, -0.42, "chance", ha="center")
    ax.set(
        yticks=np.arange(3) + 0.18, yticklabels=names, xlim=(0, 1.45), ylim=(2.7, -0.6), xticks=[0, 0.5, 1]
    )
    ax.set(xticklabels=["0 %", "50 %", "100 %"], xlabel="share of right answers")
    ax.tick_params("y", length=0, labelcolor=INK)


def _arrow(
    ax: Any, start: tuple[float, float], stop: tuple[float, float], color: str = INK, **options: Any
) -> None:
    ax.annotate(
        "", stop, start, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.4, **options}
    )


def unrolling(known: Known, figure: Any) -> None:
    ax = figure.subplots()
    ax.add_patch(_box(0, 1, BLUE, 1.3, 1))
    ax.text(0.65, 1.5, "cell", color="white", ha="center", va="center")
    ax.annotate(
        "", (1.22, 1.25), (1.22, 1.75),
        arrowprops={"arrowstyle": "-|>", "color": VERMILION, "connectionstyle": "arc3,rad=-2.2", "linewidth": 1.4},
    )  # fmt: skip
    ax.text(0.65, 0.02, r"$x_t$", ha="center")
    _arrow(ax, (0.65, 0.35), (0.65, 1.0))
    ax.text(0.65, 3.05, r"$h_t$", ha="center")
    _arrow(ax, (0.65, 2.0), (0.65, 2.95))
    ax.text(2.3, 2.2, "is", ha="center", va="center", fontsize=12)
    for step in range(4):
        x = 3.4 + 2.1 * step
        ax.add_patch(_box(x, 1, BLUE, 1.3, 1))
        ax.text(x + 0.65, 1.5, r"$W,\,R,\,b$", color="white", ha="center", va="center")
        ax.text(x + 0.65, 0.02, f"$x_{step + 1}$", ha="center")
        ax.text(x + 0.65, 3.05, f"$h_{step + 1}$", ha="center")
        _arrow(ax, (x + 0.65, 0.35), (x + 0.65, 1.0))
        _arrow(ax, (x + 0.65, 2.0), (x + 0.65, 2.95))
        _arrow(ax, (x - 0.75, 1.5), (x + 0.02, 1.5), VERMILION)
        if step:
            ax.text(x - 0.4, 1.68, f"$h_{step}$", ha="center", color=VERMILION)
    ax.text(2.62, 1.68, r"$h_0=0$", ha="left", color=VERMILION)
    _arrow(ax, (11.0, 1.5), (11.7, 1.5), VERMILION)
    ax.text(7.2, -0.75, "the same weights at every step", ha="center", color=GRAY)
    ax.set(xlim=(-0.9, 11.8), ylim=(-1, 3.5))
    ax.set_axis_off()


def inputs_and_outputs(known: Known, figure: Any) -> None:
    forms = [
        ("many to one", [0, 1, 2], [2], 3),
        ("one to many", [0], [0, 1, 2], 3),
        ("aligned", [0, 1, 2], [0, 1, 2], 3),
        ("delayed", [0, 1, 2], [1, 2, 3], 4),
        ("encoder, decoder", [0, 1, 2], [3, 4], 5),
    ]
    ax = figure.subplots()
    x = 0.0
    for title, inputs, outputs, steps in forms:
        ax.text(x + steps / 2, 3.5, title, ha="center", va="bottom", fontsize=9.5)
        for step in range(steps):
            ax.add_patch(
                _box(x + step, 1, PURPLE if title.startswith("enc") and step > 2 else BLUE, 0.9, 0.9)
            )
            if step:
                _arrow(ax, (x + step - 0.16, 1.45), (x + step + 0.08, 1.45), VERMILION, mutation_scale=8)
            if step in inputs:
                _arrow(ax, (x + step + 0.45, 0.3), (x + step + 0.45, 1.02))
            if step in outputs:
                _arrow(ax, (x + step + 0.45, 1.9), (x + step + 0.45, 2.65), GREEN)
        x += steps + 0.9
    ax.text(-0.5, 0.1, "inputs", va="center", ha="left", color=INK, fontsize=9)
    ax.text(-0.5, 2.95, "outputs that the loss reads", va="center", ha="left", color=GREEN, fontsize=9)
    ax.set(xlim=(-0.6, x - 0.6), ylim=(-0.2, 4.1))
    ax.set_axis_off()


def expressive_power(known: Known, figure: Any) -> None:
    from matplotlib.colors import ListedColormap

    ax = figure.subplots()
    cells = known["cells"]
    symbols = known["tape"][:, :cells].T
    heads = known["tape"][:, cells:].reshape(len(symbols.T), cells, -1).sum(axis=2).T
    ax.pcolormesh(
        np.arange(symbols.shape[1] + 1) + 0.5, np.arange(cells + 1), symbols + 2 * (heads > 0),
        cmap=ListedColormap(["#f2f2f2", BLUE, ORANGE, ORANGE]), vmin=-0.5, vmax=3.5,
        edgecolors="white", linewidth=0.5,
    )  # fmt: skip
    ax.axvline(107.5, color=INK, linewidth=1, linestyle=":")
    ax.text(108.5, cells + 0.3, "halts", va="bottom")
    label(ax, 3, 2.6, "a one", BLUE)
    label(ax, 3, 4.4, "the head", VERMILION)
    ax.set(xlabel="step", ylabel="cell of the tape", yticks=[])


def gradient_problem(known: Known, figure: Any) -> None:
    ax = figure.subplots()
    steps = np.arange(1, len(known["norms"]) + 1)
    lines = [(known["norms"], GRAY, "default weights")]
    lines += [
        (flow, color, f"orthogonal × {factor}")
        for (factor, flow), color in zip(known["flows"].items(), (GREEN, BLUE, VERMILION), strict=True)
    ]
    for flow, color, text in lines:
        ax.plot(steps, flow, color=color)
        label(ax, 0.5, flow[0], text, color, ha="right")
    ax.set(
        yscale="log",
        xlabel="step t",
        ylabel="size of the gradient ∂L/∂h at step t",
        xlim=(-18, 62),
        xticks=[1, 20, 40, 60],
    )
    ax.annotate(
        "BPTT goes this way", (38, 2e-9), (56, 2e-9), ha="right", va="center",
        arrowprops={"arrowstyle": "-|>", "color": INK},
    ).set_position((60, 2e-9))  # fmt: skip


def remedies(known: Known, figure: Any) -> None:
    ax = figure.subplots()
    colors = [GRAY, ORANGE, PURPLE, GREEN, BLUE]
    ends = {}
    for (name, curve), color in zip(known["curves"].items(), colors, strict=True):
        smooth = np.convolve(curve, np.ones(15) / 15, mode="valid")
        ax.plot(np.arange(len(smooth)) + 15, smooth, color=color)
        ends[name] = (smooth[-1], color)
    places = _apart([value for value, _ in ends.values()], 0.055)
    for (name, (_, color)), y in zip(ends.items(), places, strict=True):
        label(ax, 203, y, name, color)
    ax.axhline(0.5, color=INK, linewidth=1, linestyle=":")
    label(ax, 15, 0.475, "chance")
    ax.set(xlim=(0, 265), ylim=(0.4, 1.08), xticks=[0, 50, 100, 150, 200], yticks=[0.5, 0.75, 1])
    ax.set(
        yticklabels=["50 %", "75 %", "100 %"], xlabel="updates", ylabel="right answers (mean of 15 updates)"
    )


def _apart(values: list[float], distance: float) -> list[float]:
    """Return places for labels, in order of the values and at least a distance apart."""
    order = np.argsort(values)
    placed = np.array(values, float)[order]
    for _ in range(200):
        gaps = np.diff(placed)
        for i in np.flatnonzero(gaps < distance - 1e-9):
            push = (distance - (placed[i + 1] - placed[i])) / 2
            placed[i] -= push
            placed[i + 1] += push
    out = np.empty(len(values))
    out[order] = placed
    return out.tolist()


def gates(known: Known, figure: Any) -> None:
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1, 1.2])
    steps = np.arange(1, 41)
    stored = known["signal"] > 0
    top.bar(steps, known["values"], color=np.where(stored, VERMILION, LIGHT).tolist())
    top.set(ylabel="value", ylim=(-1, 1))
    label(top, steps[stored][0] + 1, -0.8, "store this", VERMILION)
    i, f, _, _ = known["gates"].T
    middle.plot(steps, i, color=GREEN, drawstyle="steps-mid")
    middle.plot(steps, f, color=PURPLE, drawstyle="steps-mid")
    label(middle, 41, f[-1], "forget gate", PURPLE)
    label(middle, 41, i[-1], "input gate", GREEN)
    middle.set(ylabel="gates", ylim=(-0.1, 1.1))
    bottom.plot(steps, known["cells"], color=BLUE, drawstyle="steps-mid")
    bottom.plot(steps[stored], np.tanh(known["values"][stored]), "o", color=VERMILION, markersize=5)
    label(bottom, 41, known["cells"][-1], "cell state", BLUE)
    bottom.set(ylabel="c", xlabel="step", ylim=(-1, 1), xlim=(0, 49), xticks=[1, 10, 20, 30, 40])


def language_model(known: Known, figure: Any) -> None:
    ax = figure.subplots()
    epochs = np.arange(1, len(known["curve"]) + 1)
    for length, value in known["baselines"].items():
        ax.axhline(value, color=LIGHT, linewidth=1.4)
        text = f"counts, {length} character{'s' * (length != 1)} of context"
        label(ax, epochs[-1] + 0.15, value, text, GRAY)
    ax.plot(epochs, known["curve"], "o-", color=BLUE, markersize=4)
    label(ax, epochs[0] + 0.12, known["curve"][0], "network", BLUE, va="bottom")
    ax.set(
        xlabel="passes over the text",
        ylabel="perplexity on unseen text",
        xlim=(0.8, epochs[-1] + 2.9),
        xticks=epochs,
    )
    ax.set_ylim(0, known["baselines"][0] * 1.08)


def forecasting(known: Known, figure: Any) -> None:
    ax = figure.subplots()
    horizon, shown = known["horizon"], 72
    start = known["start"]  # the last one of the backtest
    past, future = known["load"][start - shown : start], known["truth"]
    naive, forecast = known["naive"](start), known["network"](start)
    before, after = np.arange(-shown, 0) + 1, np.arange(horizon) + 1
    ax.fill_between(after, known["low"], known["high"], color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(before, past, color=INK, linewidth=1.2)
    ax.plot(np.r_[0, after], np.r_[past[-1], future], color=INK, linewidth=1.2)
    ax.plot(after, naive, color=GRAY, linestyle="--", linewidth=1.4)
    ax.plot(after, forecast, color=BLUE)
    ax.axvline(0.5, color=GRAY, linewidth=1, linestyle=":")
    ends = [("true", future[-1], INK), ("forecast", forecast[-1], BLUE), ("naive", naive[-1], GRAY)]
    low, high = min(past.min(), known["low"].min()), max(past.max(), known["high"].max())
    for (text, _, color), y in zip(ends, _apart([e[1] for e in ends], (high - low) * 0.075), strict=True):
        label(ax, horizon + 1.5, y, text, color)
    label(ax, horizon * 0.28, high + 2, "shaded: 90 % interval", BLUE, ha="center")
    ax.set(
        xlabel="hours from the last known value",
        ylabel="load",
        xticks=range(-72, 49, 24),
        xlim=(-73, horizon + 16),
    )
    ax.set_ylim(low - 3, high + 6)


def sentiment(known: Known, figure: Any) -> None:
    axes = figure.subplots(1, 2, width_ratios=[5, 10])
    for ax, text in zip(axes, known["shown"], strict=True):
        p = known["opinions"](text)
        ax.axhline(0.5, color=GRAY, linewidth=1, linestyle=":")
        ax.plot(range(len(text)), p, "o-", color=BLUE, markersize=5)
        ax.set(xticks=range(len(text)), ylim=(-0.05, 1.05), xlim=(-0.4, len(text) - 0.6), yticks=[0, 0.5, 1])
        ax.set_xticklabels(text, rotation=50, ha="right", rotation_mode="anchor", color=INK)
        ax.set_yticklabels(["against", "undecided", "in favour"] if ax is axes[0] else [])


def translation(known: Known, figure: Any) -> None:
    ax = figure.subplots()
    weights = known["weights"]
    image = ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*weights.shape):
        if weights[row, column] >= 0.05:
            color = "white" if weights[row, column] > 0.5 else INK
            ax.text(
                column, row, f"{weights[row, column]:.2f}", ha="center", va="center", color=color, fontsize=9
            )
    ax.set(xticks=range(len(known["source"])), yticks=range(len(known["written"])))
    ax.set_xticklabels(known["source"], color=INK)
    ax.set_yticklabels(known["written"], color=INK)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set(xlabel="read", ylabel="written")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, label="attention weight")


def captions(known: Known, figure: Any) -> None:
    images, right = known["test_images"], known["test_captions"]
    known = known["shown"]
    for ax, i, text in zip(figure.subplots(1, 4), range(4), known, strict=True):
        ax.imshow(images[i], cmap="gray_r")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
        good = text == right[i]
        words = " ".join(text).replace(" above", "\nabove")
        ax.set_xlabel(words if good else f"{words}\n(wrong)", color=INK if good else VERMILION)


FIGURES: dict[str, tuple[Callable[[Known, Any], None], float]] = {
    "01-sequences": (sequences, 2.6),
    "02-order": (order, 2.8),
    "03-unrolling": (unrolling, 2.6),
    "04-inputs-and-outputs": (inputs_and_outputs, 2.0),
    "05-expressive-power": (expressive_power, 2.8),
    "06-gradient-problem": (gradient_problem, 3.4),
    "07-remedies": (remedies, 3.4),
    "08-lstm-and-gru": (gates, 4.0),
    "09-language-model": (language_model, 3.4),
    "10-forecasting": (forecasting, 3.4),
    "11-sentiment": (sentiment, 3.0),
    "12-translation": (translation, 3.4),
    "13-captions": (captions, 2.5),
}


def draw(page: str, known: Known, folder: Path) -> Path:
    """Draw the figure of a page from the names that its code has defined; return the picture's path."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    function, height = FIGURES[page]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, height), layout="constrained", dpi=100)
        FigureCanvasAgg(figure)
        function(known, figure)
        path = folder / f"{page}.png"
        figure.savefig(path, metadata={"Software": None})
    return path


def lesson(page: Path) -> str:
    """Return the code of a page up to the exercise: what its figure shows."""
    return "\n".join(CODE.findall(page.read_text().partition("## Exercise")[0]))


def main() -> None:
    for page in sorted(HERE.glob("[0-9]*.md")):
        if not sys.argv[1:] or page.stem[:2] in sys.argv[1:]:
            known: Known = {}
            exec(compile(lesson(page), page.name, "exec"), known)
            path = draw(page.stem, known, HERE / "figures")
            print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
