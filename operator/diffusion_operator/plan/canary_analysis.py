"""Verdicts about the canaries: of their images by a Job, of their requests by the servers' metrics."""

from collections.abc import Iterable, Iterator

from diffusion_contract.enums import Stage
from diffusion_operator import naming
from diffusion_operator.analysis.evaluation import evaluate
from diffusion_operator.analysis.verdict import Verdict, VerdictReason
from diffusion_operator.analysis.window import ScrapeTarget
from diffusion_operator.plan.actions import Action, RecordResult
from diffusion_operator.plan.build_jobs import BuildJobFactory
from diffusion_operator.plan.build_steps import BuildStep, JobLauncher, build_step, release_job
from diffusion_operator.plan.context import PlanContext, TargetContext
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.rollout.state import RolloutState
from diffusion_operator.views.base import rfc3339

NUMBERS = ("worstPSNR", "worstSSIM", "colorShift")


def comparison(context: PlanContext, target: str, state: RolloutState) -> BuildStep | None:
    """The Job that compares the images of a canary whose pods are ready with those of the stable revision."""
    observed, rollout = context.observed, context.observed.spec.rollout
    if rollout is None or rollout.strategy != "Canary" or context.store is None or not _needs_comparison(state):
        return None
    urls = {side: _url(observed, target, revision) for side, revision in _revisions_by_side(state).items()}
    jobs = BuildJobFactory(observed.spec, context.store, context.settings)
    request = jobs.compare(urls, rollout.analysis.quality)
    return build_step(request, {job.name: job for job in observed.jobs})


def actions(context: PlanContext, targets: Iterable[TargetContext]) -> Iterator[Action]:
    """Start the comparisons of this phase, record results, and release Jobs about earlier canaries."""
    observed, launcher, names = context.observed, JobLauncher(context.observed, context.settings), set()
    for target in targets:
        if target.comparison is None:
            continue
        names.add(target.comparison.request.name)
        action, candidate = launcher.action(target.comparison), target.state.candidate
        progress = candidate.progress if candidate is not None else None
        is_due = progress is not None and progress.phase == "ImageComparison"
        if action is not None and (is_due or isinstance(action, RecordResult)):
            yield action
    for job in observed.jobs:
        if job.stage == Stage.COMPARE and job.name not in names and not job.terminating:
            yield release_job(job, observed.owner)


def verdict(observed: ObservedPipeline, target: str, state: RolloutState, images: BuildStep | None) -> Verdict | None:
    """Of the phase that the target's candidate is in; None where there is nothing to decide.

    Args:
        observed: the pipeline.
        target: its name.
        state: of the target.
        images: the Job that compares images.
    """
    progress = state.candidate.progress if state.candidate is not None else None
    rollout = observed.spec.rollout
    if rollout is None or progress is None or not progress.observing:
        return None
    if progress.phase == "ImageComparison" and images is not None:
        return _image_verdict(images)
    if progress.phase != "Step":
        return None
    windows = {side: observed.window(target, revision) for side, revision in _revisions_by_side(state).items()}
    return evaluate(rollout.analysis, windows["stable"], windows["canary"])


def scrape_targets(observed: ObservedPipeline, targets: Iterable[TargetContext]) -> Iterator[ScrapeTarget]:
    """Pods whose metrics the verdicts and results need: of both sides of every canary, and of all of an experiment."""
    rollout, contexts = observed.spec.rollout, tuple(targets)
    if rollout is not None and rollout.experiment is not None:
        for context in contexts:
            yield from _experiment_sides(observed, context)
    if rollout is not None and rollout.strategy == "Canary":
        for context in contexts:
            yield from _canary_sides(observed, context)


def _canary_sides(observed: ObservedPipeline, context: TargetContext) -> Iterator[ScrapeTarget]:
    """The step's name holds since when it counts, so every step has its own window."""
    for view in context.deployments:
        progress = view.progress
        if progress is None or progress.phase != "Step" or not progress.observing:
            continue
        step = f"{view.revision}/{progress.step}@{rfc3339(view.progress_since)}"
        for revision in filter(None, (view.revision, context.state.stable)):
            yield ScrapeTarget(context.name, revision, step, _addresses(observed, context.name, revision))


def _experiment_sides(observed: ObservedPipeline, context: TargetContext) -> Iterator[ScrapeTarget]:
    """Every revision with a share. When one comes or goes, all windows restart, so that they stay comparable."""
    sides = [*filter(None, (context.state.stable,)), *sorted(context.route_weights)]
    for revision in sides if len(sides) > 1 else ():
        addresses = _addresses(observed, context.name, revision)
        yield ScrapeTarget(context.name, revision, f"experiment {' '.join(sides)}", addresses)


def _addresses(observed: ObservedPipeline, target: str, revision: str) -> dict[str, str]:
    """UID to address of the revision's ready pods."""
    pods = observed.pods_of(target, revision)
    return {pod.uid: pod.address for pod in pods if pod.address and pod.is_ready and not pod.terminating}


def _needs_comparison(state: RolloutState) -> bool:
    """True from when all pods are ready until the next revision; of a rejected one the result stays."""
    progress = state.candidate.progress if state.candidate is not None else None
    if progress is None or state.stable is None or progress.was_stable:
        return False
    return progress.phase == "Step" or progress.observing or progress.phase in {"Promoting", "Rejected"}


def _revisions_by_side(state: RolloutState) -> dict[str, str]:
    return {"stable": state.stable or "", "canary": state.desired or ""}


def _url(observed: ObservedPipeline, target: str, revision: str) -> str:
    return naming.service_url(naming.revision_name(observed.owner.name, target, revision), observed.owner.namespace)


def _image_verdict(step: BuildStep) -> Verdict:
    failure, report = step.job.failure if step.job is not None else None, step.result
    if failure is not None and failure.permanent:
        return Verdict("Fail", VerdictReason.INCONCLUSIVE, f"The images cannot be compared: {step.failure_text()}")
    if not step.succeeded:
        text = step.failure_text() or "The images of both revisions are being compared."
        return Verdict("Inconclusive", VerdictReason.INCONCLUSIVE, text)
    numbers = {name: float(report[name]) for name in NUMBERS if isinstance(report.get(name), int | float)}
    message = str(report.get("message", ""))
    if report.get("passed") is True:
        return Verdict("Pass", VerdictReason.PASSED, message, numbers)
    return Verdict("Fail", VerdictReason.IMAGE_QUALITY, message, numbers)
