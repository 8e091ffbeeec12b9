"""One sequence of 200,000 steps, trained on as a whole with checkpointed BPTT.

A made-up log of a web shop (the generator is below): after "login" every page view follows from the one before,
as a Markov chain would have it, but the end of each visit depends on its beginning: the visitor pays in the way
chosen at the start, 10 to 40 steps earlier. No count of the last k pages can know that. Beyond it, the
shop changes its front page every 2,000 or so steps.

Few updates would be a poor way to learn the simple things, so training begins with the log cut into 50 streams
side by side (truncated BPTT, 100 steps, state carried on). Then the network reads the log as one row [200000, 1]
and the gradient goes through all of it: `layer.forward(x, checkpoint="auto")` keeps a state every sqrt(T) steps
and computes the rest again. Baseline: Markov models of order 0 to 6 with interpolated counts (each order mixed with
the one below), the order chosen on held-out steps.

What it learns, and what not: it learns which front page is shown, seen some dozens of steps before. It does not learn
the payment, which stays at chance (ln 4 = 1.386 nats), and the few updates through the whole log change nothing that
can be measured: here they show what a long tape costs, not that it is needed. The tape does not count the hidden
states y, 38 MB, which exist either way.

    python examples/weblog.py
"""

from __future__ import annotations

import resource
from collections import Counter, defaultdict
from typing import Any

import numpy as np
from _common import BASELINE, MODEL, figure, parser, report
from numpy.typing import NDArray
from tqdm import trange

import fastrnn
from fastrnn import init
from fastrnn.losses import log_softmax, softmax_cross_entropy
from fastrnn.nn import Embedding, Linear
from fastrnn.optim import Adam, clip_grad_norm, cosine

METHODS = ["card", "invoice", "voucher", "transfer"]  # chosen when a visit begins, used when it ends
PAGES = ["home_A", "home_B", "search", "list", "item", "photos", "reviews", "basket"]
TOKENS = ["login", *(f"as_{m}" for m in METHODS), *PAGES, "checkout", *(f"pay_{m}" for m in METHODS)]
AFTER = {  # page -> the next ones; "home" is home_A or home_B, whichever the shop shows now
    "home": ["search", "search", "list"],
    "search": ["list", "list", "item"],
    "list": ["item", "item", "search", "list"],
    "item": ["photos", "reviews", "basket", "list"],
    "photos": ["item", "reviews"],
    "reviews": ["item", "basket", "home"],
    "basket": ["list", "home", "search"],
}


def log(steps: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Write a log of so many steps."""
    out: list[str] = []
    front, until = "home_A", 0
    while len(out) < steps:
        method = rng.choice(METHODS)
        out += ["login", f"as_{method}"]
        page = "home"
        for _ in range(rng.integers(10, 40)):
            if len(out) >= until:  # the front page changes
                front, until = (
                    ("home_B" if front == "home_A" else "home_A"),
                    len(out) + rng.integers(1500, 2500),
                )
            out.append(front if page == "home" else page)
            page = rng.choice(AFTER[page])
        out += ["checkout", f"pay_{method}"]
    return np.array([TOKENS.index(s) for s in out[:steps]])


def markov(train: NDArray[np.intp], test: NDArray[np.intp], order: int) -> NDArray[np.float64]:
    """Return the nats of each test token: p_k(s | last k) = (count + a * p_(k-1)(s | last k-1)) / (total + a)."""
    weight, p = 4.0, np.full(len(test), 1 / len(TOKENS))
    for k in range(order + 1):
        counts: dict[Any, Counter[int]] = defaultdict(Counter)
        text = train.tolist()
        for i in range(k, len(text)):
            counts[tuple(text[i - k : i])][text[i]] += 1
        totals = {context: sum(c.values()) for context, c in counts.items()}
        text = test.tolist()
        for i in range(k, len(text)):
            context = tuple(text[i - k : i])
            p[i] = (counts[context][text[i]] + weight * p[i]) / (totals.get(context, 0) + weight)
    return -np.log(p)


def memory() -> float:
    """Return the most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = parser(__doc__).parse_args()
    steps, epochs, updates = (10_000, 2, 2) if options.quick else (200_000, 60, 8)
    rng = np.random.default_rng(options.seed)
    train, held, test = log(steps, rng), log(steps // 10, rng), log(steps // 10, rng)

    embedding = Embedding(len(TOKENS), 16, rng=rng)
    lstm = fastrnn.LSTM(16, 48, rng=rng)
    init.forget_bias(lstm)
    head = Linear(48, len(TOKENS), rng=rng)
    modules = [embedding, lstm, head]

    def nats(x: NDArray[np.intp]) -> NDArray[np.float64]:
        h, _ = lstm(embedding(x[:-1, None]))
        return -log_softmax(head(h[:, 0]))[np.arange(len(x) - 1), x[1:]].astype(np.float64)

    def gradients(x: Any, y: Any, state: Any = None, **options: Any) -> tuple[float, list[Any], Any, int]:
        """Return the loss, the gradients of the modules, the state after x, and the bytes of the LSTM's tape."""
        e, tape_e = embedding.forward(x)
        h, state, tape_h = lstm.forward(e, state, **options)
        kept = tape_h.nbytes
        z, tape_z = head.forward(h)
        loss, dz = softmax_cross_entropy(z, y)
        g_head = head.backward(tape_z, dz)
        g_lstm = lstm.backward(tape_h, g_head.x)
        return loss, [embedding.backward(tape_e, g_lstm.x), g_lstm, g_head], state, kept

    def update(optimiser: Adam, grads: list[Any]) -> None:
        clip_grad_norm(grads, 1.0)
        optimiser.step(grads)

    lanes, reach = 50, 100
    streams = train[: len(train) // lanes * lanes].reshape(lanes, -1).T  # [T / 50, 50]
    starts = range(0, len(streams) - 1, reach)
    optimiser = Adam(modules, lr=cosine(0.01, epochs * len(starts)))
    history = []
    for _ in trange(epochs, desc="cut into 50 streams"):
        state, losses = None, []
        for t in starts:
            x = streams[t : t + reach + 1]
            loss, grads, state, _ = gradients(x[:-1], x[1:], state)
            update(optimiser, grads)
            losses.append(loss)
        history.append(float(np.mean(losses)))
    streamed = nats(test).mean()

    optimiser, kept = Adam(modules, lr=cosine(1e-3, updates)), 0
    for _ in trange(updates, desc=f"one row of {steps:,}"):
        loss, grads, _, kept = gradients(train[:-1, None], train[1:, None], checkpoint="auto")
        update(optimiser, grads)
        history.append(loss)
    peak = memory()
    whole = lstm.forward(embedding(train[:-1, None]))[2].nbytes  # the tape without checkpoints

    mine = nats(test)
    best = min(range(7), key=lambda k: markov(train, held, k).mean())
    base = markov(train, test, best)[1:]
    pays = np.array([TOKENS[s].startswith("pay_") for s in test[1:]])
    homes = np.array([TOKENS[s].startswith("home_") for s in test[1:]])
    what = f"Markov, order {best}"
    rows: list[tuple[Any, ...]] = [("nats a step", mine.mean(), base.mean(), what)]
    rows += [("nats, how the visitor pays", mine[pays].mean(), base[pays].mean(), what)]
    rows += [("nats, which front page", mine[homes].mean(), base[homes].mean(), what)]
    rows += [("nats a step before the whole-log updates", streamed, base.mean(), what)]
    rows += [("tape of the LSTM, MB", kept / 1e6, whole / 1e6, "without checkpoints")]
    rows += [("peak memory of the process, MB", peak, None)]

    picture = options.out / "weblog.png"
    with figure(picture, size=(10, 3.8)) as f:
        axes = f.subplots(1, 3, width_ratios=[1.2, 1.2, 0.7])
        passes = np.arange(1, len(history) + 1)
        axes[0].plot(passes, history, color=MODEL, label="LSTM, training log")
        axes[0].axhline(base.mean(), color=BASELINE, ls="--", label=f"{what}, new log")
        axes[0].plot(passes[-1], mine.mean(), "o", color=MODEL, label="LSTM, new log")
        axes[0].axvspan(epochs + 0.5, len(history) + 0.5, color=MODEL, alpha=0.12, lw=0)
        axes[0].text(epochs, max(history), f"as one row\nof {steps:,}", va="top", ha="right")
        axes[0].set(xlabel="passes over the log", ylabel="nats a step")
        axes[0].set_title("Training")
        axes[0].legend(frameon=False, loc="center")
        values = [(mine[m].mean(), base[m].mean()) for m in (pays, homes)]
        for shift, column, colour, name in ((-0.2, 0, MODEL, "LSTM"), (0.2, 1, BASELINE, what)):
            axes[1].bar(np.arange(2) + shift, [v[column] for v in values], 0.4, color=colour, label=name)
        axes[1].axhline(np.log(4), color="black", lw=0.8, ls=":", label="a guess among four")
        names = ["payment\n(10 to 40 steps\nback)", "front page\n(the same for\n2,000 steps)"]
        axes[1].set(xticks=range(2), xticklabels=names, ylabel="nats on a new log")
        axes[1].set_title("What the last few pages do not tell")
        axes[1].set_ylim(0, 1.6 * max(max(v) for v in values))
        axes[1].legend(frameon=False, loc="upper right", fontsize=9)
        bars = axes[2].bar(
            ["every\nstep", "check-\npoints"], [whole / 1e6, kept / 1e6], color=[BASELINE, MODEL]
        )
        axes[2].bar_label(bars, labels=[f"{whole / 1e6:.3g}", f"{kept / 1e6:.2g}"])
        axes[2].set(ylabel="tape of the LSTM (MB), log scale", title="Memory", yscale="log")
        axes[2].set_ylim(kept / 2e6, whole / 2e5)
    report("weblog", rows, picture)


if __name__ == "__main__":
    main()
