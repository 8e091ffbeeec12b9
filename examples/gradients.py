"""Vanishing gradients and what helps: a tanh RNN and its remedies on two tasks that need a long memory.

Adding problem (Hochreiter and Schmidhuber 1997): T random numbers, two of them marked; the answer is the sum of
those two. Copy memory (the same, and Arjovsky et al. 2016): five tokens, T blanks, then the five are to be
written again. The baselines remember nothing: they answer 1, which leaves the variance of the sum, 1/6, and
guess one token in eight.

Every remedy is one argument or one call: see METHODS. One seed each; the third panel shows the gradient before
any training, from the last step of the adding problem back to its first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from _common import COLOURS, figure, parser, report

import fastrnn
from fastrnn import Linear, init, losses, optim
from fastrnn.diagnostics import gradient_flow, plot_gradient_flow

HIDDEN, BATCH, TOKENS, COPIED = 64, 50, 8, 5


def irnn(inputs: int, seed: int) -> Any:
    """Le, Jaitly and Hinton 2015: relu, identity, small input weights."""
    layer = init.identity(fastrnn.RNN(inputs, HIDDEN, nonlinearity="relu", rng=seed))
    layer.params["weight_ih_l0"] *= 0.1
    return layer


# name: the layer, learning rate, greatest norm of the gradient (None: no clipping)
METHODS: dict[str, tuple[Callable[[int, int], Any], float, float | None]] = {
    "tanh": (lambda n, seed: fastrnn.RNN(n, HIDDEN, rng=seed), 3e-3, None),
    "tanh, clipping": (lambda n, seed: fastrnn.RNN(n, HIDDEN, rng=seed), 3e-3, 1.0),
    "tanh, orthogonal": (lambda n, seed: init.orthogonal(fastrnn.RNN(n, HIDDEN, rng=seed), seed), 3e-3, 1.0),
    "relu, identity": (irnn, 3e-3, None),
    "relu, identity, clipping": (irnn, 3e-3, 1.0),
    "LSTM": (lambda n, seed: fastrnn.LSTM(n, HIDDEN, rng=seed), 1e-2, 1.0),
    "LSTM, forget bias": (
        lambda n, seed: init.forget_bias(fastrnn.LSTM(n, HIDDEN, rng=seed), 3.0),
        1e-2,
        1.0,
    ),
    "GRU": (lambda n, seed: fastrnn.GRU(n, HIDDEN, rng=seed), 1e-2, 1.0),
}
# a colour for each kind of network; dotted: without clipping (LSTM: without forget bias), dashed: with it, solid: with
# the start of its own (LSTM: the forget bias) as well
_KINDS = (("#000000", ":"), ("#000000", "--"), ("#000000", "-"), (COLOURS[1], ":"), (COLOURS[1], "--"))
_GATED = ((COLOURS[3], ":"), (COLOURS[3], "-"), (COLOURS[2], "-"))
LOOKS = dict(zip(METHODS, _KINDS + _GATED, strict=True))


class Adding:
    """Numbers and marks [T, B, 2]; the sum, from the last step."""

    name, metric, baseline = "adding problem", "squared error", 1 / 6
    inputs, outputs, answered = 2, 1, 1

    def batch(self, rng: np.random.Generator, steps: int, rows: int) -> tuple[Any, Any]:
        x = np.zeros((steps, rows, 2), np.float32)
        x[..., 0] = rng.random((steps, rows))
        halves = rng.integers(steps // 2, size=rows), rng.integers(steps // 2, steps, size=rows)
        for marked in halves:
            x[marked, np.arange(rows), 1] = 1
        return x, (x[..., :1] * x[..., 1:]).sum(axis=0, keepdims=True)

    loss = staticmethod(losses.mse)

    def score(self, z: Any, target: Any) -> float:
        return float(np.square(z - target).mean())


class Copying:
    """One-hot tokens, blanks, and then a mark "write now" [5 + T + 5, B, 9]; the tokens again."""

    name, metric, baseline = "copy memory", "share of tokens right", 1 / TOKENS
    inputs, outputs, answered = TOKENS + 1, TOKENS, COPIED

    def batch(self, rng: np.random.Generator, steps: int, rows: int) -> tuple[Any, Any]:
        tokens = rng.integers(TOKENS, size=(COPIED, rows))
        x = np.zeros((steps + 2 * COPIED, rows, self.inputs), np.float32)
        x[:COPIED] = tokens[..., None] == np.arange(self.inputs)
        x[-COPIED:, :, TOKENS] = 1
        return x, tokens

    loss = staticmethod(losses.softmax_cross_entropy)

    def score(self, z: Any, target: Any) -> float:
        return float((z.argmax(axis=2) == target).mean())


@np.errstate(over="ignore", invalid="ignore")  # where nothing clips the gradient
def train(task: Any, method: str, steps: int, updates: int, seed: int) -> float:
    """Train one network on batches that are drawn anew each time; give its score on 1,000 other rows."""
    make, lr, clip = METHODS[method]
    layer, head = make(task.inputs, seed), Linear(HIDDEN, task.outputs, rng=seed)
    optimiser = optim.Adam([layer, head], optim.cosine(lr, updates))
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        x, target = task.batch(rng, steps, BATCH)
        y, _, tape = layer.forward(x)
        z, tape_head = head.forward(y[-task.answered :])
        loss, dz = task.loss(z, target)
        if not math.isfinite(loss):  # the weights have exploded
            break
        g_head = head.backward(tape_head, dz)
        dy = np.zeros_like(y)
        dy[-task.answered :] = g_head.x
        grads = [layer.backward(tape, dy), g_head]
        if clip is not None:
            optim.clip_grad_norm(grads, clip)
        optimiser.step(grads)
    x, target = task.batch(np.random.default_rng([seed, 1]), steps, 1000)
    return task.score(head(layer(x)[0][-task.answered :]), target)


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    lengths = {Adding: (25, 50, 100), Copying: (10, 20, 30)}
    updates = 2000
    if options.quick:
        lengths, updates = {Adding: (10, 20), Copying: (2, 5)}, 25
    fastrnn.set_num_threads(1)  # the layers are small: two trainings side by side use two cores better
    picture = options.out / "gradients.png"
    rows = []
    with figure(picture, (13, 5)) as f, ThreadPoolExecutor(os.cpu_count()) as pool:
        axes = f.subplots(1, 3)
        for kind, ax in zip(lengths, axes, strict=False):
            task: Any = kind()
            ax.axhline(task.baseline, color="gray", linestyle="--", label="remembers nothing")
            runs = {
                method: [pool.submit(train, task, method, T, updates, options.seed) for T in lengths[kind]]
                for method in METHODS
            }
            for method, results in runs.items():
                scores = [result.result() for result in results]
                print(f"{task.name}, {method}: {', '.join(f'{s:.3g}' for s in scores)}", flush=True)
                colour, style = LOOKS[method]
                ax.plot(lengths[kind], np.minimum(scores, 1), style, color=colour, marker="o", label=method)
                what = f"{task.name}, T = {lengths[kind][-1]}, {method}: {task.metric}"
                rows.append((what, scores[-1], task.baseline, "remembers nothing"))
            ax.set(title=task.name, xlabel="T", ylabel=task.metric, xticks=lengths[kind])
        axes[0].set_yscale("log")

        x, _ = Adding().batch(np.random.default_rng(options.seed), lengths[Adding][-1], BATCH)
        shown = [method for method in METHODS if "clipping" not in method or method.startswith("relu")]
        shown.remove("relu, identity")
        for method in shown:
            flow = gradient_flow(METHODS[method][0](2, options.seed), x)[0]
            plot_gradient_flow(flow / flow[-1], ax=axes[2])
            line = axes[2].lines[-1]
            line.set(color=LOOKS[method][0], linestyle=LOOKS[method][1])
        axes[2].set(title=f"gradient before training, T = {len(x)}", ylabel="|dL/dh_t| / |dL/dh_T|")
        f.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    report("gradients", rows, picture)


if __name__ == "__main__":
    main()
