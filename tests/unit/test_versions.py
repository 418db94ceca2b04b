"""Versions are written in several files, which agree."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.support.integrations.programs import ENVOY
from tests.support.paths import ROOT
from tests.support.tensorrt import tensorrt_rtx
from tools.devcluster.layout import KUBERNETES

CHARTS = ("diffusion-operator", "diffusion-operator-crds")


def project() -> dict[str, Any]:
    document: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return document


def chart(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "charts" / name / "Chart.yaml").read_text())
    return document


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_installs_the_version_of_the_project(name: str) -> None:
    assert chart(name)["appVersion"] == chart(name)["version"] == project()["version"]


def test_both_charts_need_the_same_kubernetes() -> None:
    operator, crds = map(chart, CHARTS)
    assert operator["kubeVersion"] == crds["kubeVersion"]


def locked(package: str) -> str:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return str(next(each["version"] for each in packages if each["name"] == package))


def module(go_mod: str, name: str) -> str:
    """Version of a Go module in one of our go.mod files, without its `v`."""
    match = re.search(rf"{re.escape(name)} v(\S+)", (ROOT / go_mod).read_text())
    assert match, f"{go_mod} does not require {name}"
    return match[1]


def supported(row: str) -> str:
    """A row of the support matrix."""
    match = re.search(rf"^\| {re.escape(row)} \|.*$", (ROOT / "docs" / "support.md").read_text(), flags=re.MULTILINE)
    assert match, f"docs/support.md has no row {row}"
    return match[0]


INTEGRATIONS = "tests/support/integrations/go"


@pytest.mark.parametrize(
    ("row", "version"),
    [
        ("Kubernetes", KUBERNETES),
        ("Kubernetes", chart(CHARTS[0])["kubeVersion"].removeprefix(">=").removesuffix(".0-0")),
        ("Helm", module("tools/devcluster/go/kube/go.mod", "helm.sh/helm/v4")),
        ("container runtime", module("tools/devcluster/go/containerd/go.mod", "github.com/containerd/containerd/v2")),
        ("ONNX Runtime", locked("onnxruntime")),
        ("diffusers", locked("diffusers")),
        ("torch", locked("torch")),
        ("TensorRT for RTX", tensorrt_rtx.VERSION),
        ("KEDA", module(f"{INTEGRATIONS}/keda/go.mod", "github.com/kedacore/keda/v2")),
        ("Prometheus", module(f"{INTEGRATIONS}/prometheus/go.mod", "github.com/prometheus/prometheus")),
        ("Envoy Gateway", module(f"{INTEGRATIONS}/gateway/go.mod", "github.com/envoyproxy/gateway")),
        ("Envoy Gateway", ENVOY),
    ],
)
def test_the_support_matrix_names_what_is_tried(row: str, version: str) -> None:
    assert re.search(rf"(?<![\d.]){re.escape(version)}(?!\.?\d)", supported(row)), f"{row}: {version}"


def test_the_support_matrix_names_the_python_that_the_package_takes() -> None:
    low, high = re.findall(r"3\.(\d+)", project()["requires-python"])
    versions = [f"3.{minor}" for minor in range(int(low), int(high))]
    assert f"| {' or '.join(versions)} |" in supported("Python of operator, builder and tests")
