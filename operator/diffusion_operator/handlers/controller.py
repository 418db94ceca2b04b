"""kopf only brings events: no persistence, no finalizers, no logic; every event with a change wakes a pipeline."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import kopf

from diffusion_operator import naming
from diffusion_operator.api import GROUP, KIND, PLURAL, VERSION
from diffusion_operator.errors import OperatorError
from diffusion_operator.handlers.event_filter import EventFilter
from diffusion_operator.handlers.queue import WorkQueue
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import KubeClient, reference
from diffusion_operator.metrics import Metrics
from diffusion_operator.object_cache import ObjectCache
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.relist import Relister
from diffusion_operator.rights import Restrictions
from diffusion_operator.settings import Settings

WATCHED_KINDS = {
    "Job": ("batch", "v1", "jobs"),
    "Deployment": ("apps", "v1", "deployments"),
    "Service": ("", "v1", "services"),
    "PersistentVolumeClaim": ("", "v1", "persistentvolumeclaims"),
    "Pod": ("", "v1", "pods"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": ("autoscaling", "v2", "horizontalpodautoscalers"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
}
GRACE_SECONDS = 10.0
SERVER_SECONDS, CLIENT_SECONDS, CONNECT_SECONDS = 300, 330, 30
LISTING_CHUNK, IDLE_SECONDS = 100, 0.1
FIRST_COMPARISON_SECONDS = 60.0
"""The pipelines that exist at the start wait at most so long until the cache can be read instead of the API server.

The objects of 1,000 pipelines arrive within half of it.
"""


class Controller:
    """One operator process: events in, reconciles out."""

    def __init__(self, client: KubeClient, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._cache = ObjectCache()
        self._relister = Relister(client, self._cache, self._report, settings.watch_namespaces)
        self._reconciler = Reconciler(client, settings, metrics, cache=self._cache, now=client.clock.now)
        self._pipelines: set[PipelineKey] = set()
        self._filter = EventFilter()
        self._queue: WorkQueue | None = None
        self._background: list[asyncio.Task[None]] = []

    def registry(self, restrictions: Restrictions) -> kopf.OperatorRegistry:
        """The handlers; a watch that the role does not allow would end the process."""
        self._cache.unwatched, self._cache.unlisted = restrictions.unwatched, restrictions.unlisted
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(login)
        kopf.on.startup(registry=registry)(self._start)
        kopf.on.cleanup(registry=registry)(self._stop)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self._event)
        for kind in WATCHED_KINDS.keys() - restrictions.unwatched:
            group, version, plural = WATCHED_KINDS[kind]
            kopf.on.event(group, version, plural, registry=registry)(self._event)
        return registry

    async def _start(self, **_: object) -> None:
        self._queue = WorkQueue(self._reconcile, self._settings.workers)
        self._queue.postpone_background()
        self._metrics.set_queue_gauge(self._queue.length)
        self._queue.start()
        self._background = [
            asyncio.create_task(self._resync_forever(), name="resync"),
            asyncio.create_task(self._relister.run(), name="relist"),
            asyncio.create_task(self._begin(self._queue), name="begin"),
        ]

    async def _begin(self, queue: WorkQueue) -> None:
        """Look at the pipelines that exist already."""
        await self._relister.wait_for_first_comparison(FIRST_COMPARISON_SECONDS)
        queue.resume_background()

    async def _stop(self, **_: object) -> None:
        for task in self._background:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._queue is not None:
            await self._queue.stop(GRACE_SECONDS)

    def is_alive(self) -> bool:
        """False when a worker has ended; true before there is one, too."""
        return self._queue is None or self._queue.is_alive()

    async def _reconcile(self, key: PipelineKey, *, urgent: bool) -> float | None:
        start, outcome = time.monotonic(), "internal_error"
        try:
            requeue_seconds = await self._reconciler.reconcile(key, after_event=urgent)
            outcome = "ok"
        except OperatorError as error:
            outcome = type(error).__name__.removesuffix("Error").lower()
            raise
        finally:
            self._metrics.observe_reconcile(outcome, time.monotonic() - start)
        return requeue_seconds

    async def _event(
        self,
        type: str | None,  # noqa: A002 - kopf's name
        body: Mapping[str, Any],
        **_: object,
    ) -> None:
        self._note(type, body)

    async def _report(self, kind: str, body: JsonObject) -> None:
        self._note(kind, body)

    def _note(self, kind: str | None, body: Mapping[str, Any]) -> None:
        """An object is there, has changed or is gone.

        Args:
            kind: of the event; None for the first listing.
            body: of the object.
        """
        ref = reference(body)
        if kind == "DELETED":
            self._cache.remove(ref, str(body["metadata"].get("uid", "")))
        elif not self._cache.put(ref, body):
            return
        if ref.kind == KIND:
            self._note_pipeline(kind, PipelineKey(ref.namespace, ref.name), body)
            return
        for key in self._filter.affected_keys(kind, body, affected_pipelines(ref.namespace, body)):
            if key in self._pipelines:
                self._enqueue(key, urgent=kind is not None)

    def _note_pipeline(self, kind: str | None, key: PipelineKey, body: Mapping[str, Any]) -> None:
        affected = self._filter.affected_keys(kind, body, [key])
        if kind == "DELETED":
            self._pipelines.discard(key)
            self._metrics.remove_pipeline(str(key))
            if self._queue is not None:
                self._queue.forget(key)
            return
        self._pipelines.add(key)
        if affected:
            self._enqueue(key, urgent=kind is not None)

    async def _resync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            for key in sorted(self._pipelines, key=str):
                self._enqueue(key, urgent=False)

    def _enqueue(self, key: PipelineKey, *, urgent: bool) -> None:
        if self._queue is not None:
            self._queue.add(key, urgent=urgent)


def affected_pipelines(namespace: str, body: Mapping[str, Any]) -> Iterator[PipelineKey]:
    """Pipelines that an event about a child concerns: its owners, and for pods the one in the label."""
    metadata = body.get("metadata", {})
    names = {owner["name"] for owner in metadata.get("ownerReferences", []) if owner.get("kind") == KIND}
    label = metadata.get("labels", {}).get(naming.PIPELINE)
    for name in sorted(names | ({label} if label else set())):
        yield PipelineKey(namespace, name)


class NoEssences(kopf.DiffBaseStorage):
    """No handler is told differences, for which kopf copies the whole object at every event."""

    def build(self, **_: object) -> kopf.BodyEssence:
        """Nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> None:
        """Nothing is stored."""

    def store(self, **_: object) -> None:
        """Nothing is stored."""


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - handed on as kopf gives it
    """As the pod's service account, else as kubectl would."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def kopf_settings() -> kopf.OperatorSettings:
    """Watches that end and restart, only our children, nothing posted or persisted by kopf."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = NoEssences()
    settings.watching.server_timeout = SERVER_SECONDS
    settings.watching.client_timeout = CLIENT_SECONDS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.networking.request_timeout = CONNECT_SECONDS
    # By default kopf reads a whole listing at once, and keeps every object until none came for so long.
    settings.watching.chunk_size = LISTING_CHUNK
    settings.queueing.idle_timeout = IDLE_SECONDS
    for group, version, plural in WATCHED_KINDS.values():
        settings.watching.label_selectors[group, version, plural] = naming.MANAGED_SELECTOR
    return settings
