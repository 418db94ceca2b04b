"""What applying a pipeline would build, reuse and change; nothing is written."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from diffusion_contract.enums import Stage
from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import digests, naming
from diffusion_operator.conditions import ConditionType
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import DEFAULT_ACCESS_MODES, Owner
from diffusion_operator.manifests.job import BuildJobSpec
from diffusion_operator.matching import contains
from diffusion_operator.plan.actions import Action, Apply, DeleteObject, Scale
from diffusion_operator.plan.build_graph import build_graph
from diffusion_operator.plan.build_jobs import StoreClaim
from diffusion_operator.plan.build_steps import BuildStep
from diffusion_operator.plan.context import plan_context
from diffusion_operator.plan.observed import Claims, ObservedPipeline, claim_name, live_views
from diffusion_operator.plan.planner import planning
from diffusion_operator.settings import Settings
from diffusion_operator.views.job import JobView
from diffusion_operator.views.storage import ClaimView

NEW = "new"
PLACEHOLDER = "from-the-operators-settings"


@dataclass(frozen=True)
class PreviewBuild:
    """One build step.

    Attributes:
        reused: True when the store has the result already.
        seconds: that the last such build took; None without one.
    """

    stage: str
    component: str
    sku: str
    reused: bool
    seconds: float | None


@dataclass(frozen=True)
class ObjectChange:
    """One object: `create`, `change` or `remove`."""

    verb: str
    kind: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Preview:
    """All that would happen.

    Attributes:
        live: False when no cluster was observed.
        upper_limit: True when a new checkpoint has to be fetched first, so that some builds may turn out to be reused.
        seconds: estimate, when every stage runs its Jobs at the same time; None when nothing is known.
        objection: why the operator would refuse the spec; empty when it would not.
    """

    pipeline: str
    live: bool
    upper_limit: bool
    builds: tuple[PreviewBuild, ...]
    changes: tuple[ObjectChange, ...]
    seconds: float | None
    objection: str = ""


@dataclass(frozen=True)
class ClusterSnapshot:
    """The cluster as observed.

    Attributes:
        pipeline: the objects of the pipeline.
        jobs: all build Jobs of the namespace.
    """

    pipeline: ObservedPipeline
    jobs: tuple[JobView, ...]


def preview(snapshot: ClusterSnapshot | None, name: str, spec: DiffusionPipelineSpec) -> Preview:
    """Predict what applying the spec would do.

    Args:
        snapshot: of the cluster; None without one.
        name: namespace/name.
        spec: that would be applied.
    """
    observed = replace(snapshot.pipeline if snapshot is not None else _empty_observation(name), spec=spec)
    jobs = snapshot.jobs if snapshot is not None else ()
    settings, store = _settings(observed), _store(observed)
    steps, assumed = _simulate_builds(spec, store, settings, jobs)
    finished = tuple(step.job for step in steps if step.job is not None)
    assumption = replace(observed, jobs=finished, claims=_claims(observed, store))
    plan = planning(plan_context(assumption, settings)).plan()
    accepted = next(item for item in plan.status.conditions if item.type == ConditionType.ACCEPTED)
    durations = _durations(jobs)
    builds = tuple(_build(step, assumed, durations) for step in steps)
    return Preview(
        pipeline=name,
        live=snapshot is not None,
        upper_limit=bool(jobs) and any(build.stage == Stage.FETCH and not build.reused for build in builds),
        builds=builds,
        changes=tuple(filter(None, (_change(action, observed) for action in plan.actions))),
        seconds=_seconds([build for build in builds if not build.reused]),
        objection="" if accepted.status == "True" else accepted.message,
    )


def _empty_observation(name: str) -> ObservedPipeline:
    namespace, _, pipeline = name.partition("/")
    spec = DiffusionPipelineSpec.model_construct()
    return ObservedPipeline(Owner(pipeline, namespace, NEW), generation=1, spec=spec, now=datetime.now(UTC))


def _store(observed: ObservedPipeline) -> StoreClaim:
    uid = observed.claims.store.uid if observed.claims.store is not None else NEW
    return StoreClaim(claim_name(observed.spec, observed.owner.name), uid)


def _claims(observed: ObservedPipeline, store: StoreClaim) -> Claims:
    """Claims that do not exist yet are assumed to be bound."""
    modes = list(observed.spec.storage.access_modes or DEFAULT_ACCESS_MODES)
    head = {"name": store.claim, "uid": store.uid}
    assumed: JsonObject = {"metadata": head, "spec": {"accessModes": modes}, "status": {"phase": "Bound"}}
    return Claims(observed.claims.store or ClaimView.parse(assumed))


def _settings(observed: ObservedPipeline) -> Settings:
    """The operator's settings for serving pods are read from the live ones."""
    pods = [view.manifest["spec"]["template"]["spec"] for view in observed.deployments]
    if not pods:
        return Settings(PLACEHOLDER, PLACEHOLDER, gateway_image=PLACEHOLDER)
    server = next(item for item in pods[-1]["containers"] if item["name"] == naming.SERVER)
    secrets = tuple(secret["name"] for secret in pods[-1].get("imagePullSecrets", []))
    return Settings(
        PLACEHOLDER,
        server["image"],
        gateway_image=_gateway_image(observed),
        image_pull_policy=server["imagePullPolicy"],
        image_pull_secrets=secrets,
        serving_service_account=pods[-1].get("serviceAccountName", ""),
    )


def _gateway_image(observed: ObservedPipeline) -> str:
    bodies = (view.manifest["spec"]["template"]["spec"] for view in observed.api_objects if view.kind == "Deployment")
    containers = (item for pod in bodies for item in pod["containers"] if item["name"] == naming.GATEWAY)
    return str(next(containers, {"image": PLACEHOLDER})["image"])


def _simulate_builds(
    spec: DiffusionPipelineSpec, store: StoreClaim, settings: Settings, jobs: Iterable[JobView]
) -> tuple[tuple[BuildStep, ...], frozenset[str]]:
    """All steps as if they had succeeded, and the names of those that have not."""
    finished = {job.name: job for job in jobs if job.phase == "Succeeded" and job.store_uid == store.uid}
    assumed: set[str] = set()
    while True:
        steps = build_graph(spec, store, settings, finished).steps()
        missing = [step.request for step in steps if not step.succeeded]
        if not missing:
            return steps, frozenset(assumed)
        finished |= {request.name: _assumed_job(request) for request in missing}
        assumed |= {request.name for request in missing}


def _assumed_job(request: BuildJobSpec) -> JobView:
    digest = digests.json_digest(request.name)
    record = json.dumps({"digest": digest, "content": digest})
    annotations = {naming.STORE_UID: request.store_uid, naming.RESULT: record}
    head = {"name": request.name, "labels": {naming.STAGE: request.stage}, "annotations": annotations}
    return JobView.parse({"metadata": head, "status": {"conditions": [{"type": "Complete", "status": "True"}]}})


BuildKind = tuple[str, str, str]


def _durations(jobs: Iterable[JobView]) -> Mapping[BuildKind, float]:
    """Seconds of earlier builds that were no cache hits, by stage, component and SKU."""
    durations: dict[BuildKind, float] = {}
    for job in jobs:
        if job.result.get("seconds") is not None and not job.result.get("cached"):
            kind = (job.stage, job.labels.get(naming.COMPONENT, ""), job.target or "")
            durations[kind] = float(job.result["seconds"])
    return durations


def _build(step: BuildStep, assumed: frozenset[str], durations: Mapping[BuildKind, float]) -> PreviewBuild:
    kind = (step.request.stage, step.request.component or "", step.request.sku or "")
    return PreviewBuild(*kind, reused=step.request.name not in assumed, seconds=durations.get(kind))


def _seconds(builds: Sequence[PreviewBuild]) -> float | None:
    """The slowest of each stage, one after the other."""
    if not builds or all(build.seconds is None for build in builds):
        return 0.0 if not builds else None
    stages = {build.stage for build in builds}
    return sum(max(build.seconds or 0.0 for build in builds if build.stage == stage) for stage in stages)


def _change(action: Action, observed: ObservedPipeline) -> ObjectChange | None:
    match action:
        case Apply(body):
            return _apply_change(body, observed)
        case Scale(name, replicas):
            return ObjectChange("change", "Deployment", name, f"{replicas} pods")
        case DeleteObject(kind, name, _):
            return ObjectChange("remove", kind, name)
        case _:
            return None


def _apply_change(body: JsonObject, observed: ObservedPipeline) -> ObjectChange | None:
    kind, name = body["kind"], body["metadata"]["name"]
    live = observed.find(kind, name)
    if live is None:
        return ObjectChange("create", kind, name, _deployment_note(body, observed) if kind == "Deployment" else "")
    return None if contains(live.manifest.get("spec", {}), body["spec"]) else ObjectChange("change", kind, name)


def _deployment_note(body: JsonObject, observed: ObservedPipeline) -> str:
    """The purpose of a new Deployment."""
    variant = body["metadata"].get("annotations", {}).get(naming.VARIANT)
    if variant is not None:
        return f"variant {variant} gets its share once it is ready on every target"
    target = str(body["metadata"]["labels"].get(naming.TARGET, ""))
    present = [view.name for view in live_views(observed.deployments, target) if view.variant is None]
    return f"takes over from {', '.join(present)} once it is ready" if present else ""
