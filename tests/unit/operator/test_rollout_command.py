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
from diffusion_operator.rollout_command import PipelineRef, observe, table, write_request
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster

STABLE, CANARY, OLD = "aaaaaaaa", "bbbbbbbb", "cccccccc"
WHICH = PipelineRef("shapes", NAMESPACE)
PASSED = {"passed": True, "reason": "Passed", "message": "12 dB [sic] of likeness", "numbers": {}}


def deployment(revision: str, pods: int, **note: Any) -> dict[str, Any]:  # noqa: ANN401 - what the note holds
    labels = naming.target_labels("shapes", "cpu") | {naming.REVISION: revision}
    since = datetime.now(UTC) - timedelta(seconds=90)
    written = json.dumps({"since": since.isoformat(), **note}) if note else "not JSON"
    return {
        "kind": "Deployment",
        "metadata": {
            "name": naming.revision("shapes", "cpu", revision),
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
    made = FakeCluster()
    made.apply_pipeline()
    target = {"name": "cpu", "canaryRevision": CANARY, "canaryWeight": 50}
    condition = {"type": "RolloutComplete", "reason": "CanaryProgressing", "message": "half way"}
    made.pipeline()["status"] = {"targets": [target], "conditions": [condition]}
    for item in (service(), deployment(STABLE, 2, phase="Served"), deployment(OLD, 0, phase="Served"), *candidates):
        made.objects[item["kind"], item["metadata"]["name"]] = item
    return made


def annotations(made: FakeCluster) -> dict[str, str]:
    found: dict[str, str] = made.pipeline()["metadata"].get("annotations", {})
    return found


def test_each_revision_has_one_row_with_role_share_pods_phase_and_verdict() -> None:
    made = cluster(deployment(CANARY, 1, phase="Step", step=1, verdict=PASSED))
    found = asyncio.run(observe(made, WHICH))
    assert [(line.revision, line.role, line.pods) for line in found.lines] == [
        (STABLE, "stable", "2/2"),
        (CANARY, "canary", "1/1"),
        (OLD, "kept", "0/0"),
    ]
    canary = found.lines[1]
    assert (canary.weight, canary.phase, canary.outcome) == (50, "Step 2", "Pass")
    assert canary.seconds == pytest.approx(90, abs=30)
    stream = io.StringIO()
    Console(file=stream, width=200).print(table(found))
    printed = stream.getvalue()
    assert all(word in printed for word in (STABLE, CANARY, OLD, "50 %", "12 dB [sic] of likeness", "half way"))


def test_live_objects_say_what_is_stable_when_the_status_is_lost() -> None:
    made = cluster(deployment(CANARY, 1, phase="ImageComparison"))
    made.pipeline()["status"] = {}
    found = asyncio.run(observe(made, WHICH))
    assert [line.role for line in found.lines] == ["stable", "canary", "kept"]
    assert found.canaries == (CANARY,)


def test_a_note_that_nobody_can_read_is_shown_as_no_phase() -> None:
    found = asyncio.run(observe(cluster(deployment(CANARY, 1)), WHICH))
    assert found.lines[1].phase == ""
    assert found.canaries == (CANARY,)


@pytest.mark.parametrize(("verb", "key"), [("promote", naming.PROMOTE), ("abort", naming.ABORT)])
def test_what_is_asked_names_the_canary_of_now(verb: str, key: str) -> None:
    made = cluster(deployment("11111111", 0, phase="Step"), deployment(CANARY, 1, phase="Step"))
    said = asyncio.run(write_request(made, WHICH, verb))  # type: ignore[arg-type]
    assert annotations(made) == {key: CANARY}
    assert CANARY in said
    assert "spec" not in str(made.writes)


def test_asking_for_the_opposite_takes_back_what_was_asked_before() -> None:
    made = cluster(deployment(CANARY, 1, phase="Step"))
    asyncio.run(write_request(made, WHICH, "promote"))
    asyncio.run(write_request(made, WHICH, "abort"))
    assert annotations(made) == {naming.ABORT: CANARY}


@pytest.mark.parametrize("phase", ["Rejected", "Served", None])
def test_without_a_canary_under_way_nothing_is_asked(phase: str | None) -> None:
    made = cluster(*([deployment(CANARY, 0, phase=phase)] if phase else []))
    with pytest.raises(BadInputError, match=r"no canary to promote: CanaryProgressing: half way"):
        asyncio.run(write_request(made, WHICH, "promote"))
    assert not annotations(made)
    assert not made.writes


def test_a_pipeline_that_is_not_there_is_told() -> None:
    with pytest.raises(BadInputError, match="no DiffusionPipeline other"):
        asyncio.run(observe(FakeCluster(), PipelineRef("other", NAMESPACE)))


def test_sides_of_an_experiment_are_told_with_their_results_and_are_no_canaries() -> None:
    one = deployment(CANARY, 1)
    one["metadata"]["annotations"] = {naming.VARIANT: "fast"}
    made = cluster(one)
    sides = [
        {"name": "stable", "revision": STABLE, "weight": 75, "requests": 300, "errorRatio": 0.0, "p95Seconds": 1.25},
        {"name": "fast", "revision": CANARY, "weight": 25, "requests": 100, "errorRatio": 0.02, "p95Seconds": 0.75},
    ]
    made.pipeline()["status"]["targets"] = [{"name": "cpu", "variants": sides}]
    found = asyncio.run(observe(made, WHICH))
    assert [(line.role, line.phase, line.weight) for line in found.lines] == [
        ("stable", "stable", 75),
        ("variant", "fast", 25),
        ("kept", "Served", None),
    ]
    assert found.lines[1].message == "100 requests, 2.0% failed, p95 0.75 s"
    assert not found.is_moving
    with pytest.raises(BadInputError, match="no canary to promote"):
        asyncio.run(write_request(made, WHICH, "promote"))
