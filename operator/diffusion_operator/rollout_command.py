"""`diffusion-operator rollout`: show a canary, promote it, or abort it.

A request is an annotation of the DiffusionPipeline. It names a revision, so it says nothing about the next one.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, get_args

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.errors import BadInputError
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import MERGE, KubeClient, Reference, connect
from diffusion_operator.rollout.progress import RolloutProgress
from diffusion_operator.views.serving import DeploymentView, ServiceView

Verb = Literal["promote", "abort"]
Role = Literal["stable", "canary", "variant", "kept"]
ROLE_ORDER: tuple[Role, ...] = get_args(Role)
STYLES: Mapping[str, str] = {"Pass": "green", "Fail": "bold red", "Inconclusive": "yellow"}
POLL_SECONDS = 1.0
ENDED = ("Served", "Rejected")


@dataclass(frozen=True)
class PipelineRef:
    """A pipeline and the cluster that it is in."""

    name: str
    namespace: str
    kubeconfig: str | None = None

    @property
    def reference(self) -> Reference:
        """For the API server."""
        return Reference(KIND, self.namespace, self.name)


@dataclass(frozen=True)
class RevisionRow:
    """One revision of one target.

    Attributes:
        role: stable, canary, variant of an experiment, or kept (without pods, to roll back to).
        pods: ready ones and all, such as 1/1.
        phase: how far it has come; empty where nothing is recorded.
        seconds: since it came there.
        outcome: of the last verdict: Pass, Fail, Inconclusive, or empty.
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
class RolloutView:
    """A rollout at one time: its revisions, and the message of the condition RolloutComplete."""

    rows: tuple[RevisionRow, ...]
    summary: str

    @property
    def canaries(self) -> tuple[str, ...]:
        """Revisions that are neither stable nor given up; those of an earlier spec come last."""
        rows = [row for row in self.rows if row.role == "canary" and row.phase not in ENDED]
        rows.sort(key=lambda row: row.weight is None)
        return tuple(dict.fromkeys(row.revision for row in rows))

    @property
    def is_moving(self) -> bool:
        """Whether a canary is under way."""
        return bool(self.canaries)


async def status(pipeline: PipelineRef, console: Console, *, watch: bool) -> None:
    """Show the rollout; with `watch` until it has ended.

    Raises:
        BadInputError: there is no such pipeline.
        UnavailableError: the cluster does not answer.
    """
    async with connect(pipeline.kubeconfig) as client:
        view = await observe(client, pipeline)
        if not (watch and view.is_moving):
            console.print(render_table(view))
            return
        with Live(render_table(view), console=console, auto_refresh=False) as live:
            while view.is_moving:
                await asyncio.sleep(POLL_SECONDS)
                view = await observe(client, pipeline)
                live.update(render_table(view), refresh=True)


async def request(pipeline: PipelineRef, verb: Verb) -> str:
    """Request that the canary is promoted or aborted; returns one sentence for the person.

    Raises:
        BadInputError: there is no such pipeline, or no canary.
        UnavailableError: the cluster does not answer.
    """
    async with connect(pipeline.kubeconfig) as client:
        return await write_request(client, pipeline, verb)


async def write_request(client: KubeClient, pipeline: PipelineRef, verb: Verb) -> str:
    """Write the annotation; the other one is removed, or both would be requested."""
    view = await observe(client, pipeline)
    if not view.is_moving:
        raise BadInputError(f"{pipeline.name} has no canary to {verb}: {view.summary or 'no rollout is under way'}")
    # Targets move together, so one of their revisions stands for all.
    revision = view.canaries[0]
    key, other = (naming.PROMOTE, naming.ABORT) if verb == "promote" else (naming.ABORT, naming.PROMOTE)
    await client.patch(pipeline.reference, {"metadata": {"annotations": {key: revision, other: None}}}, MERGE)
    effect = "gets all of the traffic as soon as its pods are ready" if verb == "promote" else "is aborted"
    return f"{pipeline.name}: revision {revision} {effect}."


async def observe(client: KubeClient, pipeline: PipelineRef) -> RolloutView:
    """Read the pipeline, its Deployments and its Services.

    Raises:
        BadInputError: there is no such pipeline.
    """
    manifest = await client.get(pipeline.reference)
    if manifest is None:
        raise BadInputError(f"There is no {KIND} {pipeline.name} in namespace {pipeline.namespace}.")
    selector = f"{naming.PIPELINE}={pipeline.name}"
    deployments = await client.select(Reference("Deployment", pipeline.namespace), selector)
    services = await client.select(Reference("Service", pipeline.namespace), selector)
    views = [view for view in map(DeploymentView.parse, deployments) if view.revision]
    return rollout_view(manifest.get("status", {}), views, map(ServiceView.parse, services), datetime.now(UTC))


def rollout_view(
    pipeline_status: JsonObject, deployments: Iterable[DeploymentView], services: Iterable[ServiceView], now: datetime
) -> RolloutView:
    """Live objects tell what is stable and how far a canary is; the share is that of the status."""
    statuses = {entry["name"]: entry for entry in pipeline_status.get("targets", [])}
    # Only the Services of targets have the annotation.
    stable = {
        view.target: view.annotations.get(naming.STABLE) for view in services if naming.STABLE in view.annotations
    }
    rows = [
        _row(view, statuses.get(view.target or "", {}), now, is_stable=view.revision == stable.get(view.target))
        for view in deployments
    ]
    rows.sort(key=lambda row: (row.target, ROLE_ORDER.index(row.role), row.phase, row.revision))
    return RolloutView(tuple(rows), _summary(pipeline_status))


def _row(view: DeploymentView, status: JsonObject, now: datetime, *, is_stable: bool) -> RevisionRow:
    progress, role = view.progress, _role(view, is_stable=is_stable)
    verdict = progress.verdict if progress is not None else None
    row = RevisionRow(
        target=view.target or "",
        revision=view.revision,
        role=role,
        pods=f"{view.reported_ready}/{view.replicas}",
        phase=_phase(progress),
        seconds=(now - view.progress_since).total_seconds() if progress is not None else None,
        outcome=verdict.outcome if verdict is not None else "",
        message=verdict.message if verdict is not None else "",
    )
    sides = {side.get("revision"): side for side in status.get("variants", [])}
    if view.revision in sides:
        return _experiment_row(row, sides[view.revision])
    if role != "canary" or status.get("canaryRevision") != view.revision:
        return row
    analysis = status.get("analysis") or {}
    return replace(
        row,
        weight=status.get("canaryWeight"),
        outcome=analysis.get("verdict", row.outcome),
        message=analysis.get("message", row.message),
    )


def _role(view: DeploymentView, *, is_stable: bool) -> Role:
    if is_stable:
        return "stable"
    if view.progress is not None and view.progress.phase == "Served":
        return "kept"
    return "variant" if view.variant is not None else "canary"


def _experiment_row(row: RevisionRow, side: JsonObject) -> RevisionRow:
    """With the numbers of the status about one side of an experiment."""
    texts = [f"{side.get('requests', 0)} requests"]
    if side.get("errorRatio") is not None:
        texts.append(f"{side['errorRatio']:.1%} failed")
    seconds = {"p50": "p50Seconds", "p95": "p95Seconds", "step": "stepSeconds"}
    texts += [f"{name} {side[key]:.3g} s" for name, key in seconds.items() if side.get(key) is not None]
    return replace(row, phase=side["name"], weight=side.get("weight"), outcome="", message=", ".join(texts))


def _phase(progress: RolloutProgress | None) -> str:
    if progress is None:
        return ""
    return f"Step {progress.step + 1}" if progress.phase == "Step" else progress.phase


def _summary(pipeline_status: JsonObject) -> str:
    conditions = pipeline_status.get("conditions", [])
    condition = next((item for item in conditions if item["type"] == "RolloutComplete"), None)
    return f"{condition['reason']}: {condition['message']}" if condition else ""


def render_table(view: RolloutView) -> Table:
    """The rollout for a terminal: one row for each revision, and below the message of the pipeline."""
    table = Table(box=None, pad_edge=False, header_style="bold", caption=Text(view.summary), caption_justify="left")
    for name in ("target", "revision", "role", "share", "pods", "phase", "for"):
        table.add_column(name, no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in view.rows:
        share = f"{row.weight} %" if row.weight is not None else ""
        age = f"{row.seconds:.0f} s" if row.seconds is not None and row.role == "canary" else ""
        verdict = Text(f"{row.outcome} {row.message}".strip(), STYLES.get(row.outcome, ""))
        # Text, since a message may hold brackets, which rich would read as markup.
        table.add_row(row.target, row.revision, row.role, share, row.pods, row.phase, age, verdict)
    return table
