"""The chart with the values that other charts have too, with odd versions, and as a copy without links. Helm only."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.paths import ROOT
from tools.charttools.render import CHART, NAMESPACE, helm, objects, render
from tools.charttools.value_sets import IMAGES, REGISTRY, VALUE_SETS
from tools.common.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Object = dict[str, Any]
VERSION = "0.2.0+9414ed9678d1"
WINDOWS = ("-c", "core.symlinks=false", "-c", "core.autocrlf=true")


def render_objects(values: Object, *options: str, chart: Path = CHART) -> list[Object]:
    """The objects of a release with these values and a registry."""
    return objects(render({**IMAGES, **values}, chart, *options))


def deployment(release: Iterable[Object]) -> Object:
    [operator] = [item for item in release if item["kind"] == "Deployment"]
    return operator


def pod(release: Iterable[Object]) -> Object:
    """The operator's."""
    spec: Object = deployment(release)["spec"]["template"]["spec"]
    return spec


def environment(release: Iterable[Object]) -> dict[str, str]:
    return {item["name"]: item.get("value", "") for item in pod(release)["containers"][0]["env"]}


def policies(release: Iterable[Object]) -> dict[str, Object]:
    return {item["metadata"]["name"]: item["spec"] for item in release if item["kind"] == "NetworkPolicy"}


def ports(rules: Iterable[Object]) -> set[int | str]:
    return {port["port"] for rule in rules for port in rule["ports"]}


def all_labels(item: Any) -> list[Object]:  # noqa: ANN401 - any JSON
    """Labels of the object and of the templates in it."""
    if isinstance(item, list):
        return [labels for part in item for labels in all_labels(part)]
    if not isinstance(item, dict):
        return []
    metadata = item.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return ([labels] if labels else []) + [inner for part in item.values() for inner in all_labels(part)]


def test_a_version_with_build_metadata_makes_labels_that_kubernetes_takes(tmp_path: Path) -> None:
    versions = ["--version", VERSION, "--app-version", f"1.0.0+{'a' * 70}"]
    helm("package", str(CHART), *versions, "--destination", str(tmp_path))
    [package] = tmp_path.glob("*.tgz")
    release = render_objects({"networkPolicy": {"pipelineNamespaces": ["studio"]}}, chart=package)
    labels = [labels for item in release for labels in all_labels(item)]
    assert {item["helm.sh/chart"] for item in labels if "helm.sh/chart" in item} == {
        "diffusion-operator-0.2.0_9414ed9678d1"
    }
    refused = [value for item in labels for value in item.values() if "+" in value or len(value) > 63]
    assert refused == []


@pytest.mark.parametrize("name", ["operator", "builder", "serving"])
def test_an_image_without_registry_is_asked_for_in_one_sentence(name: str) -> None:
    images = {other: {"repository": f"{REGISTRY}/{other}"} for other in ("operator", "builder", "serving")}
    del images[name]
    with pytest.raises(ToolError, match=rf"images\.{name}: .* names no registry; set images\.registry to"):
        render({"images": images})


def test_one_registry_holds_all_images_but_those_that_name_their_own() -> None:
    images = {
        "registry": "registry.example.com/project/",
        "serving": {"repository": "127.0.0.1:5000/triton"},
        "builder": {"repository": "nested/builder"},
        "tensorrt": {"builder": {"repository": "builder-trt", "tag": "1"}},
    }
    release = render_objects({"images": images})
    assert pod(release)["containers"][0]["image"] == "registry.example.com/project/diffusion-operator:0.1.0"
    variables = {name: value for name, value in environment(release).items() if name.endswith("_IMAGE")}
    assert variables == {
        "DIFFUSION_OPERATOR_BUILDER_IMAGE": "registry.example.com/project/nested/builder:0.1.0",
        "DIFFUSION_OPERATOR_GATEWAY_IMAGE": "registry.example.com/project/diffusion-gateway:0.1.0",
        "DIFFUSION_OPERATOR_SERVING_IMAGE": "127.0.0.1:5000/triton:0.1.0",
        "DIFFUSION_OPERATOR_TENSORRT_BUILDER_IMAGE": "registry.example.com/project/builder-trt:1",
    }
    everywhere = render_objects({"images": images, "global": {"imageRegistry": "mirror.example.com"}})
    assert pod(everywhere)["containers"][0]["image"] == "mirror.example.com/diffusion-operator:0.1.0"


def test_pull_secrets_of_every_form_reach_the_operator_and_what_it_makes() -> None:
    secrets = {"imagePullSecrets": [{"name": "a"}], "global": {"imagePullSecrets": ["b", {"name": "a"}]}}
    release = render_objects({**secrets, "images": {"registry": REGISTRY, "pullSecrets": ["c"]}})
    pods = [pod(release), *(item["spec"] for item in release if item["kind"] == "Pod")]
    assert [[item["name"] for item in one["imagePullSecrets"]] for one in pods] == [["c", "b", "a"]] * 2
    assert environment(release)["DIFFUSION_OPERATOR_IMAGE_PULL_SECRETS"] == "c,b,a"


def test_names_and_the_namespace_are_replaced_everywhere() -> None:
    release = render_objects(VALUE_SETS["named and labelled"])
    operator_objects = [item for item in release if item["metadata"].get("namespace") == "elsewhere"]
    assert {item["metadata"].get("namespace") for item in release} == {"elsewhere", "studio", None}
    assert len(operator_objects) > 10
    assert {item["metadata"]["name"].partition("-")[0] for item in operator_objects} == {"acme"}
    assert not [item for item in release if NAMESPACE in str(item.get("subjects", "")) + str(item.get("roleRef", ""))]
    lease = environment(release)
    assert (lease["DIFFUSION_OPERATOR_LEASE_NAME"], lease["DIFFUSION_OPERATOR_LEASE_NAMESPACE"]) == (
        "acme",
        "elsewhere",
    )
    roles = {item["metadata"]["name"]: item for item in release if item["kind"] == "Role"}
    assert roles["acme-lease"]["rules"][1]["resourceNames"] == ["acme"]
    selector = deployment(release)["spec"]["selector"]["matchLabels"]
    assert selector["app.kubernetes.io/name"] == "imaging"
    assert policies(release)["acme"]["podSelector"]["matchLabels"] == selector


def test_every_object_carries_the_common_labels_and_annotations() -> None:
    release = render_objects(VALUE_SETS["named and labelled"])
    assert [item["kind"] for item in release if item["metadata"].get("labels", {}).get("team") != "platform"] == []
    notes = [item["metadata"].get("annotations", {}) for item in release]
    assert [item for item in notes if item.get("example.com/owner") != "platform"] == []
    [definition] = [item for item in release if item["kind"] == "CustomResourceDefinition"]
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert deployment(release)["spec"]["template"]["metadata"]["labels"]["team"] == "platform"
    # A Deployment's selector cannot be changed, and labels can.
    assert "team" not in deployment(release)["spec"]["selector"]["matchLabels"]


def test_users_are_left_out_where_the_namespace_assigns_them() -> None:
    release = render_objects({"runAs": None})
    pods = [pod(release), *(item["spec"] for item in release if item["kind"] == "Pod")]
    contexts = [one["securityContext"] for one in pods] + [one["containers"][0]["securityContext"] for one in pods]
    assert [item for item in contexts if {"runAsUser", "runAsGroup", "fsGroup"} & set(item)] == []
    assert [one["securityContext"]["runAsNonRoot"] for one in pods] == [True, True]
    names = ("RUN_AS_USER", "RUN_AS_GROUP", "FS_GROUP")
    assert {environment(release)[f"DIFFUSION_OPERATOR_{name}"] for name in names} == {"none"}
    numbered = render_objects(
        {"runAs": {"user": 1000, "group": 0}, "podSecurityContext": {"runAsGroup": 5, "seccompProfile": None}}
    )
    assert pod(numbered)["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 5}
    assert environment(numbered)["DIFFUSION_OPERATOR_RUN_AS_USER"] == "1000"
    assert environment(numbered)["DIFFUSION_OPERATOR_RUN_AS_GROUP"] == "0"
    assert "DIFFUSION_OPERATOR_FS_GROUP" not in environment(numbered)


def test_extras_stand_beside_what_the_chart_has() -> None:
    release = render_objects(VALUE_SETS["with extras"])
    container = pod(release)["containers"][0]
    assert environment(release)["TZ"] == "UTC"
    assert container["args"] == ["run", "--help"]
    assert [item["name"] for item in pod(release)["volumes"]] == ["tmp", "notes"]
    assert [item["mountPath"] for item in container["volumeMounts"]][1:] == ["/notes"]
    assert deployment(release)["spec"]["strategy"] == {"type": "Recreate"}
    assert pod(release)["securityContext"]["supplementalGroups"] == [1000]
    [notes] = [item for item in release if item["metadata"]["name"] == "notes"]
    assert notes["metadata"]["namespace"] == NAMESPACE
    assert notes["data"] == {"release": "diffusion-operator"}
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-text}\n"
    assert "diffusion-operator-text" in [item["metadata"]["name"] for item in render_objects({"extraObjects": [text]})]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"extraEnv": [{"name": "HOME", "value": "/"}]}, "the chart sets HOME itself"),
        ({"extraEnv": [{"name": "DIFFUSION_OPERATOR_WORKERS", "value": "9"}]}, "DIFFUSION_OPERATOR_WORKERS itself"),
        ({"extraEnv": [{"name": "A"}, {"name": "A"}]}, "extraEnv: the pod has A already"),
        ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "extraVolumes: the pod has tmp already"),
    ],
)
def test_an_extra_that_is_there_already_is_refused_by_its_name(values: Object, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        render_objects(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"proxy": {"http": "http://user:secret@proxy.example.com:3128"}}, {443, 80, 3128}),
        ({"proxy": {"https": "https://proxy.example.com"}, "networkPolicy": {"hubPorts": [8443]}}, {8443, 443}),
        ({"proxy": {"https": "http://[fd00::1]:8080/"}}, {443, 80, 8080}),
        ({"hub": {"endpoint": "http://hub.models.svc:5000/path"}}, {443, 80, 5000}),
        ({}, {443, 80}),
    ],
)
def test_a_fetch_reaches_the_ports_of_the_proxy_and_of_the_hub(values: Object, expected: set[int]) -> None:
    network = {"pipelineNamespaces": ["studio"], **values.get("networkPolicy", {})}
    fetch = policies(render_objects({**values, "networkPolicy": network}))["diffusion-fetch"]
    assert ports(fetch["egress"]) == expected | {53}


def test_every_dns_rule_has_the_ports_of_the_value() -> None:
    specs = policies(render_objects({"networkPolicy": {"pipelineNamespaces": ["studio"], "dnsPorts": [53, 5353]}}))
    reaching = {name: spec["egress"] for name, spec in specs.items() if spec.get("egress")}
    assert sorted(reaching) == ["diffusion-compare", "diffusion-fetch", "diffusion-operator", "diffusion-operator-test"]
    for rules in reaching.values():
        [dns] = [rule for rule in rules if "to" not in rule and {53, 5353} & ports([rule])]
        assert {(port["protocol"], port["port"]) for port in dns["ports"]} == {
            (protocol, port) for protocol in ("UDP", "TCP") for port in (53, 5353)
        }


def test_naming_clients_does_not_cut_the_monitoring_off() -> None:
    clients = [{"namespaceSelector": {"matchLabels": {"team": "imaging"}}}]
    requests, metrics = policies(
        render_objects({"networkPolicy": {"pipelineNamespaces": ["studio"], "clients": clients}})
    )["diffusion-serving"]["ingress"]
    assert clients[0] in requests["from"]
    assert "from" not in metrics
    monitors = [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]
    network = {"pipelineNamespaces": ["studio"], "clients": clients, "metricsClients": monitors}
    specs = policies(render_objects({"networkPolicy": network}))
    requests, metrics = specs["diffusion-serving"]["ingress"]
    assert monitors[0] not in requests["from"]
    operator, monitor = metrics["from"]
    assert monitor == monitors[0]
    # The operator judges canaries by the servers' metrics.
    assert operator["podSelector"] == specs["diffusion-operator"]["podSelector"]
    health, operator_metrics = specs["diffusion-operator"]["ingress"]
    assert (ports([health]), "from" in health) == ({"health"}, False)
    assert (ports([operator_metrics]), operator_metrics["from"]) == ({"metrics"}, monitors)


def windows_checkout(folder: Path) -> Path:
    """The charts of this working tree as git on Windows writes them: links are text, lines end in two characters."""
    object_folder = git(dict(os.environ), "rev-parse", "--path-format=absolute", "--git-path", "objects").strip()
    # An index and objects of the test's own: the repository stays as it is.
    scratch = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_OBJECT_DIRECTORY": f"{folder}/objects"}
    environment = os.environ | scratch | {"GIT_ALTERNATE_OBJECT_DIRECTORIES": object_folder}
    (folder / "objects").mkdir()
    git(environment, "add", "charts")
    git(environment, *WINDOWS, "checkout-index", "--all", f"--prefix={folder}/copy/")
    return folder / "copy" / "charts" / "diffusion-operator"


def git(environment: Mapping[str, str], *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def convert_line_ends(chart: Path) -> Path:
    """The same chart, whatever .gitattributes says: a download is not a checkout."""
    for path in chart.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    return chart


@pytest.mark.parametrize("lines", ["as checked out", "of two characters"])
def test_a_copy_without_links_is_the_same_chart(tmp_path: Path, lines: str) -> None:
    chart = windows_checkout(tmp_path)
    if lines == "of two characters":
        convert_line_ends(chart)
    [definition] = [item for item in render_objects({}, chart=chart) if item["kind"] == "CustomResourceDefinition"]
    assert definition["spec"] == yaml.safe_load((ROOT / "crds" / "diffusionpipelines.yaml").read_text())["spec"]
    helm("package", str(chart), "--destination", str(tmp_path))
    [package] = tmp_path.glob("*.tgz")
    assert len(render_objects({}, chart=package)) == len(render_objects({}))
    kinds = {item["kind"] for item in render_objects({"crds": {"enabled": False}}, chart=package)}
    assert "CustomResourceDefinition" not in kinds
