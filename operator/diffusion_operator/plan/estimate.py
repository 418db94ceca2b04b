"""When a build should be done, from how long the same one took before; for people; no decision depends on it."""

from datetime import timedelta
from typing import TypeVar

from diffusion_operator.api.status import BuildStatus
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.views.base import parse_time, rfc3339

Status = TypeVar("Status", bound=BuildStatus)


def with_estimate(status: Status, before: JsonObject) -> Status:
    """The status with what earlier builds tell.

    Args:
        status: of this pass.
        before: present status of the same component on the same SKU; may be empty.
    """
    if status.state == "Ready" and not status.cached:
        return status
    last = _last_seconds(before)
    if last is None:
        return status
    expected = None
    if status.state == "Running" and status.started_at is not None:
        expected = rfc3339(parse_time(status.started_at) + timedelta(seconds=round(last)))
    return status.model_copy(update={"last_seconds": last, "expected_at": expected})


def _last_seconds(before: JsonObject) -> float | None:
    """An answer from the store takes no time, and says nothing about a build."""
    last = before.get("lastSeconds")
    if last is None and before.get("state") == "Ready" and not before.get("cached"):
        last = before.get("seconds")
    return float(last) if isinstance(last, int | float) else None
