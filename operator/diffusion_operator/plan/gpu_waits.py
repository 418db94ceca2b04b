"""Whether the stable revision of a target holds GPUs that its next revision needs, for `rollout.surge: 0`; pure."""

from collections.abc import Iterator

from diffusion_contract.spec import Target
from diffusion_operator.conditions import Reason
from diffusion_operator.plan.build_conditions import is_lasting
from diffusion_operator.plan.context import PlanContext
from diffusion_operator.views.pod_problem import PodProblem


def is_building(context: PlanContext, target: Target) -> bool:
    """Whether the build of the target's next revision is under way, and nothing of it has failed."""
    rollout, builds = context.observed.spec.rollout, context.builds
    if builds is None or (rollout is not None and rollout.rollback_to is not None):
        return False
    return not any(step.failed for step in builds.pipeline_steps() if step.request.sku in {None, target.sku})


def waits_for_gpu(context: PlanContext, target: Target, candidate: PodProblem | None) -> bool:
    """Whether something has waited for a while for a GPU that is in use: a pod of the next revision, or its build.

    A GPU that no node has is waited for without taking anything away.

    Args:
        context: of the pipeline.
        target: that the revision is for.
        candidate: what keeps the pods of the next revision from being ready.
    """
    problems = (candidate, *_compile_problems(context, target))
    return any(
        problem is not None
        and problem.reason == Reason.WAITING_FOR_GPU
        and problem.gpus_in_use
        and is_lasting(context.observed, problem)
        for problem in problems
    )


def _compile_problems(context: PlanContext, target: Target) -> Iterator[PodProblem | None]:
    """Of Jobs that were not tried yet: a failure costs the clients one interruption, not one for each retry."""
    if context.builds is None:
        return
    for (_, sku), step in context.builds.compiles.items():
        if sku == target.sku and step.job is not None and step.job.attempt == 0:
            yield step.job.problem
