"""A board as Grafana's JSON, by the builders that Grafana generates from its own schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

if TYPE_CHECKING:
    from tools.dashboards.model import Dashboard, Panel, Variable

COLUMNS = 24
HEIGHTS = {"graph": 8, "number": 4}
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def text(board: Dashboard) -> str:
    """The file's content."""
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(_dashboard(board).build())), indent=1) + "\n"


def _dashboard(board: Dashboard) -> dashboard.Dashboard:
    builder = dashboard.Dashboard(board.title).uid(f"diffusion-{board.name}").description(board.description)
    builder = builder.tags(["diffusion-operator"]).time("now-6h", "now").refresh("1m").timezone("browser").readonly()
    builder = builder.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for variable in board.variables:
        builder = builder.with_variable(_variable(variable))
    for number, panel in enumerate(board.panels, 1):
        builder = builder.with_panel(_panel(panel).id(number))
    return builder


def _variable(variable: Variable) -> dashboard.QueryVariable:
    query = f"label_values({variable.metric}, {variable.label})"
    builder = dashboard.QueryVariable(variable.label).query(query).datasource(SOURCE).include_all(include_all=True)
    return builder.multi(multi=variable.several).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel:
    builder = stat.Panel() if panel.kind == "number" else timeseries.Panel()
    builder = builder.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    builder = builder.span(panel.width).height(HEIGHTS[panel.kind])
    if isinstance(builder, timeseries.Panel):
        # Rates are never negative, and a graph that begins above 0 exaggerates.
        builder = builder.min(0)
    for name, query in zip("ABCDEF", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(name).expr(query.expr).legend_format(query.legend or "all")
        builder = builder.with_target(target)
    return builder
