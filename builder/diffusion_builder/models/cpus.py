"""How many threads an engine may use: what the container is given, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "DIFFUSION_THREADS"
_ROOT = Path("/sys/fs/cgroup")


def threads(environment: Mapping[str, str], root: Path = _ROOT) -> int:
    """Threads for one engine.

    Args:
        environment: `DIFFUSION_THREADS` decides when it is a positive number.
        root: where control groups are mounted.
    """
    requested = environment.get(VARIABLE, "")
    if requested.isdigit() and int(requested) > 0:
        return int(requested)
    usable = len(os.sched_getaffinity(0))
    limit = _limit(root)
    return usable if limit is None else max(1, min(usable, limit))


def _limit(root: Path) -> int | None:
    """Whole CPUs of the quota, rounded up; None without a quota."""
    quota, period = _version_2(root) or _version_1(root) or (0, 1)
    return -(-quota // period) if quota > 0 else None


def _version_2(root: Path) -> tuple[int, int] | None:
    fields = _read(root / "cpu.max").split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 2 and fields[0].isdigit() else None  # noqa: PLR2004


def _version_1(root: Path) -> tuple[int, int] | None:
    quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    return (int(quota), int(period)) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
