"""What `plan` foretells is what then happens, and foretelling writes nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import naming
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.cli import cli
from diffusion_operator.kube_client import Reference
from diffusion_operator.preview import ClusterSnapshot, Preview, preview
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from diffusion_operator.views.job import JobView
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster, minimal_spec
from tests.support.operator.reconciling import OTHER_REVISION, build, serve

NAME = f"{NAMESPACE}/shapes"
OTHER = {"source": {"huggingFace": {"repo": "demo/shapes", "revision": OTHER_REVISION}}}


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    fake.apply_pipeline()
    serve(fake)
    return fake


def preview_of(cluster: FakeCluster, name: str = "shapes", **change: Any) -> Preview:  # noqa: ANN401 - fields of a spec
    spec = DiffusionPipelineSpec.model_validate(minimal_spec() | change)
    cluster.writes.clear()
    observed = asyncio.run(Reconciler(cluster, Settings("", "")).observe(PipelineKey(NAMESPACE, name), spec))
    jobs = asyncio.run(cluster.select(Reference("Job", NAMESPACE), naming.MANAGED_SELECTOR))
    actual = preview(ClusterSnapshot(observed, tuple(map(JobView.parse, jobs))), f"{NAMESPACE}/{name}", spec)
    assert cluster.writes == []
    return actual


def to_build(pipeline_preview: Preview) -> list[tuple[str, str]]:
    return [(item.stage, item.component) for item in pipeline_preview.builds if not item.reused]


def test_without_a_cluster_everything_is_built_and_created() -> None:
    pipeline_preview = preview(None, NAME, DiffusionPipelineSpec.model_validate(minimal_spec()))
    cluster = FakeCluster()
    cluster.apply_pipeline()
    assert len(to_build(pipeline_preview)) == serve(cluster)
    assert {item.verb for item in pipeline_preview.changes} == {"create"}
    kinds = ("Deployment", "Service", "PodDisruptionBudget", "PersistentVolumeClaim")
    assert sorted(item.kind for item in pipeline_preview.changes) == sorted(
        kind for kind in kinds for _ in cluster.names(kind)
    )
    assert pipeline_preview.seconds is None


def test_what_is_there_already_changes_nothing(cluster: FakeCluster) -> None:
    pipeline_preview = preview_of(cluster)
    assert (to_build(pipeline_preview), pipeline_preview.changes, pipeline_preview.seconds) == ([], (), 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"scheduler": {"type": "Euler"}},
        {"pipelines": [{"task": "generate", "steps": [4]}]},
        {"shapes": {"batch": {"min": 1, "opt": 1, "max": 1}}},
        {"serving": {"env": [{"name": "A", "value": "b"}]}},
        {"targets": [{"name": "cpu"}, {"name": "spare"}]},
    ],
    ids=["scheduler", "steps", "shapes", "env", "targets"],
)
def test_it_foretells_the_number_of_jobs(cluster: FakeCluster, change: dict[str, Any]) -> None:
    pipeline_preview = preview_of(cluster, **change)
    assert not pipeline_preview.upper_limit
    cluster.apply_pipeline(**change)
    assert build(cluster) == len(to_build(pipeline_preview))


def test_a_new_checkpoint_is_an_upper_limit(cluster: FakeCluster) -> None:
    pipeline_preview = preview_of(cluster, model=OTHER)
    assert pipeline_preview.upper_limit
    cluster.apply_pipeline(model=OTHER)
    assert build(cluster) <= len(to_build(pipeline_preview))


def test_the_time_is_that_of_the_slowest_of_each_stage(cluster: FakeCluster) -> None:
    pipeline_preview = preview_of(cluster, shapes={"batch": {"min": 1, "opt": 1, "max": 1}})
    assert {stage for stage, _ in to_build(pipeline_preview)} == {"compile", "assemble", "parity"}
    assert pipeline_preview.seconds == 3 * 1.5


def test_a_new_revision_takes_over_from_the_old_one(cluster: FakeCluster) -> None:
    [old] = cluster.names("Deployment")
    pipeline_preview = preview_of(cluster, serving={"image": "triton:2"})
    [created] = [item for item in pipeline_preview.changes if item.kind == "Deployment"]
    assert created.verb == "create"
    assert old in created.note


def test_a_variant_is_one_engine_and_takes_over_from_nobody(cluster: FakeCluster) -> None:
    variant = {"name": "fast", "weight": 20, "model": {"components": {"denoiser": OTHER}}}
    rollout = {"strategy": "RollingUpdate", "traffic": {"gateway": {"name": "web"}}}
    pipeline_preview = preview_of(cluster, rollout={**rollout, "experiment": {"variants": [variant]}})
    assert [item for item in to_build(pipeline_preview) if item[0] == "compile"] == [("compile", "denoiser")]
    [change] = [item for item in pipeline_preview.changes if item.kind == "Deployment"]
    assert (change.verb, change.note) == ("create", "variant fast gets its share once it is ready on every target")
    cluster.apply_pipeline(rollout={**rollout, "experiment": {"variants": [variant]}})
    assert len(to_build(pipeline_preview)) == build(cluster)
    assert len(cluster.names("Deployment")) == 2


def test_more_pods_are_a_change_and_a_dropped_autoscaler_a_removal(cluster: FakeCluster) -> None:
    [deployment] = cluster.names("Deployment")
    pipeline_preview = preview_of(cluster, targets=[{"name": "cpu", "replicas": 3}])
    assert [(item.verb, item.name, item.note) for item in pipeline_preview.changes] == [
        ("change", deployment, "3 pods")
    ]
    cluster.apply_pipeline(targets=[{"name": "cpu", "autoscaling": {"maxReplicas": 3}}])
    serve(cluster)
    assert [(item.verb, item.kind) for item in preview_of(cluster).changes] == [("remove", "HorizontalPodAutoscaler")]


def test_a_neighbours_builds_on_the_same_store_are_reused(cluster: FakeCluster) -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(cluster.create(claim))
    cluster.apply_pipeline("twin", storage={"claimName": "common"})
    serve(cluster, "twin")
    assert to_build(preview_of(cluster, "third", storage={"claimName": "common"})) == []
    assert len(to_build(preview_of(cluster, "fourth"))) > 0


def test_the_command_answers_people_and_programs(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    head = {"name": "shapes", "namespace": "studio"}
    file.write_text(json.dumps({"apiVersion": API_VERSION, "kind": KIND, "metadata": head, "spec": minimal_spec()}))
    invocation = CliRunner().invoke(cli, ["plan", "--offline", str(file)])
    assert invocation.exit_code == 0, invocation.output
    assert "+ build  compile denoiser for cpu" in invocation.output
    assert "4 of 4 engines to build" in invocation.output
    parsed = json.loads(CliRunner().invoke(cli, ["plan", "--offline", "--json", str(file)]).output)
    assert parsed[0]["pipeline"] == "studio/shapes"
    assert sum(item["stage"] == "compile" for item in parsed[0]["builds"]) == 4
