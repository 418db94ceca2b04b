"""Which waiting compile Jobs of a SKU may start: at most so many at once, fair between pipelines; pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from diffusion_operator import naming
from diffusion_operator.plan.jobs import is_finished

JsonObject = dict[str, Any]
Pipeline = tuple[str, str]


def admitted(jobs: Sequence[JsonObject], limit: int) -> list[JsonObject]:
    """Jobs that may start now.

    The next place goes to the pipeline with the fewest running Jobs, among equals to the Job that waits longest:
    a pipeline with many parts does not keep a small one waiting, and nobody waits for ever.

    Args:
        jobs: all compile Jobs of one SKU, of all pipelines and namespaces.
        limit: most that run at once.
    """
    unfinished = [job for job in jobs if not is_finished(job)]
    running = Counter(_pipeline(job) for job in unfinished if not _waits(job))
    waiting = [job for job in unfinished if _waits(job) and "deletionTimestamp" not in job["metadata"]]
    chosen: list[JsonObject] = []
    while waiting and running.total() < limit:
        following = min(waiting, key=lambda job: (running[_pipeline(job)], *_age(job)))
        waiting.remove(following)
        running[_pipeline(following)] += 1
        chosen.append(following)
    return chosen


def _waits(job: JsonObject) -> bool:
    return bool(job.get("spec", {}).get("suspend"))


def _pipeline(job: JsonObject) -> Pipeline:
    return job["metadata"].get("namespace", ""), job["metadata"].get("labels", {}).get(naming.PIPELINE, "")


def _age(job: JsonObject) -> tuple[str, str, str]:
    head = job["metadata"]
    return head.get("creationTimestamp", ""), head.get("namespace", ""), head["name"]
