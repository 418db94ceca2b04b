"""Build contexts: a folder with exactly the files that a Containerfile copies."""

from __future__ import annotations

import os
import shutil
import tomllib
from typing import TYPE_CHECKING

from tools.common.errors import ToolError
from tools.common.packages import require_uv
from tools.images.digest import Inputs, files_below, fingerprint, tag_of
from tools.images.downloads import requirements, server_wheel
from tools.images.recipes import PYTRITON_SHA256, layer_chain

if TYPE_CHECKING:
    from pathlib import Path

    from tools.images.paths import Paths
    from tools.images.recipes import Recipe

_METADATA = "code/diffusion_operator.dist-info/METADATA"
# A fixed time on every file: the same content is the same layer, whenever it was checked out.
_FILE_TIME = 1_577_836_800


def source_files(recipe: Recipe, paths: Paths) -> dict[str, Path]:
    """Return path in the context → file of the checkout; ToolError for one that is not there."""
    files: dict[str, Path] = {}
    for source, destination in recipe.files:
        below = files_below(paths.root / source, destination)
        if not below:
            raise ToolError(f"The image {recipe.name} needs {source}, which is not in this checkout.")
        files |= below
    return files


def tags(recipe: Recipe, paths: Paths, *, root_image: str = "") -> dict[str, str]:
    """Return name → tag of the recipe and everything that it stands on.

    Args:
        recipe: The image.
        paths: Where the checkout and the cache are.
        root_image: What the first image stands on; empty for the one that debootstrap makes.
    """
    image_tags: dict[str, str] = {}
    for step in layer_chain(recipe):
        files = {name: fingerprint(path) for name, path in source_files(step, paths).items()}
        if step.server:
            files["pytriton.whl"] = PYTRITON_SHA256
        if _holds_code(step):
            files[_METADATA] = _metadata(paths)
        inputs = Inputs(
            containerfile=(paths.root / step.containerfile).read_text(),
            target=step.target,
            files=files,
            requirements=requirements(step, paths),
            parent=image_tags[step.parent] if step.parent else root_image,
            arguments=step.arguments,
        )
        image_tags[step.name] = tag_of(inputs)
    return image_tags


def write_context(recipe: Recipe, paths: Paths, folder: Path) -> None:
    """Write the recipe's build context into an empty folder."""
    files = source_files(recipe, paths)
    if recipe.server:
        files["pytriton.whl"] = server_wheel(paths)
    for name, source in files.items():
        _copy(source, folder / name)
    if _holds_code(recipe):
        _write(folder / _METADATA, _metadata(paths))
    if recipe.extras:
        _write(folder / "requirements.txt", requirements(recipe, paths))
        _copy(require_uv(), folder / "uv")


def _holds_code(recipe: Recipe) -> bool:
    return any(destination.startswith("code/") for _, destination in recipe.files)


def _metadata(paths: Paths) -> str:
    """Return the least that lets our code in an image ask for its own version."""
    project = tomllib.loads((paths.root / "pyproject.toml").read_text())["project"]
    return f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (_FILE_TIME, _FILE_TIME))


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
    destination.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
    os.utime(destination, (_FILE_TIME, _FILE_TIME))
