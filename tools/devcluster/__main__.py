"""``python -m tools.devcluster``."""

from tools.devcluster.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
