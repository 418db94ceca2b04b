"""Faults as data: what a proxy does to the requests that pass it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Moment(StrEnum):
    """When the process is killed: before the API server has the write, or after it has done it."""

    BEFORE = "before"
    AFTER = "after"


class WatchFault(StrEnum):
    """What happens to watches."""

    NONE = "none"
    DROP = "drop"
    """Some events are lost."""
    REPLAY = "replay"
    """Some events are sent again later, between newer ones."""
    GONE = "gone"
    """The watch ends with 410, as after a compaction."""
    DEAD = "dead"
    """The connection stays open and carries nothing more."""


@dataclass(frozen=True)
class Faults:
    """What a proxy does wrong.

    Attributes:
        errors: statuses that are answered instead of asking the API server.
        error_share: of all requests that are no watches.
        lost_share: of the writes, whose answer is lost after they were done.
        delay: before each answer, seconds.
        kill_at: number of the write at which the process is killed; 0 for none.
        kill_every: killed again at every few writes after that one, as many as this says; 0 for once.
        kill: before or after that write; the other one at every second kill.
        watch: fault of watches.
        watch_share: of the events, for DROP and REPLAY.
        watch_at: number of the event after which a watch is GONE or DEAD.
    """

    errors: tuple[int, ...] = ()
    error_share: float = 0.0
    lost_share: float = 0.0
    delay: float = 0.0
    kill_at: int = 0
    kill_every: int = 0
    kill: Moment = Moment.BEFORE
    watch: WatchFault = WatchFault.NONE
    watch_share: float = 0.0
    watch_at: int = 0

    def kill_of(self, write: int) -> Moment | None:
        """When the process is killed at a write; None when it is not."""
        if not self.kill_at or write < self.kill_at:
            return None
        number, remainder = (
            divmod(write - self.kill_at, self.kill_every) if self.kill_every else (0, write - self.kill_at)
        )
        if remainder:
            return None
        return self.kill if number % 2 == 0 else next(moment for moment in Moment if moment is not self.kill)

    def __str__(self) -> str:
        changed = {name: value for name, value in vars(self).items() if value != vars(NO_FAULTS)[name]}
        return " ".join(f"{name}={value}" for name, value in changed.items()) or "none"


NO_FAULTS = Faults()
