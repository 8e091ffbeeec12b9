"""The programs in PyTorch, as its examples write them, with default settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from programs.tasks import CHUNK, CLIP, LR, Array, Batch, Program, weights

IGNORED = -100  # the target of padding


def version() -> str:
    """Version of the installed package."""
    return str(torch.__version__)


def set_num_threads(n: int) -> None:
    """Let PyTorch use `n` threads."""
    torch.set_num_threads(n)


def get_num_threads() -> int:
    """Threads that PyTorch may use."""
    return torch.get_num_threads()


class Base(nn.Module):
    """The modules of a program, with their initial weights; the optimiser."""

    batch_first = False
    cells = False  # the loop over time is the program's own

    def __init__(self, p: Program) -> None:
        super().__init__()
        recurrent = nn.LSTM if p.cell == "lstm" else nn.GRU
        for name, initial in weights(p).items():
            if self.cells and name == "rnn":
                module: Any = nn.LSTMCell(p.E, p.H)
                initial = {key.removesuffix("_l0"): value for key, value in initial.items()}
            elif name in ("rnn", "encoder"):
                module = recurrent(p.E, p.H, bidirectional=p.bidirectional, batch_first=self.batch_first)
            elif name in ("embedding", "source"):
                module = nn.Embedding(p.V, p.E)
            else:
                module = nn.Linear(*initial["weight"].shape[::-1])
            module.load_state_dict({key: torch.from_numpy(value) for key, value in initial.items()})
            self.add_module(name, module)
        if p.trains:
            self.adam = torch.optim.Adam(self.parameters(), lr=LR)

    def prepare(self, batch: Batch) -> Any:
        """Lay a batch out as `step` takes it."""
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    def learn(self, loss: Tensor) -> float:
        """Gradients, clipping and Adam; returns the loss."""
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.adam.step()
        return loss.item()


class Language(Base):
    """Language model; the state is carried from batch to batch."""

    state: Any = None

    def step(self, batch: dict[str, Tensor]) -> float:
        """One step of training; returns the loss."""
        if self.state is not None:
            state = self.state
            self.state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        y, self.state = self.rnn(self.embedding(batch["tokens"]), self.state)
        logits = self.linear(y)
        return self.learn(F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten()))


class Sentences(Base):
    """Batches of sentences, padded."""

    batch_first = True

    def prepare(self, batch: Batch) -> Any:
        """Pad tokens, and targets where every token has one."""
        found = super().prepare(batch)
        sizes = batch["lengths"].tolist()
        found["tokens"] = pad_sequence(found["tokens"].split(sizes), batch_first=True)
        if len(batch["targets"]) != len(sizes):
            found["targets"] = pad_sequence(found["targets"].split(sizes), True, IGNORED)
        return found

    def packed(self, tokens: Tensor, lengths: Tensor) -> Any:
        """Look the tokens up and pack them."""
        return pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)


class Tagger(Sentences):
    """A label for every token of sentences of unequal length."""

    def step(self, batch: dict[str, Tensor]) -> float:
        """One step of training; returns the loss."""
        y, _ = self.rnn(self.packed(batch["tokens"], batch["lengths"]))
        y, _ = pad_packed_sequence(y, batch_first=True)
        logits = self.linear(y).flatten(0, 1)
        return self.learn(F.cross_entropy(logits, batch["targets"].flatten(), ignore_index=IGNORED))


class Classifier(Sentences):
    """A label for every sentence, from the last states of both directions."""

    def step(self, batch: dict[str, Tensor]) -> float:
        """One step of training; returns the loss."""
        _, (h, _) = self.rnn(self.packed(batch["tokens"], batch["lengths"]))
        logits = self.linear(torch.cat([h[0], h[1]], dim=1))
        return self.learn(F.cross_entropy(logits, batch["targets"]))


class Forecaster(Base):
    """The next values of a series, from a window of it."""

    def step(self, batch: dict[str, Tensor]) -> float:
        """One step of training; returns the loss."""
        y, _ = self.rnn(batch["x"])
        return self.learn(F.mse_loss(self.linear(y[-1]), batch["targets"]))


class Translation(Base):
    """Encoder and decoder with dot attention (Luong et al. 2015) and teacher forcing."""

    def step(self, batch: dict[str, Tensor]) -> float:
        """One step of training; returns the loss."""
        memory, state = self.encoder(self.source(batch["source"]))
        query, _ = self.rnn(self.embedding(batch["tokens"]), state)
        scores = torch.bmm(query.transpose(0, 1), memory.permute(1, 2, 0))  # [B, T, S]
        context = torch.bmm(scores.softmax(dim=2), memory.transpose(0, 1)).transpose(0, 1)
        mixed = torch.tanh(self.mix(torch.cat([context, query], dim=2)))
        logits = self.linear(mixed)
        return self.learn(F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten()))


class Policy(Base):
    """Policy and value over rollouts in which episodes begin anywhere.

    The loop over time is that of CleanRL's ppo_atari_lstm, with a cell, which is faster than a layer for single steps.
    """

    cells = True

    def step(self, batch: dict[str, Tensor]) -> float:
        """One step of training; returns the loss."""
        zeros = torch.zeros(batch["x"].shape[1], self.rnn.hidden_size)
        state, outputs = (zeros, zeros), []
        for x, reset in zip(batch["x"], batch["reset"].float(), strict=True):
            kept = (1 - reset).unsqueeze(1)
            state = self.rnn(x, (kept * state[0], kept * state[1]))
            outputs.append(state[0])
        y = torch.stack(outputs)
        log_p = self.linear(y).log_softmax(dim=2)
        taken = log_p.gather(2, batch["targets"].unsqueeze(2)).squeeze(2)
        loss = -(batch["advantages"] * taken).mean()
        return self.learn(loss + 0.5 * F.mse_loss(self.value(y), batch["returns"]))


class Stream(Base):
    """Is this frame speech? One frame after the other, the state carried.

    Of what PyTorch has for single steps, a cell is the fastest.
    """

    cells = True
    state: Any = None

    @torch.inference_mode()
    def step(self, batch: dict[str, Tensor]) -> float:
        """Take all frames; returns the mean probability."""
        total = 0.0
        for frame in batch["x"]:
            self.state = self.rnn(frame, self.state)
            total += torch.sigmoid(self.linear(self.state[0])).item()
        return total / len(batch["x"])


class Predict(Sentences):
    """Class probabilities of many sentences, in batches of similar length."""

    def prepare(self, batch: Batch) -> Any:
        """A list of sentences, as a user has them."""
        return torch.from_numpy(batch["tokens"]).split(batch["lengths"].tolist())

    @torch.inference_mode()
    def step(self, sentences: list[Tensor]) -> float:
        """Predict; returns the mean probability of the first class."""
        found = torch.empty(len(sentences), self.linear.out_features)
        order: Array = np.argsort([len(sentence) for sentence in sentences])
        for start in range(0, len(order), CHUNK):
            part = order[start : start + CHUNK]
            rows = [sentences[i] for i in part]
            lengths = torch.tensor([len(row) for row in rows])
            _, (h, _) = self.rnn(self.packed(pad_sequence(rows, batch_first=True), lengths))
            found[part] = self.linear(torch.cat([h[0], h[1]], dim=1)).softmax(dim=1)
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
