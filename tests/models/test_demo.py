"""The demo: trigram model, a short run, its errors, an interruption."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn import demo, io

TEXT = "The quick brown fox jumps over the lazy dog; pack my box with five dozen jugs.\n" * 40


@pytest.fixture
def text(tmp_path: Path) -> Path:
    pytest.importorskip("tqdm")
    pytest.importorskip("matplotlib")
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_kneser_ney_is_a_distribution_and_matches_a_direct_sum() -> None:
    rng = np.random.default_rng(0)
    tokens = 4
    train = rng.integers(0, tokens - 1, 60)  # one token never occurs
    for context in ([0, 0], [1, 2], [3, 3], [3, 0]):
        bits = [demo.kneser_ney(train, np.array([*context, c]), tokens) for c in range(tokens)]
        assert sum(2**-b for b in bits) == pytest.approx(1)
    bigrams = set(pairwise(train.tolist()))
    direct = direct_kneser_ney(train.tolist(), tokens, (1, 2, 0))
    assert len(bigrams) > 4
    assert demo.kneser_ney(train, np.array([1, 2, 0]), tokens) == pytest.approx(-math.log2(direct))


def direct_kneser_ney(train: list[int], tokens: int, gram: tuple[int, ...]) -> float:
    """The equations, one n-gram at a time."""
    count: dict[tuple[int, ...], int] = {}
    for i in range(len(train) - 2):
        key = tuple(train[i : i + 3])
        count[key] = count.get(key, 0) + 1
    tables = [count]
    for _ in range(2):
        shorter: dict[tuple[int, ...], int] = {}
        for key in tables[-1]:
            shorter[key[1:]] = shorter.get(key[1:], 0) + 1
        tables.append(shorter)
    p = 1 / tokens
    for n, table in zip((1, 2, 3), reversed(tables), strict=True):
        values = list(table.values())
        once, twice = values.count(1), values.count(2)
        discount = once / (once + 2 * twice) if once else 0.5
        g = gram[3 - n :]
        same = [v for k, v in table.items() if k[:-1] == g[:-1]]
        if same:
            p = (max(table.get(g, 0) - discount, 0) + discount * len(same) * p) / sum(same)
    return p


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_short_run(cell: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = f"demo --text {text} --cell {cell} --hidden 24 --epochs 2 --out {out}".split()
    assert demo.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count(": held-out") == 2
    assert "trigram model (interpolated Kneser-Ney)" in printed
    arrays, config = io.read(out / "weights.npz")
    assert (config["cell"], config["hidden_size"]) == (cell, "24")
    assert arrays[f"{cell}.weight_hh_l0"].shape[1] == 24
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    first = (out / "weights.npz").read_bytes()
    assert demo.main(arguments) == 0
    assert (out / "weights.npz").read_bytes() == first  # a seed fixes everything


def test_learns(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(f"demo --text {text} --hidden 32 --epochs 30 --out {tmp_path}".split()) == 0
    held = [
        float(line.split()[3]) for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")
    ]
    assert held[-1] < 0.5 * held[0]


def test_interruption_saves(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def interrupt(self: Any, held_out: Any) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(demo.CharacterModel, "bits", interrupt)
    assert demo.main(["demo", "--text", str(text), "--hidden", "8", "--out", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert io.load(tmp_path / "weights.npz")["lstm.weight_hh_l0"].shape == (32, 8)
    assert (tmp_path / "training.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "argument --epochs: expected an integer from 1 to 10000, got 0"),
        (["--hidden", "many"], "argument --hidden: expected an integer from 1 to 8192, got many"),
        (["--hidden", "-3"], "argument --hidden: expected an integer from 1 to 8192, got -3"),
        (["--seed", "-1"], "argument --seed: expected an integer from 0 to"),
        (["--cell", "transformer"], "argument --cell: invalid choice: 'transformer'"),
        (["--text", "{dir}/none.txt"], "--text: cannot read {dir}/none.txt: No such file or directory"),
        (["--text", "{dir}"], "--text: cannot read {dir}: Is a directory"),
        (
            ["--text", "{dir}/empty.txt"],
            "--text: expected at least 2000 characters, got 0 in {dir}/empty.txt",
        ),
        (["--text", "{dir}/binary.txt"], "--text: {dir}/binary.txt is not UTF-8 text"),
        (["--out", "{dir}/empty.txt"], "--out: cannot write into {dir}/empty.txt: File exists"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe" * 3000)
    with pytest.raises(SystemExit) as caught:
        demo.main(["demo", *(a.format(dir=tmp_path) for a in arguments)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message.format(dir=tmp_path) in error
