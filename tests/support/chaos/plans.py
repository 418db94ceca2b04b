"""Plans of faults as data, what a run of one says, and the rows that many of them add up to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Plan:
    """One plan: its area, the seed and number that everything in it is derived from, and what it does.

    Attributes:
        area: name of the area that runs it.
        number: in the run.
        seed: of the run.
        options: what happens, in the area's words.
    """

    area: str
    number: int
    seed: int
    options: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        """Name that `--plan` takes to run it alone."""
        return f"{self.area}/{self.seed}/{self.number}"

    def option(self, name: str, default: str = "") -> str:
        """One option."""
        return dict(self.options).get(name, default)


@dataclass(frozen=True)
class Outcome:
    """What one plan showed.

    Attributes:
        plan: its id, with its options.
        failure: what was wrong; empty when nothing was.
        numbers: that were measured.
    """

    plan: str
    failure: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One property with the number that a run has measured.

    Attributes:
        area: that ran it.
        promise: what holds.
        bound: what it is compared with.
        measured: the number, with its unit.
        plans: how many plans show it.
        seed: of the run.
        failures: plans that failed, each with its reason.
    """

    area: str
    promise: str
    bound: str
    measured: str
    plans: int
    seed: int
    failures: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What measures it again."""
        return f"python -m tests.support.chaos {self.area} --seed {self.seed}"

    def as_json(self) -> dict[str, Any]:
        """For out/chaos.json."""
        return asdict(self)


def row_of(body: Mapping[str, Any]) -> Row:
    """A row of out/chaos.json."""
    return Row(**{**body, "failures": tuple(body["failures"])})
