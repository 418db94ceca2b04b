"""Where tests and what they share lie: suites and benchmarks know `tests.support`, and not each other."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUPPORT = ROOT / "tests" / "support"
SUITES = tuple(sorted(path for path in (ROOT / "tests").iterdir() if path != SUPPORT and any(path.rglob("test_*.py"))))


def imports(source: str) -> Iterator[str]:
    """Full names of everything that a module imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(path: Path, source: str) -> list[str]:
    """Imports of a test suite's modules, and a test's imports of benchmarks."""
    suites = tuple(f"tests.{suite.name}." for suite in SUITES)
    forbidden = suites if path.is_relative_to(ROOT / "benchmarks") else (*suites, "benchmarks.")
    return [name for name in imports(source) if name.startswith(forbidden) or ".test_" in name]


def test_nothing_imports_a_test_module_or_another_suite() -> None:
    paths = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert len(paths) > 100
    assert {str(path): names for path in paths if (names := violations(path, path.read_text()))} == {}


def test_a_suite_holds_tests_and_fixtures_only() -> None:
    paths = [path for suite in SUITES for path in suite.rglob("*.py")]
    strays = [path for path in paths if not path.name.startswith("test_") and path.name != "conftest.py"]
    assert strays == []


def test_the_support_holds_no_tests() -> None:
    assert list(SUPPORT.rglob("test_*.py")) == []


def test_violations_are_seen() -> None:
    path = ROOT / "tests" / "unit" / "test_example.py"
    source = "from tests.support import paths\nfrom tests.unit import queries\nfrom benchmarks import operator\n"
    assert violations(path, source) == ["tests.unit.queries", "benchmarks.operator"]
    assert violations(path, "import tests.cluster.test_canary") == ["tests.cluster.test_canary"]
    assert violations(ROOT / "benchmarks" / "operator.py", "from benchmarks.checkpoints import write") == []
