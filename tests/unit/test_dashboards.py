"""Dashboards and alerts ask for what is really exported, and the chart has what the code generates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import in_language
from tests.support.paths import ROOT
from tests.support.queries import ALERTS, expressions, legend_problems, problems
from tools.dashboards.__main__ import main
from tools.dashboards.content import BOARDS
from tools.dashboards.render import text

if TYPE_CHECKING:
    from pathlib import Path

    from tools.dashboards.model import Dashboard

FOLDER = ROOT / "charts" / "diffusion-operator" / "dashboards"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_query_of_a_dashboard_asks_for_series_and_labels_that_exist(board: Dashboard) -> None:
    queries = [(panel.title, query) for panel in board.panels for query in panel.queries]
    problems_by_title = [
        (title, *problems(query.expr), *legend_problems(query.expr, query.legend)) for title, query in queries
    ]
    assert [item for item in problems_by_title if len(item) > 1] == []


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_choice_is_a_label_of_its_series(board: Dashboard) -> None:
    wrong = [problems(f"sum by ({variable.label}) ({variable.metric})") for variable in board.variables]
    assert [item for item in wrong if item] == []


def test_every_alert_asks_for_series_and_labels_that_exist() -> None:
    rules = ALERTS.read_text()
    alert_queries = expressions(rules)
    assert len(alert_queries) == rules.count("- alert:") > 5
    assert [(query, problems(query)) for query in alert_queries if problems(query)] == []


def test_every_query_of_the_documents_asks_for_series_that_exist() -> None:
    queries = [line.partition("#")[0].strip() for block in in_language("promql") for line in block.text.splitlines()]
    assert [(query, problems(query)) for query in queries if query and problems(query)] == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sum(diffusion_operator_leeder)", "diffusion_operator_leeder"),
        ('sum(diffusion_operator_pipelines{redy="True"})', "redy"),
        ("sum by (modle) (rate(nv_inference_count[5m]))", "modle"),
        ("rate(nv_inference_count[5m]", ""),
        (
            "histogram_quantile(0.5, sum by (le) (rate(diffusion_operator_build_duration_seconds[5m])))",
            "build_duration_seconds",
        ),
    ],
)
def test_a_wrong_query_is_found(query: str, says: str) -> None:
    assert any(says in text for text in problems(query))


def test_a_wrong_legend_is_found() -> None:
    assert legend_problems("sum by (model) (nv_inference_count)", "{{modle}}")
    assert not legend_problems("sum by (target, model) (nv_inference_count)", "{{target}} {{model}}")


def test_the_chart_has_the_dashboards_that_the_code_generates() -> None:
    generated = {f"{board.name}.json": text(board) for board in BOARDS}
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == generated


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_panels_fill_rows_and_have_numbers_of_their_own(board: Dashboard) -> None:
    panels = json.loads(text(board))["panels"]
    cells = [(x, y) for panel in panels for x, y in _cells(panel["gridPos"])]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in panels}) == len(panels) == len(board.panels)


def _cells(position: dict[str, int]) -> list[tuple[int, int]]:
    columns = range(position["x"], position["x"] + position["w"])
    return [(x, y) for x in columns for y in range(position["y"], position["y"] + position["h"])]


def test_a_dashboard_that_was_edited_by_hand_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "dashboards"
    assert main(["--write", str(folder)]) == 0
    assert main(["--check", str(folder)]) == 0
    (folder / "fleet.json").write_text("{}")
    assert main(["--check", str(folder)]) == 64
    assert "fleet.json" in capsys.readouterr().err
