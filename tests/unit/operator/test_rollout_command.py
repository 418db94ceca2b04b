"""`diffusion-operator rollout`: it tells what live objects say, and asks by an annotation that names a revision."""

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from diffusion_operator import naming
from diffusion_operator.errors import BadInputError
from diffusion_operator.rollout_command import PipelineRef, observe, render_table, write_request
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster

STABLE, CANARY, OLD = "aaaaaaaa", "bbbbbbbb", "cccccccc"
PIPELINE = PipelineRef("shapes", NAMESPACE)
PASSED = {"passed": True, "reason": "Passed", "message": "12 dB [sic] of likeness", "numbers": {}}


def deployment(revision: str, pods: int, **note: Any) -> dict[str, Any]:  # noqa: ANN401 - what the note holds
    labels = naming.target_labels("shapes", "cpu") | {naming.REVISION: revision}
    since = datetime.now(UTC) - timedelta(seconds=90)
    written = json.dumps({"since": since.isoformat(), **note}) if note else "not JSON"
    return {
        "kind": "Deployment",
        "metadata": {
            "name": naming.revision_name("shapes", "cpu", revision),
            "namespace": NAMESPACE,
            "labels": labels,
            "annotations": {naming.ROLLOUT: written},
        },
        "spec": {"replicas": pods},
        "status": {"readyReplicas": pods},
    }


def service() -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {
            "name": "shapes-cpu",
            "namespace": NAMESPACE,
            "labels": naming.target_labels("shapes", "cpu"),
            "annotations": {naming.STABLE: STABLE},
        },
        "spec": {},
    }


def cluster(*candidates: dict[str, Any]) -> FakeCluster:
    fake = FakeCluster()
    fake.apply_pipeline()
    target = {"name": "cpu", "canaryRevision": CANARY, "canaryWeight": 50}
    condition = {"type": "RolloutComplete", "reason": "CanaryProgressing", "message": "half way"}
    fake.pipeline()["status"] = {"targets": [target], "conditions": [condition]}
    for item in (service(), deployment(STABLE, 2, phase="Served"), deployment(OLD, 0, phase="Served"), *candidates):
        fake.objects[item["kind"], item["metadata"]["name"]] = item
    return fake


def annotations(kube: FakeCluster) -> dict[str, str]:
    pipeline_annotations: dict[str, str] = kube.pipeline()["metadata"].get("annotations", {})
    return pipeline_annotations


def test_each_revision_has_one_row_with_role_share_pods_phase_and_verdict() -> None:
    kube = cluster(deployment(CANARY, 1, phase="Step", step=1, verdict=PASSED))
    view = asyncio.run(observe(kube, PIPELINE))
    assert [(row.revision, row.role, row.pods) for row in view.rows] == [
        (STABLE, "stable", "2/2"),
        (CANARY, "canary", "1/1"),
        (OLD, "kept", "0/0"),
    ]
    canary = view.rows[1]
    assert (canary.weight, canary.phase, canary.outcome) == (50, "Step 2", "Pass")
    assert canary.seconds == pytest.approx(90, abs=30)
    stream = io.StringIO()
    Console(file=stream, width=200).print(render_table(view))
    printed = stream.getvalue()
    assert all(word in printed for word in (STABLE, CANARY, OLD, "50 %", "12 dB [sic] of likeness", "half way"))


def test_live_objects_say_what_is_stable_when_the_status_is_lost() -> None:
    kube = cluster(deployment(CANARY, 1, phase="ImageComparison"))
    kube.pipeline()["status"] = {}
    view = asyncio.run(observe(kube, PIPELINE))
    assert [row.role for row in view.rows] == ["stable", "canary", "kept"]
    assert view.canaries == (CANARY,)


def test_a_note_that_nobody_can_read_is_shown_as_no_phase() -> None:
    view = asyncio.run(observe(cluster(deployment(CANARY, 1)), PIPELINE))
    assert view.rows[1].phase == ""
    assert view.canaries == (CANARY,)


@pytest.mark.parametrize(("verb", "key"), [("promote", naming.PROMOTE), ("abort", naming.ABORT)])
def test_what_is_asked_names_the_canary_of_now(verb: str, key: str) -> None:
    kube = cluster(deployment("11111111", 0, phase="Step"), deployment(CANARY, 1, phase="Step"))
    message = asyncio.run(write_request(kube, PIPELINE, verb))  # type: ignore[arg-type]
    assert annotations(kube) == {key: CANARY}
    assert CANARY in message
    assert "spec" not in str(kube.writes)


def test_asking_for_the_opposite_takes_back_what_was_asked_before() -> None:
    kube = cluster(deployment(CANARY, 1, phase="Step"))
    asyncio.run(write_request(kube, PIPELINE, "promote"))
    asyncio.run(write_request(kube, PIPELINE, "abort"))
    assert annotations(kube) == {naming.ABORT: CANARY}


@pytest.mark.parametrize("phase", ["Rejected", "Served", None])
def test_without_a_canary_under_way_nothing_is_asked(phase: str | None) -> None:
    kube = cluster(*([deployment(CANARY, 0, phase=phase)] if phase else []))
    with pytest.raises(BadInputError, match=r"no canary to promote: CanaryProgressing: half way"):
        asyncio.run(write_request(kube, PIPELINE, "promote"))
    assert not annotations(kube)
    assert not kube.writes


def test_a_pipeline_that_is_not_there_is_told() -> None:
    with pytest.raises(BadInputError, match="no DiffusionPipeline other"):
        asyncio.run(observe(FakeCluster(), PipelineRef("other", NAMESPACE)))


def test_sides_of_an_experiment_are_told_with_their_results_and_are_no_canaries() -> None:
    canary_deployment = deployment(CANARY, 1)
    canary_deployment["metadata"]["annotations"] = {naming.VARIANT: "fast"}
    kube = cluster(canary_deployment)
    sides = [
        {"name": "stable", "revision": STABLE, "weight": 75, "requests": 300, "errorRatio": 0.0, "p95Seconds": 1.25},
        {"name": "fast", "revision": CANARY, "weight": 25, "requests": 100, "errorRatio": 0.02, "p95Seconds": 0.75},
    ]
    kube.pipeline()["status"]["targets"] = [{"name": "cpu", "variants": sides}]
    view = asyncio.run(observe(kube, PIPELINE))
    assert [(row.role, row.phase, row.weight) for row in view.rows] == [
        ("stable", "stable", 75),
        ("variant", "fast", 25),
        ("kept", "Served", None),
    ]
    assert view.rows[1].message == "100 requests, 2.0% failed, p95 0.75 s"
    assert not view.is_moving
    with pytest.raises(BadInputError, match="no canary to promote"):
        asyncio.run(write_request(kube, PIPELINE, "promote"))
