"""Admission of waiting compile Jobs of a SKU: a limited number at once, fair between pipelines; pure."""

from collections import Counter
from collections.abc import Sequence

from diffusion_operator.views.job import JobView


def admitted(jobs: Sequence[JobView], limit: int) -> list[JobView]:
    """Jobs that may start now.

    The next place goes to the pipeline with the fewest running Jobs, among equals to the Job that waits longest:
    a pipeline with many components does not keep a small one waiting, and no Job waits for ever.

    Args:
        jobs: all compile Jobs of one SKU, of all pipelines and namespaces.
        limit: most that run at once.
    """
    unfinished = [job for job in jobs if not job.is_finished]
    running = Counter(_pipeline(job) for job in unfinished if not job.suspended)
    waiting = [job for job in unfinished if job.suspended and not job.terminating]
    admissions: list[JobView] = []
    while waiting and running.total() < limit:
        job = min(waiting, key=lambda job: (running[_pipeline(job)], job.created_at, job.namespace, job.name))
        waiting.remove(job)
        running[_pipeline(job)] += 1
        admissions.append(job)
    return admissions


def _pipeline(job: JobView) -> tuple[str, str]:
    return job.namespace, job.creator
