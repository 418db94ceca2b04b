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
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.chaos import crashes, edits, failover, quiescence, report, resources, storms
from tests.support.chaos.areas import Run, prepare
from tools.devcluster.bare import api_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.support.chaos.plans import Row

AREAS: Mapping[str, Callable[[Run], Awaitable[list[Row]]]] = {
    "resources": resources.documents,
    "transitions": resources.transitions,
    "crashes": crashes.crashes,
    "storms": storms.storms,
    "outages": storms.outages,
    "failover": failover.failover,
    "edits": edits.edits,
    "quiescence": quiescence.quiescence,
}


def main() -> int:
    """Run it; the exit code says whether every plan held."""
    # A process that is killed cuts its connections, which is no news here.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of plans")
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
        return _exit_code(_run(area, int(seed), 1.0, int(number)))
    rows = [row for area in arguments.areas or AREAS for row in _run(area, arguments.seed, arguments.scale, None)]
    report.write_rows(rows)
    if arguments.write:
        report.write_page()
    return _exit_code(rows)


def _run(area: str, seed: int, scale: float, only: int | None) -> list[Row]:
    """An area on an API server of its own."""
    with api_server() as server, tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        prepare(server)
        return asyncio.run(AREAS[area](Run(server, Path(folder), seed, scale, only)))  # type: ignore[arg-type]


def _exit_code(rows: list[Row]) -> int:
    report.print_rows(rows)
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main())
