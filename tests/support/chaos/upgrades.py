"""Area `upgrades`: the operator of an earlier release leaves pipelines in many states, and this one takes over."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tarfile
import time
import urllib.request
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from diffusion_operator import digests, naming
from diffusion_operator.kube_client import MERGE, Reference, connect
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, Tally, until
from tests.support.chaos.lifecycle import Life, StageError
from tests.support.chaos.plans import Outcome, Plan, Row
from tests.support.chaos.quiescence import has_failed
from tests.support.cluster.operator_process import operator_of_checkout
from tests.support.paths import CRD, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

JsonObject = dict[str, Any]
AREA = "upgrades"
RELEASES: Mapping[str, str] = {"0.1.0": "0ccbae3", "a development version after it": "3d0f83c"}
"""Commits of earlier versions; tags besides."""
STATES = ("served", "canary", "history", "building", "failed", "suspended")
_PARTS = ("contract", "operator", "crds")
_QUIET_SECONDS = 8.0
_LIMIT_SECONDS = 180.0
_STEPS = {"steps": [{"weight": 10, "pause": "1s"}], "analysis": {"deadline": "24h", "interval": "5s"}}


@dataclass(frozen=True)
class Snapshot:
    """What an operator has left.

    Attributes:
        jobs: UIDs of finished and of unfinished build Jobs, by name.
        revisions: Deployments by name: their UIDs.
        stable: revision behind the target's Service.
        ready: status and reason of `Ready`.
        canary: revision and step of the canary; empty without one.
    """

    jobs: Mapping[str, str]
    revisions: Mapping[str, str]
    stable: str
    ready: tuple[str, str]
    canary: tuple[str, str, int]


@dataclass
class Pipelines:
    """Pipelines in all states, each in a namespace of its own."""

    client: ApiClient
    lives: dict[str, Life] = field(default_factory=dict)

    async def reach(self, state: str, namespace: str) -> None:
        """Bring one into its state, while an operator runs."""
        life = self.lives[state] = Life(self.client, namespace, lambda: None)
        await life.create()
        if state == "failed":
            await life.until("has failed", lambda: has_failed(self.client, life))
        elif state == "building":
            await life.until("has its first Job", lambda: self._has_jobs(life))
        else:
            await life.until("serves", life.is_ready)
            life.served = True
            await self._change(state, life)

    async def _has_jobs(self, life: Life) -> bool:
        return bool(await self.client.select(Reference("Job", life.namespace), naming.MANAGED_SELECTOR))

    async def _change(self, state: str, life: Life) -> None:
        if state == "canary":
            await self._patch(life, {"serving": {"image": "s:2"}, "rollout": _STEPS})
            await life.until("has a canary", life.has_canary)
            await life.until("the canary has requests", lambda: self._observes(life))
        elif state == "history":
            await self._patch(life, {"serving": {"image": "s:2"}, "rollout": {"strategy": "RollingUpdate"}})
            await life.until("serves another revision", life.is_settled)
        elif state == "suspended":
            await self._patch(life, {"suspend": True})
            life.served = False
            await life.until("is suspended", lambda: self._is_suspended(life))

    async def _patch(self, life: Life, spec: JsonObject) -> None:
        await self.client.patch(life.reference, {"spec": spec}, MERGE)

    async def _observes(self, life: Life) -> bool:
        return (await self.snapshot(life)).canary[1] == "Step"

    async def _is_suspended(self, life: Life) -> bool:
        return (await self.snapshot(life)).ready[1] == "Suspended"

    async def snapshot(self, life: Life) -> Snapshot:
        """What is there now."""
        status = (await self.client.get(life.reference) or {}).get("status", {})
        ready: JsonObject = next((item for item in status.get("conditions", []) if item["type"] == "Ready"), {})
        target: JsonObject = next(iter(status.get("targets", [])), {})
        canary = target.get("canaryRevision", ""), target.get("phase", ""), target.get("step", 0)
        return Snapshot(
            jobs=await self._uids("Job", life),
            revisions=await self._uids("Deployment", life),
            stable=await life.stable(),
            ready=(ready.get("status", ""), ready.get("reason", "")),
            canary=canary if canary[0] else ("", "", 0),
        )

    async def _uids(self, kind: str, life: Life) -> dict[str, str]:
        items = await self.client.select(Reference(kind, life.namespace), naming.MANAGED_SELECTOR)
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}

    async def settle(self) -> None:
        """Play the controllers until no object of any pipeline has changed for a while."""
        end, versions, quiet_since = time.monotonic() + _LIMIT_SECONDS, "", time.monotonic()
        while time.monotonic() - quiet_since < _QUIET_SECONDS:
            if time.monotonic() > end:
                raise StageError(f"objects change all the time for {_LIMIT_SECONDS:.0f} s")
            present = ""
            for life in self.lives.values():
                await life.play()
                present += str(await self.snapshot(life))
            if present != versions:
                versions, quiet_since = present, time.monotonic()
            await asyncio.sleep(0.5)


async def upgrades(run: Run) -> list[Row]:
    """Every earlier release once."""
    tally = Tally()
    async with connect(str(run.server.kubeconfig)) as connection:
        client = ApiClient.over(connection)
        releases = _releases()
        for plan in run.plans(AREA, len(releases)):
            name = list(releases)[plan.number % len(releases)]
            tally.add(await _outcome(run, client, plan, name, releases[name]))
    return [
        tally.row(
            run,
            area=AREA,
            promise=f"The operator of {', '.join(releases)} leaves pipelines ({', '.join(STATES)}) and ends; the new "
            "CRD and the new operator come: something ready is behind the Service all along, canaries, histories, "
            "failures and what is suspended are what they were, and no finished Job is repeated, unless [Job names "
            "have changed](operations.md#backup-upgrade-sizing)",
            bound="0 differences",
            measured=f"{len(tally.failures)} with differences; {tally.total('repeats'):.0f} of "
            f"{tally.total('jobs'):.0f} Jobs repeated without such a change, {tally.total('documented'):.0f} with one; "
            f"settled after {max(tally.values('seconds'), default=0):.0f} s",
        )
    ]


def _releases() -> dict[str, str]:
    tags = subprocess.run(["git", "tag", "--list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {**RELEASES, **{tag.removeprefix("v"): tag for tag in tags}}


def _sources(commit: str, folder: Path) -> Path:
    """The code of a release, out of the repository's history."""
    command = ["git", "archive", "--format=tar", commit, *_PARTS]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise StageError(f"commit {commit} is not in this clone: git fetch --unshallow")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@asynccontextmanager
async def _operator(
    run: Run, name: str, sources: Path | None, namespaces: list[str], passes: int = 0
) -> AsyncIterator[None]:
    """An operator that has looked at pipelines so often."""
    settings = {"IDENTITY": name, "WATCH_NAMESPACES": ",".join(namespaces), "RESYNC_SECONDS": 10}
    log = run.folder / f"{name}.log"
    with operator_of_checkout(run.server, log, settings, sources) as (process, metrics):
        await asyncio.wait_for(until(lambda: _passes(metrics) >= passes, 0.5), _LIMIT_SECONDS)
        yield
        if process.poll() is not None:
            raise StageError(f"the operator {name} has ended with {process.returncode}")


def _passes(metrics: int) -> float:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0
    name = "diffusion_operator_reconcile_duration_seconds_count"
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def _outcome(run: Run, client: ApiClient, plan: Plan, name: str, commit: str) -> Outcome:
    title, pipelines = f"{plan.id} (from {name})", Pipelines(client)
    namespaces = {state: f"{state}-{plan.number}" for state in STATES}
    try:
        sources = _sources(commit, run.folder / f"sources-{plan.number}")
        await asyncio.to_thread(run.server.apply, sources / "crds" / CRD.name)
        async with _operator(run, f"old-{plan.number}", sources, list(namespaces.values())):
            await asyncio.gather(*(pipelines.reach(state, namespaces[state]) for state in STATES))
        before = {state: await pipelines.snapshot(life) for state, life in pipelines.lives.items()}
        await asyncio.to_thread(run.server.apply, CRD)
        began = time.monotonic()
        async with _operator(run, f"new-{plan.number}", None, list(namespaces.values()), len(STATES)):
            await pipelines.settle()
        after = {state: await pipelines.snapshot(life) for state, life in pipelines.lives.items()}
    except StageError as error:
        return Outcome(title, str(error))
    same = _build_format(sources) == digests.BUILD_FORMAT
    lines = [line for state in STATES for line in _differences(state, before[state], after[state], is_same_format=same)]
    lines += [f"{state}: {line}" for state, life in pipelines.lives.items() for line in life.unserved[:1]]
    repeats = sum(_repeated(before[state], after[state]) for state in STATES)
    jobs = sum(len(snapshot.jobs) for snapshot in before.values())
    seconds = time.monotonic() - began - _QUIET_SECONDS
    counts = {"jobs": jobs, "repeats": repeats} if same else {"documented": repeats}
    return Outcome(title, "; ".join(lines), {"seconds": seconds, **counts})


def _build_format(sources: Path) -> int:
    text = (sources / "operator" / "diffusion_operator" / "digests.py").read_text()
    match = re.search(r"^BUILD_FORMAT = (\d+)$", text, flags=re.MULTILINE)
    return int(match[1]) if match is not None else 0


def _repeated(before: Snapshot, after: Snapshot) -> int:
    """Jobs that are gone, or other ones of the same name."""
    return sum(after.jobs.get(name) != uid for name, uid in before.jobs.items())


def _differences(state: str, before: Snapshot, after: Snapshot, *, is_same_format: bool) -> list[str]:
    """What is not as it was, apart from what a new build format changes: every Job once, and so the revisions."""
    checks = {
        "revisions are gone": before.revisions.items() <= after.revisions.items() or state == "canary",
        "nothing is stable any more": bool(after.stable) >= bool(before.stable),
        "a canary is gone": bool(after.canary[0]) >= bool(before.canary[0]),
        "another reason": after.ready[1] in {before.ready[1], "Ready", "CanaryProgressing"},
    }
    if state == "suspended":
        checks["it was suspended"] = after.ready == before.ready and after.stable == before.stable
    if is_same_format:
        checks |= {
            "Jobs are repeated": not _repeated(before, after),
            "another revision is stable": before.stable in {"", after.stable},
            "Ready is another": state == "building" or before.ready == after.ready,
            "the canary is another": before.canary == after.canary,
        }
    return [f"{state}: {text}: {before} became {after}" for text, holds in checks.items() if not holds]
