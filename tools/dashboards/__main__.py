"""`python -m tools.dashboards --write|--check FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tools.common.cli import run_command
from tools.common.errors import bad_input
from tools.dashboards.content import BOARDS
from tools.dashboards.render import text

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.option("--write", "target", type=click.Path(file_okay=False, path_type=Path), help="Write the dashboards there.")
@click.option("--check", "checked", type=click.Path(file_okay=False, path_type=Path), help="Fail when they differ.")
def cli(target: Path | None, checked: Path | None) -> None:
    """Write or check the Grafana dashboards, one JSON file each."""
    files = {f"{board.name}.json": text(board) for board in BOARDS}
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (target / name).write_text(content)
    if checked is not None:
        present = {path.name: path.read_text() for path in checked.glob("*.json")}
        wrong = sorted(name for name in {*files, *present} if files.get(name) != present.get(name))
        if wrong:
            raise bad_input(f"{checked}: {', '.join(wrong)} are out of date", do="run `make dashboards`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_command(cli, "python -m tools.dashboards", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
