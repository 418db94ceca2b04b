"""What users install fits the API server, keeps no drift, and stands up to the usual checkers. Needs no node."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
import yaml

from diffusion_operator import naming
from diffusion_operator.manifests.service import PORTS
from diffusion_operator.settings import from_environment
from tests.support.cluster.kube import Kube, Object, eventually
from tests.support.cluster.pipelines import example
from tests.support.paths import ROOT
from tools.charttools import allowlist, checks, manifests
from tools.charttools.render import CHART, CRD_CHART, NAMESPACE, helm, objects, render
from tools.charttools.value_sets import DIGEST, REGISTRY, VALUE_SETS
from tools.common.errors import ToolError
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL = ROOT / "deploy" / "install.yaml"
ARGO = ["--server-side", "--field-manager=argocd-controller", "--force-conflicts"]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


@pytest.fixture(scope="module")
def kube(server: ApiServer) -> Kube:
    """An API server on which deploy/install.yaml is installed."""
    kube = Kube(server.environment, NAMESPACE)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    server.apply(ROOT / "crds" / "diffusionpipelines.yaml")
    kube.run("apply", *ARGO, "-f", str(INSTALL))
    return kube


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file for every combination of values."""
    folder = tmp_path_factory.mktemp("rendered")
    files = {name: folder / f"{name.replace(' ', '-')}.yaml" for name in VALUE_SETS}
    for name, file in files.items():
        file.write_text(render(VALUE_SETS[name]))
    (folder / "crds.yaml").write_text(render({}, CRD_CHART))
    (folder / "install.yaml").write_text(INSTALL.read_text())
    return files


def test_helm_finds_nothing_to_complain_about() -> None:
    for chart in (CHART, CRD_CHART):
        assert "0 chart(s) failed" in helm("lint", "--strict", str(chart))


MISTAKES: dict[str, dict[str, Any]] = {
    "a name that does not exist": {"replica": 2},
    "a name that does not exist further down": {"metrics": {"podMonitors": True}},
    "a misspelt image field": {"images": {"operator": {"repositry": "x"}}},
    "a number as text": {"replicas": "two"},
    "a digest that is none": {"images": {"operator": {"digest": "sha256:123"}}},
    "an image without tag and digest": {"images": {"serving": {"tag": ""}}},
    "a wrong pull policy": {"images": {"pullPolicy": "Sometimes"}},
    "a proxy that is no address": {"proxy": {"https": "proxy:3128"}},
    "a port that is none": {"networkPolicy": {"hubPorts": [70000]}},
    "a misspelt toleration": {"tolerations": [{"key": "x", "efect": "NoSchedule"}]},
    "a registry that is an address": {"images": {"registry": "https://registry.example.com"}},
    "a label that the chart sets": {"commonLabels": {"app.kubernetes.io/name": "x"}},
    "root": {"runAs": {"user": 0}},
    "a name that no Service can have": {"fullnameOverride": "1st"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_values_that_are_wrong_are_refused(mistake: str) -> None:
    with pytest.raises(ToolError):
        render(MISTAKES[mistake], CHART, "--set", f"global.imageRegistry={REGISTRY}")


def test_every_object_of_every_combination_is_one_that_the_api_server_knows(
    kube: Kube, rendered: dict[str, Path], tmp_path: Path
) -> None:
    openapi = json.loads(kube.run("get", "--raw", "/openapi/v2"))
    assert checks.kubeconform(rendered["default"].parent, openapi, tmp_path) > 100
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "one.yaml").write_text(
        rendered["default"].read_text().replace("serviceAccountName:", "serviceAcountName:")
    )
    with pytest.raises(ToolError, match="serviceAcountName"):
        checks.kubeconform(wrong, openapi, tmp_path)


@pytest.mark.parametrize("name", [name for name in VALUE_SETS if name != allowlist.UNPROTECTED])
def test_workloads_are_neither_fragile_nor_unsafe(rendered: dict[str, Path], name: str) -> None:
    checks.kube_score(rendered[name], allowlist.KUBE_SCORE_OF.get(name, ()))


def test_what_is_fragile_or_unsafe_is_found(rendered: dict[str, Path]) -> None:
    with pytest.raises(ToolError, match="NetworkPolicy"):
        checks.kube_score(rendered[allowlist.UNPROTECTED])


def test_images_are_named_by_digest_where_one_is_given(rendered: dict[str, Path]) -> None:
    text = rendered["digests and a private registry"].read_text()
    assert f"registry.example.com/diffusion-operator@{DIGEST}" in text
    assert f"registry.example.com/diffusion-triton@{DIGEST}" in text
    assert "registry.example.com/diffusion-triton-tensorrt:25.06" in text


def test_a_namespaced_operator_has_no_rights_outside_of_its_namespaces(rendered: dict[str, Path]) -> None:
    manifests = objects(rendered["namespaced"].read_text())
    bindings = [item for item in manifests if item["kind"].endswith("Binding")]
    assert {item["kind"] for item in bindings} == {"RoleBinding"}
    assert {item["metadata"]["namespace"] for item in bindings} == {"studio", "lab", NAMESPACE}
    accounts = [
        item for item in manifests if item["kind"] == "ServiceAccount" and item["metadata"]["namespace"] == "lab"
    ]
    assert {item["metadata"]["name"]: item["automountServiceAccountToken"] for item in accounts} == {
        "diffusion-build": False,
        "diffusion-serving": False,
    }


def test_an_upgrade_from_the_previous_chart_changes_no_setting_and_so_no_server_and_no_build(
    rendered: dict[str, Path],
) -> None:
    """The operator's settings are all that decides what it makes of a pipeline; what is new is off by default.

    Neither how many pipelines it looks at at a time, nor the image of what only `spec.api` starts, decides that.
    """
    before = yaml.safe_load((Path(__file__).parent / "chart-0.1.0.yaml").read_text())
    # That chart's default images had no registry, and could be pulled from nowhere.
    images = {name: f"{REGISTRY}/{image}" for name, image in before["environment"].items() if name.endswith("_IMAGE")}
    [now] = [item for item in objects(rendered["default"].read_text()) if item["kind"] == "Deployment"]
    [container] = now["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    settings = from_environment(before["environment"] | images)
    unrelated: dict[str, Any] = {"workers": settings.workers, "gateway_image": settings.gateway_image}
    assert replace(from_environment(environment), **unrelated) == settings
    # A Deployment's selector cannot be changed: Helm would fail.
    assert now["spec"]["selector"] == before["selector"]


def test_policies_and_monitors_name_the_labels_and_ports_that_pods_have(rendered: dict[str, Path]) -> None:
    monitors = [item for item in objects(rendered["monitored"].read_text()) if item["kind"] == "PodMonitor"]
    manifests = objects(rendered["closed network"].read_text()) + monitors
    serving = {naming.MANAGED_BY: naming.MANAGER, naming.ROLE: naming.SERVING}
    by_name = {(item["kind"], item["metadata"]["name"]): item["spec"] for item in manifests if "spec" in item}
    servers = by_name["NetworkPolicy", "diffusion-serving"]
    assert servers["podSelector"]["matchLabels"] == serving
    requests, metrics = servers["ingress"]
    assert [port["port"] for port in requests["ports"] + metrics["ports"]] == [name for name, _ in PORTS]
    assert by_name["NetworkPolicy", "diffusion-build"]["podSelector"]["matchLabels"] == {
        naming.MANAGED_BY: naming.MANAGER,
        naming.ROLE: naming.BUILD,
    }
    fetch = by_name["NetworkPolicy", "diffusion-fetch"]
    assert fetch["podSelector"]["matchLabels"][naming.STAGE] == "fetch"
    assert {port["port"] for rule in fetch["egress"] for port in rule["ports"]} == {53, 5353, 443, 3128}
    own = by_name["NetworkPolicy", "diffusion-operator"]
    assert {port["port"] for rule in own["egress"] for port in rule["ports"]} == {53, 5353, 6443, 8000, 8002}
    monitor = by_name["PodMonitor", "diffusion-pipelines"]
    assert monitor["selector"] == {
        "matchLabels": {naming.MANAGED_BY: naming.MANAGER},
        "matchExpressions": [{"key": naming.ROLE, "operator": "In", "values": [naming.SERVING, naming.API]}],
    }
    assert [end["port"] for end in monitor["podMetricsEndpoints"]] == ["metrics"]


def test_every_alert_is_promql_and_leads_to_its_runbook(rendered: dict[str, Path]) -> None:
    [rule] = [item for item in objects(rendered["monitored"].read_text()) if item["kind"] == "PrometheusRule"]
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    runbooks = re.findall(r"^### (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), flags=re.MULTILINE)
    assert len(alerts) > 5
    for alert in alerts:
        promql_parser.parse(alert["expr"])
        assert alert["alert"] in runbooks
        assert alert["annotations"]["runbook_url"].endswith(f"#{alert['alert'].lower()}")


def test_what_is_made_from_the_chart_is_up_to_date() -> None:
    assert [str(path) for path, text in manifests.files().items() if path.read_text() != text] == []


@pytest.mark.parametrize("folder", ["base", "overlays/high-availability", "overlays/private-registry"])
def test_kustomize_makes_what_the_api_server_takes(kube: Kube, folder: str) -> None:
    manifests = list(yaml.safe_load_all(kube.run("kustomize", str(ROOT / "deploy/kustomize" / folder))))
    with_schema = [item for item in manifests if item["kind"] not in allowlist.NO_SCHEMA]
    document = yaml.safe_dump_all(with_schema)
    arguments = ["apply", *ARGO, "--dry-run=server", "--validate=strict", "-f", "-"]
    assert len(kube.run(*arguments, stdin=document).splitlines()) == len(with_schema)
    [operator] = [item for item in manifests if item["kind"] == "Deployment"]
    assert operator["spec"]["replicas"] == (2 if "high" in folder else 1)


def test_the_workflows_are_valid_and_pin_what_they_use() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
    assert len(workflows) > 3
    checks.actionlint(*workflows)
    uses = [line for path in workflows for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    assert uses
    assert [line for line in uses if not re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v[0-9.]+$", line)] == []


def difference(kube: Kube, *arguments: str) -> str:
    """What kubectl diff says; empty when there is nothing to do."""
    command = ["kubectl", "--namespace", kube.namespace, "diff", *arguments]
    process = subprocess.run(
        command, env=dict(kube.environment), capture_output=True, text=True, check=False, timeout=120
    )
    assert process.returncode in (0, 1), process.stderr
    return process.stdout


def test_the_installation_applied_again_changes_nothing(kube: Kube) -> None:
    assert difference(kube, *ARGO, "-f", str(INSTALL)) == ""


@pytest.mark.parametrize("how", [ARGO, []], ids=["server-side", "client-side"])
def test_a_pipeline_applied_again_changes_nothing(kube: Kube, tmp_path: Path, how: list[str]) -> None:
    file = tmp_path / "pipeline.json"
    name = "twice-by-server" if how else "twice-by-client"
    file.write_text(json.dumps(example(name)))
    eventually(lambda: kube.run("apply", *how, "-f", str(file)), 60, "the definition is served")
    status = {"conditions": [], "observedGeneration": 1}
    kube.run("patch", "dp", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    before = object_version(kube, name)
    kube.run("apply", *how, "-f", str(file))
    assert object_version(kube, name) == before
    assert difference(kube, *how, "-f", str(file)) == ""
    changed = example(name, suspend=True)
    file.write_text(json.dumps(changed))
    assert "suspend: true" in difference(kube, *how, "-f", str(file))


def object_version(kube: Kube, name: str) -> Object:
    live_pipeline = kube.get("dp", name)
    assert live_pipeline is not None
    return {
        "generation": live_pipeline["metadata"]["generation"],
        "version": live_pipeline["metadata"]["resourceVersion"],
    }


def test_the_examples_for_gitops_point_at_what_exists() -> None:
    documents = [
        item for path in (ROOT / "deploy").glob("*/*.yaml") for item in yaml.safe_load_all(path.read_text()) if item
    ]
    sources = [item["spec"]["source"] for item in documents if item.get("kind") == "Application"]
    paths = [source["path"] for source in sources]
    flux = [
        item["spec"]["path"] for item in documents if item.get("kind") == "Kustomization" and "path" in item["spec"]
    ]
    assert [path for path in [*paths, flux[0]] if not (ROOT / path).is_dir()] == []
    values = [source["helm"]["valuesObject"] for source in sources if "helm" in source]
    for one in values:
        render(one)
    assert values
