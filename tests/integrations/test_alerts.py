"""Prometheus' own rule tests: when the chart's alerts fire, and what they name."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.integrations.programs import PROMETHEUS, programs
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MONITORING = ROOT / "deploy" / "kustomize" / "components" / "monitoring" / "monitoring.yaml"


@dataclass(frozen=True)
class Case:
    """What an alert is asked at a time, and the labels and summaries with which it is to fire."""

    series: tuple[Series, ...]
    at: str
    alerts: tuple[tuple[dict[str, str], str], ...] = ()
    alert: str = "DiffusionPipelineNotReady"
    interval: str = "15m"


@dataclass(frozen=True)
class Series:
    """One series and its samples, one an interval, in promtool's notation."""

    name: str
    labels: str
    values: str

    @property
    def input(self) -> dict[str, str]:
        """As a rule test has it."""
        return {"series": f"{self.name}{{{self.labels}}}", "values": self.values}


def readiness(pipeline: str, reason: str, values: str, suspended: str = "false") -> Series:
    labels = f'pod="operator",pipeline_namespace="studio",pipeline="{pipeline}",reason="{reason}"'
    return Series("diffusion_operator_pipeline_ready", f'{labels},suspended="{suspended}"', values)


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart's rules as Prometheus reads them."""
    documents = yaml.safe_load_all(MONITORING.read_text())
    [rule] = [document for document in documents if document["kind"] == "PrometheusRule"]
    file = tmp_path_factory.mktemp("rules") / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    return file


def problem(rules: Path, case: Case) -> str:
    """What promtool says when other alerts fire than those expected; empty when exactly they do."""
    runbook = f"https://diffusion-operator.io/alerts/#{case.alert.lower()}"
    expected = [
        {"exp_labels": labels, "exp_annotations": {"summary": text, "runbook_url": runbook}}
        for labels, text in case.alerts
    ]
    check = {"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected}
    test = {"interval": case.interval, "input_series": [one.input for one in case.series], "alert_rule_test": [check]}
    file = rules.with_name("test.yaml")
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": case.interval, "tests": [test]}))
    command = [str(programs(PROMETHEUS) / "promtool"), "test", "rules", str(file)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return f"{process.stdout}{process.stderr}" if process.returncode else ""


def not_ready_alerts(*pipelines: str) -> tuple[tuple[dict[str, str], str], ...]:
    return tuple(
        (
            {"severity": "warning", "pipeline_namespace": "studio", "pipeline": name},
            f"Pipeline studio/{name} has not been ready for longer than a build should take.",
        )
        for name in pipelines
    )


BUILDING = readiness("shapes", "Compiling", "0x40")
API = 'namespace="studio",pipeline="shapes",pod="shapes-api-1",model="shapes",key="team"'
FAILING = 'namespace="studio",pipeline="shapes",pod="shapes-l4-1",model="generate_20_pipeline"'
CASES = {
    "not yet": Case((BUILDING,), "3h45m"),
    "one of two": Case((BUILDING, readiness("other", "Ready", "1x40")), "5h", not_ready_alerts("shapes")),
    "both, each by its name": Case(
        (BUILDING, readiness("other", "Fetching", "0x40")), "5h", not_ready_alerts("other", "shapes")
    ),
    "suspended": Case((readiness("shapes", "Suspended", "0x40", "true"),), "8h"),
    "suspended with a build that failed": Case((readiness("shapes", "PickleOnly", "0x40", "true"),), "8h"),
    "resumed, and not yet": Case(
        (readiness("shapes", "Suspended", "0x20 stale", "true"), readiness("shapes", "Fetching", "_x20 0x20")), "8h"
    ),
    "resumed, and long ago": Case(
        (readiness("shapes", "Suspended", "0x20 stale", "true"), readiness("shapes", "Fetching", "_x20 0x20")),
        "10h",
        not_ready_alerts("shapes"),
    ),
    "taking turns at being not ready": Case(
        (readiness("shapes", "Ready", "0x8 1x8 0x8 1x8"), readiness("other", "Ready", "1x8 0x8 1x8 0x8")), "8h"
    ),
    "another reason in between": Case(
        (readiness("shapes", "Fetching", "0x8 stale"), readiness("shapes", "Compiling", "_x8 0x20")),
        "5h",
        not_ready_alerts("shapes"),
    ),
    "requests that fail": Case(
        (
            Series("nv_inference_request_failure", FAILING, "0+100x60"),
            Series("nv_inference_request_success", FAILING, "0+100x60"),
        ),
        "40m",
        (
            (
                {
                    "severity": "critical",
                    "namespace": "studio",
                    "pipeline": "shapes",
                    "pod": "shapes-l4-1",
                    "model": "generate_20_pipeline",
                },
                "More than 5 % of the requests to generate_20_pipeline in studio/shapes-l4-1 fail.",
            ),
        ),
        "DiffusionRequestErrors",
        "1m",
    ),
    "an API that fails": Case(
        (
            Series("diffusion_gateway_requests_total", f'{API},operation="edit",status="503"', "0+10x60"),
            Series("diffusion_gateway_requests_total", f'{API},operation="edit",status="200"', "0+100x60"),
        ),
        "40m",
        (
            (
                {"severity": "critical", "namespace": "studio", "pipeline": "shapes"},
                "More than 5 % of the requests to the API of studio/shapes fail.",
            ),
        ),
        "DiffusionApiErrors",
        "1m",
    ),
    "an API that rejects": Case(
        (
            Series("diffusion_gateway_requests_total", f'{API},operation="edit",status="429"', "0+50x60"),
            Series("diffusion_gateway_requests_total", f'{API},operation="edit",status="200"', "0+100x60"),
            Series("diffusion_gateway_rejected_requests_total", API, "0+50x60"),
        ),
        "40m",
        (
            (
                {"severity": "warning", "namespace": "studio", "pipeline": "shapes"},
                "The API of studio/shapes rejects more than 10 % of its requests by its limits.",
            ),
        ),
        "DiffusionApiRejections",
        "1m",
    ),
    "an API whose rejections are no errors": Case(
        (
            Series("diffusion_gateway_requests_total", f'{API},operation="edit",status="429"', "0+50x60"),
            Series("diffusion_gateway_requests_total", f'{API},operation="edit",status="200"', "0+100x60"),
        ),
        "40m",
        (),
        "DiffusionApiErrors",
        "1m",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_exactly_the_expected_alerts_fire(rules: Path, name: str) -> None:
    assert problem(rules, CASES[name]) == ""


def test_an_alert_that_nobody_expects_is_found(rules: Path) -> None:
    assert "FAILED" in problem(rules, Case((BUILDING,), "5h"))
    assert "FAILED" in problem(rules, Case((BUILDING,), "3h45m", not_ready_alerts("shapes")))
