"""The images API of a pipeline: what brings it up, keeps it, and removes it."""

from collections.abc import Iterator

from diffusion_contract.spec import ImagesApi
from diffusion_operator.api.status import ApiStatus
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from diffusion_operator.manifests import images_api_objects as objects
from diffusion_operator.manifests.images_api import api_deployment
from diffusion_operator.plan.actions import Action, Apply, Scale, delete_observed
from diffusion_operator.plan.build_conditions import first_problem
from diffusion_operator.plan.context import PlanContext
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.plan.targets import refusal
from diffusion_operator.views.base import newest_first
from diffusion_operator.views.pod_problem import pod_problem
from diffusion_operator.views.serving import DeploymentView

NOTHING_ANSWERED = "Nothing is answered while spec.suspend is true."


def actions(context: PlanContext, *, is_served: bool) -> Iterator[Action]:
    """What brings the API to the spec.

    Args:
        context: of the pipeline.
        is_served: whether the pipeline has a revision with the traffic, so that there is something to stand before.
    """
    observed, api = context.observed, context.observed.spec.api
    if api is None:
        yield from (delete_observed(view) for view in observed.api_objects if not view.terminating)
    elif is_served:
        yield from _apply_actions(context, api)
        yield from _scale_actions(observed, api)
        yield from _optional_actions(observed, api)


def condition(observed: ObservedPipeline) -> Iterator[ConditionUpdate]:
    """Whether the API answers; nothing without one."""
    api = observed.spec.api
    if api is None:
        return
    kind, view = ConditionType.API_AVAILABLE, _deployment(observed)
    if observed.spec.suspend:
        yield ConditionUpdate(kind, Reason.SUSPENDED, NOTHING_ANSWERED)
    elif view is None:
        yield ConditionUpdate(kind, Reason.WAITING_FOR_REPOSITORY, "The API starts once the pipeline serves.")
    elif view.ready_replicas > 0:
        text = f"{view.ready_replicas} pods answer at {objects.api_url(observed.owner)}."
        yield ConditionUpdate(kind, Reason.SERVING, text, ok=True)
    else:
        pods = newest_first(observed.api_pods)
        problem = first_problem(observed, kind, (*map(pod_problem, pods[:1]), refusal(view)))
        yield problem or ConditionUpdate(kind, Reason.STARTING, _starting_text(view))


def status(observed: ObservedPipeline) -> ApiStatus | None:
    """The API, as the status shows it; None before it exists."""
    view = _deployment(observed)
    if observed.spec.api is None or view is None:
        return None
    return ApiStatus(url=objects.api_url(observed.owner), replicas=view.replicas, ready_replicas=view.ready_replicas)


def _deployment(observed: ObservedPipeline) -> DeploymentView | None:
    views = (view for view in observed.api_objects if isinstance(view, DeploymentView) and not view.terminating)
    return next(views, None)


def _starting_text(view: DeploymentView) -> str:
    return f"{view.name}: 0 of {view.replicas} pods are ready; one is once it has found the pipeline's ensembles."


def _replicas(api: ImagesApi) -> int:
    return api.autoscaling.min_replicas if api.autoscaling is not None else api.replicas


def _apply_actions(context: PlanContext, api: ImagesApi) -> Iterator[Action]:
    observed, owner = context.observed, context.observed.owner
    replicas = 0 if observed.spec.suspend else _replicas(api)
    yield Apply(api_deployment(owner, observed.spec, api, context.settings), initial={"replicas": replicas})
    yield Apply(objects.api_service(owner))
    yield Apply(objects.api_disruption_budget(owner))


def _scale_actions(observed: ObservedPipeline, api: ImagesApi) -> Iterator[Action]:
    """The autoscaler owns the number of pods, but for that of none: from there it would never start one."""
    view = _deployment(observed)
    replicas = 0 if observed.spec.suspend else _replicas(api)
    is_autoscaled = api.autoscaling is not None and not observed.spec.suspend
    if view is not None and view.replicas != replicas and not (is_autoscaled and view.replicas > 0):
        yield Scale(view.name, replicas)


def _optional_actions(observed: ObservedPipeline, api: ImagesApi) -> Iterator[Action]:
    """Objects that a spec may have or not have."""
    owner, gateway = observed.owner, api.gateway or observed.spec.traffic_gateway
    bodies = {
        "NetworkPolicy": (
            objects.api_network_policy(owner, api, observed.spec.serving.tracing) if api.network_policy else None
        ),
        # While suspended nothing may start pods again.
        "HorizontalPodAutoscaler": (
            objects.api_autoscaler(owner, api.autoscaling)
            if api.autoscaling is not None and not observed.spec.suspend
            else None
        ),
        # Last, since a cluster without the Gateway API refuses it.
        "HTTPRoute": objects.api_route(owner, gateway) if gateway is not None else None,
    }
    for view in observed.api_objects:
        if view.kind in bodies and bodies[view.kind] is None and not view.terminating:
            yield delete_observed(view)
    yield from (Apply(body) for body in bodies.values() if body is not None)
