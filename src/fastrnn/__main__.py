"""``python -m fastrnn``."""

from fastrnn._commands import main

if __name__ == "__main__":
    raise SystemExit(main())
