"""What a podTemplate adds to pods, what it cannot change, and that the pods stay as restricted as they were."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusion_contract.spec import Jobs, PodTemplate
from diffusion_contract.spec.pod_container import (
    OPERATOR_CONTAINERS,
    OPERATOR_PATHS,
    OPERATOR_VARIABLES,
    OPERATOR_VOLUMES,
)
from diffusion_operator.api.crd import definition
from diffusion_operator.manifests.overlay import with_overlay
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import SETTINGS, reconcile, serve
from tests.support.pod_templates import EVERYTHING, REFUSED_API, SIDECAR, SIDECAR_OF_API

GOLDEN = Path(__file__).parent / "golden"


def template(file: str) -> dict[str, Any]:
    """A pod template that the operator writes."""
    written: dict[str, Any] = yaml.safe_load((GOLDEN / f"{file}.yaml").read_text())["spec"]["template"]
    return written


def overlaid(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    overlay = PodTemplate.model_validate_json(json.dumps(patch), strict=True, by_alias=True, by_name=False)
    return with_overlay(base, overlay)


POD: dict[str, Any] = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [{"name": "triton", "env": [{"name": "A", "value": "1"}], "volumeMounts": []}],
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": ["a"]}}},
        "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}, {"topologyKey": "host", "maxSkew": 1}],
        "initContainers": [{"name": "verify"}],
    },
}
SPREAD = {"topologyKey": "host", "maxSkew": 3, "whenUnsatisfiable": "DoNotSchedule"}
VALUE_FROM = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
TERMS = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": ["b"]}}
RULES_OF_MERGING: dict[str, tuple[dict[str, Any], str, Any]] = {
    "labels and annotations by key": (
        {"metadata": {"labels": {"b": "2"}, "annotations": {"c": "3"}}},
        "metadata",
        {"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}},
    ),
    "variables by name, as a whole": (
        {"spec": {"containers": [{"name": "triton", "env": [VALUE_FROM, {"name": "B", "value": "2"}]}]}},
        "spec.containers.0.env",
        [VALUE_FROM, {"name": "B", "value": "2"}],
    ),
    "mounts by path": (
        {"spec": {"containers": [{"name": "triton", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}]}},
        "spec.containers.0.volumeMounts",
        [{"name": "cache", "mountPath": "/cache"}],
    ),
    "tolerations are joined": (
        {"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}, {"key": "spot"}]}},
        "spec.tolerations",
        [{"key": "gpu", "operator": "Exists"}, {"key": "spot"}],
    ),
    "lists in an affinity are replaced": (
        {"spec": {"affinity": {"nodeAffinity": TERMS, "podAffinity": {"x": 1}}}},
        "spec.affinity",
        {"nodeAffinity": TERMS, "podAffinity": {"x": 1}},
    ),
    "spreading by its label": (
        {"spec": {"topologySpreadConstraints": [SPREAD]}},
        "spec.topologySpreadConstraints",
        [{"topologyKey": "zone", "maxSkew": 1}, SPREAD],
    ),
    "a container of a pod without it is left out": (
        {"spec": {"initContainers": [{"name": "scorer", "env": [{"name": "A", "value": "1"}]}]}},
        "spec.initContainers",
        [{"name": "verify"}],
    ),
    "nothing changes nothing": ({"spec": {}}, "", POD),
}


@pytest.mark.parametrize("name", RULES_OF_MERGING)
def test_it_is_merged_as_a_strategic_patch(name: str) -> None:
    patch, path, expected = RULES_OF_MERGING[name]
    value: Any = overlaid(POD, patch)
    for step in filter(None, path.split(".")):
        value = value[int(step)] if step.isdigit() else value[step]
    assert value == expected


def test_added_containers_stand_after_and_added_init_containers_before_the_operator_s() -> None:
    spec = overlaid(template("deployment"), EVERYTHING)["spec"]
    assert [item["name"] for item in spec["containers"]] == ["triton", "agent"]
    assert [item["name"] for item in spec["initContainers"]] == ["certificates", "verify"]
    assert {"cache", "ca-bundle", "store", "tmp", "shm"} == {item["name"] for item in spec["volumes"]}


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What Pod Security `restricted` refuses."""
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected"}
    yield from (field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field))
    for volume in pod["volumes"]:
        if not set(volume) - {"name"} <= kinds | {"secret"}:
            yield f"volume {volume['name']}"
    if pod["securityContext"]["seccompProfile"]["type"] not in {"RuntimeDefault", "Localhost"}:
        yield "seccomp"
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        capabilities = context["capabilities"]
        if context["allowPrivilegeEscalation"] or not context["runAsNonRoot"] or context.get("privileged"):
            yield container["name"]
        if "ALL" not in capabilities["drop"] or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield container["name"]
        if context.get("runAsUser") == 0 or any("hostPort" in port for port in container.get("ports", [])):
            yield container["name"]


@pytest.mark.parametrize(
    "file",
    ["deployment", "deployment-gpu", "deployment-assigned-user", "job-compile", "job-compare", "api-behind-a-gateway"],
)
def test_pods_stay_restricted_and_keep_what_the_operator_wrote(file: str) -> None:
    before = template(file)
    after = overlaid(before, EVERYTHING)
    assert list(violations(after["spec"])) == []
    for field in ("serviceAccountName", "automountServiceAccountToken", "securityContext", "restartPolicy"):
        assert after["spec"].get(field) == before["spec"].get(field)
    for field in ("containers", "initContainers", "volumes"):
        assert [entry for entry in before["spec"].get(field, []) if entry not in after["spec"][field]] == []
    assert after["metadata"]["labels"].items() >= before["metadata"]["labels"].items()


def test_the_lists_of_what_is_the_operator_s_are_complete() -> None:
    written = [yaml.safe_load(file.read_text()) for file in GOLDEN.glob("*.yaml")]
    pods = [body["spec"]["template"]["spec"] for body in written if body["kind"] in {"Job", "Deployment"}]
    containers = [item for pod in pods for item in [*pod["containers"], *pod.get("initContainers", [])]]
    mounts = [mount for item in containers for mount in item["volumeMounts"]]
    assert {item["name"] for item in containers} == set(OPERATOR_CONTAINERS)
    assert {mount["mountPath"] for mount in mounts} <= set(OPERATOR_PATHS)
    assert {volume["name"] for pod in pods for volume in pod["volumes"]} <= set(OPERATOR_VOLUMES)
    variables = {variable["name"] for item in containers for variable in item.get("env", ())}
    assert variables - {"DIFFUSION_THREADS"} <= set(OPERATOR_VARIABLES)


def pod_templates(cluster: FakeCluster, kind: str) -> list[dict[str, Any]]:
    return [cluster.objects[kind, name]["spec"]["template"] for name in cluster.names(kind)]


def test_a_changed_overlay_of_serving_pods_is_a_new_revision_and_builds_nothing() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    serve(cluster)
    [before], jobs = cluster.names("Deployment"), cluster.names("Job")
    cluster.pipeline()["spec"]["serving"] = {"podTemplate": EVERYTHING}
    serve(cluster)
    [after] = [name for name in cluster.names("Deployment") if name != before]
    written = cluster.objects["Deployment", after]
    assert written["spec"]["template"]["metadata"]["annotations"] == {"prometheus.io/scrape": "true"}
    labels = written["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= {**written["spec"]["selector"]["matchLabels"], "owner": "imaging"}.items()
    assert cluster.names("Job") == jobs
    cluster.pipeline()["spec"]["serving"]["podTemplate"] = {"metadata": {"annotations": {"a": "b"}}}
    serve(cluster)
    assert len({*cluster.names("Deployment")} - {before, after}) == 1


def test_jobs_have_the_chart_s_overlay_and_then_the_pipeline_s() -> None:
    cluster = FakeCluster()
    chart = {"spec": {"containers": [{**SIDECAR, "image": "agent:0"}], "schedulerName": "volcano"}}
    cluster.apply_pipeline(jobs={"podTemplate": {"spec": {"containers": [SIDECAR]}}}, storage={"size": "1Gi", "gc": {}})
    settings = replace(SETTINGS, jobs=Jobs.model_validate({"podTemplate": chart}))
    for _ in range(10):
        reconcile(cluster, settings=settings)
        cluster.succeed_jobs()
    templates = pod_templates(cluster, "Job")
    assert len(templates) > 5
    for written in templates:
        assert [item["image"] for item in written["spec"]["containers"] if item["name"] == "agent"] == ["agent:1"]
        assert written["spec"]["schedulerName"] == "volcano"
        assert list(violations(written["spec"])) == []


def test_a_changed_overlay_of_the_api_restarts_its_pods_and_is_no_revision() -> None:
    cluster = FakeCluster()
    api = {"auth": {"type": "None"}}
    cluster.apply_pipeline(api=api)
    serve(cluster)
    names = cluster.names("Deployment")
    variable = {"name": "OTEL_LOG_LEVEL", "value": "debug"}
    containers = [SIDECAR_OF_API, {"name": "gateway", "env": [variable]}]
    cluster.pipeline()["spec"]["api"] = api | {
        "podTemplate": {"metadata": {"labels": {"owner": "imaging"}}, "spec": {"containers": containers}}
    }
    serve(cluster)
    assert cluster.names("Deployment") == names
    written = cluster.objects["Deployment", "shapes-api"]["spec"]
    gateway, agent = written["template"]["spec"]["containers"]
    assert (gateway["env"], agent["name"]) == ([variable], "agent")
    assert list(violations(written["template"]["spec"])) == []
    labels = written["template"]["metadata"]["labels"]
    assert labels.items() >= {**written["selector"]["matchLabels"], "owner": "imaging"}.items()


@pytest.mark.parametrize(("patch", "path", "words"), REFUSED_API.values(), ids=REFUSED_API)
def test_what_cannot_be_added_to_the_api_is_said_by_the_condition(patch: dict[str, Any], path: str, words: str) -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(api={"auth": {"type": "None"}, "podTemplate": patch})
    reconcile(cluster)
    accepted = cluster.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert f"spec.api.podTemplate.{path}" in accepted["message"]
    assert words in accepted["message"]


@pytest.mark.parametrize("field", ["serving", "jobs", "api"])
def test_the_store_s_claim_is_mounted_by_others_only_to_read(field: str) -> None:
    claim: dict[str, Any] = {"claimName": "shapes-store"}
    cluster = FakeCluster()
    body = {"spec": {"volumes": [{"name": "mine", "persistentVolumeClaim": claim}]}}
    change: dict[str, Any] = {field: {"podTemplate": body, **({"auth": {"type": "None"}} if field == "api" else {})}}
    cluster.apply_pipeline(**change)
    reconcile(cluster)
    accepted = cluster.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert f"spec.{field}.podTemplate.spec.volumes[0].persistentVolumeClaim" in accepted["message"]
    assert cluster.names("Job") == []
    claim["readOnly"] = True
    cluster.apply_pipeline(**change)
    reconcile(cluster)
    assert cluster.condition("Accepted")["status"] == "True"


def test_the_definition_still_fits_into_the_annotation_of_client_side_apply() -> None:
    assert len(json.dumps(definition(), separators=(",", ":"))) < 0.9 * 262144
