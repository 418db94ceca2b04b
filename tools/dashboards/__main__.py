"""`python -m tools.dashboards --write|--check FOLDER`."""

import sys
from pathlib import Path

import click

from tools.dashboards.content import BOARDS
from tools.dashboards.render import text

BAD_INPUT = 64


@click.command()
@click.option("--write", "target", type=click.Path(file_okay=False, path_type=Path), help="Write the dashboards there.")
@click.option("--check", "checked", type=click.Path(file_okay=False, path_type=Path), help="Fail when they differ.")
def main(target: Path | None, checked: Path | None) -> None:
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
            click.echo(f"error: {checked}: {', '.join(wrong)} are out of date: run `make dashboards`.", err=True)
            sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
