"""The variants of an experiment on every target: their revisions, their shares, their next steps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from diffusion_contract.spec import Target, Variant
from diffusion_operator import naming
from diffusion_operator.manifests import service
from diffusion_operator.manifests.deployment import ServingRevision, deployment
from diffusion_operator.manifests.service import VariantWeight
from diffusion_operator.plan.actions import Action, Apply, Scale
from diffusion_operator.plan.build_graph import BuildGraph
from diffusion_operator.plan.context import PlanContext, TargetContext
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.plan.targets import revision_problem
from diffusion_operator.rollout.experiment import VariantDecision, VariantState, decide_variant
from diffusion_operator.rollout.state import RolloutDecision, RolloutState
from diffusion_operator.views.pod_problem import PodProblem

ALL_PERCENT = 100


@dataclass(frozen=True)
class VariantPlan:
    """One variant on one target.

    Attributes:
        revision: to create; None while it is being built, or when it is another's already.
        duplicate_of: who serves the same revision, so that there is nothing to compare; empty when none does.
        problem: what keeps its pods from being ready.
        siblings: its revisions on all targets; empty when there is one target, or not all are built.
        builds: everything that it is made of; None before there is a store.
    """

    variant: Variant
    state: VariantState
    decision: VariantDecision
    revision: ServingRevision | None
    duplicate_of: str
    problem: PodProblem | None
    siblings: Mapping[str, str]
    builds: BuildGraph | None

    @property
    def share(self) -> VariantWeight:
        """For the routes."""
        return VariantWeight(
            self.variant.name, self.decision.serving_revision, self.decision.weight, self.variant.weight
        )

    @property
    def is_complete(self) -> bool:
        """Whether it has all of its share, and no earlier revision of it exists."""
        alone = all(revision.name == self.state.desired for revision in self.state.revisions)
        return (
            alone
            and self.decision.serving_revision == self.state.desired
            and self.decision.weight == self.variant.weight
        )


def variant_plans(
    context: PlanContext, targets: Sequence[TargetContext], decisions: Mapping[str, RolloutDecision]
) -> dict[str, tuple[VariantPlan, ...]]:
    """The next step of every variant, by target, in the order of the spec.

    Args:
        context: of the pipeline.
        targets: all of them.
        decisions: about the targets' own revisions.
    """
    variants = context.experiment.variants if context.experiment is not None else ()
    total_weight = sum(variant.weight for variant in variants)
    states = {
        variant.name: {
            target.name: _state(target, variant, total_weight, share_frozen=decisions[target.name].weight > 0)
            for target in targets
        }
        for variant in variants
    }
    by_variant = [_variant_plan(context, variant, targets, states[variant.name]) for variant in variants]
    return {target.name: tuple(plans[target.name] for plans in by_variant) for target in targets}


def _variant_plan(
    context: PlanContext, variant: Variant, targets: Sequence[TargetContext], states: Mapping[str, VariantState]
) -> dict[str, VariantPlan]:
    """One variant, by target."""
    decisions = decide_variant(variant.weight, states)
    siblings = sibling_revisions({name: state.desired for name, state in states.items()})
    plans = {}
    for target in targets:
        state, revision = states[target.name], target.variant_revisions.get(variant.name)
        plans[target.name] = VariantPlan(
            variant=variant,
            state=state,
            decision=decisions[target.name],
            revision=revision if state.desired is not None else None,
            duplicate_of=_duplicate_of(variant.name, revision, target),
            problem=revision_problem(context.observed, target.name, state.desired),
            siblings=siblings,
            builds=context.builds.variants.get(variant.name) if context.builds is not None else None,
        )
    return plans


def sibling_revisions(desired: Mapping[str, str | None]) -> dict[str, str]:
    """Revisions that the targets serve together; empty when there is one target, or not all are built."""
    built = {name: revision for name, revision in desired.items() if revision is not None}
    return built if len(built) == len(desired) > 1 else {}


def apply_actions(observed: ObservedPipeline, target: Target, plans: Sequence[VariantPlan]) -> Iterator[Action]:
    """Create Deployments and Services of the variants on a target."""
    owner = observed.owner
    for plan in plans:
        pods = plan.decision.replicas.get(plan.state.desired or "")
        if plan.revision is not None and plan.state.desired is not None and pods is not None:
            body = deployment(plan.revision, owner, plan.siblings, plan.variant.name)
            yield Apply(body, initial={"replicas": pods})
            yield Apply(service.revision_service(owner, target.name, plan.state.desired))


def scale_actions(observed: ObservedPipeline, target: Target, plans: Sequence[VariantPlan]) -> Iterator[Action]:
    """Pods of the variants; no autoscaler changes them."""
    for plan in plans:
        for revision, replicas in plan.decision.replicas.items():
            live = plan.state.find(revision)
            if live is not None and live.replicas != replicas:
                yield Scale(naming.revision_name(observed.owner.name, target.name, revision), replicas)


def _state(target: TargetContext, variant: Variant, total_weight: int, *, share_frozen: bool) -> VariantState:
    stable, revision = target.state, target.variant_revisions.get(variant.name)
    names = {name for name, owner in target.variant_by_revision.items() if owner == variant.name}
    return VariantState(
        desired=revision.name if revision is not None and revision.name in names else None,
        revisions=tuple(item for item in target.revisions if item.name in names),
        weights={name: weight for name, weight in target.route_weights.items() if name in names},
        required_pods=_pods(target.target, stable, variant.weight, total_weight),
        startable=stable.stable is not None and not stable.has_no_working_stable,
        suspended=stable.suspended,
        share_frozen=share_frozen,
    )


def _pods(target: Target, stable: RolloutState, weight: int, total_weight: int) -> int:
    """As many as the share needs of the pods that all requests would need; an autoscaler has only the stable part."""
    percent, limit = ALL_PERCENT, target.replicas
    if target.autoscaling is not None:
        percent, limit = ALL_PERCENT - total_weight, target.autoscaling.max_replicas
    return max(1, min(-(-stable.replicas * weight // percent), limit))


def _duplicate_of(variant: str, revision: ServingRevision | None, target: TargetContext) -> str:
    if revision is None:
        return ""
    owner = target.variant_by_revision.get(revision.name, "stable")
    return owner if owner != variant else ""
