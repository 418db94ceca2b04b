"""Faults on purpose: run plans, print a table, write out/chaos.json and the table of docs/reliability.md.

python -m tests.support.chaos [AREA ...] [--seed 1] [--scale 1.0]
python -m tests.support.chaos --plan AREA/SEED/NUMBER     # one plan alone, as a failure names it
python -m tests.support.chaos --write                      # docs/reliability.md from out/chaos.json
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.chaos import (
    crashes,
    definitions,
    edits,
    failover,
    quiescence,
    report,
    resources,
    restarts,
    serving,
    storms,
    upgrades,
    watches,
)
from tests.support.chaos.areas import Run, prepare
from tools.devcluster.bare import api_server

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from tests.support.chaos.plans import Row


async def _serving(run: Run) -> list[Row]:
    """Imports torch, which no other area needs, and which operators are forked from this process without."""
    return await serving.serving(run)


AREAS: Mapping[str, Callable[[Run], Coroutine[Any, Any, list[Row]]]] = {
    "resources": resources.documents,
    "transitions": resources.transitions,
    "crashes": crashes.crashes,
    "storms": storms.storms,
    "outages": storms.outages,
    "watches": watches.watches,
    "definitions": definitions.definitions,
    "failover": failover.failover,
    "edits": edits.edits,
    "quiescence": quiescence.quiescence,
    "restarts": restarts.restarts,
    "upgrades": upgrades.upgrades,
    "serving": _serving,
}


def main() -> int:
    """Run it; the exit code says whether every plan held."""
    # A process that is killed cuts its connections, which is no news here.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of plans")
    parser.add_argument("--minutes", type=float, help="begin no plan after so long; no limit by default")
    parser.add_argument("--soak", action="store_true", help="also plans that take ten minutes each")
    parser.add_argument("--plan", help="a single plan, as a failure names it")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md, too")
    parser.add_argument("--page", action="store_true", help="write docs/reliability.md from the last runs alone")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.areas) - AREAS.keys())
    if unknown:
        parser.error(f"no area {', '.join(unknown)}: there are {', '.join(AREAS)}")
    if arguments.page:
        report.write_page()
        return 0
    if arguments.plan:
        area, seed, number = arguments.plan.split("/")
        run = partial(Run, scale=1.0, only=int(number), soak=arguments.soak)
        return _exit_code(_run(area, int(seed), run))
    limits = Limits(arguments.scale, arguments.minutes, soak=arguments.soak)
    rows = _run_areas(arguments.areas or list(AREAS), arguments.seed, limits)
    if arguments.write:
        report.write_page()
    return _exit_code(rows)


@dataclass(frozen=True)
class Limits:
    """How much is run.

    Attributes:
        scale: share of the usual number of plans.
        minutes: after which no plan begins; None for no limit.
        soak: whether plans may take ten minutes each.
    """

    scale: float
    minutes: float | None
    soak: bool


def _run_areas(areas: Sequence[str], seed: int, limits: Limits) -> list[Row]:
    """Areas one after the other, each with an equal share of the time that is left; rows are written at once."""
    end = time.monotonic() + limits.minutes * 60 if limits.minutes is not None else None
    rows: list[Row] = []
    for position, area in enumerate(areas):
        now = time.monotonic()
        share = now + (end - now) / (len(areas) - position) if end is not None else None
        area_rows = _run(area, seed, partial(Run, scale=limits.scale, end=share, soak=limits.soak))
        report.write_rows(area_rows)
        rows += area_rows
    return rows


def _run(area: str, seed: int, make_run: Callable[..., Run]) -> list[Row]:
    """An area on an API server of its own."""
    with api_server() as server, tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        prepare(server)
        return asyncio.run(AREAS[area](make_run(server, Path(folder), seed)))


def _exit_code(rows: list[Row]) -> int:
    report.print_rows(rows)
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main())
