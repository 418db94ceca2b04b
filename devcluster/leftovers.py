"""What containers leave on a machine after their programs are gone: shims, mounts, links, folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from devcluster import cgroups
from devcluster.errors import DevclusterError
from devcluster.layout import NAME, Layout, Network
from devcluster.processes import kill_all, pids_of
from devcluster.shell import attempt

_PROGRAMS = ("devcluster-kube", "containerd", "containerd-shim-runc-v2")
_CONTAINER_LOGS = Path("/var/log/containers")
_CNI_RESULTS = Path("/var/lib/cni/results")


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
    for tool in ("iptables", "ip6tables"):
        rules = attempt([f"{tool}-save"]).stdout.splitlines()
        found += [f"{tool} rule {rule}" for rule in rules if NAME in rule or rule.startswith("-A KUBE-")]
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
