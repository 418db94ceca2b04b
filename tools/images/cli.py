"""`python -m tools.images build|tags|context`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from tools.common.cli import run_command
from tools.common.errors import bad_input
from tools.images.build import Options, build_all
from tools.images.contexts import tags, write_context
from tools.images.paths import default_paths
from tools.images.recipes import RECIPES, by_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = [recipe.name for recipe in RECIPES]
_PUBLISHED = tuple(recipe.name for recipe in RECIPES if recipe.published)
_names = click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice(_NAMES))
_root_image = click.option(
    "--root-image", default="", metavar="IMAGE", help="Debian or NGC image instead of debootstrap's."
)
_result = click.option(
    "--result",
    "result_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the answer there, not to stdout.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 (something failed) or 64 (change something)."""
    return run_command(cli, "python -m tools.images", arguments)


@click.group()
def cli() -> None:
    """Build the project's container images with buildah, from nothing but package registries."""


@cli.command()
@_names
@click.option("--push", default="", metavar="HOST:PORT", help="Registry that takes the images; plain HTTP on loopback.")
@_root_image
@_result
def build(names: Sequence[str], push: str, root_image: str, result_file: Path | None) -> None:
    """Build, and with --push push, what changed."""
    console = Console(stderr=True, highlight=False)

    def report(name: str, what: str, seconds: float) -> None:
        console.print(f"  image {name:<15} {what:<9} {f'{seconds:6.1f} s' if seconds else ''}".rstrip())

    options = Options(registry=push, root_image=root_image, report=report)
    _answer(build_all([by_name(name) for name in names or _PUBLISHED], default_paths(), options), result_file)


@cli.command("tags")
@_names
@_root_image
@_result
def print_tags(names: Sequence[str], root_image: str, result_file: Path | None) -> None:
    """Print the tags, which are digests of all inputs."""
    paths = default_paths()
    recipes = [by_name(name) for name in names or _PUBLISHED]
    _answer({recipe.name: tags(recipe, paths, root_image=root_image)[recipe.name] for recipe in recipes}, result_file)


@cli.command()
@click.argument("name", type=click.Choice(_NAMES))
@click.option("--out", "folder", required=True, metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path))
@_result
def context(name: str, folder: Path, result_file: Path | None) -> None:
    """Write a build context for docker build or podman build."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise bad_input(f"{folder} is not empty", do="name a new folder for the build context")
    recipe = by_name(name)
    write_context(recipe, default_paths(), folder)
    _answer({"context": str(folder), "containerfile": recipe.containerfile}, result_file)


def _answer(values: Mapping[str, str], file: Path | None) -> None:
    text = json.dumps(values, indent=2) + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        file.write_text(text)
