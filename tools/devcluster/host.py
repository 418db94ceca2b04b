"""What the machine was like before the cluster: kernel settings and folders that `down` puts back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.files import write
from tools.devcluster.layout import NAME

if TYPE_CHECKING:
    from tools.devcluster.layout import Layout

_SYSCTL = Path("/proc/sys")
# The first is changed by us, the rest by the kubelet.
_TUNABLES = (
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_CONTAINER_LOGS = Path("/var/log/containers")
_CNI_RESULTS = Path("/var/lib/cni/results")
# Where kubelet, CNI and the device plugin write whatever their configuration says.
_FOLDERS = (_CONTAINER_LOGS, _CNI_RESULTS.parent, Path("/var/lib/kubelet"), Path("/var/run/cdi"))


def remember(layout: Layout) -> None:
    """Record what `restore` puts back, unless that was done before."""
    path = _record(layout)
    if path.is_file():
        return
    settings = {name: (_SYSCTL / name).read_text().strip() for name in _TUNABLES if (_SYSCTL / name).is_file()}
    absent = [str(folder) for folder in _FOLDERS if not folder.exists()]
    write(path, json.dumps({"settings": settings, "absent": absent}))


def restore(layout: Layout) -> None:
    """Put kernel settings back and remove folders that were not there before."""
    path = _record(layout)
    if not path.is_file():
        return
    before = json.loads(path.read_text())
    for name, value in before["settings"].items():
        (_SYSCTL / name).write_text(value)
    remove_links(layout.state)
    for folder in before["absent"]:
        shutil.rmtree(folder, ignore_errors=True)


def remove_links(folder: Path) -> None:
    """Remove the kubelets' log links that point below ``folder``, and CNI's record of our pods."""
    for link in _CONTAINER_LOGS.glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{folder}/"):
            link.unlink(missing_ok=True)
    for result in _CNI_RESULTS.glob(f"{NAME}-*"):
        result.unlink(missing_ok=True)


def enable_forwarding() -> None:
    """Let the machine route between pods."""
    (_SYSCTL / "net/ipv4/ip_forward").write_text("1")


def _record(layout: Layout) -> Path:
    return layout.state / "host.json"
