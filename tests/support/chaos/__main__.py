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
    serving,
    storms,
    upgrades,
    watches,
)
from tests.support.chaos.areas import Run, prepare
from tests.support.chaos.plans import Plan
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
        return _exit_code(_run(area, Plan(area, int(number), int(seed)), 1.0, None, alone=True))
    rows = _run_areas(arguments.areas or list(AREAS), arguments.seed, arguments.scale, arguments.minutes)
    if arguments.write:
        report.write_page()
    return _exit_code(rows)


def _run_areas(areas: Sequence[str], seed: int, scale: float, minutes: float | None) -> list[Row]:
    """Areas one after the other, each with an equal share of the time that is left; rows are written at once."""
    end = time.monotonic() + minutes * 60 if minutes is not None else None
    rows: list[Row] = []
    for position, area in enumerate(areas):
        now = time.monotonic()
        share = now + (end - now) / (len(areas) - position) if end is not None else None
        area_rows = _run(area, Plan(area, 0, seed), scale, share)
        report.write_rows(area_rows)
        rows += area_rows
    return rows


def _run(area: str, plan: Plan, scale: float, end: float | None, *, alone: bool = False) -> list[Row]:
    """An area on an API server of its own."""
    with api_server() as server, tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        prepare(server)
        run = Run(server, Path(folder), plan.seed, scale, plan.number if alone else None, end)
        return asyncio.run(AREAS[area](run))


def _exit_code(rows: list[Row]) -> int:
    report.print_rows(rows)
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main())
