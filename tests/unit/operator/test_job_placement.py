"""Where Jobs run and what labels they have: defaults of the chart, of the pipeline, of a target; never a name."""

import ast
import re
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from diffusion_contract.documents import read_spec
from diffusion_contract.spec import Jobs
from diffusion_contract.spec.rollout import Quality
from diffusion_operator import naming
from diffusion_operator.api.crd import definition
from diffusion_operator.errors import BadInputError
from diffusion_operator.plan.build_jobs import BuildJobFactory, StoreClaim
from diffusion_operator.settings import from_environment
from tests.support.operator.fake_cluster import FakeCluster, minimal_spec
from tests.support.operator.reconciling import SETTINGS, reconcile, serve, settle
from tests.support.paths import ROOT

TAINT = {"key": "dedicated", "operator": "Equal", "value": "ai", "effect": "NoSchedule"}
ZONE: dict[str, Any] = {
    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": []}]}
}
JOBS: dict[str, Any] = {
    "nodeSelector": {"kubernetes.io/arch": "amd64", "pool": "builds"},
    "tolerations": [TAINT],
    "affinity": {"nodeAffinity": ZONE},
    "priorityClassName": "low",
    "labels": {"team": "imaging"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "4Gi"}},
}
GC: dict[str, Any] = {"storage": {"size": "20Gi", "gc": {"interval": "99999999h"}}}
GPU = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}, "nodeSelector": {"pool": "gpus"}, "tolerations": [{"key": "x"}]}
CPU = {"name": "cpu", "nodeSelector": {"kubernetes.io/arch": "arm64"}}


def jobs_of(settings: Jobs = SETTINGS.jobs, **spec: Any) -> dict[str, list[dict[str, Any]]]:  # noqa: ANN401 - any field
    """Jobs by stage, and one that compares a canary."""
    cluster = FakeCluster()
    cluster.apply_pipeline(**GC, **spec)
    administrator = replace(SETTINGS, jobs=settings)
    for _ in range(12):
        reconcile(cluster, settings=administrator)
        cluster.succeed_jobs()
        for deployment in cluster.names("Deployment"):
            cluster.set_ready(deployment, cluster.objects["Deployment", deployment]["spec"]["replicas"])
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for name in cluster.names("Job"):
        body = cluster.objects["Job", name]
        by_stage.setdefault(body["metadata"]["labels"][naming.STAGE], []).append(body)
    return by_stage


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def test_every_job_has_the_placement_and_metadata_of_all_jobs() -> None:
    by_stage = jobs_of(jobs=JOBS)
    assert set(by_stage) == {"fetch", "export", "compile", "assemble", "parity", "gc"}
    for job in (job for jobs in by_stage.values() for job in jobs):
        pod = pod_of(job)
        assert pod["nodeSelector"] == JOBS["nodeSelector"]
        assert pod["tolerations"] == [TAINT]
        assert pod["affinity"] == JOBS["affinity"]
        assert pod["priorityClassName"] == "low"
        for head in (job["metadata"], job["spec"]["template"]["metadata"]):
            assert head["labels"]["team"] == "imaging"
            assert head["annotations"]["sidecar.istio.io/inject"] == "false"


def test_a_comparison_is_placed_like_every_job() -> None:
    spec = read_spec(minimal_spec() | {"jobs": JOBS})
    urls = {"stable": "http://a.studio.svc:8000", "canary": "http://b.studio.svc:8000"}
    comparison = BuildJobFactory(spec, StoreClaim("shapes-store", "1"), SETTINGS).compare(urls, Quality())
    assert dict(comparison.placement.node_selector) == JOBS["nodeSelector"]
    assert comparison.resources.limits == {"memory": "4Gi"}


def test_placement_and_metadata_rename_no_job_and_change_no_argument() -> None:
    def identity(by_stage: dict[str, list[dict[str, Any]]]) -> set[tuple[str, str]]:
        jobs = [job for jobs in by_stage.values() for job in jobs]
        return {(job["metadata"]["name"], str(pod_of(job)["containers"][0]["args"])) for job in jobs}

    assert identity(jobs_of(jobs=JOBS)) == identity(jobs_of()) == identity(jobs_of(Jobs.model_validate(JOBS)))


def test_resources_are_those_of_small_jobs_and_engines_have_their_own() -> None:
    by_stage = jobs_of(jobs=JOBS)
    for stage in ("fetch", "assemble", "gc"):
        resources = pod_of(by_stage[stage][0])["containers"][0]["resources"]
        assert resources == {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
    for stage in ("export", "compile", "parity"):
        assert "limits" not in pod_of(by_stage[stage][0])["containers"][0]["resources"]


def test_a_pipeline_wins_over_the_chart_and_a_target_over_both() -> None:
    defaults = Jobs.model_validate(
        {
            "nodeSelector": {"kubernetes.io/arch": "amd64", "pool": "any"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"a": 1}, "podAffinity": {"b": 2}},
            "labels": {"team": "platform", "cost": "1"},
            "priorityClassName": "lowest",
        }
    )
    by_stage = jobs_of(
        defaults,
        jobs={**JOBS, "nodeSelector": {"pool": "builds"}, "tolerations": [{"key": "dedicated", "operator": "Exists"}]},
        engines={"priorityClassName": "high", "labels": {"team": "engines"}},
        targets=[GPU, CPU],
    )
    fetch, collection = by_stage["fetch"][0], by_stage["gc"][0]
    assert pod_of(fetch)["nodeSelector"] == {"kubernetes.io/arch": "amd64", "pool": "builds"}
    assert pod_of(fetch)["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    assert pod_of(fetch)["affinity"] == {"nodeAffinity": ZONE, "podAffinity": {"b": 2}}
    assert (pod_of(fetch)["priorityClassName"], pod_of(collection)["priorityClassName"]) == ("high", "low")
    assert fetch["metadata"]["labels"].items() >= {"team": "engines", "cost": "1"}.items()
    assert collection["metadata"]["labels"].items() >= {"team": "imaging", "cost": "1"}.items()
    compiles = {job["metadata"]["labels"][naming.TARGET]: pod_of(job) for job in by_stage["compile"]}
    assert compiles["cpu"]["nodeSelector"] == {"kubernetes.io/arch": "arm64", "pool": "builds"}
    gpu = {"kubernetes.io/arch": "amd64", "pool": "gpus", "nvidia.com/gpu.product": "NVIDIA-L4"}
    assert compiles["NVIDIA-L4"]["nodeSelector"] == gpu
    assert [item["key"] for item in compiles["NVIDIA-L4"]["tolerations"]] == ["dedicated", "x", "nvidia.com/gpu"]


def test_serving_pods_keep_the_placement_of_their_target() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(jobs=JOBS)
    serve(cluster)
    [name] = cluster.names("Deployment")
    pod = cluster.objects["Deployment", name]["spec"]["template"]["spec"]
    assert not {"nodeSelector", "tolerations", "affinity", "priorityClassName"} & set(pod)


@pytest.mark.parametrize(
    "change", [{"nodeSelector": {"pool": "new"}}, {"labels": {"team": "a"}}, {"annotations": {"a": "b"}}]
)
def test_a_job_that_waits_is_started_again_elsewhere_and_a_finished_one_stays(change: dict[str, Any]) -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    settle(cluster)
    cluster.succeed_jobs()
    settle(cluster)
    for name in cluster.names("Job"):
        cluster.objects["Job", name]["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    before = {name: cluster.objects["Job", name]["metadata"]["uid"] for name in cluster.names("Job")}
    cluster.pipeline()["spec"]["jobs"] = change
    settle(cluster)
    after = {name: cluster.objects["Job", name]["metadata"]["uid"] for name in cluster.names("Job")}
    assert set(after) == set(before)
    assert {name.partition("-")[0] for name in before if after[name] == before[name]} == {"fetch"}


def test_the_operator_reads_the_chart_s_defaults_as_strictly_as_a_pipeline() -> None:
    images = {"DIFFUSION_OPERATOR_BUILDER_IMAGE": "b", "DIFFUSION_OPERATOR_SERVING_IMAGE": "s"}
    settings = from_environment(images | {"DIFFUSION_OPERATOR_JOBS": '{"nodeSelector":{"pool":"builds"}}'})
    assert settings.jobs == Jobs(node_selector={"pool": "builds"})
    assert from_environment(images).jobs == Jobs()
    with pytest.raises(BadInputError, match=r"value jobs, is not valid:\n  jobs.nodeSelectr: Extra inputs"):
        from_environment(images | {"DIFFUSION_OPERATOR_JOBS": '{"nodeSelectr":{}}'})
    with pytest.raises(ValidationError):
        Jobs.model_validate({"tolerations": [{"value": "x"}]})


def spec_fields(schema: dict[str, Any], path: str) -> set[str]:
    """Paths of all fields, without brackets."""
    paths = {path}
    for name, item in schema.get("properties", {}).items():
        paths |= spec_fields(item.get("items", item), f"{path}.{name}")
    inner = schema.get("additionalProperties")
    return paths | (spec_fields(inner, f"{path}.*") if isinstance(inner, dict) else set())


def test_messages_name_fields_that_exist() -> None:
    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    known_paths, named_paths = spec_fields(schema, "spec"), set()
    for file in [*(ROOT / "operator").rglob("*.py"), *(ROOT / "builder" / "diffusion_builder").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named_paths |= set(re.findall(r"(?<![.\w])spec(?:\.[a-zA-Z_]+(?:\[\])?)+", node.value))
    paths = {path.replace("[]", "").removesuffix(".limits.memory") for path in named_paths}
    assert len(paths) > 8
    assert sorted(paths - known_paths) == []
