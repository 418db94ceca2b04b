"""What a dashboard is, before Grafana's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["graph", "number"]


@dataclass(frozen=True)
class Query:
    """PromQL, and how its series are called: `{{label}}` is a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what is shown, with a unit of time where it is a rate.
        description: how to read it.
        unit: Grafana's name of a unit: s, percentunit, bytes, short, reqps.
        queries: one or more.
        kind: a graph over time, or the last number.
        width: of Grafana's 24 columns.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "graph"
    width: int = 12


@dataclass(frozen=True)
class Variable:
    """A choice at the top: values of `label` among the series that `metric` selects."""

    label: str
    metric: str
    several: bool = True


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; its name is the file's and the address's."""

    name: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    variables: tuple[Variable, ...] = ()
