"""Cgroups of the nodes, in hierarchies of version 1 and 2."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tools.devcluster.layout import NAME

_ROOT = Path("/sys/fs/cgroup")
_SHARES_V1, _PROCESSOR_SHARES = "cpu.shares", 1024
_CONTROLLERS_V2 = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def hierarchies(mounts: str | None = None) -> list[Path]:
    """Return where cgroup hierarchies are mounted (``mounts`` is the text of /proc/self/mounts)."""
    text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    rows = [line.split() for line in text.splitlines()]
    return sorted(Path(row[1]) for row in rows if row[2] in {"cgroup", "cgroup2"})


def make(cgroup: str) -> None:
    """Make a cgroup in every hierarchy: the kubelet refuses a root that is missing in one of them."""
    for hierarchy in hierarchies():
        path = hierarchy / cgroup.lstrip("/")
        if hierarchy == _ROOT:
            _delegate(path)
        path.mkdir(parents=True, exist_ok=True)
        _set_shares(hierarchy, path)


def _set_shares(hierarchy: Path, path: Path) -> None:
    """Give a node's processors to its pods where all pods together would get as much as one process of the host.

    So it is in version 1, in which a cgroup competes with the root's processes; the kubelet raises only its own.
    """
    for folder in [path, *path.parents]:
        if folder == hierarchy:
            return
        if (folder / _SHARES_V1).exists():
            (folder / _SHARES_V1).write_text(str(_PROCESSOR_SHARES * (os.cpu_count() or 1)))


def _delegate(path: Path) -> None:
    """Hand the controllers of version 2 down to the parents of ``path``, and to itself."""
    path.mkdir(parents=True, exist_ok=True)
    available = (_ROOT / "cgroup.controllers").read_text().split()
    controllers = " ".join(f"+{name}" for name in _CONTROLLERS_V2 if name in available)
    for folder in [*reversed(path.relative_to(_ROOT).parents), path.relative_to(_ROOT)]:
        (_ROOT / folder / "cgroup.subtree_control").write_text(controllers)


def kill(cgroup: str = NAME) -> bool:
    """Send SIGKILL to every process of a cgroup and those below it; return whether there was one."""
    pids: set[int] = set()
    for hierarchy in hierarchies():
        for path in (hierarchy / cgroup.lstrip("/")).rglob("cgroup.procs"):
            pids |= _members(path)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(pids)


def _members(procs: Path) -> set[int]:
    try:
        return {int(line) for line in procs.read_text().split()} - {0}
    except OSError:
        return set()  # the cgroup went away


def remove(cgroup: str = NAME) -> bool:
    """Remove a cgroup and those below it; return whether none is left."""
    complete = True
    for hierarchy in hierarchies():
        top = hierarchy / cgroup.lstrip("/")
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                complete = False
    return complete
