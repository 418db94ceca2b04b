"""`python -m tools.images build|tags|context`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tools.images.build import Options, build_all
from tools.images.contexts import lay_out, tags
from tools.images.errors import ImageError
from tools.images.paths import default_paths
from tools.images.recipes import RECIPES, by_name


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 for success, 1 with one readable block for an error."""
    arguments = parser().parse_args(argv)
    console = Console(stderr=True, highlight=False)
    try:
        answer = _COMMANDS[arguments.command](arguments, console)
    except ImageError as error:
        console.print(f"[bold red]images:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("[yellow]images: stopped; the next run goes on from here.[/]")
        return 130
    if arguments.result:
        arguments.result.write_text(json.dumps(answer, indent=2) + "\n")
    else:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    return 0


def _build(arguments: argparse.Namespace, console: Console) -> dict[str, str]:
    def report(name: str, what: str, seconds: float) -> None:
        console.print(f"  image {name:<15} {what:<9} {f'{seconds:6.1f} s' if seconds else ''}".rstrip())

    options = Options(registry=arguments.push, root_image=arguments.root_image, report=report)
    return build_all([by_name(name) for name in _names(arguments)], default_paths(), options)


def _tags(arguments: argparse.Namespace, _: Console) -> dict[str, str]:
    paths = default_paths()
    wanted = [by_name(name) for name in _names(arguments)]
    return {one.name: tags(one, paths, root_image=arguments.root_image)[one.name] for one in wanted}


def _context(arguments: argparse.Namespace, _: Console) -> dict[str, str]:
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ImageError(f"{folder} is not empty. Name a new folder for the build context.")
    recipe = by_name(arguments.name)
    lay_out(recipe, default_paths(), folder)
    return {"context": str(folder), "containerfile": recipe.containerfile}


_COMMANDS = {"build": _build, "tags": _tags, "context": _context}


def _names(arguments: argparse.Namespace) -> list[str]:
    return arguments.names or [recipe.name for recipe in RECIPES if recipe.published]


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = [recipe.name for recipe in RECIPES]
    build = commands.add_parser("build", help="build, and with --push push, what changed")
    build.add_argument(
        "--push", default="", metavar="HOST:PORT", help="registry that takes the images; plain HTTP on loopback"
    )
    tag = commands.add_parser("tags", help="print the tags, which are digests of all inputs")
    context = commands.add_parser("context", help="write a build context for docker build or podman build")
    context.add_argument("name", choices=names)
    context.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    for command in (build, tag):
        command.add_argument("names", nargs="*", choices=[*names, []], metavar="NAME", help=", ".join(names))
        command.add_argument("--root-image", default="", help="Debian or NGC image instead of debootstrap's")
    for command in (build, tag, context):
        command.add_argument("--result", type=Path, metavar="FILE", help="write the answer there, not to stdout")
    return parser
