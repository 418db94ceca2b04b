"""Deployments and Services of all targets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from diffusion_contract.spec import Target
from diffusion_operator import naming
from diffusion_operator.analysis import Verdict
from diffusion_operator.manifests import deployment as deployments
from diffusion_operator.manifests import service
from diffusion_operator.manifests.deployment import ServingRequest
from diffusion_operator.manifests.service import Split
from diffusion_operator.plan import judging, policies, routes, variants
from diffusion_operator.plan import states as states_of
from diffusion_operator.plan.actions import Action, Annotate, Apply, Remove, Scale, remove
from diffusion_operator.plan.builds import Builds
from diffusion_operator.plan.notes import written
from diffusion_operator.plan.observed import Observed
from diffusion_operator.plan.pods import Trouble
from diffusion_operator.plan.requests import Store
from diffusion_operator.plan.served import serving_request
from diffusion_operator.plan.steps import Step
from diffusion_operator.plan.variants import VariantPlan
from diffusion_operator.rollout import (
    Note,
    Observation,
    RevisionState,
    RolloutState,
    RolloutStep,
    Strategy,
    next_step,
    strategy_of,
)
from diffusion_operator.settings import Settings

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class TargetPlan:
    """One target: what was seen, what comes next.

    Attributes:
        request: what is to be served; None while it is being built, and when another revision is to be served.
        trouble: what keeps the newest wanted revision from being ready.
        peers: revisions that the targets are to serve together; empty when there is one target, or not all are built.
        verdict: of the phase that the candidate is in; None when there is nothing to judge.
        pictures: comparison of the candidate's pictures; None before there is one.
        variants: of an experiment.
    """

    target: Target
    state: RolloutState
    step: RolloutStep
    request: ServingRequest | None
    trouble: Trouble | None
    peers: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    pictures: Step | None = None
    variants: tuple[VariantPlan, ...] = ()

    @property
    def serving(self) -> RevisionState | None:
        """The stable revision, when its Deployment exists."""
        return self.state.find(self.state.stable)

    @property
    def split(self) -> Split | None:
        """Who is to answer the requests; None when there is nobody yet."""
        if self.step.traffic is None:
            return None
        shares = tuple(item.share for item in self.variants)
        return Split(self.step.traffic, self.step.canary, self.step.weight, variants=shares)

    @property
    def note(self) -> Note | None:
        """How far the candidate has come, after this step."""
        found = self.state.candidate
        before = found.note if found is not None else None
        return (
            self.step.notes.get(self.state.desired or "", before) if self.state.desired != self.state.stable else None
        )

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


@dataclass(frozen=True)
class Targets:
    """All targets, and how their revisions follow each other."""

    plans: tuple[TargetPlan, ...]
    strategy: Strategy

    def again_seconds(self, interval: int) -> float | None:
        """When a canary or an experiment has to be looked at again; None without one.

        Args:
            interval: between two readings of the metrics, seconds.
        """
        ends = [float(interval)]
        for plan in self.plans:
            found = plan.state.candidate
            if plan.step.progress == "Canary" and found is not None and plan.note is not None:
                pause = self.strategy.pauses[plan.note.step] if plan.note.phase == "Step" else 0
                ends.append(max(1.0, pause - found.age))
        shared = any(item.step.weight for plan in self.plans for item in plan.variants)
        return min(ends) if shared or any(plan.step.progress == "Canary" for plan in self.plans) else None

    @property
    def splits(self) -> dict[str, Split]:
        """Who is to answer, by target."""
        found = {plan.target.name: plan.split for plan in self.plans}
        return {name: replace(item, by_pods=self.strategy.by_pods) for name, item in found.items() if item is not None}


def plan_targets(observed: Observed, builds: Builds | None, store: Store | None, settings: Settings) -> Targets:
    """The next step of every target of the spec."""
    strategy, targets = strategy_of(observed.spec.rollout), observed.spec.targets
    requests = {item.name: serving_request(observed.spec, observed.owner, item, builds) for item in targets}
    own = {
        name: deployments.revision(request, observed.owner, settings) if request is not None else None
        for name, request in requests.items()
    }
    wanted = _wanted(observed, own)
    others = variants.candidates(observed, builds, settings)
    owners = {
        name: variants.belonging(observed, name, others, frozenset({revision, states_of.stable_of(observed, name)}))
        for name, revision in wanted.items()
    }
    states = {item.name: states_of.state_of(observed, item, wanted[item.name], owners[item.name]) for item in targets}
    pictures = judging.comparisons(observed, states, store, settings)
    verdicts = judging.verdicts(observed, states, pictures)
    notes = observed.annotations
    seen = Observation(states, verdicts, promote=notes.get(naming.PROMOTE), abort=notes.get(naming.ABORT))
    steps = next_step(strategy, seen)
    live = {name: tuple(states_of.revisions_of(observed, name)) for name in states}
    experiment = variants.plans(observed, others, variants.Ground(states, steps, owners, live), builds)
    made = tuple(
        TargetPlan(
            target=target,
            state=states[target.name],
            step=steps[target.name],
            request=requests[target.name] if wanted[target.name] == own[target.name] else None,
            trouble=_trouble(observed, target.name, states[target.name]),
            peers=_peers(wanted),
            verdict=verdicts.get(target.name),
            pictures=pictures.get(target.name),
            variants=experiment[target.name],
        )
        for target in targets
    )
    return Targets(made, strategy)


def _wanted(observed: Observed, own: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """What is to be served: what the spec describes, or what it says to go back to."""
    rollout = observed.spec.rollout
    if rollout is None or rollout.rollback_to is None:
        return own
    back = states_of.rolled_back(observed, rollout.rollback_to)
    return {name: back.get(name) for name in own}


def _peers(wanted: Mapping[str, str | None]) -> dict[str, str]:
    known = {name: revision for name, revision in wanted.items() if revision is not None}
    return known if len(known) == len(wanted) > 1 else {}


def _trouble(observed: Observed, target: str, state: RolloutState) -> Trouble | None:
    newest = state.desired or state.stable
    return observed.serving_trouble(target, newest) if newest is not None else None


def actions(observed: Observed, targets: Targets, settings: Settings) -> Iterator[Action]:
    """What brings the cluster to the next steps: first what serves, then traffic, then what is to go."""
    plans, splits = targets.plans, targets.splits
    for plan in plans:
        yield from _target_actions(observed, plan, splits.get(plan.target.name), settings)
        yield from variants.actions(observed, plan.target, plan.variants, settings)
    if splits:
        yield Apply(service.for_pipeline(observed.owner, splits))
    yield from routes.actions(observed, {plan.target.name: plan.state for plan in plans}, splits)
    for plan in plans:
        yield from _scale_actions(observed, plan)
        yield from variants.scales(observed, plan.target, plan.variants)
    for plan in plans:
        useless = [revision for item in plan.variants for revision in item.step.remove]
        yield from _removals(observed, plan.target.name, frozenset({*plan.step.remove, *useless}))
    yield from _dropped_targets(observed)
    pictures = {plan.target.name: plan.pictures for plan in plans if plan.pictures is not None}
    yield from judging.actions(observed, {plan.target.name: plan.state for plan in plans}, pictures, settings)
    # Last, since a cluster without KEDA refuses its object: nothing else may wait for it.
    for plan in plans:
        yield from policies.actions(observed, plan.target, plan.step.traffic)


def _target_actions(observed: Observed, plan: TargetPlan, split: Split | None, settings: Settings) -> Iterator[Action]:
    owner, name = observed.owner, plan.target.name
    if plan.request is not None and plan.step.desired_replicas is not None and plan.state.desired is not None:
        body = deployments.deployment(plan.request, owner, settings, plan.peers)
        yield Apply(body, initial={"replicas": plan.step.desired_replicas})
        yield Apply(service.for_revision(owner, name, plan.state.desired))
    for revision, note in plan.step.notes.items():
        yield Annotate(naming.revision(owner.name, name, revision), naming.ROLLOUT, written(note, observed.now))
    if split is not None:
        yield Apply(service.for_target(owner, name, split))


def _scale_actions(observed: Observed, plan: TargetPlan) -> Iterator[Action]:
    for revision, replicas in _scales(plan):
        yield Scale(naming.revision(observed.owner.name, plan.target.name, revision), replicas)


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
