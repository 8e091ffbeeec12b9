"""``python -m fastrnn`` on saved models: generate, translate, forecast."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn import _commands
from fastrnn.models import Forecaster, LanguageModel, Seq2Seq

KW: dict[str, Any] = {"hidden_size": 16, "epochs": 2, "lr": 0.02, "batch_size": 4, "verbose": False}
FRAME = np.stack([np.sin(np.arange(80.0)), np.cos(np.arange(80.0))], axis=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of saved models and of series."""
    folder = tmp_path_factory.mktemp("models")
    LanguageModel(**KW, steps=10).fit("abcd" * 50).save(folder / "characters.npz")
    LanguageModel(**KW, steps=10).fit(["to", "be", "or", "not"] * 20).save(folder / "words.npz")
    LanguageModel(**KW, steps=10).fit([3, 1, 2] * 20).save(folder / "integers.npz")
    pairs = [("a b", "b a"), ("b c", "c b"), ("c a", "a c")] * 6
    X, y = ([side.split() for side in sides] for sides in zip(*pairs, strict=True))
    Seq2Seq(**KW | {"epochs": 40}).fit(X, y).save(folder / "pairs.npz")
    Seq2Seq(**KW | {"epochs": 40}).fit(*zip(*pairs, strict=True)).save(folder / "letters.npz")
    Forecaster(**KW, steps=10).fit(FRAME[:, 0]).save(folder / "one.npz")
    known = Forecaster(**KW, steps=10, horizon=4, known="cos", target=["sin"])
    pandas = pytest.importorskip("pandas")
    known.fit(pandas.DataFrame(FRAME, columns=["sin", "cos"])).save(folder / "known.npz")
    rows = "\n".join(f"2024,{c:.17g},{s:.17g}" for s, c in FRAME)
    (folder / "series.csv").write_text(f"year,cos,sin\n{rows}\n")
    (folder / "one.csv").write_text("value\n" + "\n".join(f"{v:.17g}" for v in FRAME[:, 0]))
    (folder / "future.csv").write_text(
        "cos\n" + "\n".join(f"{np.cos(80.0 + k):.17g}" for k in range(4)) + "\n"
    )
    return folder


def run(files: Path, line: str, stdin: str | None = None, monkeypatch: Any = None) -> int:
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    first, *rest = line.split(" ")
    return _commands.main([first, *(word.replace("@", f"{files}{os.sep}") for word in rest)])


def test_generate(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(files, "generate @characters.npz --length 20 --prompt ab --seed 3") == 0
    model = LanguageModel.load(files / "characters.npz")
    assert capsys.readouterr().out == "ab" + model.generate(20, "ab", rng=3) + "\n"
    assert run(files, "generate @characters.npz --length 9 --temperature 0", "abc\n", monkeypatch) == 0
    assert capsys.readouterr().out == "abc" + model.generate(9, "abc", temperature=0) + "\n"
    assert (
        run(
            files,
            "generate @words.npz --length 5 --top-k 2 --top-p 0.9 --seed 1 --stop not",
            "to be",
            monkeypatch,
        )
        == 0
    )
    words = LanguageModel.load(files / "words.npz")
    want = words.generate(5, ["to", "be"], top_k=2, top_p=0.9, stop=["not"], rng=1)
    assert capsys.readouterr().out.split() == ["to", "be", *want]
    assert run(files, "generate @integers.npz --length 3 --temperature 0 --prompt 3") == 0
    assert capsys.readouterr().out.split()[0] == "3"
    assert run(files, "generate @words.npz --length 2 --seed 0", "", monkeypatch) == 0
    assert len(capsys.readouterr().out.split()) == 2


def test_translate(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "a b\nc a\nb c\n"
    assert run(files, "translate @pairs.npz", lines, monkeypatch) == 0
    assert capsys.readouterr().out == "b a\na c\nc b\n"
    assert run(files, "translate @letters.npz - --beam 2", lines, monkeypatch) == 0
    assert capsys.readouterr().out == "b a\na c\nc b\n"
    (files / "lines.txt").write_text(lines)
    assert run(files, "translate @pairs.npz @lines.txt --scores --copy-unknown --max-length 2") == 0
    first = capsys.readouterr().out.splitlines()[0].split("\t")
    assert first[1] == "b a"
    assert float(first[0]) < 0
    assert run(files, "translate @pairs.npz", "", monkeypatch) == 0
    assert capsys.readouterr().out == ""


def test_translate_with_subwords(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("tokenizers")
    from fastrnn.text import Subwords

    texts = ["ab ba", "ba ab", "ab ab"] * 8
    tool = Subwords.train(texts, 12)
    tool.save(tmp_path / "tool.json")
    coded = [tool.encode(t) for t in texts]
    Seq2Seq(**KW | {"epochs": 40}).fit(coded, coded).save(tmp_path / "model.npz")
    line = "translate @model.npz - --subwords @tool.json --target-subwords @tool.json"
    assert run(tmp_path, line, "ab ba\nba ab\n", monkeypatch) == 0
    assert capsys.readouterr().out == "ab ba\nba ab\n"


def test_forecast(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(files, "forecast @one.npz @one.csv --horizon 3 --level 0.8 --seed 5") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "value,value_low,value_high"
    model = Forecaster.load(files / "one.npz")
    x = FRAME[:, 0]
    want = np.stack([model.predict(x, 3), *model.predict_interval(x, 3, 0.8, rng=5)], axis=1)
    np.testing.assert_allclose([[float(v) for v in row.split(",")] for row in rows], want, rtol=1e-8)
    series = (files / "series.csv").read_text()
    assert run(files, "forecast @known.npz - --future @future.csv", series, monkeypatch) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "sin"
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FRAME, columns=["sin", "cos"])
    want = Forecaster.load(files / "known.npz").predict(frame, future=np.cos(80.0 + np.arange(4)))["sin"]
    np.testing.assert_allclose([float(row) for row in rows], want, rtol=1e-8)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("generate @none.npz", 1, "none.npz: No such file"),
        ("generate @one.npz", 1, "expected a file of a LanguageModel, got one of a Forecaster"),
        ("generate @series.csv", 1, "expected a name ending in .safetensors or .npz"),
        ("generate @characters.npz --temperature -1", 2, "--temperature: expected a number at least 0, got -1"),
        ("generate @characters.npz --top-p 2", 2, "argument --top-p: expected a number from 0 to 1, got 2"),
        ("generate @characters.npz --length many", 2, "argument --length: expected an integer of at least 0, got many"),
        ("generate @integers.npz --prompt a", 1, "expected integers, as in fit, got 'a'"),
        ("translate @pairs.npz @none.txt", 1, "none.txt: No such file or directory"),
        ("translate @pairs.npz --beam 0", 2, "argument --beam: expected an integer of at least 1, got 0"),
        ("forecast @one.npz @none.csv", 1, "none.csv: No such file or directory"),
        ("forecast @one.npz @series.csv", 1, "series.csv: expected 1 columns, as in fit, got 3"),
        ("forecast @known.npz @one.csv", 1, "one.csv: expected the columns ['sin', 'cos'], as in fit"),
        ("forecast @known.npz @series.csv", 1, "future: expected the known columns of the next 4 steps, got None"),
        ("forecast @known.npz @series.csv --future @future.csv --horizon 9", 1, "horizon: expected at most 4"),
        ("forecast @one.npz @word.csv", 1, "word.csv, line 3: expected a number, got 'x'"),
        ("forecast @one.npz @short.csv", 1, "short.csv, line 3: expected 1 values, got 2"),
        ("forecast @one.npz @gap.csv", 1, "gap.csv, line 2: expected a finite number, got 'nan'"),
        ("forecast @one.npz @head.csv", 1, "expected a line of names and lines of numbers, got 1 lines"),
        ("nothing", 2, "argument command: invalid choice: 'nothing'"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    line: str, code: int, message: str, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    for name, text in (("word", "v\n1\nx\n"), ("short", "v\n1\n1,2\n"), ("gap", "v\nnan\n"), ("head", "v\n")):
        (files / f"{name}.csv").write_text(text)
    try:
        got = run(files, line, "", monkeypatch)
    except SystemExit as error:
        got = error.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert got == code
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.err.startswith("python -m fastrnn")
    assert captured.out == ""


def test_help_and_the_program_itself(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "translate", "forecast"):
        with pytest.raises(SystemExit) as caught:
            _commands.main([command, "--help"])
        assert caught.value.code == 0
        assert "that its `save` has written" in capsys.readouterr().out
    environment = os.environ | {"PYTHONPATH": str(Path(_commands.__file__).parents[1])}
    program = [sys.executable, "-m", "fastrnn"]
    arguments = ["generate", str(files / "characters.npz"), "--length", "100000", "--seed", "0"]
    with subprocess.Popen(
        [*program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as p:
        assert p.stdout is not None
        assert p.stderr is not None
        assert len(p.stdout.read(5)) == 5  # tokens come before the end
        p.stdout.close()  # as `head` does
        assert p.wait(60) == 0
        assert p.stderr.read() == b""
    usage = subprocess.run([*program], capture_output=True, env=environment, check=False)
    assert usage.returncode == 2


def test_ctrl_c(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageModel, "iter_generate", interrupted)
    assert run(files, "generate @characters.npz --prompt a") == 130
