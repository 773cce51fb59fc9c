"""``python -m ganops`` is the same as ``ganops``."""

from ganops.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
