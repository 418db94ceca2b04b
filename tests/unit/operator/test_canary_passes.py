"""Canaries in whole passes: what is written, what is told, and what a lost status or operator changes (nothing)."""

from __future__ import annotations

import pytest

from diffusion_operator import naming
from diffusion_operator.analysis.window import Window
from diffusion_operator.plan.build_jobs import StoreClaim
from diffusion_operator.plan.garbage_collection import StoreUsers, live_digests
from diffusion_operator.views.serving import DeploymentView
from tests.support.operator.canaries import (
    BAD,
    GATEWAY,
    GOOD,
    FakeScraper,
    change,
    deployments,
    events,
    reconcile_with,
    replicas,
    run_rollout,
    selector,
    shares,
    stable,
)
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import build, serve


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    change(fake, 1)
    serve(fake)
    return fake


def test_a_good_canary_gets_more_and_more_and_then_all(cluster: FakeCluster) -> None:
    first = stable(cluster)
    change(cluster, 2)
    assert build(cluster) <= 1
    summaries = run_rollout(cluster)
    assert [item for item in summaries if "%" in item and item[0] != "0"] == ["10% Pass", "50% Pass"]
    assert summaries[-2:] == ["promoting", "None"]
    assert stable(cluster) != first
    assert replicas(cluster) == {first: 0, stable(cluster): 2}
    assert selector(cluster, "shapes")[naming.REVISION] == stable(cluster)
    assert cluster.condition("Ready")["status"] == "True"
    text = " ".join(events(cluster))
    assert "receives 10 % of the requests (step 1 of 2)" in text
    assert "passed its analysis and is being scaled to full size" in text


def test_while_it_has_a_share_the_services_select_both_and_else_only_the_stable_one(cluster: FakeCluster) -> None:
    first = stable(cluster)
    change(cluster, 2)
    shares = set()
    for _ in range(16):
        run_rollout(cluster, passes=1)
        status = cluster.pipeline()["status"]["targets"][0]
        for name in ("shapes", "shapes-cpu"):
            mixed = naming.REVISION not in selector(cluster, name)
            assert mixed == ((status.get("canaryWeight") or 0) > 0)
            shares.add(mixed)
        assert replicas(cluster)[first] == 2 or stable(cluster) != first
    assert shares == {True, False}


def test_one_that_fails_is_taken_back_on_all_targets_with_reason_and_numbers(cluster: FakeCluster) -> None:
    change(cluster, 1, targets=2)
    serve(cluster)
    before = stable(cluster), stable(cluster, "spare")
    change(cluster, 2, targets=2)
    run_rollout(cluster, BAD)
    assert (stable(cluster), stable(cluster, "spare")) == before
    assert sorted(replicas(cluster).values()) == [0, 2]
    assert sorted(replicas(cluster, "spare").values()) == [0, 2]
    condition = cluster.condition("RolloutComplete")
    assert (condition["status"], condition["reason"]) == ("False", "CanaryRejected")
    assert "ErrorRatio" in condition["message"]
    target = cluster.pipeline()["status"]["targets"][0]
    assert target["analysis"]["numbers"]["canaryErrorRatio"] == 0.5
    assert cluster.pipeline()["status"]["summary"]["canary"] == "rejected: ErrorRatio"
    assert cluster.condition("Available")["status"] == "True"
    change(cluster, 3, targets=2)
    run_rollout(cluster)
    assert stable(cluster) != before[0]
    assert stable(cluster, "spare") != before[1]
    assert cluster.condition("Ready")["status"] == "True"


def test_bad_images_are_never_served(cluster: FakeCluster) -> None:
    first = stable(cluster)
    change(cluster, 2)
    for _ in range(12):
        reconcile_with(cluster, FakeScraper(GOOD))
        for job in cluster.unfinished_jobs():
            if job["metadata"]["name"].startswith("compare"):
                numbers = {"digest": "d" * 64, "stage": "compare", "worstPSNR": 6.5}
                cluster.end_job(job, 0, {"passed": False, "message": "Image 1 has NaN.", **numbers})
        run_rollout(cluster, passes=1)
        assert not cluster.pipeline()["status"]["targets"][0].get("canaryWeight")
    assert stable(cluster) == first
    assert "ImageQuality: Image 1 has NaN." in cluster.condition("RolloutComplete")["message"]


def test_silence_is_held_and_then_taken_back(cluster: FakeCluster) -> None:
    change(cluster, 2)
    assert run_rollout(cluster, Window(), passes=8)[-1] == "10% Inconclusive"
    change(cluster, 2, analysis={"deadline": "1s"})
    summaries = run_rollout(cluster, Window())
    assert summaries[-1] == "rejected: Inconclusive"


def test_going_back_needs_no_build_and_the_repository_is_kept(cluster: FakeCluster) -> None:
    change(cluster, 1, targets=2)
    serve(cluster)
    first = stable(cluster), stable(cluster, "spare")
    change(cluster, 2, targets=2)
    run_rollout(cluster)
    second = stable(cluster), stable(cluster, "spare")
    assert second[0] != first[0]
    jobs = len(cluster.names("Job"))
    change(cluster, 2, targets=2, rollbackTo=first[0])
    run_rollout(cluster, Window(), passes=8)
    assert (stable(cluster), stable(cluster, "spare")) == first
    assert cluster.condition("Ready")["status"] == "True"
    change(cluster, 2, targets=2, rollbackTo=second[1])
    run_rollout(cluster, Window(), passes=8)
    assert (stable(cluster), stable(cluster, "spare")) == second
    assert len(cluster.names("Job")) <= jobs
    retained = live_digests(
        StoreUsers((), (), map(DeploymentView.parse, deployments(cluster))), StoreClaim("shapes-store", "uid")
    )
    assert retained == {item["metadata"]["annotations"][naming.REPOSITORY] for item in deployments(cluster)}
    assert sorted(replicas(cluster)) == sorted((first[0], second[0]))


def test_going_back_to_what_is_gone_says_what_there_is(cluster: FakeCluster) -> None:
    first = stable(cluster)
    change(cluster, 1, rollbackTo="00000000")
    run_rollout(cluster, passes=2)
    condition = cluster.condition("RolloutComplete")
    assert condition["reason"] == "RevisionNotInHistory"
    assert first in condition["message"]
    assert replicas(cluster) == {first: 2}


@pytest.mark.parametrize("verb", [naming.PROMOTE, naming.ABORT])
def test_people_can_promote_and_abort(cluster: FakeCluster, verb: str) -> None:
    first = stable(cluster)
    change(cluster, 2)
    run_rollout(cluster, Window(), passes=5)
    [candidate] = [name for name in replicas(cluster) if name != first]
    cluster.pipeline()["metadata"]["annotations"] = {verb: candidate}
    run_rollout(cluster, Window(), passes=5)
    assert stable(cluster) == (candidate if verb == naming.PROMOTE else first)
    if verb == naming.ABORT:
        assert "Aborted" in cluster.condition("RolloutComplete")["message"]


def test_behind_a_gateway_both_routes_split_by_weight_and_services_select_one_revision(cluster: FakeCluster) -> None:
    first = stable(cluster)
    change(cluster, 1, **GATEWAY)
    run_rollout(cluster, passes=2)
    assert shares(cluster, "HTTPRoute") == {f"shapes-cpu-{first}": 100}
    change(cluster, 2, **GATEWAY)
    splits = set()
    for _ in range(18):
        run_rollout(cluster, passes=1)
        weights = shares(cluster, "HTTPRoute")
        assert weights == shares(cluster, "GRPCRoute")
        assert sum(weights.values()) == 100
        assert set(weights) <= set(cluster.names("Service"))
        assert selector(cluster, "shapes-cpu")[naming.REVISION] == stable(cluster)
        splits.add(
            (weights.get(f"shapes-cpu-{first}", 0), len(cluster.objects["HTTPRoute", "shapes"]["spec"]["rules"]))
        )
    assert {(100, 2), (90, 2), (50, 2), (0, 1)} <= splits
    assert replicas(cluster) == {first: 0, stable(cluster): 2}
    change(cluster, 2)
    run_rollout(cluster, passes=1)
    assert not cluster.names("HTTPRoute") + cluster.names("GRPCRoute")


def test_behind_a_gateway_targets_share_by_their_size(cluster: FakeCluster) -> None:
    change(cluster, 1, targets=2, **GATEWAY)
    serve(cluster)
    change(cluster, 2, targets=2, **GATEWAY)
    for _ in range(18):
        run_rollout(cluster, passes=1)
        assert sum(shares(cluster, "HTTPRoute").values()) == 100 * 2 * 2
    assert len(shares(cluster, "HTTPRoute")) == 2


def test_a_cluster_without_the_gateway_api_is_told_so_and_goes_on_serving(cluster: FakeCluster) -> None:
    cluster.unknown = {"HTTPRoute", "GRPCRoute"}
    change(cluster, 1, **GATEWAY)
    run_rollout(cluster, passes=1)
    assert "Gateway API" in cluster.condition("Accepted")["message"]
    assert cluster.condition("Available")["status"] == "True"


def test_a_finished_rollout_writes_nothing_any_more(cluster: FakeCluster) -> None:
    change(cluster, 2)
    run_rollout(cluster)
    for _ in range(2):
        cluster.writes.clear()
        reconcile_with(cluster, FakeScraper(GOOD))
    assert cluster.writes == []
