"""Training that was interrupted goes on to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same_bits
from small_tasks import TASKS, bits, make

from fastrnn import io
from fastrnn.models import LanguageModel


@pytest.mark.parametrize("name", TASKS)
def test_resumes_to_the_same_bits_after_every_epoch(name: str, tmp_path: Path) -> None:
    options = {"epochs": 4, "dropout": 0.1, "schedule": "cosine", "patience": 3}
    whole, X, y = make(name, **options)
    validation = X if y is None else (X, y)
    whole.fit(X, y, validation=validation)
    path = tmp_path / "run.npz"
    for _ in range(4):  # a new process each time would do the same
        part, _, _ = make(name, **options)
        part.fit(X, y, validation=validation, resume=path, callbacks=[lambda m, log: True])
    assert len(part.history_) == 4
    again, _, _ = make(name, **options)
    again.fit(X, y, validation=validation, resume=path, callbacks=[lambda m, log: pytest.fail("more epochs")])
    for model in (part, again):
        assert_same_bits(bits(model), bits(whole))
        assert model.history_ == whole.history_
    assert list(tmp_path.iterdir()) == [path]


CHILD = """
import sys, time
from fastrnn.models import LanguageModel
slow = lambda model, log: print(log["epoch"], flush=True) or time.sleep(float(sys.argv[2]))
model = LanguageModel(hidden_size=16, epochs=6, batch_size=4, steps=20, dropout=0.1, verbose=False)
model.fit("the cat sat on the mat. " * 40, resume=sys.argv[1], callbacks=[slow])
model.save(sys.argv[3])
"""


def test_killed_run_loses_at_most_one_epoch(tmp_path: Path) -> None:
    def start(run: str, pause: float) -> Any:
        arguments = [
            sys.executable,
            "-c",
            CHILD,
            str(tmp_path / run),
            str(pause),
            str(tmp_path / f"end-{run}"),
        ]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=env)

    whole, killed = start("a.npz", 0), start("b.npz", 60)
    with killed.stdout as printed:
        assert printed.readline() == "1\n"  # the checkpoint of an epoch stands before its callback
        killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    again = start("b.npz", 0)
    assert again.communicate(timeout=60)[0].split() == list("23456")
    assert whole.communicate(timeout=60)[0].split() == list("123456")
    assert_same_bits(io.load(tmp_path / "end-b.npz"), io.load(tmp_path / "end-a.npz"))


@pytest.mark.slow
def test_killed_anywhere_resumes_to_the_same_bits(tmp_path: Path) -> None:
    model = LanguageModel(hidden_size=16, epochs=6, batch_size=4, steps=20, dropout=0.1, verbose=False)
    want = bits(model.fit("the cat sat on the mat. " * 40))
    rng = np.random.default_rng(0)
    arguments = [sys.executable, "-c", CHILD, str(tmp_path / "run.npz"), "0", str(tmp_path / "end.npz")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    kills = 0
    for _ in range(20):  # each of them gets one epoch further at least
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=env)
        with child.stdout as printed:
            printed.readline()
            time.sleep(rng.uniform(0, 0.03))
            child.kill()
        kills += child.wait() != 0
        if (tmp_path / "end.npz").exists():
            break
    assert kills > 1
    assert_same_bits(io.load(tmp_path / "end.npz"), want)


def test_checkpoints_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    model, X, y = make("classifier")
    model.fit(X, y, resume=path)
    with pytest.raises(ValueError, match=r"resume: .*run.npz: expected a checkpoint of this run.*'lr'"):
        make("classifier", lr=0.1)[0].fit(X, y, resume=path)
    with pytest.raises(ValueError, match="'classes', 'vocabulary'"):
        make("classifier")[0].fit(["ab", "e"], ["x", "y"], resume=path)
    with pytest.raises(ValueError, match="class"):
        make("tagger")[0].fit(*make("tagger")[1:], resume=path)
    with pytest.raises(ValueError, match="missing best"):
        make("classifier")[0].fit(X, y, resume=path, validation=(X, y))
    more = make("classifier", epochs=5)[0].fit(X, y, resume=path)
    assert len(more.history_) == 5
    model.save(path)
    with pytest.raises(ValueError, match=r"resume: .*history"):
        make("classifier")[0].fit(X, y, resume=path)
    with pytest.raises(ValueError, match=r"path: expected a name ending in"):
        make("classifier")[0].fit(X, y, resume=tmp_path / "run.pt")
