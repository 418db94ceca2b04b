"""What the areas have in common: an API server with definitions and namespaces, plans to run, and their rows."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.chaos.plans import Plan, Row
from tests.support.cluster.definitions import serve_foreign_apis
from tests.support.cluster.kube import Kube
from tests.support.paths import CRD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from tests.support.chaos.plans import Outcome
    from tools.devcluster.bare import ApiServer


@dataclass(frozen=True)
class Run:
    """One run of an area.

    Attributes:
        server: a fresh API server with the CRD.
        folder: for logs.
        seed: that every plan is derived from.
        scale: share of the usual number of plans.
        only: number of the plan to run alone; None for all.
        end: when no other plan begins, of the monotonic clock; None for never.
        soak: whether plans may take ten minutes each.
    """

    server: ApiServer
    folder: Path
    seed: int
    scale: float = 1.0
    only: int | None = None
    end: float | None = None
    soak: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the time is used up; an area says how many plans it has run."""
        return self.end is not None and time.monotonic() > self.end

    def numbers(self, usual: int) -> Sequence[int]:
        """Numbers of the plans to run."""
        return [self.only] if self.only is not None else range(max(1, round(usual * self.scale)))

    def plans(self, area: str, usual: int) -> list[Plan]:
        """The plans to run."""
        return [Plan(area, number, self.seed) for number in self.numbers(usual)]


@dataclass
class Tally:
    """Outcomes so far, with a line on the terminal now and then."""

    outcomes: list[Outcome] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    _printed: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.outcomes.append(outcome)
        now = time.monotonic()
        if outcome.failure:
            print(f"FAILED {outcome.plan}: {outcome.failure}", flush=True)  # noqa: T201 - a terminal program
        if now - self._printed > _PRINT_SECONDS:
            self._printed = now
            print(f"[{now - self.start:5.0f} s] {outcome.plan}: {len(self.outcomes)} plans", flush=True)  # noqa: T201

    @property
    def failures(self) -> tuple[str, ...]:
        """Of all plans."""
        return tuple(f"{outcome.plan}: {outcome.failure}" for outcome in self.outcomes if outcome.failure)

    def row(self, run: Run, area: str, promise: str, bound: str, measured: str, misses: Iterable[str] = ()) -> Row:
        """The row of all plans.

        Args:
            run: that they belong to.
            area: that ran it.
            promise: what holds.
            bound: what it is compared with.
            measured: the number, with its unit.
            misses: numbers beyond the bound, beside the plans that failed.
        """
        failures = (*self.failures, *misses)
        return Row(area, promise, bound, measured, len(self.outcomes), run.seed, failures)

    def total(self, name: str) -> float:
        """Sum of a number over all plans."""
        return sum(outcome.numbers.get(name, 0.0) for outcome in self.outcomes)

    def values(self, name: str) -> list[float]:
        """A number of every plan that has it, ascending."""
        return sorted(outcome.numbers[name] for outcome in self.outcomes if name in outcome.numbers)


def median(values: Sequence[float]) -> float:
    """The middle one of ascending values; 0 without any."""
    return values[len(values) // 2] if values else 0.0


def late(values: Iterable[float], bound: float) -> list[str]:
    """What a row says about seconds beyond its bound."""
    return [f"only after {seconds:.0f} s" for seconds in values if seconds > bound]


async def until(probe: Callable[[], bool], pause: float = 0.05) -> None:
    """Wait until the probe is true; the caller has the deadline."""
    while not probe():  # noqa: ASYNC110 - what is probed sets no event
        await asyncio.sleep(pause)


_PRINT_SECONDS = 15.0


def prepare(server: ApiServer) -> Kube:
    """Install the CRD and other projects' definitions, and wait until all of them are served."""
    server.apply(CRD)
    kube = Kube(server.environment, "default")
    serve_foreign_apis(kube)
    return kube
