"""What containers leave on a machine after their programs are gone: shims, mounts, folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.shell import attempt
from tools.devcluster import cgroups
from tools.devcluster.layout import NAME, Layout, Network
from tools.devcluster.network import rule_leftovers
from tools.devcluster.processes import kill_all, pids_of

_PROGRAMS = ("devcluster-kube", "containerd", "containerd-shim-runc-v2", "nvidia-device-plugin")


def kill_programs(layout: Layout) -> None:
    """Kill every program of the cluster that still runs, recorded or not, and the containers' shims."""
    kill_all(_programs(layout))


def kill_shims(folder: Path) -> None:
    """Kill the containerd shims whose sockets are below ``folder``."""

    def is_shim(argv: tuple[str, ...]) -> bool:
        return "containerd-shim" in argv[0] and any(word.startswith(f"{folder}/") for word in argv)

    kill_all(pids_of(is_shim))


def remaining(layout: Layout, network: Network) -> list[str]:
    """Return what is left of a cluster on this machine, one line per thing; empty after ``down``."""
    mounts = mounts_below(layout.root, Path("/proc/self/mountinfo").read_text())
    remains = [f"process {pid}" for pid in _programs(layout)] + [f"mount {point}" for point in mounts]
    remains += [f"cgroup {top}" for top in (path / NAME for path in cgroups.hierarchies()) if top.exists()]
    device = Path("/sys/class/net") / network.device
    remains += [f"network device {device.name}"] if device.exists() else []
    remains += [f"rule {rule}" for rule in rule_leftovers()]
    return remains + [f"folder {folder}" for folder in (layout.state, layout.run) if folder.exists()]


def _programs(layout: Layout) -> list[int]:
    def is_program(argv: tuple[str, ...]) -> bool:
        built = argv[0].startswith(f"{layout.bin}/") and Path(argv[0]).name in _PROGRAMS
        registry = Path(argv[0]).name == "docker-registry" and any(f"{layout.root}/" in a for a in argv[1:])
        return built or registry

    return pids_of(is_program)


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """Return the mount points below ``folder``, the innermost first (``mountinfo`` as in /proc/self)."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def remove_tree(folder: Path) -> None:
    """Unmount everything below a folder and remove it.

    Raises:
        ToolError: Something is still mounted there; nothing is removed then.
    """
    for point in mounts_below(folder, Path("/proc/self/mountinfo").read_text()):
        if attempt(["umount", point]).returncode:
            attempt(["umount", "--lazy", point])
    mounts = mounts_below(folder, Path("/proc/self/mountinfo").read_text())
    if mounts:
        raise ToolError(f"cannot unmount {mounts[0]}", do=f"umount {mounts[0]}, then run this again")
    shutil.rmtree(folder, ignore_errors=True)
