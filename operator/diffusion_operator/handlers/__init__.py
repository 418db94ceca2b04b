"""kopf only brings events: no persistence, no finalizers, no logic; every event wakes a pipeline."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import kopf

from diffusion_operator import naming
from diffusion_operator.api import GROUP, KIND, PLURAL, VERSION
from diffusion_operator.cluster import connect
from diffusion_operator.errors import UnavailableError
from diffusion_operator.handlers.queue import WorkQueue
from diffusion_operator.reconcile import Key, Reconciler
from diffusion_operator.settings import Settings

log = logging.getLogger(__name__)

CHILDREN = (
    ("batch", "v1", "jobs"),
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("", "v1", "persistentvolumeclaims"),
    ("", "v1", "pods"),
)
GRACE_SECONDS = 10.0
PREFLIGHT_TRIES = 30
SERVER_SECONDS, CLIENT_SECONDS, CONNECT_SECONDS = 300, 330, 30


class Wiring:
    """One operator process: events in, passes out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: set[Key] = set()
        self._stack = AsyncExitStack()
        self._queue: WorkQueue[Key] | None = None
        self._resync: asyncio.Task[None] | None = None

    def registry(self) -> kopf.OperatorRegistry:
        """The handlers."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(login)
        kopf.on.startup(registry=registry)(self._start)
        kopf.on.cleanup(registry=registry)(self._stop)
        kopf.on.probe(id="alive", registry=registry)(self._alive)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self._pipeline_event)
        for group, version, plural in CHILDREN:
            kopf.on.event(group, version, plural, registry=registry)(self._child_event)
        return registry

    async def _start(self, **_: object) -> None:
        cluster = await self._stack.enter_async_context(connect())
        self._queue = WorkQueue(Reconciler(cluster, self._settings).reconcile)
        self._queue.start()
        self._resync = asyncio.create_task(self._resync_forever(), name="resync")

    async def _stop(self, **_: object) -> None:
        if self._resync is not None:
            self._resync.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._resync
        if self._queue is not None:
            await self._queue.stop(GRACE_SECONDS)
        await self._stack.aclose()

    async def _alive(self, **_: object) -> bool:
        if self._queue is None or not self._queue.is_alive():
            raise RuntimeError("a worker has ended")
        return True

    async def _pipeline_event(self, namespace: str | None, name: str, type: str | None, **_: object) -> None:  # noqa: A002
        key = Key(namespace or "", name)
        if type == "DELETED":
            self._known.discard(key)
            if self._queue is not None:
                self._queue.forget(key)
            return
        self._known.add(key)
        self._wake(key)

    async def _child_event(self, namespace: str | None, body: Mapping[str, Any], **_: object) -> None:
        for key in owners(namespace or "", body):
            if key in self._known:
                self._wake(key)

    async def _resync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            for key in sorted(self._known, key=str):
                self._wake(key)

    def _wake(self, key: Key) -> None:
        if self._queue is not None:
            self._queue.add(key)


def owners(namespace: str, body: Mapping[str, Any]) -> Iterator[Key]:
    """Pipelines that an event about a child concerns: its owners, and for pods the one in the label."""
    metadata = body.get("metadata", {})
    names = {owner["name"] for owner in metadata.get("ownerReferences", []) if owner.get("kind") == KIND}
    label = metadata.get("labels", {}).get(naming.PIPELINE)
    for name in sorted(names | ({label} if label else set())):
        yield Key(namespace, name)


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - handed on as kopf gives it
    """As the pod's service account, else as kubectl would."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def kopf_settings() -> kopf.OperatorSettings:
    """Watches that end and begin anew, only our children, nothing posted or persisted by kopf."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = SERVER_SECONDS
    settings.watching.client_timeout = CLIENT_SECONDS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.networking.request_timeout = CONNECT_SECONDS
    settings.queueing.idle_timeout = 1.0
    for group, version, plural in CHILDREN:
        settings.watching.label_selectors[group, version, plural] = naming.MANAGED_SELECTOR
    return settings


async def preflight() -> None:
    """Wait until the API server serves our custom resource: kopf would watch nothing and say nothing.

    Raises:
        UnavailableError: it still does not.
    """
    async with connect() as cluster:
        for _ in range(PREFLIGHT_TRIES):
            if await cluster.serves_pipelines():
                return
            await asyncio.sleep(1)
    raise UnavailableError(f"The API server does not know {PLURAL}.{GROUP}: install the CRD (crds.enabled=true).")


def run(settings: Settings) -> None:
    """Run the operator until it is told to stop.

    Raises:
        UnavailableError: a watch or the health endpoint cannot go on; the process is to be started anew.
    """
    asyncio.run(preflight())
    namespaces = settings.watch_namespaces
    try:
        kopf.run(
            registry=Wiring(settings).registry(),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
        )
    except Exception as error:
        raise UnavailableError(f"The operator cannot go on: {error or type(error).__name__}.") from error
