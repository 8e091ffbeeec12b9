"""``python -m fastrnn demo``."""

from fastrnn.demo import main

if __name__ == "__main__":
    raise SystemExit(main())
