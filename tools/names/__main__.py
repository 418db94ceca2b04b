"""`python -m tools.names`: fails when a package binds more words to avoid than its budget in pyproject.toml."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import click
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from tools.common.cli import run_command
from tools.common.errors import ToolError
from tools.common.paths import ROOT
from tools.names.count import Count, count

if TYPE_CHECKING:
    from pathlib import Path

_WORST_FILES = 10


class Settings(BaseModel):
    """`[tool.names]` of pyproject.toml.

    Attributes:
        words: names to avoid.
        budgets: folder → largest share of such names in its bindings, in percent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: frozenset[str]
    budgets: dict[str, float]


def read_settings(pyproject: Path) -> Settings:
    """Read `[tool.names]`."""
    return Settings.model_validate(tomllib.loads(pyproject.read_text())["tool"]["names"])


def count_files(folder: Path, settings: Settings) -> dict[Path, Count]:
    """Count the bindings of every Python file below a folder."""
    return {path: count(path.read_text(), settings.words) for path in sorted(folder.rglob("*.py"))}


def check(root: Path, console: Console) -> None:
    """Print the share of every package and the worst files.

    Raises:
        ToolError: A package is above its budget.
    """
    settings = read_settings(root / "pyproject.toml")
    files = {package: count_files(root / package, settings) for package in settings.budgets}
    totals = {package: sum(counts.values(), Count()) for package, counts in files.items()}
    console.print(_package_table(totals, settings))
    console.print(_file_table({path: each for counts in files.values() for path, each in counts.items()}, root))
    exceeded = [package for package, total in totals.items() if total.percent > settings.budgets[package]]
    if exceeded:
        raise ToolError(
            f"names that do not say what they hold exceed the budget in {', '.join(exceeded)}",
            do="name the noun of what is held, or the verb and noun of what is done (docs/glossary.md)",
        )


def _package_table(totals: dict[str, Count], settings: Settings) -> Table:
    table = Table("package", "bindings", "to avoid", "percent", "budget", box=None)
    for package, total in totals.items():
        budget = f"{settings.budgets[package]:.2f}"
        table.add_row(package, str(total.bindings), str(total.matches), f"{total.percent:.2f}", budget)
    return table


def _file_table(counts: dict[Path, Count], root: Path) -> Table:
    table = Table("worst files", "bindings", "to avoid", "percent", box=None)
    worst = sorted(counts.items(), key=lambda pair: pair[1].matches, reverse=True)[:_WORST_FILES]
    for path, each in worst:
        if each.matches:
            table.add_row(str(path.relative_to(root)), str(each.bindings), str(each.matches), f"{each.percent:.1f}")
    return table


@click.command()
def cli() -> None:
    """Count names that do not say what they hold, against the budgets in pyproject.toml."""
    check(ROOT, Console(width=120, highlight=False))


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(cli, "python -m tools.names")


if __name__ == "__main__":
    raise SystemExit(main())
