"""The programs in fastrnn, with the public API and default settings.

`loss_of_linear` and `update` are the two places where every training step meets the losses and the optimiser.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastrnn
from fastrnn import Ragged, losses, optim
from programs.tasks import CHUNK, CLIP, LR, Array, Batch, Program, weights


def version() -> str:
    """Version of the installed package."""
    return str(fastrnn.__version__)


def set_num_threads(n: int) -> None:
    """Let calls use `n` threads."""
    fastrnn.set_num_threads(n)


def get_num_threads() -> int:
    """Threads that a call may use."""
    return fastrnn.get_num_threads()


def loss_of_linear(linear: Any, y: Array, targets: Array) -> tuple[float, Any]:
    """Return the cross-entropy of softmax(linear(y)), and the gradients of `linear` and of `y`."""
    return losses.linear_softmax_cross_entropy(linear, y, targets)


def update(optimiser: Any, grads: list[Any]) -> None:
    """Clip the gradients, then take a step of Adam."""
    optimiser.step(grads, clip_norm=CLIP)


class Base:
    """The modules of a program, with their initial weights; the optimiser."""

    def __init__(self, p: Program) -> None:
        recurrent = fastrnn.LSTM if p.cell == "lstm" else fastrnn.GRU
        self.modules: dict[str, Any] = {}
        for name, initial in weights(p).items():
            if name in ("rnn", "encoder"):
                module: Any = recurrent(p.E, p.H, bidirectional=p.bidirectional)
            elif name in ("embedding", "source"):
                module = fastrnn.Embedding(p.V, p.E)
            else:
                activation = "tanh" if name == "mix" else None
                module = fastrnn.Linear(*initial["weight"].shape[::-1], activation=activation)
            module.load_state_dict(initial)
            self.modules[name] = module
            setattr(self, name, module)
        self.attention = fastrnn.nn.DotAttention()
        if p.trains:
            self.adam = optim.Adam(list(self.modules.values()), lr=LR)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no module {name!r}")

    def prepare(self, batch: Batch) -> Any:
        """Lay a batch out as `step` takes it."""
        return batch

    def learn(self, **grads: Any) -> None:
        """Update all modules from their gradients."""
        update(self.adam, [grads[name] for name in self.modules])


class Language(Base):
    """Language model; the state is carried from batch to batch."""

    state: Any = None

    def step(self, batch: Batch) -> float:
        """One step of training; returns the loss."""
        e, embedding_tape = self.embedding.forward(batch["tokens"])
        y, self.state, tape = self.rnn.forward(e, self.state)
        loss, linear = loss_of_linear(self.linear, y, batch["targets"])
        rnn = self.rnn.backward(tape, linear.x)
        embedding = self.embedding.backward(embedding_tape, rnn.x)
        self.learn(embedding=embedding, rnn=rnn, linear=linear)
        return loss


class Tagger(Base):
    """A label for every token of sentences of unequal length."""

    def step(self, batch: Batch) -> float:
        """One step of training; returns the loss."""
        e, embedding_tape = self.embedding.forward(batch["tokens"])
        y, _, tape = self.rnn.forward(Ragged(e, batch["lengths"]))
        loss, linear = loss_of_linear(self.linear, y.values, batch["targets"])
        rnn = self.rnn.backward(tape, Ragged(linear.x, batch["lengths"]))
        embedding = self.embedding.backward(embedding_tape, rnn.x.values)
        self.learn(embedding=embedding, rnn=rnn, linear=linear)
        return loss


class Classifier(Base):
    """A label for every sentence, from the last states of both directions."""

    def step(self, batch: Batch) -> float:
        """One step of training; returns the loss."""
        e, embedding_tape = self.embedding.forward(batch["tokens"])
        _, (h, _), tape = self.rnn.forward(Ragged(e, batch["lengths"]))
        loss, linear = loss_of_linear(self.linear, np.concatenate(list(h), axis=1), batch["targets"])
        dh = np.stack(np.split(linear.x, 2, axis=1))
        rnn = self.rnn.backward(tape, dstate=(dh, None))
        embedding = self.embedding.backward(embedding_tape, rnn.x.values)
        self.learn(embedding=embedding, rnn=rnn, linear=linear)
        return loss


class Forecaster(Base):
    """The next values of a series, from a window of it."""

    def step(self, batch: Batch) -> float:
        """One step of training; returns the loss."""
        y, _, tape = self.rnn.forward(batch["x"])
        prediction, linear_tape = self.linear.forward(y[-1])
        loss, dprediction = losses.mse(prediction, batch["targets"])
        linear = self.linear.backward(linear_tape, dprediction)
        rnn = self.rnn.backward(tape, dy_last=linear.x, need_dx=False)
        self.learn(rnn=rnn, linear=linear)
        return loss


class Translation(Base):
    """Encoder and decoder with dot attention (Luong et al. 2015) and teacher forcing."""

    def step(self, batch: Batch) -> float:
        """One step of training; returns the loss."""
        source, source_tape = self.source.forward(batch["source"])
        memory, state, encoder_tape = self.encoder.forward(source)
        e, embedding_tape = self.embedding.forward(batch["tokens"])
        query, _, tape = self.rnn.forward(e, state)
        context, attention_tape = self.attention.forward(query, memory)
        mixed, mix_tape = self.mix.forward(np.concatenate([context, query], axis=2))
        loss, linear = loss_of_linear(self.linear, mixed, batch["targets"])

        mix = self.mix.backward(mix_tape, linear.x)
        dcontext, dquery = np.split(mix.x, 2, axis=2)
        from_attention, dmemory = self.attention.backward(attention_tape, dcontext).x
        rnn = self.rnn.backward(tape, dquery + from_attention)
        embedding = self.embedding.backward(embedding_tape, rnn.x)
        encoder = self.encoder.backward(encoder_tape, dmemory, rnn.state)
        source_grads = self.source.backward(source_tape, encoder.x)
        self.learn(source=source_grads, encoder=encoder, embedding=embedding, rnn=rnn, mix=mix, linear=linear)
        return loss


class Policy(Base):
    """Policy and value over rollouts in which episodes begin anywhere."""

    def step(self, batch: Batch) -> float:
        """One step of training; returns the loss."""
        y, _, tape = self.rnn.forward(batch["x"], reset=batch["reset"])
        logits, policy_tape = self.linear.forward(y)
        value, value_tape = self.value.forward(y)
        policy_loss, dlogits = policy_gradient(logits, batch["targets"], batch["advantages"])
        value_loss, dvalue = losses.mse(value, batch["returns"])
        linear = self.linear.backward(policy_tape, dlogits)
        head = self.value.backward(value_tape, 0.5 * dvalue)
        rnn = self.rnn.backward(tape, linear.x + head.x, need_dx=False)
        self.learn(rnn=rnn, linear=linear, value=head)
        return policy_loss + 0.5 * value_loss


def policy_gradient(logits: Array, actions: Array, advantages: Array) -> tuple[float, Array]:
    """Return the mean of -advantage * log p(action), and its gradient with respect to `logits`."""
    log_p = losses.log_softmax(logits)
    at = actions[..., None]
    loss = -float((advantages * np.take_along_axis(log_p, at, -1)[..., 0]).mean())
    d = np.exp(log_p)
    np.put_along_axis(d, at, np.take_along_axis(d, at, -1) - 1, -1)
    d *= advantages[..., None] / advantages.size
    return loss, d


class Stream(Base):
    """Is this frame speech? One frame after the other, the state carried."""

    def __init__(self, p: Program) -> None:
        super().__init__(p)
        self.stream = self.rnn.stream(1)

    def step(self, batch: Batch) -> float:
        """Take all frames; returns the mean probability."""
        total = 0.0
        for frame in batch["x"]:
            logit = self.linear(self.stream.step(frame))
            total += float(1 / (1 + np.exp(-logit[0, 0])))
        return total / len(batch["x"])


class Predict(Base):
    """Class probabilities of many sentences, in batches of similar length."""

    def __init__(self, p: Program) -> None:
        super().__init__(p)
        self.rnn.freeze()

    def prepare(self, batch: Batch) -> Any:
        """A list of sentences, as a user has them."""
        return np.split(batch["tokens"], np.cumsum(batch["lengths"])[:-1])

    def step(self, sentences: list[Array]) -> float:
        """Predict; returns the mean probability of the first class."""
        found: Any = np.empty((len(sentences), self.linear.out_features), np.float32)
        order = np.argsort([len(sentence) for sentence in sentences])
        for start in range(0, len(order), CHUNK):
            part = order[start : start + CHUNK]
            rows = [sentences[i] for i in part]
            x = Ragged(self.embedding(np.concatenate(rows)), [len(row) for row in rows])
            _, (h, _) = self.rnn(x)
            found[part] = np.exp(losses.log_softmax(self.linear(np.concatenate(list(h), axis=1))))
        return float(found[:, 0].mean())


TASKS: dict[str, Any] = {
    "language": Language,
    "tagger": Tagger,
    "classifier": Classifier,
    "forecaster": Forecaster,
    "translation": Translation,
    "policy": Policy,
    "vad": Stream,
    "predict": Predict,
}
