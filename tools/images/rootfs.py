"""The first image: a minimal Debian that debootstrap makes from Debian's packages."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.common.errors import ToolError
from tools.common.packages import require_program
from tools.common.shell import run_logged

if TYPE_CHECKING:
    from tools.images.buildah import Buildah
    from tools.images.paths import Paths

SUITE: Final = "bookworm"
MIRROR: Final = "http://deb.debian.org/debian"
PACKAGES: Final = ("python3", "libpython3.11", "ca-certificates")
REFERENCE: Final = "localhost/diffusion-rootfs:" + SUITE
# Package lists, archives and documentation: nothing that runs reads them.
_LEFT_OUT: Final = (
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./usr/share/doc/*",
    "./usr/share/locale/*",
    "./dev/*",
)


def ensure_rootfs(buildah: Buildah, paths: Paths) -> str:
    """Return the reference of the root image; make it where it is missing (about a minute)."""
    if not buildah.has(REFERENCE):
        archive = _archive(paths)
        with tempfile.TemporaryDirectory(dir=paths.cache) as folder:
            os.link(archive, Path(folder) / "rootfs.tar")
            buildah.build(paths.root / "tools/images/base/Rootfs", Path(folder), REFERENCE)
    return REFERENCE


def _archive(paths: Paths) -> Path:
    archive = paths.cache / f"rootfs-{SUITE}.tar"
    if archive.exists():
        return archive
    if os.geteuid() != 0:
        raise ToolError(
            "Making the base image needs root (debootstrap).\n"
            "Run this as root, or name a Debian image: --root-image docker.io/library/debian:bookworm-slim"
        )
    log = paths.logs / "debootstrap.log"
    debootstrap = require_program("debootstrap")
    with tempfile.TemporaryDirectory(dir=paths.cache) as folder:
        tree = Path(folder) / "tree"
        command = [
            debootstrap,
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            SUITE,
            str(tree),
            MIRROR,
        ]
        run_logged(["nice", *command], log, what=f"debootstrap of Debian {SUITE}")
        fresh = Path(folder) / "rootfs.tar"
        leave_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
        pack = [
            str(shutil.which("tar")),
            "--create",
            "--file",
            str(fresh),
            "--directory",
            str(tree),
            *leave_out,
            ".",
        ]
        run_logged(pack, log, what="packing the base")
        fresh.replace(archive)
    return archive
