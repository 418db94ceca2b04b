"""What applying a pipeline would do: what is built, what is reused, which objects change. Nothing is written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import digests, naming
from diffusion_operator.cluster import contains
from diffusion_operator.conditions import Type
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.job import JobRequest
from diffusion_operator.plan import plan
from diffusion_operator.plan.actions import Action, Apply, Remove, Scale
from diffusion_operator.plan.builds import chain
from diffusion_operator.plan.jobs import JobView, view
from diffusion_operator.plan.observed import Claims, Observed, claim_name
from diffusion_operator.plan.requests import Store
from diffusion_operator.plan.steps import Step
from diffusion_operator.settings import Settings

JsonObject = dict[str, Any]
NEW = "new"
PLACEHOLDER = "from-the-operators-settings"


@dataclass(frozen=True)
class Build:
    """One build step.

    Attributes:
        reused: True when the store has the result already.
        seconds: that building it took before; None when nothing like it was built.
    """

    stage: str
    component: str
    sku: str
    reused: bool
    seconds: float | None


@dataclass(frozen=True)
class Change:
    """One object: `create`, `change` or `remove`."""

    verb: str
    kind: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Preview:
    """All that would happen.

    Attributes:
        live: False when no cluster was looked at.
        upper_limit: True when a new checkpoint has to be fetched first, so that parts of it may turn out to be known.
        seconds: about how long, when every stage runs its Jobs at the same time; None when nothing is known.
        objection: why the operator would do nothing of it; empty when it would.
    """

    pipeline: str
    live: bool
    upper_limit: bool
    builds: tuple[Build, ...]
    changes: tuple[Change, ...]
    seconds: float | None
    objection: str = ""

    def as_json(self) -> JsonObject:
        """For programs."""
        return asdict(self)


@dataclass(frozen=True)
class Seen:
    """What the cluster has.

    Attributes:
        pipeline: the objects of the pipeline.
        jobs: all build Jobs of the namespace.
    """

    pipeline: Observed
    jobs: tuple[JsonObject, ...]


def preview(seen: Seen | None, name: str, spec: DiffusionPipelineSpec) -> Preview:
    """Foresee what applying the spec would do.

    Args:
        seen: what the cluster has; None when none was looked at.
        name: namespace/name.
        spec: that would be applied.
    """
    observed = replace(seen.pipeline if seen is not None else _nothing(name), spec=spec)
    jobs = seen.jobs if seen is not None else ()
    settings, store = _settings(observed), _store(observed)
    views = tuple((job, view(job, ())) for job in jobs)
    steps, imagined = _foresee(spec, store, settings, {item.name: item for _, item in views})
    done = tuple(item.view for item in steps if item.view is not None)
    made = plan(replace(observed, jobs=done, claims=_claims(observed, store)), settings)
    accepted = next(item for item in made.status.conditions if item.type == Type.ACCEPTED)
    earlier = _earlier(views)
    builds = tuple(_build(item, imagined, earlier) for item in steps)
    return Preview(
        pipeline=name,
        live=seen is not None,
        upper_limit=bool(jobs) and any(item.stage == "fetch" and not item.reused for item in builds),
        builds=builds,
        changes=tuple(filter(None, (_change(action, observed) for action in made.actions))),
        seconds=_seconds([item for item in builds if not item.reused]),
        objection="" if accepted.status == "True" else accepted.message,
    )


def _nothing(name: str) -> Observed:
    namespace, _, plain = name.partition("/")
    spec = DiffusionPipelineSpec.model_construct()
    return Observed(Owner(plain, namespace, NEW), generation=1, spec=spec, now=datetime.now(UTC))


def _store(observed: Observed) -> Store:
    uid = observed.claims.store["metadata"]["uid"] if observed.claims.store is not None else NEW
    return Store(claim_name(observed.spec, observed.owner.name), uid)


def _claims(observed: Observed, store: Store) -> Claims:
    """Claims that do not exist yet are taken for made."""
    there: JsonObject = {"metadata": {"name": store.claim, "uid": store.uid}, "status": {"phase": "Bound"}}
    return Claims(observed.claims.store or there)


def _settings(observed: Observed) -> Settings:
    """As far as they decide what serving pods look like, the operator's settings are read off those that exist."""
    pods = [item["spec"]["template"]["spec"] for item in observed.deployments]
    if not pods:
        return Settings(PLACEHOLDER, PLACEHOLDER)
    server = pods[-1]["containers"][0]
    secrets = tuple(item["name"] for item in pods[-1].get("imagePullSecrets", []))
    return Settings(
        PLACEHOLDER,
        server["image"],
        image_pull_policy=server["imagePullPolicy"],
        image_pull_secrets=secrets,
        serving_service_account=pods[-1].get("serviceAccountName", ""),
    )


def _foresee(
    spec: DiffusionPipelineSpec, store: Store, settings: Settings, jobs: Mapping[str, JobView]
) -> tuple[tuple[Step, ...], frozenset[str]]:
    """All steps as if they were done, and the names of those that are not."""
    known = {name: job for name, job in jobs.items() if job.phase == "Succeeded" and job.store_uid == store.uid}
    imagined: set[str] = set()
    while True:
        steps = chain(spec, store, settings, known).steps()
        missing = [item.request for item in steps if not item.done]
        if not missing:
            return steps, frozenset(imagined)
        known |= {request.name: _imagine(request) for request in missing}
        imagined |= {request.name for request in missing}


def _imagine(request: JobRequest) -> JobView:
    digest = digests.of(request.name)
    return JobView(
        name=request.name,
        uid=NEW,
        resource_version="",
        phase="Succeeded",
        stage=request.stage,
        creator="",
        template="",
        attempt=0,
        store_uid=request.store_uid,
        owners=(),
        terminating=False,
        created_at=None,
        started_at=None,
        finished_at=None,
        result={"digest": digest, "content": digest},
    )


Kind = tuple[str, str, str]


def _earlier(jobs: Iterable[tuple[JsonObject, JobView]]) -> Mapping[Kind, float]:
    """Seconds of earlier builds that were no cache hits, by stage, component and SKU."""
    found: dict[Kind, float] = {}
    for job, seen in jobs:
        result, labels = seen.result, job["metadata"].get("labels", {})
        if result.get("seconds") is not None and not result.get("cached"):
            kind = (labels.get(naming.STAGE, ""), labels.get(naming.COMPONENT, ""), labels.get(naming.TARGET, ""))
            found[kind] = float(result["seconds"])
    return found


def _build(item: Step, imagined: frozenset[str], earlier: Mapping[Kind, float]) -> Build:
    kind = (item.request.stage, item.request.component or "", item.request.sku or "")
    return Build(*kind, reused=item.request.name not in imagined, seconds=earlier.get(kind))


def _seconds(builds: Sequence[Build]) -> float | None:
    """The slowest of each stage, one after the other."""
    if not builds or all(item.seconds is None for item in builds):
        return 0.0 if not builds else None
    stages = {item.stage for item in builds}
    return sum(max(item.seconds or 0.0 for item in builds if item.stage == stage) for stage in stages)


def _change(action: Action, observed: Observed) -> Change | None:
    match action:
        case Apply(body):
            return _applied(body, observed)
        case Scale(name, replicas):
            return Change("change", "Deployment", name, f"{replicas} pods")
        case Remove(kind, name, _):
            return Change("remove", kind, name)
        case _:
            return None


def _applied(body: JsonObject, observed: Observed) -> Change | None:
    kind, name = body["kind"], body["metadata"]["name"]
    live = observed.find(kind, name)
    if live is None:
        return Change("create", kind, name, _fate(body, observed) if kind == "Deployment" else "")
    return None if contains(live.get("spec", {}), body["spec"]) else Change("change", kind, name)


def _fate(body: JsonObject, observed: Observed) -> str:
    """What a new Deployment is for."""
    variant = body["metadata"]["annotations"].get(naming.VARIANT)
    if variant is not None:
        return f"variant {variant} gets its share once it is ready on every target"
    old = [
        item["metadata"]["name"]
        for item in observed.of_target(observed.deployments, _target(body))
        if naming.VARIANT not in item["metadata"].get("annotations", {})
    ]
    return f"takes over from {', '.join(old)} once it is ready" if old else ""


def _target(body: JsonObject) -> str:
    return str(body["metadata"]["labels"].get(naming.TARGET, ""))
