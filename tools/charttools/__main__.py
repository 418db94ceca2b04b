"""`python -m tools.charttools docs|install|manifests [--check]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tools.charttools import values
from tools.common.cli import run_command
from tools.common.errors import ToolError
from tools.common.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def cli() -> None:
    """Write what is made from the charts."""


@cli.command()
@click.option("--check", is_flag=True, help="Fail when the file is out of date.")
def docs(*, check: bool) -> None:
    """The table of values in docs/chart.md."""
    from tools.charttools.render import CHART  # noqa: PLC0415 - imports follow the command

    document = ROOT / "docs" / "chart.md"
    content = values.inserted(document.read_text(), values.read((CHART / "values.yaml").read_text()))
    _write_files({document: content}, "make charts", check=check)


@cli.command()
@click.option("--check", is_flag=True, help="Fail when the file is out of date.")
def install(*, check: bool) -> None:
    """The plain manifest deploy/install.yaml, from the definition and the kustomize base."""
    from tools.charttools.manifests import INSTALL, OPERATOR, installation  # noqa: PLC0415 - imports follow the command

    _write_files({INSTALL: installation(OPERATOR.read_text())}, "make crds", check=check)


@cli.command()
@click.option("--check", is_flag=True, help="Fail when a file is out of date.")
def manifests(*, check: bool) -> None:
    """The kustomize bases and the plain manifest; needs Helm (`python -m tools.devcluster build`)."""
    from tools.charttools.manifests import files  # noqa: PLC0415 - same

    _write_files(files(), "make manifests", check=check)


def _write_files(contents: dict[Path, str], command: str, *, check: bool) -> None:
    stale = [path for path, text in contents.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        raise ToolError(f"Out of date: {', '.join(map(str, stale))}. Run `{command}`.")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents[path])


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(cli, "python -m tools.charttools")


if __name__ == "__main__":
    raise SystemExit(main())
