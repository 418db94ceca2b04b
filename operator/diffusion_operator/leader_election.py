"""Leader election through a Lease: of several operator processes one works, the others stand by."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from diffusion_operator import naming
from diffusion_operator.errors import OperatorError, UnavailableError
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import MERGE, ConflictError, KubeClient, Reference

log = logging.getLogger(__name__)


class LeaseLostError(OperatorError):
    """Another process leads, or may lead soon: this one must stop working."""


@dataclass(frozen=True)
class Timing:
    """How long things take, seconds.

    Attributes:
        duration: others take over when the leader has not renewed for so long.
        deadline: a leader that could not renew for so long stops; shorter than duration.
        retry: between two tries.
    """

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


class LeaderElection:
    """One candidate.

    Clocks of other machines are never trusted: a leader counts as gone when its Lease has not changed for a whole
    duration of this process's own clock.
    """

    def __init__(
        self,
        client: KubeClient,
        ref: Reference,
        identity: str,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._ref = ref
        self._identity = identity
        self._timing = timing or Timing()
        self._clock = clock
        self._last_change: tuple[str, float] | None = None
        self._renewed: float | None = None

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._try_renew():
            await self._pause()
        log.info("%s became the leader", self._identity)

    async def renew_until_lost(self) -> None:
        """Renew for as long as that works.

        Raises:
            LeaseLostError: this process does not lead any more.
        """
        while True:
            await self._pause()
            if not await self._try_renew() and not self.leads():
                raise LeaseLostError(f"{self._identity} does not lead any more: the Lease could not be renewed.")

    def leads(self) -> bool:
        """Whether no other process can have taken over yet; also after this one was paused."""
        return self._renewed is not None and self._clock() - self._renewed < self._timing.deadline

    async def _pause(self) -> None:
        await asyncio.sleep(self._timing.retry)

    async def release(self) -> None:
        """Let another process take over at once. Nothing happens when this process does not lead."""
        self._renewed = None
        try:
            lease = await self._client.get(self._ref)
            if lease is not None and _spec(lease).get("holderIdentity") == self._identity:
                await self._write(lease, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except OperatorError as error:
            log.warning("the Lease was not released: %s", error)

    async def _try_renew(self) -> bool:
        try:
            return await self.try_acquire_or_renew()
        except ConflictError:
            return False
        except UnavailableError as error:
            log.warning("cannot renew the Lease: %s", error)
            return False

    async def try_acquire_or_renew(self) -> bool:
        """Take or renew the Lease once, when that is possible; True when this process leads.

        Raises:
            ConflictError: another one was faster.
            UnavailableError: the API server cannot be reached now.
        """
        start = self._clock()
        leads = await self._write_renewal()
        # Others count from the renewal's arrival, which is later.
        self._renewed = start if leads else None
        return leads

    async def _write_renewal(self) -> bool:
        lease = await self._client.get(self._ref)
        if lease is None:
            return await self._client.create(self._new())
        holder = _spec(lease).get("holderIdentity") or ""
        if holder not in {"", self._identity} and not self._is_expired(lease):
            return False
        changes: JsonObject = {"holderIdentity": self._identity}
        if holder != self._identity:
            changes["acquireTime"] = _now()
            changes["leaseTransitions"] = int(_spec(lease).get("leaseTransitions") or 0) + 1
        await self._write(lease, changes)
        return True

    def _is_expired(self, lease: JsonObject) -> bool:
        version, now = lease["metadata"]["resourceVersion"], self._clock()
        if self._last_change is None or self._last_change[0] != version:
            self._last_change = (version, now)
        duration = float(_spec(lease).get("leaseDurationSeconds") or self._timing.duration)
        return now - self._last_change[1] >= duration

    def _new(self) -> JsonObject:
        spec = self._renewal() | {"holderIdentity": self._identity, "acquireTime": _now(), "leaseTransitions": 0}
        head = {"name": self._ref.name, "namespace": self._ref.namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": self._ref.kind, "metadata": head, "spec": spec}

    def _renewal(self) -> JsonObject:
        return {"leaseDurationSeconds": max(1, round(self._timing.duration)), "renewTime": _now()}

    async def _write(self, lease: JsonObject, spec: JsonObject) -> None:
        # The version makes the API server refuse when another process was faster.
        head = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        await self._client.patch(self._ref, {"metadata": head, "spec": self._renewal() | spec}, MERGE)


def _spec(lease: JsonObject) -> JsonObject:
    spec: JsonObject = lease.get("spec") or {}
    return spec


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def lease_reference(namespace: str, name: str = naming.MANAGER) -> Reference:
    """The Lease of the operators of one installation in this namespace."""
    return Reference("Lease", namespace, name)
