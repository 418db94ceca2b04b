"""Experiments in whole passes: builds, weights, status and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import naming
from diffusion_operator.analysis.counters import EnsembleStats, StepCounters
from diffusion_operator.analysis.window import Window
from diffusion_operator.api import KIND
from diffusion_operator.plan.build_jobs import StoreClaim
from diffusion_operator.plan.garbage_collection import StoreUsers, live_digests
from diffusion_operator.preview import preview
from diffusion_operator.views.job import JobView
from diffusion_operator.views.serving import DeploymentView
from diffusion_operator.views.storage import PipelineView
from tests.support.operator.canaries import FakeScraper, reconcile_with, replicas, selector, shares, stable
from tests.support.operator.fake_cluster import FakeCluster, digest_of, minimal_spec
from tests.support.operator.reconciling import OTHER_REVISION, build, serve

UNET = {"components": {"denoiser": {"source": {"huggingFace": {"repo": "demo/fast", "revision": OTHER_REVISION}}}}}
FAST = {"name": "fast", "weight": 25, "model": UNET}
OTHER_SERVER = {"name": "other", "weight": 10, "serving": {"image": "triton:2"}}
QUICK = Window({"generate_20_pipeline": EnsembleStats(80, 20, 40, 0.5, 0.75)}, StepCounters(2000, 20, 2000, 1000), 1)
GATEWAY = {"gateway": {"name": "web"}}


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    apply_variants(fake)
    serve(fake)
    return fake


def spec(*variants: dict[str, Any], targets: int = 1, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    places = [{"name": name, "replicas": 4} for name in ("cpu", "spare")[:targets]]
    rollout: dict[str, Any] = {"strategy": "RollingUpdate", "traffic": GATEWAY}
    if variants:
        rollout["experiment"] = {"variants": list(variants)}
    return {"serving": {"image": "triton:1"}, "targets": places, "rollout": rollout, **fields}


def apply_variants(cluster: FakeCluster, *variants: dict[str, Any], **fields: Any) -> None:  # noqa: ANN401 - any field
    status = cluster.objects.get((KIND, "shapes"), {}).get("status", {})
    cluster.apply_pipeline(**spec(*variants, **fields))["status"] = status


def reconcile(cluster: FakeCluster) -> float | None:
    return reconcile_with(cluster, FakeScraper(QUICK))


def ready(cluster: FakeCluster, *but: str) -> None:
    for name in cluster.names("Deployment"):
        count = cluster.objects["Deployment", name]["spec"]["replicas"]
        cluster.set_ready(name, 0 if name.rsplit("-", 1)[1] in but else count)


def run_passes(cluster: FakeCluster, passes: int = 8) -> None:
    for _ in range(passes):
        reconcile(cluster)
        cluster.succeed_jobs()
        ready(cluster)
        cluster.pipeline()["status"] = {}
    reconcile(cluster)


def sides(cluster: FakeCluster, target: int = 0) -> dict[str, dict[str, Any]]:
    variants = cluster.pipeline()["status"]["targets"][target].get("variants", [])
    return {item["name"]: item for item in variants}


def rules(cluster: FakeCluster) -> list[tuple[str, ...]]:
    """Header and Services of each rule."""
    rows = []
    for rule in cluster.objects["HTTPRoute", "shapes"]["spec"]["rules"]:
        headers = [header for match in rule.get("matches", []) for header in match["headers"]]
        rows.append((*(header["value"] for header in headers), *(ref["name"] for ref in rule["backendRefs"])))
    return rows


def test_another_denoiser_builds_one_engine_and_gets_its_share_when_its_pods_are_ready(cluster: FakeCluster) -> None:
    first, jobs = stable(cluster), set(cluster.names("Job"))
    apply_variants(cluster, FAST)
    assert build(cluster) == 5
    new = sorted(name.split("-")[:2] for name in set(cluster.names("Job")) - jobs)
    assert [item[0] for item in new] == ["assemble", "compile", "export", "fetch", "parity"]
    assert [item[1] for item in new if item[0] in {"compile", "export"}] == ["denoiser", "denoiser"]
    [fast] = set(replicas(cluster)) - {first}
    # A quarter of the requests needs a quarter of the pods; nobody is sent there before they are ready.
    assert replicas(cluster) == {first: 4, fast: 1}
    assert shares(cluster, "HTTPRoute") == {f"shapes-cpu-{first}": 100}
    assert rules(cluster) == [("^([0-9a-f][0-9a-f]).*$", f"shapes-cpu-{first}"), (f"shapes-cpu-{first}",)]
    assert cluster.condition("RolloutComplete")["reason"] == "ExperimentStarting"
    ready(cluster)
    reconcile(cluster)
    assert shares(cluster, "HTTPRoute") == {f"shapes-cpu-{first}": 75, f"shapes-cpu-{fast}": 25}
    assert shares(cluster, "GRPCRoute") == shares(cluster, "HTTPRoute")
    assert rules(cluster)[:-1] == [
        ("fast", f"shapes-cpu-{fast}"),
        ("^([0-3][0-9a-f]).*$", f"shapes-cpu-{fast}"),
        ("^([4-9a-f][0-9a-f]).*$", f"shapes-cpu-{first}"),
    ]
    assert selector(cluster, "shapes-cpu")[naming.REVISION] == first
    reconcile(cluster)
    condition = cluster.condition("RolloutComplete")
    assert (condition["status"], condition["reason"]) == ("True", "ExperimentRunning")
    assert "stable gets 75 % of the requests, fast 25 %" in condition["message"]
    assert cluster.pipeline()["status"]["summary"]["canary"] == "experiment 1/1"
    assert cluster.condition("Ready")["status"] == "True"


def test_results_are_side_by_side_and_looked_at_again(cluster: FakeCluster) -> None:
    apply_variants(cluster, FAST)
    run_passes(cluster)
    again = reconcile(cluster)
    assert again == 30
    status_by_variant = sides(cluster)
    assert list(status_by_variant) == ["stable", "fast"]
    assert (status_by_variant["stable"]["weight"], status_by_variant["fast"]["weight"]) == (75, 25)
    # The fake scraper returns QUICK for the first target: the stable revision.
    assert status_by_variant["stable"]["errorRatio"] == 0.2
    assert (
        status_by_variant["stable"]["requests"],
        status_by_variant["stable"]["p50Seconds"],
        status_by_variant["stable"]["p95Seconds"],
    ) == (
        100,
        0.5,
        0.75,
    )
    assert (status_by_variant["stable"]["stepSeconds"], status_by_variant["stable"]["meanBatch"]) == (0.01, 2.0)
    assert (status_by_variant["fast"]["requests"], status_by_variant["fast"]["errorRatio"]) == (200, 0.0)


def test_windows_begin_anew_together_and_only_for_those_with_a_share(cluster: FakeCluster) -> None:
    apply_variants(cluster, FAST, OTHER_SERVER)
    scraper = FakeScraper(QUICK)
    reconcile_with(cluster, scraper)
    assert scraper.targets == []
    run_passes(cluster)
    reconcile_with(cluster, scraper)
    assert len(scraper.targets) == 3
    assert len({item.step for item in scraper.targets}) == 1
    before = scraper.targets[0].step
    reconcile_with(cluster, scraper)
    assert scraper.targets[0].step == before
    apply_variants(cluster, FAST)
    run_passes(cluster)
    reconcile_with(cluster, scraper)
    assert scraper.targets[0].step != before


def test_a_variant_without_ready_pods_leaves_its_share_and_its_users_to_stable(cluster: FakeCluster) -> None:
    first = stable(cluster)
    apply_variants(cluster, FAST, OTHER_SERVER)
    run_passes(cluster)
    fast, other = (sides(cluster)[name]["revision"] for name in ("fast", "other"))
    before = {rule[0]: rule[1] for rule in rules(cluster) if rule[0].startswith("^")}
    ready(cluster, fast)
    reconcile(cluster)
    assert shares(cluster, "HTTPRoute") == {f"shapes-cpu-{first}": 90, f"shapes-cpu-{other}": 10}
    after = {rule[0]: rule[1] for rule in rules(cluster) if rule[0].startswith("^")}
    variant_patterns = [pattern for pattern, name in before.items() if name == f"shapes-cpu-{other}"]
    assert [pattern for pattern, name in after.items() if name == f"shapes-cpu-{other}"] == variant_patterns
    assert set(after.values()) == {f"shapes-cpu-{first}", f"shapes-cpu-{other}"}
    assert "fast" not in {rule[0] for rule in rules(cluster)}
    ready(cluster)
    reconcile(cluster)
    assert shares(cluster, "HTTPRoute")[f"shapes-cpu-{fast}"] == 25


def test_a_variant_that_does_not_compile_is_told_and_the_others_go_on(cluster: FakeCluster) -> None:
    first = stable(cluster)
    apply_variants(cluster, FAST, OTHER_SERVER)
    for _ in range(8):
        reconcile(cluster)
        for job in cluster.unfinished_jobs():
            if job["metadata"]["name"].startswith("compile-"):
                cluster.end_job(job, 64, {"error": {"reason": "EngineFailed", "message": "no such operator."}})
        cluster.succeed_jobs()
        ready(cluster)
    condition = cluster.condition("RolloutComplete")
    assert (condition["status"], condition["reason"]) == ("False", "VariantFailed")
    assert condition["message"].startswith("Variant fast on target cpu: compile denoiser for cpu: no such operator.")
    assert "change it or remove it (spec.rollout.experiment.variants)" in condition["message"]
    assert cluster.condition("EnginesReady")["status"] == "True"
    other = sides(cluster)["other"]["revision"]
    assert shares(cluster, "HTTPRoute") == {f"shapes-cpu-{first}": 90, f"shapes-cpu-{other}": 10}
    assert cluster.pipeline()["status"]["summary"]["canary"] == "experiment 1/2"
    events = [item for (kind, _), item in cluster.objects.items() if kind == "Event"]
    assert [item["type"] for item in events if item["reason"] == "VariantFailed"] == ["Warning"]


def test_a_variant_whose_pods_are_never_ready_is_told_after_the_deadline(cluster: FakeCluster) -> None:
    apply_variants(cluster, OTHER_SERVER)
    build(cluster)
    [other] = [name for name in cluster.names("Deployment") if not name.endswith(stable(cluster))]
    cluster.objects["Deployment", other]["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    reconcile(cluster)
    assert "its pods were not ready within 10m (progressDeadline)" in cluster.condition("RolloutComplete")["message"]
    ready(cluster)
    run_passes(cluster, 2)
    assert cluster.condition("RolloutComplete")["reason"] == "ExperimentRunning"


def test_what_is_the_same_as_stable_is_told(cluster: FakeCluster) -> None:
    apply_variants(cluster, {"name": "same", "weight": 50, "serving": {"image": "triton:1"}})
    run_passes(cluster)
    assert "the same as stable, so there is nothing to compare" in cluster.condition("RolloutComplete")["message"]
    assert list(replicas(cluster)) == [stable(cluster)]
    assert shares(cluster, "HTTPRoute") == {f"shapes-cpu-{stable(cluster)}": 100}


def test_the_end_of_an_experiment_first_moves_the_requests_then_takes_the_pods(cluster: FakeCluster) -> None:
    first = stable(cluster)
    apply_variants(cluster, FAST)
    run_passes(cluster)
    apply_variants(cluster)
    reconcile(cluster)
    assert shares(cluster, "HTTPRoute") == {f"shapes-cpu-{first}": 100}
    assert len(rules(cluster)) == 1
    assert len(replicas(cluster)) == 2
    run_passes(cluster, 2)
    assert replicas(cluster) == {first: 4}
    assert cluster.condition("RolloutComplete")["reason"] == "Complete"
    assert not sides(cluster)


def test_a_variant_becomes_stable_without_a_build(cluster: FakeCluster) -> None:
    apply_variants(cluster, FAST)
    run_passes(cluster)
    fast = sides(cluster)["fast"]["revision"]
    apply_variants(cluster, model=minimal_spec()["model"] | UNET)
    assert build(cluster) == 0
    run_passes(cluster)
    assert stable(cluster) == fast
    assert naming.VARIANT not in cluster.objects["Deployment", f"shapes-cpu-{fast}"]["metadata"]["annotations"]
    assert replicas(cluster)[fast] == 4


def test_variants_follow_a_change_of_the_pipeline(cluster: FakeCluster) -> None:
    """Another scheduler for everybody: the variant keeps its share on its earlier revision until the next is ready."""
    apply_variants(cluster, FAST)
    run_passes(cluster)
    old, fast = stable(cluster), sides(cluster)["fast"]["revision"]
    apply_variants(cluster, FAST, scheduler={"type": "Euler"})
    splits = set()
    for _ in range(12):
        reconcile(cluster)
        weights = shares(cluster, "HTTPRoute")
        assert sum(weights.values()) == 100
        assert 25 in weights.values()
        splits.add(tuple(weights))
        cluster.succeed_jobs()
        ready(cluster)
    assert len(splits) >= 2
    assert stable(cluster) != old
    assert sides(cluster)["fast"]["revision"] not in {fast, old, stable(cluster)}
    assert fast not in replicas(cluster)
    assert cluster.condition("RolloutComplete")["reason"] == "ExperimentRunning"


def test_targets_have_the_same_variant_or_none_has(cluster: FakeCluster) -> None:
    apply_variants(cluster, OTHER_SERVER, targets=2)
    build(cluster)
    for name in cluster.names("Deployment"):
        cluster.set_ready(name, cluster.objects["Deployment", name]["spec"]["replicas"])
    reconcile(cluster)
    reconcile(cluster)
    there = [
        name for name in cluster.names("Deployment") if "spare" in name and not name.endswith(stable(cluster, "spare"))
    ]
    [waiting] = there
    assert cluster.objects["Deployment", waiting]["spec"]["replicas"] == 1
    assert sum(shares(cluster, "HTTPRoute").values()) == 800
    assert len(shares(cluster, "HTTPRoute")) == 2
    run_passes(cluster)
    assert sorted(shares(cluster, "HTTPRoute").values()) == [40, 40, 360, 360]


def test_suspended_is_suspended_and_comes_back(cluster: FakeCluster) -> None:
    apply_variants(cluster, FAST)
    run_passes(cluster)
    before = shares(cluster, "HTTPRoute")
    apply_variants(cluster, FAST, suspend=True)
    run_passes(cluster, 3)
    assert set(replicas(cluster).values()) == {0}
    apply_variants(cluster, FAST)
    run_passes(cluster)
    assert shares(cluster, "HTTPRoute") == before


def test_what_variants_serve_stays_in_the_store(cluster: FakeCluster) -> None:
    apply_variants(cluster, FAST)
    run_passes(cluster)
    fast = sides(cluster)["fast"]["revision"]
    repository = cluster.objects["Deployment", f"shapes-cpu-{fast}"]["metadata"]["annotations"][naming.REPOSITORY]
    jobs = [item for (kind, _), item in cluster.objects.items() if kind == "Job"]
    deployments = [item for (kind, _), item in cluster.objects.items() if kind == "Deployment"]
    uid = cluster.objects["PersistentVolumeClaim", "shapes-store"]["metadata"]["uid"]
    users = StoreUsers(
        [PipelineView.parse(cluster.pipeline())],
        map(JobView.parse, jobs),
        map(DeploymentView.parse, deployments),
    )
    retained = live_digests(users, StoreClaim("shapes-store", uid))
    assert repository in retained
    engines = [item["metadata"]["name"] for item in jobs if item["metadata"]["name"].startswith("compile-denoiser")]
    assert len(engines) == 2
    assert {digest_of(name[::-1]) for name in engines} <= retained


def test_jobs_of_a_variant_go_with_it(cluster: FakeCluster) -> None:
    jobs = cluster.names("Job")
    apply_variants(cluster, FAST)
    run_passes(cluster)
    assert len(cluster.names("Job")) > len(jobs)
    apply_variants(cluster)
    run_passes(cluster)
    assert cluster.names("Job") == jobs


def test_nothing_is_written_while_an_experiment_runs(cluster: FakeCluster) -> None:
    apply_variants(cluster, FAST)
    run_passes(cluster)
    reconcile(cluster)
    cluster.writes.clear()
    reconcile(cluster)
    assert cluster.writes == []


def test_a_preview_shows_what_variants_need() -> None:
    with_variant = DiffusionPipelineSpec.model_validate(minimal_spec() | spec(FAST))
    plain = DiffusionPipelineSpec.model_validate(minimal_spec() | spec())
    variant_preview, plain_preview = preview(None, "studio/shapes", with_variant), preview(None, "studio/shapes", plain)
    assert (
        sum(item.stage == "compile" for item in variant_preview.builds)
        - sum(item.stage == "compile" for item in plain_preview.builds)
        == 1
    )
    assert len(variant_preview.builds) - len(plain_preview.builds) == 5


def test_a_share_grows_after_its_pods_and_never_falls_on_the_way(cluster: FakeCluster) -> None:
    apply_variants(cluster, FAST)
    run_passes(cluster)
    fast = f"shapes-cpu-{sides(cluster)['fast']['revision']}"
    apply_variants(cluster, FAST | {"weight": 75})
    # Between the change of the number of pods and the Deployment controller's word about it.
    for _ in range(3):
        reconcile(cluster)
        assert shares(cluster, "HTTPRoute")[fast] == 25
    assert cluster.objects["Deployment", fast]["spec"]["replicas"] == 3
    ready(cluster)
    reconcile(cluster)
    assert shares(cluster, "HTTPRoute")[fast] == 75


def test_variants_keep_their_shares_when_the_stable_revision_has_no_pod(cluster: FakeCluster) -> None:
    apply_variants(cluster, FAST, OTHER_SERVER)
    run_passes(cluster)
    before, first = shares(cluster, "HTTPRoute"), stable(cluster)
    ready(cluster, first)
    reconcile(cluster)
    assert shares(cluster, "HTTPRoute") == before
    assert stable(cluster) == first


def test_what_served_before_and_was_a_variant_goes_back_to_the_history(cluster: FakeCluster) -> None:
    first = stable(cluster)
    apply_variants(cluster, serving={"image": "triton:9"})
    run_passes(cluster)
    assert replicas(cluster)[first] == 0
    back = {"name": "back", "weight": 10, "serving": {"image": "triton:1"}}
    apply_variants(cluster, back, serving={"image": "triton:9"})
    run_passes(cluster)
    assert sides(cluster)["back"]["revision"] == first
    assert replicas(cluster)[first] == 1
    apply_variants(cluster, back | {"serving": {"image": "triton:3"}}, serving={"image": "triton:9"})
    run_passes(cluster)
    assert sides(cluster)["back"]["revision"] != first
    assert replicas(cluster)[first] == 0


def test_jobs_of_an_earlier_variant_stay_until_the_next_ones_are_known(cluster: FakeCluster) -> None:
    """Until then nobody can say which of them are needed again."""
    apply_variants(cluster, FAST)
    run_passes(cluster)
    jobs = {name for name in cluster.names("Job") if name.startswith("compile-denoiser")}
    source = {"huggingFace": {"repo": "demo/fast", "revision": "e" * 40}}
    apply_variants(cluster, FAST | {"model": {"components": {"denoiser": {"source": source}}}})
    reconcile(cluster)
    assert jobs <= set(cluster.names("Job"))
    run_passes(cluster)
    assert len(jobs - set(cluster.names("Job"))) == 1
