"""What a pass reads instead of listing: the newest state of every object, and never for longer than it is trusted."""

import asyncio
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.kube_client import Reference
from diffusion_operator.object_cache import (
    CLAIM_SECONDS,
    DISCOVERY_SECONDS,
    SETTLED_KINDS,
    CacheReader,
    ObjectCache,
    selector_terms,
)
from diffusion_operator.reconcile import PipelineKey, Reconciler
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import SETTINGS, build, serve

JsonObject = dict[str, Any]
SERVICE = Reference("Service", NAMESPACE, "shapes")
OWNED = f"{naming.MANAGED_SELECTOR},{naming.PIPELINE}=shapes"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def service(version: int, uid: str = "u1", pipeline: str = "shapes") -> JsonObject:
    labels = {naming.MANAGED_BY: naming.MANAGER, naming.PIPELINE: pipeline}
    head = {"name": "shapes", "namespace": NAMESPACE, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"kind": "Service", "metadata": head, "spec": {"version": version}}


class CountingCluster(FakeCluster):
    """Notes every read, too."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    async def request(self, method: str, path: str, *arguments: Any, **options: Any) -> JsonObject | None:  # noqa: ANN401
        if method == "GET":
            self.reads.append(path)
        if path.startswith("/apis/") and path.count("/") == 3:
            return None
        return await super().request(method, path, *arguments, **options)


def filled(cluster: FakeCluster) -> ObjectCache:
    cache = ObjectCache()
    for (kind, name), body in cluster.objects.items():
        if kind in SETTLED_KINDS:
            cache.put(Reference(kind, NAMESPACE, name), {"kind": kind, **body})
    cache.trust(60.0)
    return cache


def test_an_event_from_the_past_changes_nothing() -> None:
    cache = ObjectCache()
    assert cache.put(SERVICE, service(5))
    assert not cache.put(SERVICE, service(4))
    assert (cache.get(SERVICE) or {})["spec"] == {"version": 5}


def test_another_object_of_the_same_name_replaces_it_and_only_its_own_end_removes_it() -> None:
    cache = ObjectCache()
    cache.put(SERVICE, service(5))
    cache.put(SERVICE, service(9, uid="u2"))
    cache.remove(SERVICE, "u1")
    assert cache.get(SERVICE) is not None
    cache.remove(SERVICE, "u2")
    assert cache.get(SERVICE) is None
    assert cache.select(SERVICE, OWNED) == []


def test_objects_are_found_by_the_labels_that_they_have_now() -> None:
    cache = ObjectCache()
    cache.put(SERVICE, service(1))
    assert [item["metadata"]["name"] for item in cache.select(SERVICE, OWNED) or []] == ["shapes"]
    cache.put(SERVICE, service(2, pipeline="other"))
    assert cache.select(SERVICE, OWNED) == []


def test_a_selector_that_names_no_pipeline_is_not_answered() -> None:
    assert ObjectCache().select(SERVICE, naming.MANAGED_SELECTOR) is None
    assert ObjectCache().select(SERVICE, "batch.kubernetes.io/job-name in (a,b)") is None
    terms = {"a": frozenset("b"), "c": frozenset[str](), "d": frozenset("ef"), "g": frozenset[str]()}
    assert selector_terms("a=b,c,d in (e,f),g") == terms
    assert selector_terms("a!=b") is None


def test_it_is_trusted_only_for_a_while() -> None:
    clock = Clock()
    cache = ObjectCache(clock)
    assert not cache.is_complete
    cache.trust(10.0)
    assert cache.is_complete
    clock.now = 10.0
    assert not cache.is_complete


def test_kinds_that_a_cluster_need_not_know_are_not_asked_for_with_every_pass() -> None:
    cluster, clock = CountingCluster(), Clock()
    reader = CacheReader(cluster, ObjectCache(), frozenset(), clock)
    for _ in range(3):
        assert asyncio.run(reader.select(Reference("HTTPRoute", NAMESPACE), OWNED)) == []
    assert cluster.reads == ["/apis/gateway.networking.k8s.io/v1"]
    clock.now = DISCOVERY_SECONDS
    asyncio.run(reader.select(Reference("HTTPRoute", NAMESPACE), OWNED))
    assert len(cluster.reads) == 2


def test_a_claim_of_somebody_elses_is_read_once_for_many_pipelines_but_not_for_long() -> None:
    cluster, clock = CountingCluster(), Clock()
    ref = Reference("PersistentVolumeClaim", NAMESPACE, "common")
    reader = CacheReader(cluster, ObjectCache(), SETTLED_KINDS, clock)
    assert asyncio.run(reader.get(ref)) is None
    head = {"name": "common", "namespace": NAMESPACE}
    asyncio.run(cluster.create({"kind": "PersistentVolumeClaim", "metadata": head, "spec": {}}))
    for _ in range(3):
        assert asyncio.run(reader.get(ref)) is not None
    assert len(cluster.reads) == 2
    del cluster.objects["PersistentVolumeClaim", "common"]
    clock.now = CLAIM_SECONDS
    assert asyncio.run(reader.get(ref)) is None


def settled_cluster() -> CountingCluster:
    cluster = CountingCluster()
    cluster.apply_pipeline()
    serve(cluster)
    cluster.reads.clear()
    cluster.writes.clear()
    return cluster


def test_a_pass_over_a_settled_pipeline_asks_the_api_server_for_nothing() -> None:
    cluster = settled_cluster()
    reconciler = Reconciler(cluster, SETTINGS, cache=filled(cluster))
    asyncio.run(reconciler.reconcile(PipelineKey(NAMESPACE, "shapes"), after_event=False))
    groups = {"/apis/gateway.networking.k8s.io/v1", "/apis/keda.sh/v1alpha1"}
    assert set(cluster.reads) <= groups
    assert cluster.writes == []


def test_a_pass_after_an_event_observes_what_it_may_act_on() -> None:
    cluster = settled_cluster()
    reconciler = Reconciler(cluster, SETTINGS, cache=filled(cluster))
    asyncio.run(reconciler.reconcile(PipelineKey(NAMESPACE, "shapes")))
    plurals = {path.rpartition("/")[2] for path in cluster.reads}
    assert {"shapes", "deployments", "services", "pods"} <= plurals


def test_while_something_is_in_progress_every_pass_observes_it_again() -> None:
    cluster = CountingCluster()
    cluster.apply_pipeline()
    reconciler = Reconciler(cluster, SETTINGS, cache=filled(cluster))
    assert asyncio.run(reconciler.reconcile(PipelineKey(NAMESPACE, "shapes"))) is not None
    cluster.reads.clear()
    asyncio.run(reconciler.reconcile(PipelineKey(NAMESPACE, "shapes"), after_event=False))
    plurals = {path.rpartition("/")[2] for path in cluster.reads}
    assert {"shapes", "deployments", "services", "pods"} <= plurals


def test_jobs_of_which_one_runs_are_listed_and_finished_ones_are_not() -> None:
    cluster = CountingCluster()
    cluster.apply_pipeline()
    build(cluster)
    member = f"{naming.MANAGED_SELECTOR},{naming.needed_by_label('shapes')}"
    for finished in (True, False):
        cluster.reads.clear()
        if not finished:
            name = cluster.names("Job")[0]
            del cluster.objects["Job", name]["metadata"]["annotations"][naming.RESULT]
        reader = CacheReader(cluster, filled(cluster), SETTLED_KINDS)
        assert asyncio.run(reader.select(Reference("Job", NAMESPACE), member))
        assert bool(cluster.reads) != finished


@pytest.mark.parametrize("kind", sorted(SETTLED_KINDS - {KIND, "Pod"}))
def test_whatever_is_missing_a_pass_without_an_event_repairs_it(kind: str) -> None:
    cluster = settled_cluster()
    names = [name for stored_kind, name in cluster.objects if stored_kind == kind]
    for name in names:
        del cluster.objects[kind, name]
    reconciler = Reconciler(cluster, SETTINGS, cache=filled(cluster))
    asyncio.run(reconciler.reconcile(PipelineKey(NAMESPACE, "shapes"), after_event=False))
    assert bool(cluster.writes) == bool(names)
