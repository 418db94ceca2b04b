"""The one exception of this package."""

from __future__ import annotations


class ScheduleError(ValueError):
    """A scheduler or schedule that is not served; the message says what was asked for and what to do."""
