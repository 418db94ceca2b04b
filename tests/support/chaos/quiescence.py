"""Area `quiescence`: nothing is written while nothing happens, whatever state pipelines are in."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.kube_client import MERGE, Reference, connect
from tests.support.chaos.api import ApiClient
from tests.support.chaos.lifecycle import CHILDREN, Life
from tests.support.chaos.operators import SETTINGS, OperatorRunner
from tests.support.chaos.plans import Row
from tests.support.chaos.proxy import FaultProxy, Upstream

if TYPE_CHECKING:
    from tests.support.chaos.areas import Run

JsonObject = dict[str, Any]
AREA = "quiescence"
_SECONDS = 600.0
_RESYNC_SECONDS = 60.0
_NOISE_SECONDS = 0.5
_CALM_SECONDS, _CALM_LIMIT = 12.0, 240.0
_BAD_INPUT = 64
_HELD = {"rollout": {"steps": [{"weight": 10, "pause": "1s"}], "analysis": {"deadline": "24h", "interval": "5s"}}}
_ROUTED = {"strategy": "RollingUpdate", "traffic": {"gateway": {"name": "web"}}}
_VARIANT = {"name": "other", "weight": 20, "serving": {"image": "s:3"}}


@dataclass(frozen=True)
class Member:
    """One pipeline of the fleet, and how it comes to its state.

    Attributes:
        spec: fields that it is changed to once it serves; None to leave it.
        fails: whether its build fails for good instead.
    """

    name: str
    spec: JsonObject | None = None
    fails: bool = False


FLEET = (
    Member("served"),
    Member("canary-held", {**_HELD, "serving": {"image": "s:2"}}),
    Member("experiment", {"rollout": {**_ROUTED, "experiment": {"variants": [_VARIANT]}}}),
    Member("suspended", {"suspend": True}),
    Member("refused", {"targets": [{"name": "cpu"}, {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}]}),
    Member("failed", fails=True),
)


async def quiescence(run: Run) -> list[Row]:
    """A mixed fleet left alone, then one whose objects others label and annotate all the time."""
    time_left = max(60.0, run.end - time.monotonic() - _CALM_LIMIT) if run.end is not None else _SECONDS
    seconds = min(_SECONDS * min(1.0, run.scale), time_left)
    async with connect(str(run.server.kubeconfig)) as connection:
        client = ApiClient.over(connection)
        upstream = Upstream.of(run.server.user_kubeconfig, run.folder)
        proxy = FaultProxy(upstream, random.Random(run.seed))  # noqa: S311 - repeatable
        async with proxy.serve():
            names = tuple(member.name for member in FLEET)
            settings = replace(SETTINGS, watch_namespaces=names, identity=AREA, resync_seconds=_RESYNC_SECONDS)
            runner = OperatorRunner(proxy.kubeconfig(run.folder), settings, run.folder / "operator.log")
            try:
                await asyncio.gather(*(_reach(client, member, runner) for member in FLEET))
                await _calm(proxy)
                still = await _measure(proxy, seconds / 2)
                reasons = [await _reason(client, member) for member in FLEET]
                patches: list[str] = []
                noise = asyncio.create_task(_make_noise(client, patches))
                noisy = await _measure(proxy, seconds / 2)
                if noise.done():
                    noise.result()
                noise.cancel()
            finally:
                await asyncio.to_thread(runner.stop)
    failures = [f"alone: {line}" for line in still] + [f"with foreign labels: {line}" for line in noisy]
    return [
        Row(
            area=AREA,
            promise="Nothing is written for a mixed fleet (served, a canary held without a verdict, an experiment, "
            "suspended, refused, a failed build), first left alone, then while another controller labels and "
            "annotates all of its objects twice a second; every pipeline is looked at once a minute besides",
            bound="0 writes",
            measured=f"in {seconds / 2:.0f} s each: {len(still)} writes alone, {len(noisy)} beside {len(patches):,} "
            f"of another controller; reasons of Ready: {', '.join(reasons)}",
            plans=len(FLEET),
            seed=run.seed,
            failures=tuple(failures[:20]),
        )
    ]


async def _reach(client: ApiClient, member: Member, runner: OperatorRunner) -> None:
    """Bring a pipeline into its state."""
    life = Life(client, member.name, runner.ensure)
    runner.ensure()
    await life.create()
    if member.fails:
        await life.until("has failed", lambda: has_failed(client, life))
        return
    await life.until("serves", life.is_ready)
    if member.spec is not None:
        await client.patch(life.reference, {"spec": member.spec}, MERGE)
        await life.until("has seen its change", lambda: _is_observed(client, life.reference))


async def has_failed(client: ApiClient, life: Life) -> bool:
    """Let the first Job fail for good, before the played controllers let it succeed."""
    error = {"error": {"reason": "BadCheckpoint", "message": "no checkpoint"}, "exitCode": _BAD_INPUT}
    for job in await client.select(Reference("Job", life.namespace), naming.MANAGED_SELECTOR):
        if not job.get("status", {}).get("conditions"):
            target = Reference("Job", life.namespace, job["metadata"]["name"])
            await client.patch(target, {"metadata": {"annotations": {naming.RESULT: json.dumps(error)}}}, MERGE)
            await client.patch_status(target, _ended())
    status = (await client.get(life.reference) or {}).get("status", {})
    return any(item["reason"] == "BadCheckpoint" for item in status.get("conditions", []))


def _ended() -> JsonObject:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kinds = ("FailureTarget", "Failed")
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": moment, "reason": "PodFailurePolicy", "message": ""}
        for kind in kinds
    ]
    return {"startTime": moment, "failed": 1, "conditions": conditions}


async def _is_observed(client: ApiClient, target: Reference) -> bool:
    resource = await client.get(target) or {"metadata": {}}
    return bool(resource.get("status", {}).get("observedGeneration") == resource["metadata"].get("generation"))


async def _calm(proxy: FaultProxy) -> None:
    """Wait until the last change has settled: a canary has its pods, retries have ended."""
    end = time.monotonic() + _CALM_LIMIT
    while time.monotonic() < end:
        if not await _measure(proxy, _CALM_SECONDS):
            return


async def _measure(proxy: FaultProxy, seconds: float) -> list[str]:
    """Writes within this time."""
    start = time.monotonic()
    await asyncio.sleep(seconds)
    return [f"{item.method} {item.path}" for item in proxy.exchanges if item.is_write and item.at >= start]


async def _reason(client: ApiClient, member: Member) -> str:
    """The reason of `Ready`, which says whether a pipeline is in the state that it is here for."""
    resource = await client.get(Life(client, member.name, lambda: None).reference) or {}
    conditions = resource.get("status", {}).get("conditions", [])
    return next((str(item["reason"]) for item in conditions if item["type"] == "Ready"), "none")


async def _make_noise(client: ApiClient, patches: list[str]) -> None:
    """Labels and annotations of another controller, on pipelines and on everything that they own."""
    for number in itertools.count():
        head = {"labels": {"noise.example/pass": str(number)}, "annotations": {"noise.example/pass": str(number)}}
        for member in FLEET:
            for kind in (KIND, *CHILDREN):
                for item in await client.select(Reference(kind, member.name), ""):
                    target = Reference(kind, member.name, item["metadata"]["name"])
                    await client.patch(target, {"metadata": head}, MERGE)
                    patches.append(target.name)
            await asyncio.sleep(_NOISE_SECONDS)
