"""Conditions from what was seen and planned."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from diffusion_contract.base import seconds
from diffusion_operator import naming
from diffusion_operator.analysis import Verdict
from diffusion_operator.conditions import Finding, Reason, Type
from diffusion_operator.plan.builds import Builds
from diffusion_operator.plan.jobs import parse_time
from diffusion_operator.plan.observed import Observed, claim_name
from diffusion_operator.plan.pods import Trouble, has_lost_readiness
from diffusion_operator.plan.serving import TargetPlan
from diffusion_operator.plan.steps import Step, waiting
from diffusion_operator.plan.variants import VariantPlan

PATIENCE = timedelta(seconds=15)
"""Pods of a healthy cluster pass through "unschedulable" and the like; only what lasts is told."""


def storage(observed: Observed) -> Finding | None:
    """What is wrong with the claims, or None."""
    for name in observed.claims.missing:
        return _missing_claim(observed, "spec.model: persistentVolumeClaim.claimName", name)
    given, claim = observed.spec.storage.claim_name, observed.claims.store
    if given is not None and claim is None:
        return _missing_claim(observed, "spec.storage.claimName", given)
    name = claim_name(observed.spec, observed.owner.name)
    if claim is None or "deletionTimestamp" in claim["metadata"]:
        return _engines(Reason.WAITING_FOR_STORAGE, f"Claim {name} is being created.")
    if claim.get("status", {}).get("phase") == "Lost":
        text = f"The volume behind claim {name} is gone: delete the claim, it is then created and filled anew."
        return _engines(Reason.STORAGE_NOT_FOUND, text)
    return None


def engines(observed: Observed, builds: Builds | None) -> Finding:
    """Whether every engine is in the store."""
    lacking = storage(observed)
    if lacking is not None or builds is None:
        return lacking or _engines(Reason.WAITING_FOR_STORAGE, "The store is not there yet.")
    if builds.engines_done == builds.engines_wanted:
        return _engines(Reason.ENGINES_BUILT, f"{builds.engines_wanted} engines are in the store.", ok=True)
    stuck = _stuck(observed, Type.ENGINES_READY, builds.engine_steps())
    if stuck is not None:
        return stuck
    if observed.spec.suspend:
        return _engines(Reason.SUSPENDED, "No Job runs while spec.suspend is true.")
    return _engines(*_engine_progress(builds))


def repository(observed: Observed, builds: Builds | None) -> Finding:
    """Whether the Triton model repository is in the store."""
    if builds is None or not builds.assembled:
        return _repository(Reason.WAITING_FOR_ENGINES, "The repository is made once all engines are there.")
    steps = builds.repository_steps()
    if all(item.done for item in steps):
        digests = ", ".join(sorted({item.digest[:12] for item in builds.assembles.values()}))
        return _repository(
            Reason.REPOSITORY_BUILT, f"The Triton model repository is in the store and checked: {digests}.", ok=True
        )
    stuck = _stuck(observed, Type.REPOSITORY_READY, steps)
    if stuck is not None:
        return stuck
    if observed.spec.suspend:
        return _repository(Reason.SUSPENDED, "No Job runs while spec.suspend is true.")
    if all(item.done for item in builds.assembles.values()):
        return _repository(Reason.CHECKING, "The repository's pictures are being compared with those of diffusers.")
    return _repository(Reason.ASSEMBLING, "The Triton model repository is being assembled.")


def available(observed: Observed, plans: Sequence[TargetPlan]) -> Finding:
    """Whether every target answers requests."""
    kind = Type.AVAILABLE
    lacking = [plan for plan in plans if not plan.available]
    if not lacking:
        ready = sum(plan.serving.ready for plan in plans if plan.serving is not None)
        name = naming.url(observed.owner.name, observed.owner.namespace)
        return Finding(kind, ok=True, reason=Reason.SERVING, message=_serving(plans, ready, name))
    if observed.spec.suspend:
        return Finding(kind, ok=False, reason=Reason.SUSPENDED, message="Nothing is served while spec.suspend is true.")
    found = _pod_trouble(observed, kind, lacking)
    if found is not None:
        return found
    names = ", ".join(plan.target.name for plan in lacking)
    if all(not plan.state.revisions for plan in lacking):
        text = "Serving starts once the repository is there."
        return Finding(kind, ok=False, reason=Reason.WAITING_FOR_REPOSITORY, message=text)
    if any(_is_stalled(observed, plan) for plan in lacking):
        text = f"Target {names}: the server has started and is not ready any more; see kubectl describe pod."
        return Finding(kind, ok=False, reason=Reason.NOT_READY, message=text)
    text = f"Target {names}: the server is starting; it is ready once every ensemble has answered a request."
    return Finding(kind, ok=False, reason=Reason.STARTING, message=text)


def _serving(plans: Sequence[TargetPlan], ready: int, url: str) -> str:
    idle = ", ".join(plan.target.name for plan in plans if plan.idle)
    more = f" Target {idle} is scaled to zero until somebody asks." if idle else ""
    return f"{ready} pods serve at {url}.{more}"


def _is_stalled(observed: Observed, plan: TargetPlan) -> bool:
    stable = plan.state.stable
    pods = observed.pods_of(plan.target.name, stable) if stable is not None else []
    return any(map(has_lost_readiness, pods))


def rollout(observed: Observed, plans: Sequence[TargetPlan]) -> Finding:
    """Whether every target serves the revision that the spec asks for, and nothing else."""
    kind = Type.ROLLOUT_COMPLETE
    open_plans = [plan for plan in plans if plan.step.progress != "Complete"]
    if not open_plans and any(plan.variants for plan in plans) and not observed.spec.suspend:
        return _experiment(observed, plans)
    if not open_plans:
        names = ", ".join(f"{plan.target.name} serves {plan.state.stable}" for plan in plans)
        return Finding(kind, ok=True, reason=Reason.COMPLETE, message=f"{names}.")
    if observed.spec.suspend:
        return Finding(kind, ok=False, reason=Reason.SUSPENDED, message="Nothing is served while spec.suspend is true.")
    found = _refused_rollout(observed, open_plans) or _pod_trouble(observed, kind, open_plans)
    if found is not None:
        return found
    canary = next((plan for plan in open_plans if plan.step.progress in {"Canary", "Promoting"}), None)
    return _canary_progress(observed, canary) if canary is not None else _rollout_progress(kind, open_plans[0])


def _experiment(observed: Observed, plans: Sequence[TargetPlan]) -> Finding:
    """Trouble with a variant first, then what one still waits for."""
    kind, items = Type.ROLLOUT_COMPLETE, [(plan, item) for plan in plans for item in plan.variants]
    for plan, item in items:
        why = _hindrance(observed, plan, item)
        if why:
            text = (
                f"Variant {item.variant.name} on target {plan.target.name}: {why.rstrip('. ')}. What it lacks of its "
            )
            text += (
                f"{item.variant.weight} % of the requests goes to the stable revision meanwhile: change it or remove it"
            )
            text += " (spec.rollout.experiment.variants)."
            return Finding(kind, ok=False, reason=Reason.VARIANT_FAILED, message=text)
    for plan, item in items:
        if not item.complete:
            stage = "its pods are starting" if item.state.desired is not None else "it is being built"
            text = (
                f"Variant {item.variant.name} on target {plan.target.name}: {stage}; it gets {item.step.weight} % of "
            )
            text += f"the requests now and {item.variant.weight} % once it is ready on every target."
            return Finding(kind, ok=False, reason=Reason.EXPERIMENT_STARTING, message=text)
    given = {item.variant.name: item.step.weight for _, item in items}
    shares = ", ".join(f"{name} {weight} %" for name, weight in given.items())
    text = f"An experiment runs: stable gets {100 - sum(given.values())} % of the requests, {shares}."
    return Finding(kind, ok=True, reason=Reason.EXPERIMENT_RUNNING, message=text)


def _hindrance(observed: Observed, plan: TargetPlan, item: VariantPlan) -> str:
    """What somebody has to mend before the variant can be served; empty when there is nothing."""
    kind = Type.ROLLOUT_COMPLETE
    if item.twin:
        return f"it is the same as {item.twin}, so there is nothing to compare"
    steps = item.builds.own_steps() if item.builds is not None else ()
    found = _stuck(observed, kind, steps) or _told(kind, list(_lasting(observed, (item.trouble,))))
    if found is not None:
        return (found.lasting or found.message) if found.reason != Reason.WAITING_FOR_GPU else ""
    rollout, candidate = observed.spec.rollout, item.state.find(item.state.desired)
    if rollout is None or candidate is None or candidate.proven:
        return ""
    name = naming.revision(observed.owner.name, plan.target.name, candidate.name)
    live = observed.find("Deployment", name) or {"metadata": {}}
    age = observed.now - parse_time(live["metadata"].get("creationTimestamp"))
    late = age >= timedelta(seconds=seconds(rollout.progress_deadline))
    return f"its pods were not ready within {rollout.progress_deadline} (progressDeadline)" if late else ""


def _refused_rollout(observed: Observed, plans: Sequence[TargetPlan]) -> Finding | None:
    kind, wanted = Type.ROLLOUT_COMPLETE, observed.spec.rollout
    if wanted is not None and wanted.rollback_to is not None and any(plan.state.desired is None for plan in plans):
        kept = ", ".join(sorted({item.name for plan in plans for item in plan.state.revisions}))
        text = f"spec.rollout.rollbackTo: revision {wanted.rollback_to} is not kept (any more) by every target; there"
        text += f" are {kept or 'none'}. What serves goes on serving."
        return Finding(kind, ok=False, reason=Reason.REVISION_NOT_KEPT, message=text)
    rejected = next((plan for plan in plans if plan.step.progress == "Rejected"), None)
    if rejected is None:
        return None
    verdict = told(rejected)
    why = f"{verdict.reason}: {verdict.message}" if verdict is not None else "no reason is known."
    text = f"Target {rejected.target.name}: canary {rejected.state.desired} was taken back. {why}"
    text += f" {rejected.state.stable} serves; another spec is tried at once."
    return Finding(kind, ok=False, reason=Reason.CANARY_REJECTED, message=text)


def _canary_progress(observed: Observed, plan: TargetPlan) -> Finding:
    name, state, verdict = plan.target.name, plan.state, told(plan)
    stage, note = "its pods are starting", plan.note
    if note is not None and note.phase == "Pictures" and note.settled:
        stage = "its pictures are compared, it gets no requests yet"
    elif note is not None and note.phase == "Step":
        steps = len(observed.spec.rollout.steps) if observed.spec.rollout is not None else 0
        stage = f"it gets {plan.step.weight} % of the requests (step {note.step + 1} of {steps})"
    elif plan.step.progress == "Promoting":
        ready = state.ready(state.desired)
        stage = f"it grows to full size ({ready} of {state.replicas} pods are ready)"
    text = f"Target {name}: canary {state.desired}: {stage}; {state.stable} serves the others."
    text += f" {verdict.message}" if verdict is not None else ""
    return Finding(Type.ROLLOUT_COMPLETE, ok=False, reason=Reason.CANARY_PROGRESSING, message=text)


def told(plan: TargetPlan) -> Verdict | None:
    """The verdict about the candidate: of what is judged now, else of what was judged last."""
    note = plan.note
    if note is not None and note.phase == "Rejected":
        return note.verdict
    return plan.verdict or (note.verdict if note is not None else None)


def _rollout_progress(kind: Type, plan: TargetPlan) -> Finding:
    name, state = plan.target.name, plan.state
    if plan.step.progress == "Waiting":
        old = f"{state.stable} goes on serving meanwhile" if plan.available else "nothing serves yet"
        text = f"Target {name}: the new revision is being built; {old}."
        return Finding(kind, ok=False, reason=Reason.WAITING_FOR_REPOSITORY, message=text)
    if plan.step.progress == "Removing":
        text = f"Target {name}: traffic goes to {state.desired}; older revisions are being removed."
        return Finding(kind, ok=False, reason=Reason.REMOVING_OLD_REVISION, message=text)
    candidate = state.find(state.desired)
    ready = candidate.ready if candidate is not None else 0
    text = f"Target {name}: revision {state.desired} has {ready} of {state.replicas} pods ready"
    old = f"; {state.stable} serves meanwhile." if state.stable not in {None, state.desired} else "."
    return Finding(kind, ok=False, reason=Reason.ROLLING_OUT, message=text + old)


def _stuck(observed: Observed, kind: Type, steps: Iterable[Step]) -> Finding | None:
    """What keeps the steps from going on."""
    items = tuple(steps)
    for item in items:
        if item.failed and item.view is not None and item.view.failure is not None:
            failure = item.view.failure
            lasting = f"{item.subject}: {failure.message}"
            return Finding(kind, ok=False, reason=failure.reason, message=item.failure_text(), lasting=lasting)
    by_sku: dict[str | None, list[Step]] = {}
    for item in items:
        by_sku.setdefault(item.request.sku, []).append(item)
    # One that waits while another of the same SKU runs is only next in line.
    idle = [group for group in by_sku.values() if not any(item.running for item in group)]
    views = [item.view for group in idle for item in group if item.view is not None]
    return _told(kind, list(_lasting(observed, (view.trouble for view in views))))


def _told(kind: Type, troubles: Sequence[Trouble]) -> Finding | None:
    """The first thing that somebody has to mend; else every GPU that is waited for."""
    waiting = [found for found in troubles if found.reason == Reason.WAITING_FOR_GPU]
    for found in troubles:
        if found not in waiting:
            return Finding(kind, ok=False, reason=found.reason, message=found.message)
    if not waiting:
        return None
    since = min(found.since for found in waiting)
    text = " ".join(dict.fromkeys(found.message for found in waiting))
    return Finding(kind, ok=False, reason=Reason.WAITING_FOR_GPU, message=f"Since {since}: {text}")


def _pod_trouble(observed: Observed, kind: Type, plans: Iterable[TargetPlan]) -> Finding | None:
    return _told(kind, list(_lasting(observed, (plan.trouble for plan in plans))))


def _lasting(observed: Observed, troubles: Iterable[Trouble | None]) -> Iterator[Trouble]:
    for found in troubles:
        if found is not None and observed.now - parse_time(found.since) >= PATIENCE:
            yield _explained(observed, found)


def _explained(observed: Observed, found: Trouble) -> Trouble:
    """Kubernetes' words about a volume do not say that the claim is of the wrong kind."""
    modes = (observed.claims.store or {}).get("spec", {}).get("accessModes", ["ReadWriteMany"])
    unmounted = "waits for its volumes" in found.message and "Secret " not in found.message
    elsewhere = unmounted or "volume node affinity" in found.message
    if "ReadWriteMany" in modes or not elsewhere:
        return found
    name = claim_name(observed.spec, observed.owner.name)
    text = f"Claim {name} is {modes[0]}, so all its pods have to run on one node: use a ReadWriteMany claim, or "
    text += f"nodeSelector to keep every target on that node. {found.message}"
    return Trouble(Reason.STORAGE_NOT_SHARED, text, found.since)


def _engine_progress(builds: Builds) -> tuple[Reason, str]:
    fetched = sum(item.done for item in builds.fetches.values())
    if fetched < len(builds.fetches):
        return Reason.FETCHING, f"{fetched} of {len(builds.fetches)} sources are in the store."
    exported = sum(item.done for item in builds.exports.values())
    if exported < len(builds.parts):
        return Reason.EXPORTING, f"{exported} of {len(builds.parts)} components are exported."
    open_steps = [item for item in builds.compiles.values() if not item.done]
    queued = [item for item in open_steps if item.view is not None and item.view.phase == "Queued"]
    if queued and len(queued) == len(open_steps):
        done = f"{builds.engines_done} of {builds.engines_wanted} engines are in the store"
        return Reason.QUEUED, f"{done}, {len(queued)} wait. {waiting(queued[0])}"
    return Reason.COMPILING, f"{builds.engines_done} of {builds.engines_wanted} engines are in the store."


def _missing_claim(observed: Observed, field: str, name: str) -> Finding:
    namespace = observed.owner.namespace
    text = f"{field}: claim {name} does not exist in namespace {namespace}: create it, or name another."
    return _engines(Reason.STORAGE_NOT_FOUND, text)


def _engines(reason: str, message: str, *, ok: bool = False) -> Finding:
    return Finding(Type.ENGINES_READY, ok=ok, reason=reason, message=message)


def _repository(reason: str, message: str, *, ok: bool = False) -> Finding:
    return Finding(Type.REPOSITORY_READY, ok=ok, reason=reason, message=message)
