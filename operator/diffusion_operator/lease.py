"""Leader election through a Lease: of several operator processes one works, the others stand by."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from diffusion_operator import naming
from diffusion_operator.cluster import MERGE, Cluster, ConflictError, Reference
from diffusion_operator.errors import OperatorError, UnavailableError

JsonObject = dict[str, Any]
log = logging.getLogger(__name__)


class LeaseLostError(OperatorError):
    """Another process leads, or may lead soon: this one must stop working."""


@dataclass(frozen=True)
class Timing:
    """How long things take, seconds.

    Attributes:
        duration: others take over when the leader has said nothing for so long.
        deadline: a leader that could not renew for so long stops; shorter than duration.
        retry: between two tries.
    """

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


class Election:
    """One candidate.

    Clocks of other machines are never trusted: a leader counts as gone when its Lease has not changed for a whole
    duration of this process's own clock.
    """

    def __init__(
        self,
        cluster: Cluster,
        target: Reference,
        identity: str,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._target = target
        self._identity = identity
        self._timing = timing or Timing()
        self._clock = clock
        self._seen: tuple[str, float] | None = None

    async def win(self) -> None:
        """Wait until this process leads."""
        while not await self._safely():
            await self._pause()
        log.info("%s leads", self._identity)

    async def hold(self) -> None:
        """Renew for as long as that works.

        Raises:
            LeaseLostError: this process does not lead any more.
        """
        renewed = self._clock()
        while True:
            await self._pause()
            if await self._safely():
                renewed = self._clock()
            elif self._clock() - renewed >= self._timing.deadline:
                raise LeaseLostError(f"{self._identity} does not lead any more: the Lease could not be renewed.")

    async def _pause(self) -> None:
        await asyncio.sleep(self._timing.retry)

    async def resign(self) -> None:
        """Let another one take over at once. Nothing happens when this process does not lead."""
        try:
            found = await self._cluster.get(self._target)
            if found is not None and _spec(found).get("holderIdentity") == self._identity:
                await self._write(found, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except OperatorError as error:
            log.warning("the Lease was not given back: %s", error)

    async def _safely(self) -> bool:
        try:
            return await self.attempt()
        except ConflictError:
            return False
        except UnavailableError as error:
            log.warning("the Lease cannot be reached: %s", error)
            return False

    async def attempt(self) -> bool:
        """Take or renew the Lease once, when that is possible; True when this process leads.

        Raises:
            ConflictError: another one was faster.
            UnavailableError: the API server cannot be reached now.
        """
        found = await self._cluster.get(self._target)
        if found is None:
            return await self._cluster.create(self._new())
        holder = _spec(found).get("holderIdentity") or ""
        if holder not in {"", self._identity} and not self._is_silent(found):
            return False
        changes = {} if holder == self._identity else self._takeover(found)
        await self._write(found, {**changes, "holderIdentity": self._identity})
        return True

    def _is_silent(self, found: JsonObject) -> bool:
        version, now = found["metadata"]["resourceVersion"], self._clock()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        duration = float(_spec(found).get("leaseDurationSeconds") or self._timing.duration)
        return now - self._seen[1] >= duration

    def _takeover(self, found: JsonObject) -> JsonObject:
        return {"acquireTime": _now(), "leaseTransitions": int(_spec(found).get("leaseTransitions") or 0) + 1}

    def _new(self) -> JsonObject:
        spec = self._renewal() | {"holderIdentity": self._identity, "acquireTime": _now(), "leaseTransitions": 0}
        head = {"name": self._target.name, "namespace": self._target.namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": self._target.kind, "metadata": head, "spec": spec}

    def _renewal(self) -> JsonObject:
        return {"leaseDurationSeconds": max(1, round(self._timing.duration)), "renewTime": _now()}

    async def _write(self, found: JsonObject, spec: JsonObject) -> None:
        # The version makes the API server refuse when another process was faster.
        head = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await self._cluster.patch(self._target, {"metadata": head, "spec": self._renewal() | spec}, MERGE)


def _spec(found: JsonObject) -> JsonObject:
    spec: JsonObject = found.get("spec") or {}
    return spec


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def lease(namespace: str, name: str = naming.MANAGER) -> Reference:
    """The Lease of the operators of one installation in this namespace."""
    return Reference("Lease", namespace, name)
