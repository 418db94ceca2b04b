"""The one exception of this package."""

from __future__ import annotations

from ..errors import InvalidRequest  # noqa: TID252 - in a Triton model there is no package to import from


class ScheduleError(InvalidRequest):
    """A scheduler or schedule that is not supported; the message names the setting and what to do."""
