"""The plan of every target: its next step, and the actions that bring the cluster there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from diffusion_contract.spec import Target
from diffusion_operator import naming
from diffusion_operator.analysis.verdict import Verdict
from diffusion_operator.manifests import policies, route, service
from diffusion_operator.manifests.deployment import ServingRevision, deployment
from diffusion_operator.manifests.route import RouteTarget
from diffusion_operator.manifests.service import TrafficSplit
from diffusion_operator.plan import canary_analysis, experiments
from diffusion_operator.plan.actions import Action, Annotate, Apply, DeleteObject, Scale, delete_observed
from diffusion_operator.plan.context import PlanContext, TargetContext
from diffusion_operator.plan.experiments import VariantPlan
from diffusion_operator.plan.observed import ObservedPipeline, live_views
from diffusion_operator.plan.targets import target_contexts
from diffusion_operator.rollout.decision import decide_rollout
from diffusion_operator.rollout.progress import RolloutProgress, serialize
from diffusion_operator.rollout.state import (
    RevisionState,
    RolloutDecision,
    RolloutObservation,
    RolloutState,
    Strategy,
    strategy_of,
)

AUTOSCALERS = ("HorizontalPodAutoscaler", "ScaledObject")


@dataclass(frozen=True)
class TargetPlan:
    """One target and what to do now.

    Attributes:
        siblings: revisions that the targets serve together; empty when there is one target, or not all are built.
    """

    context: TargetContext
    decision: RolloutDecision
    siblings: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[VariantPlan, ...] = ()

    @property
    def target(self) -> Target:
        """Of the spec."""
        return self.context.target

    @property
    def state(self) -> RolloutState:
        """Observed state of its rollout."""
        return self.context.state

    @property
    def revision(self) -> ServingRevision | None:
        """The revision to create; None while it is being built, and when the spec asks for an earlier one."""
        revision = self.context.spec_revision
        return revision if revision is not None and revision.name == self.state.desired else None

    @property
    def serving(self) -> RevisionState | None:
        """The stable revision, when its Deployment exists."""
        return self.state.find(self.state.stable)

    @property
    def split(self) -> TrafficSplit | None:
        """Who answers the requests; None when there is no revision yet."""
        if self.decision.stable is None:
            return None
        shares = tuple(variant.share for variant in self.variants)
        return TrafficSplit(self.decision.stable, self.decision.canary, self.decision.weight, variants=shares)

    @property
    def progress(self) -> RolloutProgress | None:
        """How far the candidate has come, after this step; None without a candidate."""
        if self.state.desired == self.state.stable:
            return None
        candidate = self.state.candidate
        present = candidate.progress if candidate is not None else None
        return self.decision.progress_updates.get(self.state.desired or "", present)

    @property
    def latest_verdict(self) -> Verdict | None:
        """The verdict about the candidate: of the present phase, else of the last one that ended."""
        progress = self.progress
        if progress is not None and progress.phase == "Rejected":
            return progress.verdict
        return self.context.verdict or (progress.verdict if progress is not None else None)

    @property
    def scaled_to_zero(self) -> bool:
        """True when the autoscaler has removed the last pod because there are no requests."""
        scaling, serving = self.target.autoscaling, self.serving
        may = scaling is not None and scaling.min_replicas == 0 and not self.state.suspended
        return may and serving is not None and serving.was_available and serving.replicas == 0

    @property
    def available(self) -> bool:
        """True when at least one pod answers, or one would be started for the next request."""
        return self.scaled_to_zero or (self.serving is not None and self.serving.ready > 0)


@dataclass(frozen=True)
class TargetPlans:
    """The plans of all targets, and how their revisions follow each other."""

    plans: tuple[TargetPlan, ...]
    strategy: Strategy

    @property
    def contexts(self) -> tuple[TargetContext, ...]:
        """Of all targets."""
        return tuple(plan.context for plan in self.plans)

    def requeue_seconds(self, interval: int) -> float | None:
        """When a canary or an experiment needs another pass; None without one.

        Args:
            interval: between two readings of the metrics, seconds.
        """
        delays = [float(interval)]
        replaced = self.strategy.surge == 0 and any(plan.decision.status == "Starting" for plan in self.plans)
        for plan in self.plans:
            candidate, progress = plan.state.candidate, plan.progress
            if plan.decision.status == "Canary" and candidate is not None and progress is not None:
                pause = self.strategy.pauses[progress.step] if progress.phase == "Step" else 0
                delays.append(max(1.0, pause - candidate.phase_seconds))
        shared = any(variant.decision.weight for plan in self.plans for variant in plan.variants)
        timed = shared or replaced or any(plan.decision.status == "Canary" for plan in self.plans)
        return min(delays) if timed else None

    @property
    def splits(self) -> dict[str, TrafficSplit]:
        """Who answers the requests, by target."""
        return {
            plan.target.name: replace(plan.split, splits_by_pods=self.strategy.splits_by_pods)
            for plan in self.plans
            if plan.split is not None
        }


def plan_targets(context: PlanContext) -> TargetPlans:
    """The next step of every target of the spec."""
    observed = context.observed
    strategy, targets = strategy_of(observed.spec.rollout), target_contexts(context)
    observation = RolloutObservation(
        {target.name: target.state for target in targets},
        {target.name: target.verdict for target in targets if target.verdict is not None},
        promote=observed.annotations.get(naming.PROMOTE),
        abort=observed.annotations.get(naming.ABORT),
    )
    decisions = decide_rollout(strategy, observation)
    siblings = experiments.sibling_revisions({target.name: target.state.desired for target in targets})
    variants = experiments.variant_plans(context, targets, decisions)
    plans = (TargetPlan(target, decisions[target.name], siblings, variants[target.name]) for target in targets)
    return TargetPlans(tuple(plans), strategy)


def actions(context: PlanContext, targets: TargetPlans) -> Iterator[Action]:
    """What brings the cluster to the next steps: first what serves, then traffic, then removals."""
    observed, plans, splits = context.observed, targets.plans, targets.splits
    for plan in plans:
        yield from _apply_actions(observed, plan, splits.get(plan.target.name))
        yield from experiments.apply_actions(observed, plan.target, plan.variants)
    if splits:
        yield Apply(service.pipeline_service(observed.owner, splits))
    yield from _route_actions(observed, plans, splits)
    for plan in plans:
        yield from _scale_actions(observed, plan)
        yield from experiments.scale_actions(observed, plan.target, plan.variants)
    for plan in plans:
        yield from _deletions(observed, plan)
    yield from _removed_targets(observed)
    yield from canary_analysis.actions(context, targets.contexts)
    # Last, since a cluster without KEDA refuses its object: nothing else may wait for it.
    for plan in plans:
        yield from _policy_actions(observed, plan.target, plan.decision.stable)


def _apply_actions(observed: ObservedPipeline, plan: TargetPlan, split: TrafficSplit | None) -> Iterator[Action]:
    owner, name = observed.owner, plan.target.name
    if plan.revision is not None and plan.decision.desired_replicas is not None:
        body = deployment(plan.revision, owner, plan.siblings)
        yield Apply(body, initial={"replicas": plan.decision.desired_replicas})
        yield Apply(service.revision_service(owner, name, plan.revision.name))
    for revision, progress in plan.decision.progress_updates.items():
        value = serialize(progress, observed.now)
        yield Annotate(naming.revision_name(owner.name, name, revision), naming.ROLLOUT, value)
    if split is not None:
        yield Apply(service.target_service(owner, name, split))


def _route_actions(
    observed: ObservedPipeline, plans: tuple[TargetPlan, ...], splits: Mapping[str, TrafficSplit]
) -> Iterator[Action]:
    """Bring the routes to the splits; without a Gateway there are none."""
    rollout = observed.spec.rollout
    if rollout is None or rollout.traffic.gateway is None:
        yield from (delete_observed(view) for view in observed.routes if not view.terminating)
    if rollout is None or not splits:
        return
    sizes = {plan.target.name: max(1, plan.state.replicas) for plan in plans}
    alone = len(splits) == 1
    targets = {name: RouteTarget(split, 1 if alone else sizes[name]) for name, split in splits.items()}
    user_header = rollout.experiment.header.name if rollout.experiment is not None else None
    for body in route.routes(observed.owner, rollout.traffic, targets, user_header):
        yield Apply(body)


def _scale_actions(observed: ObservedPipeline, plan: TargetPlan) -> Iterator[Action]:
    """Revisions whose number of pods is ours to change. An autoscaler owns that of the revision with the traffic."""
    replicas_by_revision = dict(plan.decision.replica_changes)
    if plan.state.desired is not None and plan.decision.desired_replicas is not None:
        replicas_by_revision[plan.state.desired] = plan.decision.desired_replicas
    for revision, replicas in replicas_by_revision.items():
        live = plan.state.find(revision)
        if (
            live is None
            or live.replicas == replicas
            or (revision == plan.decision.stable and _is_autoscaled(plan, live))
        ):
            continue
        yield Scale(naming.revision_name(observed.owner.name, plan.target.name, revision), replicas)


def _is_autoscaled(plan: TargetPlan, live: RevisionState) -> bool:
    """While suspended there is no autoscaler, and afterwards a HorizontalPodAutoscaler leaves zero pods at zero."""
    scaling = plan.target.autoscaling
    return scaling is not None and not plan.state.suspended and (live.replicas > 0 or scaling.min_replicas == 0)


def _deletions(observed: ObservedPipeline, plan: TargetPlan) -> Iterator[DeleteObject]:
    revisions = {
        *plan.decision.removals,
        *(revision for variant in plan.variants for revision in variant.decision.removals),
    }
    for view in live_views(observed.serving_objects, plan.target.name):
        if view.revision in revisions:
            yield delete_observed(view)


def _removed_targets(observed: ObservedPipeline) -> Iterator[DeleteObject]:
    names = {None, *(target.name for target in observed.spec.targets)}
    for view in observed.serving_objects:
        if view.target not in names and not view.terminating:
            yield delete_observed(view)


def _policy_actions(observed: ObservedPipeline, target: Target, traffic: str | None) -> Iterator[Action]:
    """Disruption budget and autoscaler of a target; `traffic` is the revision with the traffic, if there is one."""
    if traffic is None:
        return
    yield Apply(policies.disruption_budget(observed.owner, target.name))
    # While suspended nothing may start pods again.
    scaling = None if observed.spec.suspend else target.autoscaling
    for view in live_views(observed.policies, target.name):
        if view.kind in AUTOSCALERS and (scaling is None or policies.autoscaler_kind(scaling) != view.kind):
            yield delete_observed(view)
    if scaling is not None:
        yield Apply(policies.autoscaler(observed.owner, target.name, traffic, scaling))
