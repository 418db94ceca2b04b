"""How a tool reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Logger = Callable[[str], None]
"""Takes one line about what happens now."""
