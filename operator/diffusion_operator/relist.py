"""Changes of which no watch event came: every object's version is compared with the API server's once a minute.

A watch goes on from the last event that has arrived, so that a lost one stays lost: this is what notices it. Only
metadata is listed, and an object is read whole only where its version differs.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.errors import OperatorError
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import KubeClient, Reference
from diffusion_operator.object_cache import SETTLED_KINDS, ObjectCache, ObjectVersion, version_number

Suspects = dict[Reference, ObjectVersion | None]
"""Objects that differ, each with the state that the cache has of it."""

log = logging.getLogger(__name__)

INTERVAL_SECONDS = (45.0, 60.0)
"""Drawn between these, so that the operators of many clusters or a restarted fleet of them do not list at once."""
ARRIVAL_SECONDS = 2.0
"""An event that is on its way arrives within this time: what differs only for so long is not lost."""
ARRIVAL_LOOKS = 10
"""In this time: at the start, the pipelines wait for it."""
TRUST_SECONDS = 150.0
"""Without a comparison for so long the cache is not read any more."""


class Relister:
    """Compares the cache with the API server, and reports what differs as events.

    Args:
        client: of the API server.
        cache: that watch events fill.
        report: takes an event's type (`MODIFIED` or `DELETED`) and the object.
        namespaces: that are watched; empty means all.
    """

    def __init__(
        self,
        client: KubeClient,
        cache: ObjectCache,
        report: Callable[[str, JsonObject], Awaitable[None]],
        namespaces: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._cache = cache
        self._report = report
        self._namespaces = tuple(namespaces) or ("",)
        self._first_attempt = asyncio.Event()

    async def wait_for_first_comparison(self, seconds: float) -> None:
        """Until the first comparison has ended, or failed, but not longer than this."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._first_attempt.wait(), seconds)

    async def run(self) -> None:
        """Compare for as long as the process runs."""
        while True:
            try:
                changes = await self.compare()
            except OperatorError as error:
                log.warning("objects cannot be compared with the API server now: %s", error)
            except Exception:
                # Without it the operator works on, with more requests: that must not end it.
                log.exception("objects cannot be compared with the API server: internal error")
            else:
                if changes:
                    log.info("%d objects had changed without an event", changes)
            self._first_attempt.set()
            await asyncio.sleep(random.uniform(*INTERVAL_SECONDS))  # noqa: S311 - not a secret

    async def compare(self) -> int:
        """Report every object whose state differs from the cached one; returns how many those were.

        Raises:
            OperatorError: the API server does not answer, or refuses.
        """
        suspects = await self._lasting(await self._differences())
        changes = [await self._look_at(ref, state) for ref, state in suspects.items()]
        self._cache.trust(TRUST_SECONDS)
        return sum(changes)

    async def _lasting(self, suspects: Suspects) -> Suspects:
        """Those that stay as they are, without those whose events are only on their way: at the start, all of them."""
        looks = 0
        while suspects and looks < ARRIVAL_LOOKS:
            await asyncio.sleep(ARRIVAL_SECONDS / ARRIVAL_LOOKS)
            remaining = {ref: state for ref, state in suspects.items() if self._cache.state(ref) == state}
            looks = looks + 1 if len(remaining) == len(suspects) else 0
            suspects = remaining
        return suspects

    async def _differences(self) -> Suspects:
        """Objects whose state in the cache, which comes with them, is older than the API server's."""
        suspects: Suspects = {}
        for kind in sorted(SETTLED_KINDS - self._cache.unwatched):
            for namespace in self._namespaces:
                selector = "" if kind == KIND else naming.MANAGED_SELECTOR
                listing, items = await self._client.select_metadata(Reference(kind, namespace), selector)
                live = {_reference(kind, item): ObjectVersion.of(item) for item in items}
                cached = {ref: self._cache.state(ref) for ref in self._cache.references(kind, namespace)}
                suspects |= {ref: cached.get(ref) for ref, state in live.items() if _is_older(cached.get(ref), state)}
                suspects |= {
                    ref: state
                    for ref, state in cached.items()
                    if ref not in live and state is not None and state.version <= version_number(listing)
                }
        return suspects

    async def _look_at(self, ref: Reference, state: ObjectVersion | None) -> bool:
        """Report the object as it is now; whether it is indeed another than the cached one."""
        collection = Reference(ref.kind, ref.namespace)
        bodies = await self._client.select(collection, "", f"metadata.name={ref.name}")
        body = bodies[0] if bodies else None
        cached = self._cache.get(ref)
        if cached is not None and state is not None and (body is None or ObjectVersion.of(body).uid != state.uid):
            await self._report("DELETED", {**cached, "kind": ref.kind})
        if body is None:
            return cached is not None
        if ObjectVersion.of(body) == state:
            return False
        await self._report("MODIFIED", {**body, "kind": ref.kind})
        return True


def _reference(kind: str, item: JsonObject) -> Reference:
    return Reference(kind, item["metadata"].get("namespace", ""), item["metadata"]["name"])


def _is_older(cached: ObjectVersion | None, live: ObjectVersion) -> bool:
    return cached is None or cached.uid != live.uid or cached.version < live.version
