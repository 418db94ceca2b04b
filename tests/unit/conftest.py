"""What all unit tests share."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """What was imported stays: torch and diffusers are most of what the garbage collector would look through."""
    gc.collect()
    gc.freeze()
