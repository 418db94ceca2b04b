"""Which process of the cluster tests runs the canaries, and how it learns where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import processes
from tests.support.cluster.processes import Handover, has_canaries_apart
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("modules", "count", "apart"),
    [
        (["test_bad_input.py", "test_canary.py"], 2, True),
        (["test_bad_input.py", "test_canary.py"], 1, False),
        (["test_slice.py", "test_canary.py"], 2, False),
        (["test_bad_input.py"], 2, False),
    ],
)
def test_canaries_are_apart_where_another_process_builds_for_them(modules: list[str], count: int, apart: bool) -> None:  # noqa: FBT001 - a parameter
    assert has_canaries_apart(modules, count) is apart
    assert {path.name for path in (ROOT / "tests" / "cluster").glob("test_*.py")} >= set(modules)


def test_a_document_is_received_once_it_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handover = Handover(tmp_path / "handover")
    handover.publish("stage", {"namespace": "first"})
    handover.publish("stage", {"namespace": "second"})
    handover.publish_default("stage", {"problem": "none"})
    assert handover.receive("stage") == {"namespace": "second"}
    handover.publish_default("finished", {})
    assert handover.receive("finished") == {}
    monkeypatch.setattr(processes, "HANDOVER_SECONDS", 0.0)
    with pytest.raises(AssertionError, match="the other process hands over: library"):
        handover.receive("library")
