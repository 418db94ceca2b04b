"""When a build should be done, from how long the same one took before; told to people, never decided on."""

from datetime import timedelta
from typing import Any, TypeVar

from diffusion_operator.api.status import BuildStatus
from diffusion_operator.plan.jobs import parse_time, rfc3339

JsonObject = dict[str, Any]
Status = TypeVar("Status", bound=BuildStatus)


def with_estimate(status: Status, before: JsonObject) -> Status:
    """The status with what is known from the builds before.

    Args:
        status: as it is seen now.
        before: what the present status says about the same component on the same SKU; may be empty.
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
    found = before.get("lastSeconds")
    if found is None and before.get("state") == "Ready" and not before.get("cached"):
        found = before.get("seconds")
    return float(found) if isinstance(found, int | float) else None
