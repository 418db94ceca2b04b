"""Buildah with a storage of our own, below the cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.packages import require_program
from tools.common.shell import attempt, run_logged
from tools.images.registry import is_local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.images.credentials import Login
    from tools.images.paths import Paths
    from tools.images.registry import Registry

# The host's certificates, for those who sit behind a proxy with an authority of its own.
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_UV_CACHE = "/var/cache/uv"


@dataclass(frozen=True)
class Buildah:
    """The few commands that are needed, each idempotent."""

    program: str
    paths: Paths
    driver: str

    def _command(self, *arguments: str) -> list[str]:
        storage = ["--root", str(self.paths.storage), "--runroot", str(self.paths.cache / "run")]
        return [self.program, *storage, "--storage-driver", self.driver, *arguments]

    def has(self, reference: str) -> bool:
        """Whether the image is in our storage."""
        return not attempt(self._command("inspect", "--type", "image", reference)).returncode

    def build(self, containerfile: Path, context: Path, reference: str, options: Sequence[str] = ()) -> None:
        """Build one image; ToolError with the end of the log where it fails."""
        fixed = ["--isolation", "chroot", "--network", "host", "--layers", "--format", "oci", "--pull=false"]
        fixed += [f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro"] if _CERTIFICATES.exists() else []
        where = ["--file", str(containerfile), "--tag", reference, str(context)]
        log = self.paths.logs / f"{reference.rpartition(':')[0].rpartition('/')[2]}.log"
        run_logged(["nice", *self._command("build", *fixed, *options, *where)], log, what=f"building {reference}")

    def push(self, reference: str, destination: str, registry: Registry, login: Login | None) -> None:
        """Push; to this machine's own registry without compression, since the layers are gigabytes.

        Args:
            reference: The image in our storage.
            destination: Its reference in the registry.
            registry: How to speak to it.
            login: The login, whose auth file buildah reads itself; None for a registry without logins.
        """
        options = ["--disable-compression"] if is_local(destination) else []
        options += ["--tls-verify=false"] if registry.plain_http else []
        options += [f"--authfile={login.file}"] if login else []
        log = self.paths.logs / "push.log"
        with tempfile.TemporaryDirectory(dir=self.paths.cache) as folder:
            if registry.ca_file:
                # A folder that buildah is given replaces its own ones: the file is all that it needs then.
                shutil.copyfile(registry.ca_file, Path(folder) / "ca.crt")
                options.append(f"--cert-dir={folder}")
            command = self._command("push", "--quiet", *options)
            run_logged([*command, reference, f"docker://{destination}"], log, what=f"pushing {destination}")


def open_buildah(paths: Paths) -> Buildah:
    """Return buildah with the storage driver that works here; it is installed where it is missing."""
    program = require_program("buildah")
    choice = paths.cache / "storage-driver"
    if not choice.exists():
        # Overlay cannot lie on another overlay, as in most containers; plain copies always work.
        works = os.geteuid() == 0 and _overlay_works(program, paths)
        paths.cache.mkdir(parents=True, exist_ok=True)
        choice.write_text("overlay" if works else "vfs")
    return Buildah(program=program, paths=paths, driver=choice.read_text().strip())


def uv_cache_options(cache: Path) -> list[str]:
    """Return the options that let a build take packages from the host's uv cache instead of the network."""
    return [f"--volume={cache}:{_UV_CACHE}", f"--build-arg=UV_CACHE_DIR={_UV_CACHE}"]


def _overlay_works(program: str, paths: Paths) -> bool:
    storage = [
        "--root",
        str(paths.storage),
        "--runroot",
        str(paths.cache / "run"),
        "--storage-driver",
        "overlay",
    ]
    return not attempt([program, *storage, "images"]).returncode
