"""What comes from package registries: requirements out of the lock file, and the server's wheel."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.images.commands import output_of, run_logged
from tools.images.errors import ImageError
from tools.images.recipes import PYTRITON, PYTRITON_SHA256

if TYPE_CHECKING:
    from tools.images.paths import Paths
    from tools.images.recipes import Recipe


def uv_program(paths: Paths) -> Path:
    """Return the real uv: a version manager's shim would neither run inside an image nor be quick here."""
    known = os.environ.get("UV")
    if known and Path(known).is_file():
        return Path(known)
    command = shutil.which("uv") or str(paths.cache.parent / "uv" / "bin" / "uv")
    # uv tells what it starts where it lies itself.
    ask = [command, "run", "--no-project", "python", "-c", "import os; print(os.environ['UV'])"]
    return Path(output_of(ask, what="finding uv").strip())


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
    kept = paths.downloads / f"requirements-{key[:16]}.txt"
    if not kept.exists():
        uv = str(uv_program(paths))
        text = output_of([uv, "export", *options], what="uv export", cwd=paths.root)
        _publish(kept, text.encode())
    return kept.read_text()


def server_wheel(paths: Paths) -> Path:
    """Return the wheel that holds tritonserver; downloaded once, refused with another digest than ours."""
    kept = paths.downloads / f"{PYTRITON.replace('==', '-')}.whl"
    if kept.exists() and _sha256(kept) == PYTRITON_SHA256:
        return kept
    paths.downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.downloads) as folder:
        uv = str(uv_program(paths))
        # The tags are named because the host's Python may be newer than the wheel's list of versions.
        tags = ["--only-binary", ":all:", "--platform", "manylinux_2_35_x86_64", "--python-version", "3.11"]
        pip = [uv, "run", "--no-project", "--with", "pip", "python", "-m", "pip", "download", "--no-deps"]
        run_logged(
            [*pip, *tags, "-d", folder, PYTRITON],
            paths.logs / "downloads.log",
            what=f"downloading {PYTRITON}",
        )
        (wheel,) = Path(folder).glob("*.whl")
        if _sha256(wheel) != PYTRITON_SHA256:
            raise ImageError(f"{PYTRITON} has the SHA-256 {_sha256(wheel)}, expected {PYTRITON_SHA256}: not used.")
        wheel.replace(kept)
    return kept


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    fresh.write_bytes(content)
    fresh.replace(path)
