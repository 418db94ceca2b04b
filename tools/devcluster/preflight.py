"""What the cluster needs from the machine: Debian packages, and rights that are tried, not guessed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.devcluster.cgroups import hierarchies
from tools.devcluster.configs import CNI_PLUGINS
from tools.devcluster.errors import DevclusterError, bad_input
from tools.devcluster.shell import attempt, tail

Say = Callable[[str], None]

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
_PROBE = "dop-probe0"


def require_root() -> None:
    """Raise DevclusterError unless this process is root."""
    if os.geteuid() != 0:
        raise bad_input(
            "the devcluster needs root: it makes cgroups, mounts and network devices",
            do="run it with sudo -E, or set KUBECONFIG and use a cluster of your own",
        )


def missing_packages() -> list[str]:
    """Return the Debian packages that are not installed."""
    return sorted(name for name, path in _PACKAGES.items() if not Path(path).exists())


def ensure_packages(say: Say) -> None:
    """Install missing Debian packages.

    Raises:
        DevclusterError: There is no apt-get, or it failed.
    """
    missing = missing_packages()
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise bad_input(
            f"these programs are missing and there is no apt-get: {', '.join(missing)}",
            do="install them with this machine's package manager",
        )
    say(f"installing Debian packages: {' '.join(missing)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    lock = "-oDPkg::Lock::Timeout=300"  # another installation may be running
    attempt(["apt-get", "update", "-qq", lock], env=env)
    done = attempt(["apt-get", "install", "-y", lock, "-qq", "--no-install-recommends", *missing], env=env)
    if done.returncode:
        raise bad_input(
            "Debian packages could not be installed",
            detail=tail(done.stdout + done.stderr),
            do=f"apt-get install {' '.join(missing)}",
        )
    if "docker-registry" in missing and Path("/run/systemd/system").is_dir():
        # The package starts a service on port 5000 that nobody asked for; ours runs from our folder.
        attempt(["systemctl", "disable", "--now", "docker-registry"])


def require_rights(folder: Path) -> None:
    """Try what the cluster will do.

    Raises:
        DevclusterError: One sentence about the first right that is missing.
    """
    for check in (_cgroups, _devices, _netfilter, lambda: _overlay(folder)):
        check()


def _cgroups() -> None:
    found = hierarchies()
    if not found:
        raise _missing("no cgroup hierarchy is mounted below /sys/fs/cgroup", "mount cgroups")
    probe = found[0] / _PROBE
    try:
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    except OSError as error:
        raise _missing(f"cgroups cannot be made in {found[0]} ({error.strerror})", "grant write access") from error


def _devices() -> None:
    made = attempt(["ip", "link", "add", _PROBE, "type", "bridge"])
    attempt(["ip", "link", "delete", _PROBE])
    if made.returncode:
        raise _missing(f"network devices cannot be made ({made.stderr.strip()})", "grant CAP_NET_ADMIN")


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
        done = attempt(["mount", "-t", "overlay", "overlay", "-o", options, base / "merged"])
        attempt(["umount", base / "merged"])
    if done.returncode:
        raise _missing(
            f"overlayfs cannot be mounted on {folder} ({tail(done.stderr)})",
            "set DIFFUSION_OPERATOR_CACHE to a folder on ext4 or xfs",
        )


def _missing(what: str, do: str) -> DevclusterError:
    return bad_input(f"this machine cannot run the devcluster: {what}", do=do)
