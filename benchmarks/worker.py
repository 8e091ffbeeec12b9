"""A process that does what it is asked, one line of JSON after the other; `workers.py` starts it.

    python benchmarks/worker.py MODULE [ARGUMENT ...]

builds `MODULE.Server(*ARGUMENTS)`. A request {"do": "name", ...} calls that method with the other entries as keyword
arguments. The answer is what the method returned, or {"error": ...}. Between requests the process is blocked on stdin.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import TextIO


def answers() -> TextIO:
    """Keep the real stdout for answers; what libraries print goes to stderr."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def main() -> None:
    """Answer requests until stdin ends."""
    module, *arguments = sys.argv[1:]
    out = answers()
    server = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if server is None:  # here, so that a failed import is an answer too
                server = importlib.import_module(module).Server(*arguments)
            answer = getattr(server, request.pop("do"))(**request) or {}
        except Exception as error:
            if not isinstance(error, ImportError):  # a library that is not installed is no surprise
                traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
