"""`python -m tools.images build|push|tags|context`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tools.common.cli import run_command
from tools.common.errors import bad_input
from tools.images.build import Options, build_all
from tools.images.contexts import tags, write_context
from tools.images.paths import default_paths
from tools.images.recipes import CHART_NAMES, RECIPES, by_name
from tools.images.registry import parse_registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tools.images.registry import Registry

_NAMES = [recipe.name for recipe in RECIPES]
_PUBLISHED = tuple(recipe.name for recipe in RECIPES if recipe.published)
_names = click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice(_NAMES))
_root_image = click.option(
    "--root-image", default="", metavar="IMAGE", help="Debian or NGC image instead of debootstrap's."
)
_new_file = click.Path(dir_okay=False, path_type=Path)
_existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_result = click.option(
    "--result", "result_file", metavar="FILE", type=_new_file, help="Write the answer there, not to stdout."
)


@dataclass(frozen=True, kw_only=True)
class _Push:
    """Options of `push`."""

    address: str
    ca_file: Path | None
    plain_http: bool
    version_tag: str
    root_image: str
    values_file: Path | None
    pull_secret: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 (something failed) or 64 (change something)."""
    return run_command(cli, "python -m tools.images", arguments)


@click.group()
def cli() -> None:
    """Build the project's container images with buildah, from nothing but package registries."""


@cli.command()
@_names
@_root_image
@_result
def build(names: Sequence[str], root_image: str, result_file: Path | None) -> None:
    """Build what changed."""
    _answer(_build(names or _PUBLISHED, Options(root_image=root_image, report=_report)), result_file)


@cli.command()
@click.argument("address", metavar="HOST[:PORT][/PATH]")
@_names
@click.option("--ca-file", metavar="FILE", type=_existing_file, help="The authority of the registry's certificate.")
@click.option("--plain-http", is_flag=True, help="Without TLS, as on this machine's loopback.")
@click.option("--tag", "version_tag", default="", metavar="TAG", help="A second tag, such as the version.")
@_root_image
@click.option(
    "--values", "values_file", metavar="FILE", type=_new_file, help="Write the chart's values for these images there."
)
@click.option(
    "--pull-secret", default="", metavar="NAME", help="Pull secret of the cluster's nodes; goes into the values."
)
def push(names: Sequence[str], **settings: Any) -> None:  # noqa: ANN401 - click's values, read by the model
    """Build and push what changed; logins are those of docker, podman, buildah or skopeo.

    Without names: the images that a cluster needs.
    """
    arguments = _Push(**settings)
    registry = parse_registry(arguments.address, plain_http=arguments.plain_http, ca_file=arguments.ca_file)
    options = Options(
        registry=registry, version_tag=arguments.version_tag, root_image=arguments.root_image, report=_report
    )
    references = _build(names or tuple(CHART_NAMES), options)
    if arguments.values_file:
        arguments.values_file.write_text(chart_values(registry, references, arguments.pull_secret))
    _answer(references, None)


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


def chart_values(registry: Registry, references: Mapping[str, str], pull_secret: str = "") -> str:
    """Return a file of values with which the chart takes exactly these images (YAML)."""
    lines = ["images:", f"  registry: {registry.address}"]
    for name, reference in references.items():
        if name in CHART_NAMES:
            tag = reference.rpartition(":")[2]
            lines.append(f'  {CHART_NAMES[name]}: {{repository: {by_name(name).repository}, tag: "{tag}"}}')
    if pull_secret:
        lines.append(f"imagePullSecrets: [{{name: {pull_secret}}}]")
    return "\n".join(lines) + "\n"


def _build(names: Sequence[str], options: Options) -> dict[str, str]:
    return build_all([by_name(name) for name in names], default_paths(), options)


def _report(name: str, what: str, seconds: float) -> None:
    console = Console(stderr=True, highlight=False)
    console.print(f"  image {name:<15} {what:<9} {f'{seconds:6.1f} s' if seconds else ''}".rstrip())


def _answer(values: Mapping[str, str], file: Path | None) -> None:
    text = json.dumps(values, indent=2) + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        file.write_text(text)
