"""`python -m tools.charttools docs|install|manifests [--check]`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tools.charttools import values
from tools.charttools.errors import ChartError

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def cli() -> None:
    """Write what is made from the charts."""


@cli.command()
@click.option("--check", is_flag=True, help="Fail when the file is out of date.")
def docs(*, check: bool) -> None:
    """The table of values in docs/chart.md."""
    from tools.charttools.render import CHART, ROOT  # noqa: PLC0415 - imports follow the command

    document = ROOT / "docs" / "chart.md"
    made = values.inserted(document.read_text(), values.read((CHART / "values.yaml").read_text()))
    _put({document: made}, "make charts", check=check)


@cli.command()
@click.option("--check", is_flag=True, help="Fail when the file is out of date.")
def install(*, check: bool) -> None:
    """The plain manifest deploy/install.yaml, from the definition and the kustomize base."""
    from tools.charttools.manifests import INSTALL, OPERATOR, installation  # noqa: PLC0415 - imports follow the command

    _put({INSTALL: installation(OPERATOR.read_text())}, "make crds", check=check)


@cli.command()
@click.option("--check", is_flag=True, help="Fail when a file is out of date.")
def manifests(*, check: bool) -> None:
    """The kustomize bases and the plain manifest; needs Helm (`python -m tools.devcluster build`)."""
    from tools.charttools.manifests import files  # noqa: PLC0415 - same

    _put(files(), "make manifests", check=check)


def _put(made: dict[Path, str], command: str, *, check: bool) -> None:
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        raise ChartError(f"Out of date: {', '.join(map(str, stale))}. Run `{command}`.")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path])


def main() -> None:
    """Entry point: an expected error is one readable block."""
    try:
        cli(standalone_mode=False)
    except ChartError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(64)


if __name__ == "__main__":
    main()
