"""What the cluster needs from the machine: Debian packages, and rights that are tried, not guessed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.errors import ToolError, bad_input
from tools.common.packages import install_debian_packages
from tools.common.shell import attempt, tail
from tools.devcluster.cgroups import hierarchies
from tools.devcluster.configs import CNI_PLUGINS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tools.common.log import Logger

# Debian package: a file that says it is there.
_PACKAGES = {
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": str(CNI_PLUGINS / "ptp"),
    "iptables": "/usr/sbin/iptables",
    "nftables": "/usr/sbin/nft",
    "conntrack": "/usr/sbin/conntrack",
    "iproute2": "/usr/bin/ip",
    "mount": "/usr/bin/mount",
    "docker-registry": "/usr/bin/docker-registry",
    "buildah": "/usr/bin/buildah",
    "debootstrap": "/usr/sbin/debootstrap",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
}
# For the programs of nodes with the machine's GPUs, which hold C.
COMPILER = {"gcc": "/usr/bin/gcc", "libc6-dev": "/usr/include/stdio.h"}
_PROBE = "dop-probe0"


def require_root() -> None:
    """Raise ToolError unless this process is root."""
    if os.geteuid() != 0:
        raise bad_input(
            "the devcluster needs root: it makes cgroups, mounts and network devices",
            do="run it with sudo -E, or set KUBECONFIG and use a cluster of your own",
        )


def missing_packages(packages: Mapping[str, str] = _PACKAGES) -> list[str]:
    """Return the Debian packages, package to a file that says it is there, that are not installed."""
    return sorted(name for name, path in packages.items() if not Path(path).exists())


def ensure_packages(log: Logger, packages: Mapping[str, str] = _PACKAGES) -> None:
    """Install missing Debian packages.

    Raises:
        ToolError: They cannot be installed.
    """
    missing = missing_packages(packages)
    if not missing:
        return
    log(f"installing Debian packages: {' '.join(missing)}")
    install_debian_packages(missing)
    if "docker-registry" in missing and Path("/run/systemd/system").is_dir():
        # The package starts a service on port 5000 that nobody asked for; ours runs from our folder.
        attempt(["systemctl", "disable", "--now", "docker-registry"])


def require_rights(folder: Path) -> None:
    """Try what the cluster will do.

    Raises:
        ToolError: One sentence about the first right that is missing.
    """
    for check in (_cgroups, _devices, _netfilter, lambda: _overlay(folder)):
        check()


def _cgroups() -> None:
    roots = hierarchies()
    if not roots:
        raise _missing("no cgroup hierarchy is mounted below /sys/fs/cgroup", "mount cgroups")
    probe = roots[0] / _PROBE
    try:
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    except OSError as error:
        raise _missing(f"cgroups cannot be made in {roots[0]} ({error.strerror})", "grant write access") from error


def _devices() -> None:
    process = attempt(["ip", "link", "add", _PROBE, "type", "bridge"])
    attempt(["ip", "link", "delete", _PROBE])
    if process.returncode:
        raise _missing(f"network devices cannot be made ({process.stderr.strip()})", "grant CAP_NET_ADMIN")


def _netfilter() -> None:
    for table in ("nat", "filter"):
        listed = attempt(["iptables", "-w", "-t", table, "-S"])
        if listed.returncode:
            why = tail(listed.stderr)
            raise _missing(f"the netfilter table {table} cannot be read ({why})", "load ip_tables or nf_tables")
    listed = attempt(["nft", "list", "tables"])
    if listed.returncode:
        raise _missing(f"nftables cannot be read ({tail(listed.stderr)})", "load the module nf_tables")


def _overlay(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".overlay-") as name:
        base = Path(name)
        for part in ("lower", "upper", "work", "merged"):
            (base / part).mkdir()
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        process = attempt(["mount", "-t", "overlay", "overlay", "-o", options, base / "merged"])
        attempt(["umount", base / "merged"])
    if process.returncode:
        raise _missing(
            f"overlayfs cannot be mounted on {folder} ({tail(process.stderr)})",
            "set DIFFUSION_OPERATOR_CACHE to a folder on ext4 or xfs",
        )


def _missing(what: str, do: str) -> ToolError:
    return bad_input(f"this machine cannot run the devcluster: {what}", do=do)
