"""`python -m images`."""

from images.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
