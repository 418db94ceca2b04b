"""The context of each target: which revision it should serve, which it serves, and what is known about both."""

from collections.abc import Iterator, Mapping

from diffusion_contract.spec import DiffusionPipelineSpec, Target, apply_variant
from diffusion_operator import naming
from diffusion_operator.conditions import Reason
from diffusion_operator.manifests.deployment import RevisionSpec, ServingRevision, serving_revision
from diffusion_operator.plan import canary_analysis, gpu_waits
from diffusion_operator.plan.build_graph import BuildGraph
from diffusion_operator.plan.context import PlanContext, TargetContext
from diffusion_operator.plan.observed import ObservedPipeline, claim_name, live_views
from diffusion_operator.rollout.state import RevisionState, RolloutState
from diffusion_operator.views.pod_problem import PodProblem, pod_problem
from diffusion_operator.views.serving import DeploymentView


def target_contexts(context: PlanContext) -> tuple[TargetContext, ...]:
    """Of all targets of the spec."""
    return tuple(_target_context(context, target) for target in context.observed.spec.targets)


def revision_problem(observed: ObservedPipeline, target: str, revision: str | None) -> PodProblem | None:
    """What keeps the newest pod of a revision from being ready, or from being created at all."""
    if revision is None:
        return None
    problem = next(filter(None, map(pod_problem, observed.pods_of(target, revision))), None)
    name = naming.revision_name(observed.owner.name, target, revision)
    refusals = (refusal(view) for view in observed.deployments if view.name == name)
    return problem or next(filter(None, refusals), None)


def _target_context(context: PlanContext, target: Target) -> TargetContext:
    observed, name = context.observed, target.name
    deployments = tuple(sorted(live_views(observed.deployments, name), key=lambda view: view.created_at))
    service = observed.target_service(name)
    stable = service.stable_revision if service is not None else None
    spec_revision = _built_revision(context, observed.spec, target, context.builds)
    desired = _desired(observed, name, spec_revision)
    variant_revisions = dict(_variant_revisions(context, name))
    variants = _variant_by_revision(context, deployments, variant_revisions, {desired, stable})
    revisions = tuple(_revision_state(observed, view) for view in deployments)
    route_weights = _route_weights(observed, name, stable)
    own_revisions = tuple(revision for revision in revisions if revision.name not in variants)
    weights = _weights(observed, name, route_weights)
    problem = revision_problem(observed, name, desired or stable)
    state = RolloutState(
        desired=desired,
        stable=stable,
        revisions=own_revisions,
        replicas=_replicas(target, desired, next((item for item in own_revisions if item.name == stable), None)),
        suspended=observed.spec.suspend,
        weights={revision: weight for revision, weight in weights.items() if revision not in variants},
        # A Service over both revisions would select them, too.
        unexpected_pods=any(pod.revision not in {stable, desired} for pod in live_views(observed.serving_pods, name)),
        is_building=desired is None and gpu_waits.is_building(context, target),
        waits_for_gpu=gpu_waits.waits_for_gpu(context, target, problem if desired not in {None, stable} else None),
    )
    comparison = canary_analysis.comparison(context, name, state)
    return TargetContext(
        target=target,
        deployments=deployments,
        revisions=revisions,
        spec_revision=spec_revision,
        state=state,
        route_weights=route_weights,
        variant_revisions=variant_revisions,
        variant_by_revision=variants,
        comparison=comparison,
        verdict=canary_analysis.verdict(observed, name, state, comparison),
        problem=problem,
    )


def _built_revision(
    context: PlanContext, spec: DiffusionPipelineSpec, target: Target, builds: BuildGraph | None
) -> ServingRevision | None:
    """The revision that the spec describes; None while part of it is being built."""
    assemble = builds.repository(target.sku) if builds is not None else None
    if assemble is None:
        return None
    owner, store = context.observed.owner, context.store
    request = RevisionSpec(
        target=target,
        serving=spec.serving,
        repository=assemble.digest,
        claim=claim_name(spec, owner.name),
        max_steps=max(steps for pipeline in spec.pipelines for steps in pipeline.steps),
        flags=tuple(str(flag) for flag in assemble.result.get("serverFlags", []) if str(flag).startswith("--")),
        node=store.node if store is not None else None,
    )
    return serving_revision(request, owner, context.settings)


def _desired(observed: ObservedPipeline, target: str, spec_revision: ServingRevision | None) -> str | None:
    """The revision that the spec describes, or the one that it asks to roll back to."""
    rollout = observed.spec.rollout
    if rollout is None or rollout.rollback_to is None:
        return spec_revision.name if spec_revision is not None else None
    present = {view.revision: view for view in observed.deployments if not view.terminating}
    restored = present.get(rollout.rollback_to)
    revision = restored.siblings.get(target) if restored is not None else None
    return revision if revision in present else None


def _variant_revisions(context: PlanContext, target: str) -> Iterator[tuple[str, ServingRevision]]:
    experiment = context.experiment
    for variant in experiment.variants if experiment is not None else ():
        spec = apply_variant(variant, context.observed.spec)
        builds = context.builds.variants.get(variant.name) if context.builds is not None else None
        [changed] = [item for item in spec.targets if item.name == target]
        revision = _built_revision(context, spec, changed, builds)
        if revision is not None:
            yield variant.name, revision


def _variant_by_revision(
    context: PlanContext,
    deployments: tuple[DeploymentView, ...],
    built: Mapping[str, ServingRevision],
    excluded: set[str | None],
) -> dict[str, str]:
    """Variants by their revisions on one target.

    A revision that has served before and is no variant any more is left to the history.

    Args:
        context: of the pipeline.
        deployments: of the target.
        built: revisions that the variants should have, by variant.
        excluded: the desired and the stable revision, which are no variant's.
    """
    names = [variant.name for variant in context.experiment.variants] if context.experiment is not None else []
    variants = {
        view.revision: view.variant
        for view in deployments
        if view.variant in names and naming.ROLLOUT not in view.annotations
    }
    # The first of two variants with the same revision has it.
    variants |= {built[name].name: name for name in reversed(names) if name in built}
    return {revision: name for revision, name in variants.items() if name is not None and revision not in excluded}


def _replicas(target: Target, desired: str | None, stable: RevisionState | None) -> int:
    """Pods that the desired revision needs to take over from the stable one, or that it has when it is that one."""
    scaling = target.autoscaling
    if scaling is None:
        return target.replicas
    live = stable.replicas if stable is not None else scaling.min_replicas
    idle = scaling.min_replicas == 0 and stable is not None and stable.name == desired and stable.was_available
    # A new revision has to show that it works, even without requests.
    return live if idle else min(max(live, scaling.min_replicas, 1), scaling.max_replicas)


def _route_weights(observed: ObservedPipeline, target: str, stable: str | None) -> dict[str, int]:
    """Live percentages of revisions other than the stable one; the larger one where the routes differ."""
    weights: dict[str, int] = {}
    for route in observed.routes:
        if route.name != observed.owner.name:
            continue
        for revision, weight in route.revision_weights(observed.owner.name, target).items():
            if revision != stable:
                weights[revision] = max(weight, weights.get(revision, 0))
    return weights


def _weights(observed: ObservedPipeline, target: str, route_weights: Mapping[str, int]) -> Mapping[str, int]:
    """Live percentages: of the routes where there is a Gateway, else of the target's Service."""
    rollout = observed.spec.rollout
    if rollout is not None and rollout.traffic.gateway is not None:
        return route_weights
    service = observed.target_service(target)
    return service.canary_weights if service is not None else {}


def _revision_state(observed: ObservedPipeline, view: DeploymentView) -> RevisionState:
    return RevisionState(
        name=view.revision,
        replicas=view.replicas,
        ready=view.ready_replicas,
        was_available=view.was_available,
        progress=view.progress,
        phase_seconds=(observed.now - view.progress_since).total_seconds() if view.progress is not None else 0.0,
    )


def refusal(deployment: DeploymentView) -> PodProblem | None:
    """Why the API server lets a Deployment have no pods; None when it does."""
    condition = deployment.condition("ReplicaFailure")
    if condition is None or not condition.is_true:
        return None
    text = f"The pods of {deployment.name} are refused: {condition.message}"
    return PodProblem(Reason.OBJECT_REJECTED, text, condition.changed_at)
