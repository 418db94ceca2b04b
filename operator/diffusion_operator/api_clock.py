"""The time that everything in the cluster is compared with: the API server's, not that of the operator's machine."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


class ApiClock:
    """The API server's time at its first answer, carried on by this process's monotonic clock.

    Pauses and deadlines are measured from times that are kept in objects, by an operator before this one or by
    Kubernetes. A wall clock that is set, or that is wrong on the machine of the next leader, would end them early.

    Args:
        elapsed: seconds of a clock that is never set.
    """

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._start: tuple[datetime, float] | None = None

    def note(self, date: str | None) -> None:
        """An answer with this header `Date`; only the first one that can be read counts."""
        if self._start is not None or not date:
            return
        try:
            moment = parsedate_to_datetime(date)
        except ValueError:
            return
        self._start = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), self._elapsed())

    def now(self) -> datetime:
        """The time; of this machine until the API server has answered."""
        if self._start is None:
            return datetime.now(UTC)
        moment, elapsed = self._start
        return moment + timedelta(seconds=self._elapsed() - elapsed)
