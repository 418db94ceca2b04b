"""`diffusion-operator rollout`: look at a canary, promote it, or take it back.

What is asked for is an annotation of the DiffusionPipeline. It names a revision, so it says nothing about the next one.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.cluster import MERGE, Cluster, Reference, connect
from diffusion_operator.errors import BadInputError

JsonObject = dict[str, Any]
Verb = Literal["promote", "abort"]
Role = Literal["stable", "canary", "variant", "kept"]
ORDER: tuple[Role, ...] = get_args(Role)
STYLES: Mapping[str, str] = {"Pass": "green", "Fail": "bold red", "Inconclusive": "yellow"}
POLL_SECONDS = 1.0
ENDED = ("Served", "Rejected")


@dataclass(frozen=True)
class Which:
    """A pipeline and where it is."""

    name: str
    namespace: str
    kubeconfig: str | None = None

    @property
    def reference(self) -> Reference:
        """For the API server."""
        return Reference(KIND, self.namespace, self.name)


@dataclass(frozen=True)
class Line:
    """One revision of one target.

    Attributes:
        target: its name.
        revision: its name.
        role: stable, canary, variant of an experiment, or kept (without pods, to go back to).
        pods: ready ones and all, such as 1/1.
        phase: how far it has come; empty where nothing is noted.
        seconds: since it came there.
        outcome: of the last verdict: Pass, Fail, Inconclusive, or empty.
        message: of the last verdict.
        weight: share of the requests, percent, of a canary or variant.
    """

    target: str
    revision: str
    role: Role
    pods: str
    phase: str = ""
    seconds: float | None = None
    outcome: str = ""
    message: str = ""
    weight: int | None = None


@dataclass(frozen=True)
class Picture:
    """A rollout as it is now: its revisions, and what the pipeline says about it."""

    lines: tuple[Line, ...]
    summary: str

    @property
    def canaries(self) -> tuple[str, ...]:
        """Revisions that are neither stable nor given up; what an earlier spec has left comes last."""
        found = [line for line in self.lines if line.role == "canary" and line.phase not in ENDED]
        found.sort(key=lambda line: line.weight is None)
        return tuple(dict.fromkeys(line.revision for line in found))

    @property
    def is_moving(self) -> bool:
        """Whether a canary is under way."""
        return bool(self.canaries)


def status(which: Which, console: Console, *, watch: bool) -> None:
    """Show where the rollout is; with `watch` until it has ended.

    Raises:
        BadInputError: there is no such pipeline.
        UnavailableError: the cluster does not answer.
    """
    asyncio.run(_status(which, console, watch=watch))


def ask(which: Which, verb: Verb) -> str:
    """Ask for the canary to be promoted or taken back; one sentence for the person.

    Raises:
        BadInputError: there is no such pipeline, or no canary.
        UnavailableError: the cluster does not answer.
    """
    return asyncio.run(_ask(which, verb))


async def _status(which: Which, console: Console, *, watch: bool) -> None:
    async with connect(which.kubeconfig) as cluster:
        found = await look(cluster, which)
        if not (watch and found.is_moving):
            console.print(table(found))
            return
        with Live(table(found), console=console, auto_refresh=False) as live:
            while found.is_moving:
                await asyncio.sleep(POLL_SECONDS)
                found = await look(cluster, which)
                live.update(table(found), refresh=True)


async def _ask(which: Which, verb: Verb) -> str:
    async with connect(which.kubeconfig) as cluster:
        return await request(cluster, which, verb)


async def request(cluster: Cluster, which: Which, verb: Verb) -> str:
    """Write the annotation; the other one goes, or both would be asked for."""
    found = await look(cluster, which)
    if not found.is_moving:
        raise BadInputError(f"{which.name} has no canary to {verb}: {found.summary or 'no rollout is under way'}")
    # Targets move together, so one of their revisions speaks for all.
    revision = found.canaries[0]
    wanted, other = (naming.PROMOTE, naming.ABORT) if verb == "promote" else (naming.ABORT, naming.PROMOTE)
    await cluster.patch(which.reference, {"metadata": {"annotations": {wanted: revision, other: None}}}, MERGE)
    done = "gets all of the traffic as soon as its pods are ready" if verb == "promote" else "is taken back"
    return f"{which.name}: revision {revision} {done}."


async def look(cluster: Cluster, which: Which) -> Picture:
    """Read the pipeline, its Deployments and its Services.

    Raises:
        BadInputError: there is no such pipeline.
    """
    pipeline = await cluster.get(which.reference)
    if pipeline is None:
        raise BadInputError(f"There is no {KIND} {which.name} in namespace {which.namespace}.")
    selector = f"{naming.PIPELINE}={which.name}"
    deployments = await cluster.select(Reference("Deployment", which.namespace), selector)
    services = await cluster.select(Reference("Service", which.namespace), selector)
    return picture(pipeline, deployments, services, datetime.now(UTC))


def picture(
    pipeline: JsonObject, deployments: Iterable[JsonObject], services: Iterable[JsonObject], now: datetime
) -> Picture:
    """Put together what was read. Live objects say what is stable and how far a canary is; the share is the status'."""
    seen = {target["name"]: target for target in pipeline.get("status", {}).get("targets", [])}
    stable = {}
    for service in services:
        head = service["metadata"]
        target, revision = head["labels"].get(naming.TARGET), head.get("annotations", {}).get(naming.STABLE)
        if target and revision:
            stable[target] = revision
    lines = [_line(item, stable, seen, now) for item in deployments if naming.REVISION in item["metadata"]["labels"]]
    lines.sort(key=lambda line: (line.target, ORDER.index(line.role), line.phase, line.revision))
    return Picture(tuple(lines), _summary(pipeline))


def _line(item: JsonObject, stable: Mapping[str, str], seen: Mapping[str, JsonObject], now: datetime) -> Line:
    labels, wanted = item["metadata"]["labels"], int(item["spec"].get("replicas", 1))
    target, revision = labels[naming.TARGET], labels[naming.REVISION]
    note = _note(item)
    verdict = note.get("verdict") or {}
    results = {side.get("revision"): side for side in seen.get(target, {}).get("variants", [])}
    role = _role(item, note, is_stable=revision == stable.get(target))
    line = Line(
        target=target,
        revision=revision,
        role=role,
        pods=f"{item.get('status', {}).get('readyReplicas', 0)}/{wanted}",
        phase=_phase(note),
        seconds=_age(note.get("since"), now),
        outcome="" if not verdict else "Pass" if verdict.get("passed") else "Fail",
        message=str(verdict.get("message", "")),
    )
    if revision in results:
        return _result(line, results[revision])
    status = seen.get(target, {})
    if role != "canary" or status.get("canaryRevision") != revision:
        return line
    known = status.get("analysis") or {}
    return replace(
        line,
        weight=status.get("canaryWeight"),
        outcome=known.get("verdict", line.outcome),
        message=known.get("message", line.message),
    )


def _role(deployment: JsonObject, note: JsonObject, *, is_stable: bool) -> Role:
    if is_stable:
        return "stable"
    if note.get("phase") == "Served":
        return "kept"
    return "variant" if naming.VARIANT in deployment["metadata"].get("annotations", {}) else "canary"


def _result(line: Line, side: JsonObject) -> Line:
    """With what the status says about one side of an experiment."""
    told = [f"{side.get('requests', 0)} requests"]
    if side.get("errorRatio") is not None:
        told.append(f"{side['errorRatio']:.1%} failed")
    seconds = {"p50": "p50Seconds", "p95": "p95Seconds", "step": "stepSeconds"}
    told += [f"{name} {side[key]:.3g} s" for name, key in seconds.items() if side.get(key) is not None]
    return replace(line, phase=side["name"], weight=side.get("weight"), outcome="", message=", ".join(told))


def _note(deployment: JsonObject) -> JsonObject:
    """What the operator has written on a Deployment; empty where it cannot be read."""
    try:
        found = json.loads(deployment["metadata"].get("annotations", {}).get(naming.ROLLOUT, "{}"))
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _phase(note: JsonObject) -> str:
    phase = str(note.get("phase", ""))
    return f"{phase} {note.get('step', 0) + 1}" if phase == "Step" else phase


def _age(since: object, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(str(since))).total_seconds()
    except ValueError:
        return None


def _summary(pipeline: JsonObject) -> str:
    conditions = pipeline.get("status", {}).get("conditions", [])
    found = next((item for item in conditions if item["type"] == "RolloutComplete"), None)
    return f"{found['reason']}: {found['message']}" if found else ""


def table(found: Picture) -> Table:
    """The rollout for a terminal: one row for each revision, and under it what the pipeline says."""
    made = Table(box=None, pad_edge=False, header_style="bold", caption=Text(found.summary), caption_justify="left")
    for name in ("target", "revision", "role", "share", "pods", "phase", "for"):
        made.add_column(name, no_wrap=True)
    made.add_column("verdict", overflow="fold")
    for line in found.lines:
        share = f"{line.weight} %" if line.weight is not None else ""
        age = f"{line.seconds:.0f} s" if line.seconds is not None and line.role == "canary" else ""
        verdict = Text(f"{line.outcome} {line.message}".strip(), STYLES.get(line.outcome, ""))
        # Text, since a message may hold brackets, which rich would read as markup.
        made.add_row(line.target, line.revision, line.role, share, line.pods, line.phase, age, verdict)
    return made
