"""The check of names counts what a module binds, and fails above a package's budget."""

from __future__ import annotations

import ast
import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tools.common.errors import ToolError
from tools.common.paths import ROOT
from tools.names.__main__ import check, read_settings
from tools.names.count import Count, bound_names, count

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
import json as made
found: int = 1
_told, (wanted, *rest) = 1, (2, 3)
for seen in found:
    with open(seen) as given:
        given.kept = [named for named in seen]
try:
    (left := found)
except OSError as known:
    pass
def asked(said, /, *more, its, **others):
    match said:
        case {"a": [shown, *ours]} as held:
            return lambda drawn: drawn
class called: ...
"""
BOUND = (
    "found _told wanted rest seen given kept named left known asked said more its others shown ours held drawn called"
)


def test_every_way_to_bind_a_name_is_counted_once() -> None:
    assert sorted(bound_names(ast.parse(SOURCE))) == sorted(BOUND.split())


def test_only_whole_names_without_case_and_underscores_are_matches() -> None:
    source = "found = _FOUND = found_engines = was_found = engines = 1\nclass Found: ...\nprint(found)"
    assert count(source, {"found"}) == Count(bindings=6, matches=3)
    assert count(source, {"found"}).percent == 50.0
    assert count("", {"found"}).percent == 0.0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[tool.names]\nwords = ["found"]\nbudgets = {good = 50.0, bad = 49.9}\n')
    for package in ("good", "bad"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "module.py").write_text("found = 1\nengines = 2\n")
    return tmp_path


def test_a_package_above_its_budget_fails_and_the_worst_files_are_named(project: Path) -> None:
    output = io.StringIO()
    with pytest.raises(ToolError, match=r"budget in bad\n"):
        check(project, Console(file=output, width=120))
    assert "bad/module.py" in output.getvalue()
    (project / "bad" / "module.py").write_text("found = 1\nengines = images = 2\n")
    check(project, Console(file=io.StringIO()))


def test_every_folder_with_our_code_has_a_budget() -> None:
    packages = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("[!.]*/**/*.py")}
    settings = read_settings(ROOT / "pyproject.toml")
    assert packages - {"out", "site", "build", "dist"} <= {*settings.budgets, "charts"}
    assert len(settings.words) > 20
