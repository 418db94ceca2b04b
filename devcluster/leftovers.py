"""What containers leave on a machine after their programs are gone: shims, mounts, links, folders."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.layout import NAME
from devcluster.shell import attempt

_CONTAINER_LOGS = Path("/var/log/containers")
_CNI_RESULTS = Path("/var/lib/cni/results")


def kill_shims(folder: Path) -> None:
    """Kill the containerd shims whose sockets are below ``folder``."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it went away
        if "containerd-shim" in words[0] and any(word.startswith(f"{folder}/") for word in words):
            _kill(int(process.name))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """Return the mount points below ``folder``, the innermost first (``mountinfo`` as in /proc/self)."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def remove_tree(folder: Path) -> None:
    """Unmount everything below a folder and remove it.

    Raises:
        DevclusterError: Something is still mounted there; nothing is removed then.
    """
    for point in mounts_below(folder, Path("/proc/self/mountinfo").read_text()):
        if attempt(["umount", point]).returncode:
            attempt(["umount", "--lazy", point])
    left = mounts_below(folder, Path("/proc/self/mountinfo").read_text())
    if left:
        raise DevclusterError(f"cannot unmount {left[0]}", do=f"umount {left[0]}, then run this again")
    shutil.rmtree(folder, ignore_errors=True)


def remove_links(folder: Path) -> None:
    """Remove the kubelets' log links that point below ``folder``, and CNI's record of our pods."""
    for link in _CONTAINER_LOGS.glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{folder}/"):
            link.unlink(missing_ok=True)
    for result in _CNI_RESULTS.glob(f"{NAME}-*"):
        result.unlink(missing_ok=True)
    for empty in (_CONTAINER_LOGS, _CNI_RESULTS, _CNI_RESULTS.parent):
        try:
            empty.rmdir()
        except OSError:
            continue  # missing, or others use it
