"""Deployments and Services of all targets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_operator import naming
from diffusion_operator.api.spec import Target
from diffusion_operator.manifests import deployment as deployments
from diffusion_operator.manifests import service
from diffusion_operator.manifests.deployment import ServingRequest
from diffusion_operator.plan import policies
from diffusion_operator.plan.actions import Action, Apply, Remove, Scale, remove
from diffusion_operator.plan.builds import Builds
from diffusion_operator.plan.observed import Observed, claim_name
from diffusion_operator.plan.pods import Trouble
from diffusion_operator.rollout import RevisionState, RolloutState, RolloutStep, next_step
from diffusion_operator.settings import Settings

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class TargetPlan:
    """One target: what was seen, what comes next.

    Attributes:
        request: what is to be served; None while it is being built.
        trouble: what keeps the newest wanted revision from being ready.
    """

    target: Target
    state: RolloutState
    step: RolloutStep
    request: ServingRequest | None
    trouble: Trouble | None

    @property
    def serving(self) -> RevisionState | None:
        """The stable revision, when its Deployment exists."""
        return self.state.find(self.state.stable)

    @property
    def idle(self) -> bool:
        """True when the autoscaler has taken the last pod because nobody asks."""
        scaling, serving = self.target.autoscaling, self.serving
        may = scaling is not None and scaling.min_replicas == 0 and not self.state.suspended
        return may and serving is not None and serving.proven and serving.replicas == 0

    @property
    def available(self) -> bool:
        """True when at least one pod answers, or one would be started for the next request."""
        return self.idle or (self.serving is not None and self.serving.ready > 0)


def plan_targets(observed: Observed, builds: Builds | None, settings: Settings) -> tuple[TargetPlan, ...]:
    """The next step of every target of the spec."""
    return tuple(_plan_target(observed, target, builds, settings) for target in observed.spec.targets)


def actions(observed: Observed, plans: tuple[TargetPlan, ...], settings: Settings) -> Iterator[Action]:
    """What brings the cluster to the next steps: first what serves, then traffic, then what is to go."""
    for plan in plans:
        yield from _target_actions(observed, plan, settings)
    stable = {plan.target.name: plan.step.traffic for plan in plans if plan.step.traffic is not None}
    if stable:
        yield Apply(service.for_pipeline(observed.owner, stable))
    for plan in plans:
        yield from _removals(observed, plan.target.name, frozenset(plan.step.remove))
    yield from _dropped_targets(observed)
    # Last, since a cluster without KEDA refuses its object: nothing else may wait for it.
    for plan in plans:
        yield from policies.actions(observed, plan.target, plan.step.traffic)


def _plan_target(observed: Observed, target: Target, builds: Builds | None, settings: Settings) -> TargetPlan:
    request = _request(observed, target, builds)
    desired = deployments.revision(request, observed.owner, settings) if request is not None else None
    stable, revisions = _stable(observed, target.name), tuple(_revisions(observed, target.name))
    state = RolloutState(
        desired=desired,
        stable=stable,
        revisions=revisions,
        replicas=_replicas(target, desired, next((item for item in revisions if item.name == stable), None)),
        suspended=observed.spec.suspend,
    )
    newest = desired or state.stable
    trouble = observed.serving_trouble(target.name, newest) if newest is not None else None
    return TargetPlan(target, state, next_step(state), request, trouble)


def _replicas(target: Target, desired: str | None, stable: RevisionState | None) -> int:
    """Pods that the desired revision needs to take over from the stable one, or that it has when it is that one."""
    scaling = target.autoscaling
    if scaling is None:
        return target.replicas
    live = stable.replicas if stable is not None else scaling.min_replicas
    idle = scaling.min_replicas == 0 and stable is not None and stable.name == desired and stable.proven
    # A new revision has to show that it works, even when nobody asks at the moment.
    return live if idle else min(max(live, scaling.min_replicas, 1), scaling.max_replicas)


def _request(observed: Observed, target: Target, builds: Builds | None) -> ServingRequest | None:
    assemble = builds.repository(target.sku) if builds is not None else None
    if assemble is None:
        return None
    claim = claim_name(observed.spec, observed.owner.name)
    longest = max(steps for pipeline in observed.spec.pipelines for steps in pipeline.steps)
    return ServingRequest(target, observed.spec.serving, assemble.digest, claim, longest, _flags(assemble.result))


def _flags(result: JsonObject) -> tuple[str, ...]:
    return tuple(str(flag) for flag in result.get("serverFlags", []) if str(flag).startswith("--"))


def _stable(observed: Observed, target: str) -> str | None:
    live = observed.find("Service", naming.target_service(observed.owner.name, target))
    if live is None:
        return None
    revision = live.get("spec", {}).get("selector", {}).get(naming.REVISION)
    return str(revision) if revision else None


def _revisions(observed: Observed, target: str) -> Iterator[RevisionState]:
    for item in observed.of_target(observed.deployments, target):
        yield _revision_state(item)


def _revision_state(item: JsonObject) -> RevisionState:
    status = item.get("status", {})
    # A status about an older generation says nothing about the number of pods that is wanted now.
    current = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0)
    proven = any(
        condition["type"] == "Progressing" and condition.get("reason") == "NewReplicaSetAvailable"
        for condition in status.get("conditions", [])
    )
    return RevisionState(
        name=item["metadata"]["labels"][naming.REVISION],
        replicas=item.get("spec", {}).get("replicas", 1),
        ready=status.get("readyReplicas", 0) if current else 0,
        proven=proven,
    )


def _target_actions(observed: Observed, plan: TargetPlan, settings: Settings) -> Iterator[Action]:
    owner, name = observed.owner, plan.target.name
    if plan.request is not None and plan.step.desired_replicas is not None and plan.state.desired is not None:
        body = deployments.deployment(plan.request, owner, settings)
        yield Apply(body, initial={"replicas": plan.step.desired_replicas})
        yield Apply(service.for_revision(owner, name, plan.state.desired))
    if plan.step.traffic is not None:
        yield Apply(service.for_target(owner, name, plan.step.traffic))
    for revision, replicas in _scales(plan):
        yield Scale(naming.revision(owner.name, name, revision), replicas)


def _scales(plan: TargetPlan) -> Iterator[tuple[str, int]]:
    """Revisions whose number of pods is ours to change. An autoscaler owns that of the revision with the traffic."""
    wanted = dict(plan.step.scale)
    if plan.state.desired is not None and plan.step.desired_replicas is not None:
        wanted[plan.state.desired] = plan.step.desired_replicas
    for revision, replicas in wanted.items():
        live = plan.state.find(revision)
        if live is None or live.replicas == replicas or (revision == plan.step.traffic and _is_automatic(plan, live)):
            continue
        yield revision, replicas


def _is_automatic(plan: TargetPlan, live: RevisionState) -> bool:
    """While suspended there is no autoscaler, and afterwards a HorizontalPodAutoscaler leaves zero pods at zero."""
    scaling = plan.target.autoscaling
    return scaling is not None and not plan.state.suspended and (live.replicas > 0 or scaling.min_replicas == 0)


def _removals(observed: Observed, target: str, revisions: frozenset[str]) -> Iterator[Remove]:
    for kind, items in _kinds(observed).items():
        for item in observed.of_target(items, target):
            if item["metadata"]["labels"].get(naming.REVISION) in revisions:
                yield remove(kind, item)


def _dropped_targets(observed: Observed) -> Iterator[Remove]:
    wanted = {target.name for target in observed.spec.targets}
    for kind, items in _kinds(observed).items():
        for item in items:
            target = item["metadata"].get("labels", {}).get(naming.TARGET)
            if target is not None and target not in wanted and "deletionTimestamp" not in item["metadata"]:
                yield remove(kind, item)


def _kinds(observed: Observed) -> Mapping[str, tuple[JsonObject, ...]]:
    return {"Service": observed.services, "Deployment": observed.deployments, **observed.policies}
