"""Every fragment of the changelog is rendered, into a file that takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "changelog.d"
KINDS = {"feature", "bugfix", "doc", "removal", "misc"}
MARKER = "<!-- towncrier release notes start -->"


def rendered() -> str:
    """What the next release's notes would be."""
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9", "--date", "2000-01-01"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_changelog_says_where_notes_go() -> None:
    assert (ROOT / "CHANGELOG.md").read_text().count(MARKER) == 1


def test_every_fragment_has_a_kind_that_is_rendered() -> None:
    names = [path.name for path in FOLDER.iterdir() if not path.name.startswith(".")]
    assert [name for name in names if not re.fullmatch(r"\+[a-z0-9-]+\.(\w+)\.md", name)] == []
    assert {name.split(".")[1] for name in names} <= KINDS


def test_every_fragment_is_in_the_notes_as_one_item() -> None:
    notes = " ".join(rendered().split())
    assert "## 9.9.9 (2000-01-01)" in notes
    missing = [path.name for path in FOLDER.glob("*.md") if " ".join(path.read_text().split()) not in notes]
    assert missing == []


def test_a_release_moves_every_fragment_into_the_changelog_under_its_kind(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    introduction, _, _ = (ROOT / "CHANGELOG.md").read_text().partition(MARKER)
    (tmp_path / "CHANGELOG.md").write_text(introduction + MARKER + "\n")
    for kind in KINDS:
        path = tmp_path / "changelog.d" / f"+one.{kind}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"This is of the kind {kind}.\n")
    subprocess.run([sys.executable, "-m", "towncrier", "build", "--yes"], cwd=tmp_path, check=True, capture_output=True)
    notes = (tmp_path / "CHANGELOG.md").read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version} (" in notes
    headings = re.findall(r"^### (.*)$", notes, flags=re.MULTILINE)
    assert headings == ["Removals", "Features", "Bug fixes", "Documentation", "Tests and tools"]
    assert [notes.count(f"- This is of the kind {kind}.") for kind in KINDS] == [1] * len(KINDS)
    assert list((tmp_path / "changelog.d").glob("*.md")) == []


def test_every_note_is_a_paragraph_of_prose() -> None:
    """Those of the next release, of which there may be none yet, and those of all releases."""
    texts = {path.name: path.read_text().strip() for path in FOLDER.glob("*.md")}
    assert [name for name, text in texts.items() if not re.fullmatch(r"[^-*#\n][^\n]*(\n[^-*#\n][^\n]*)*", text)] == []
    _, _, releases = (ROOT / "CHANGELOG.md").read_text().partition(MARKER)
    lines = [line for line in releases.splitlines() if line]
    assert [line for line in lines if not re.match(r"(##+ |- [^-*#]|  )", line)] == []
