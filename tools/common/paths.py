"""The checkout, and the one folder that holds everything built or downloaded."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def cache_directory() -> Path:
    """Return `$DIFFUSION_OPERATOR_CACHE`, or ~/.cache/diffusion-operator."""
    return Path(os.environ.get("DIFFUSION_OPERATOR_CACHE") or "~/.cache/diffusion-operator").expanduser().absolute()
