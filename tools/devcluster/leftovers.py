"""What containers leave on a machine after their programs are gone: shims, mounts, folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.devcluster import cgroups
from tools.devcluster.errors import DevclusterError
from tools.devcluster.layout import NAME, Layout, Network
from tools.devcluster.network import rule_leftovers
from tools.devcluster.processes import kill_all, pids_of
from tools.devcluster.shell import attempt

_PROGRAMS = ("devcluster-kube", "containerd", "containerd-shim-runc-v2")


def kill_programs(layout: Layout) -> None:
    """Kill every program of the cluster that still runs, recorded or not, and the containers' shims."""
    kill_all(_programs(layout))


def kill_shims(folder: Path) -> None:
    """Kill the containerd shims whose sockets are below ``folder``."""

    def ours(argv: tuple[str, ...]) -> bool:
        return "containerd-shim" in argv[0] and any(word.startswith(f"{folder}/") for word in argv)

    kill_all(pids_of(ours))


def remaining(layout: Layout, network: Network) -> list[str]:
    """Return what is left of a cluster on this machine, one line per thing; empty after ``down``."""
    mounts = mounts_below(layout.root, Path("/proc/self/mountinfo").read_text())
    found = [f"process {pid}" for pid in _programs(layout)] + [f"mount {point}" for point in mounts]
    found += [f"cgroup {top}" for top in (path / NAME for path in cgroups.hierarchies()) if top.exists()]
    device = Path("/sys/class/net") / network.device
    found += [f"network device {device.name}"] if device.exists() else []
    found += [f"rule {rule}" for rule in rule_leftovers()]
    return found + [f"folder {folder}" for folder in (layout.state, layout.run) if folder.exists()]


def _programs(layout: Layout) -> list[int]:
    def ours(argv: tuple[str, ...]) -> bool:
        built = argv[0].startswith(f"{layout.bin}/") and Path(argv[0]).name in _PROGRAMS
        registry = Path(argv[0]).name == "docker-registry" and any(f"{layout.root}/" in a for a in argv[1:])
        return built or registry

    return pids_of(ours)


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
