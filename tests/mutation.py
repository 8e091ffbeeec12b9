"""Test the tests: plant one fault at a time in a copy of this tree, and see whether the tests that should notice do.

    python tests/mutation.py                 # all faults; those in C++ need a compiler and take a minute each
    python tests/mutation.py --python        # those in Python only
    python tests/mutation.py --only schedule # those whose name or file has this word
    python tests/mutation.py --list          # what there is, as a table

This is a tool, which neither pytest nor the gate runs. docs/testing.md has the outcome. A fault is found where its
text stands exactly once in its file; where a source has changed, the tool says so, and the fault is to be written anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from planted_faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[1]
BUILD = "build/d"


@dataclass
class Tree:
    """A copy of this tree, in which faults are planted."""

    at: Path
    cpp: bool

    def copy(self) -> None:
        """Copy what git knows, what is new, and the compiled module."""
        if self.at == ROOT:
            return
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
            "\n"
        )
        names += [p.relative_to(ROOT).as_posix() for p in (ROOT / "src/fastrnn").glob("*.so*")]
        for name in filter(None, names):
            source, target = ROOT / name, self.at / name
            if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def build(self) -> str:
        """Compile the module; return what the compiler said if it failed."""
        if not (self.at / BUILD / "CMakeCache.txt").exists():
            import pybind11

            configure = ["cmake", "-S", ".", "-B", BUILD, "-DCMAKE_BUILD_TYPE=Release"]
            configure += ["-DSKBUILD_PROJECT_NAME=fastrnn", "-DSKBUILD_PROJECT_VERSION=0"]
            configure += [
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
                f"-DPython_EXECUTABLE={sys.executable}",
            ]
            done = self._run(configure + os.environ.get("CMAKE_ARGS", "").split())
            if done.returncode:
                return done.stdout
        done = self._run(["cmake", "--build", BUILD, "--parallel", str(os.cpu_count() or 1)])
        if done.returncode:
            return done.stdout
        for built in (self.at / BUILD).glob("_core*.so"):
            # A new file: who has the old one open keeps it.
            (self.at / "src/fastrnn" / built.name).unlink(missing_ok=True)
            shutil.copy2(built, self.at / "src/fastrnn")
        return ""

    def test(self, tests: str, limit: float) -> subprocess.CompletedProcess[str]:
        """Run tests, up to the first one that fails."""
        return self._run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()], limit
        )

    def _run(self, command: list[str], limit: float | None = None) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.at / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            return subprocess.run(
                command, cwd=self.at, env=environment, timeout=limit,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, f"no end after {limit} s\n")


def try_fault(tree: Tree, fault: Fault, limit: float) -> tuple[str, str]:
    """Plant a fault, build where it is in C++, test, and take it out; return the outcome and a word about it."""
    path = tree.at / "src" / fault.file
    sound = path.read_text()
    if sound.count(fault.old) != 1:
        return "NOT PLANTED", f"its text stands {sound.count(fault.old)} times in {fault.file}"
    path.write_text(sound.replace(fault.old, fault.new))
    try:
        if fault.in_cpp and (said := tree.build()):
            return "NOT BUILT", said.strip().splitlines()[-1]
        done = tree.test(fault.tests, limit)
    finally:
        path.write_text(sound)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode == 0:
        return "survived", fault.equivalent or ""
    if done.returncode == 1 or done.returncode < 0 or done.returncode in (124, 134, 139):
        return "killed", failed[0].partition(" - ")[0] if failed else done.stdout.strip().splitlines()[-1]
    return "NOT RUN", done.stdout.strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trust", action="store_true", help="do not run the tests of the sound tree first")
    parser.add_argument("--only", default="", metavar="WORD", help="faults whose name or file has this word")
    parser.add_argument("--python", action="store_true", help="leave out those in C++")
    parser.add_argument("--list", action="store_true", help="print a table of all faults, and do nothing")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the copy is, and stays for another run; "
                        "'.' plants faults in this very tree, whose build is kept up to date in build/d")  # fmt: skip
    parser.add_argument(
        "--limit", type=float, default=900, metavar="SECONDS", help="of the tests of one fault"
    )
    args = parser.parse_args()
    chosen = [f for f in FAULTS if args.only in f.name + f.file and not (args.python and f.in_cpp)]
    if args.list:
        for f in chosen:
            print(f"| {f.name} | {f.file} | {(f.equivalent and 'survives') or 'killed'} |")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        cpp = any(f.in_cpp for f in chosen)
        tree = Tree((args.work or Path(temporary)).resolve(), cpp)
        tree.copy()
        if cpp and (said := tree.build()):
            print(said)
            return 2
        # The sound tree must pass, or else every fault would count as killed.
        every = " ".join(
            dict.fromkeys(word for f in chosen for word in f.tests.split() if word.startswith("tests/"))
        )
        if not args.trust and (done := tree.test(every, 10 * args.limit)).returncode:
            print(done.stdout[-3000:])
            print("the sound tree fails its tests")
            return 2
        wrong = 0
        for fault in chosen:
            start = time.perf_counter()
            outcome, word = try_fault(tree, fault, args.limit)
            wrong += outcome != ("survived" if fault.equivalent else "killed")
            print(f"{outcome:11} {time.perf_counter() - start:5.0f} s  {fault.name}  [{word}]", flush=True)
        if cpp:
            tree.build()
    print(f"{len(chosen)} faults, {wrong} with another outcome than expected")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
