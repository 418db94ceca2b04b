"""The conditions Accepted, EnginesReady and RepositoryReady."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import partial

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from diffusion_operator.plan.build_graph import BuildGraph
from diffusion_operator.plan.build_steps import BuildStep, queue_message
from diffusion_operator.plan.context import PlanContext
from diffusion_operator.plan.dropped_fields import dropped_fields_text
from diffusion_operator.plan.observed import ObservedPipeline, claim_name
from diffusion_operator.plan.pod_templates import pod_template_problem
from diffusion_operator.plan.storage_conditions import with_storage_advice
from diffusion_operator.settings import Settings
from diffusion_operator.views.base import parse_time
from diffusion_operator.views.pod_problem import PodProblem

PROBLEM_GRACE = timedelta(seconds=15)
"""Pods of a healthy cluster pass through "unschedulable" and the like; only what lasts is reported."""
_engines = partial(ConditionUpdate, ConditionType.ENGINES_READY)
_repository = partial(ConditionUpdate, ConditionType.REPOSITORY_READY)
SUSPENDED = "No Job runs while spec.suspend is true."


def accepted(observed: ObservedPipeline, settings: Settings) -> ConditionUpdate:
    """Whether this operator, with its settings, can serve the spec: what admission could not know."""
    spec, store = observed.spec, claim_name(observed.spec, observed.owner.name)
    problem = _missing_images(spec, settings) or _missing_api_image(spec, settings)
    problem = problem or pod_template_problem(spec, settings, store)
    if problem is not None:
        return ConditionUpdate(ConditionType.ACCEPTED, Reason.INVALID_SPEC, problem)
    text = f"The spec can be served. {dropped_fields_text(observed.annotations)}".rstrip()
    return ConditionUpdate(ConditionType.ACCEPTED, Reason.VALID, text, ok=True)


def engines_ready(context: PlanContext) -> ConditionUpdate:
    """Whether every engine is in the store."""
    observed, builds = context.observed, context.builds
    if builds is None:
        return context.storage_problem or _engines(Reason.WAITING_FOR_STORAGE, "Waiting for the store.")
    if builds.built_engine_count == builds.engine_count:
        return _engines(Reason.ENGINES_BUILT, f"{builds.engine_count} engines are in the store.", ok=True)
    problem = build_problem(observed, ConditionType.ENGINES_READY, builds.engine_steps())
    if problem is not None:
        return problem
    if observed.spec.suspend:
        return _engines(Reason.SUSPENDED, SUSPENDED)
    return _engines(*_engine_progress(builds))


def repository_ready(observed: ObservedPipeline, builds: BuildGraph | None) -> ConditionUpdate:
    """Whether the Triton model repository is in the store."""
    if builds is None or not builds.is_assembled:
        return _repository(Reason.WAITING_FOR_ENGINES, "The repository is made once all engines are there.")
    steps = builds.repository_steps()
    if all(step.succeeded for step in steps):
        digests = ", ".join(sorted({step.digest[:12] for step in builds.assembles.values()}))
        text = f"The Triton model repository is in the store and checked: {digests}."
        return _repository(Reason.REPOSITORY_BUILT, text, ok=True)
    problem = build_problem(observed, ConditionType.REPOSITORY_READY, steps)
    if problem is not None:
        return problem
    if observed.spec.suspend:
        return _repository(Reason.SUSPENDED, SUSPENDED)
    if all(step.succeeded for step in builds.assembles.values()):
        return _repository(
            Reason.CHECKING_PARITY, "The repository's images are being compared with those of diffusers."
        )
    return _repository(Reason.ASSEMBLING, "The Triton model repository is being assembled.")


def build_problem(
    observed: ObservedPipeline, kind: ConditionType, steps: Iterable[BuildStep]
) -> ConditionUpdate | None:
    """What keeps the steps from continuing: the first failure, else a lasting problem of a pod."""
    by_sku: dict[str | None, list[BuildStep]] = {}
    for step in steps:
        failure = step.job.failure if step.failed and step.job is not None else None
        if failure is not None:
            event = f"{step.subject}: {failure.message}"
            text = step.failure_text()
            return ConditionUpdate(kind, failure.reason, text, event_message=event)
        by_sku.setdefault(step.request.sku, []).append(step)
    # One that waits while another of the same SKU runs is only next in line.
    idle = [group for group in by_sku.values() if not any(step.running for step in group)]
    jobs = [step.job for group in idle for step in group if step.job is not None]
    return first_problem(observed, kind, (job.problem for job in jobs))


def first_problem(
    observed: ObservedPipeline, kind: ConditionType, problems: Iterable[PodProblem | None]
) -> ConditionUpdate | None:
    """The first lasting problem that needs a person's action; else all that wait for a GPU."""
    lasting = tuple(_lasting(observed, problems))
    waiting = [problem for problem in lasting if problem.reason == Reason.WAITING_FOR_GPU]
    for problem in lasting:
        if problem.reason != Reason.WAITING_FOR_GPU:
            return ConditionUpdate(kind, problem.reason, problem.message)
    if not waiting:
        return None
    since = min(problem.since for problem in waiting)
    text = " ".join(dict.fromkeys(problem.message for problem in waiting))
    return ConditionUpdate(kind, Reason.WAITING_FOR_GPU, f"Since {since}: {text}")


def is_lasting(observed: ObservedPipeline, problem: PodProblem) -> bool:
    """Whether it has lasted so long that a healthy cluster would not have it."""
    return observed.now - parse_time(problem.since) >= PROBLEM_GRACE


def _lasting(observed: ObservedPipeline, problems: Iterable[PodProblem | None]) -> Iterator[PodProblem]:
    for problem in problems:
        if problem is not None and is_lasting(observed, problem):
            yield with_storage_advice(observed, problem)


def _engine_progress(builds: BuildGraph) -> tuple[Reason, str]:
    fetched = sum(step.succeeded for step in builds.fetches.values())
    if fetched < len(builds.fetches):
        return Reason.FETCHING, f"{fetched} of {len(builds.fetches)} sources are in the store."
    exported = sum(step.succeeded for step in builds.exports.values())
    if exported < len(builds.engine_names):
        return Reason.EXPORTING, f"{exported} of {len(builds.engine_names)} components are exported."
    text = f"{builds.built_engine_count} of {builds.engine_count} engines are in the store"
    unfinished = [step for step in builds.compiles.values() if not step.succeeded]
    queued = [step for step in unfinished if step.job is not None and step.job.phase == "Queued"]
    if queued and len(queued) == len(unfinished):
        return Reason.QUEUED, f"{text}, {len(queued)} wait. {queue_message(queued[0])}"
    return Reason.COMPILING, f"{text}."


def _missing_images(spec: DiffusionPipelineSpec, settings: Settings) -> str | None:
    gpu_targets = [target.name for target in spec.targets if target.gpu is not None]
    missing = [] if settings.tensorrt_builder_image else ["images.tensorrt.builder"]
    if not (settings.tensorrt_serving_image or spec.serving.image):
        missing.append("images.tensorrt.serving")
    if not (gpu_targets and missing):
        return None
    return (
        f"Target {', '.join(gpu_targets)} needs images with TensorRT, and this operator has none: set "
        f"{' and '.join(missing)} of its chart."
    )


def _missing_api_image(spec: DiffusionPipelineSpec, settings: Settings) -> str | None:
    if spec.api is None or spec.api.image or settings.gateway_image:
        return None
    return (
        "spec.api needs the image diffusion-gateway, and this operator has none: set images.gateway of its chart, or "
        "name one in spec.api.image."
    )
