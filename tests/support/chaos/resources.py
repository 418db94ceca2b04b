"""Areas `resources` and `transitions`: generated custom resources on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_operator.kube_client import connect
from tests.support.chaos import fuzzing
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, Tally
from tests.support.chaos.crashes import run_all
from tests.support.operator.fake_cluster import NAMESPACE

if TYPE_CHECKING:
    from tests.support.chaos.plans import Row

_DOCUMENTS, _CHANGES = 2000, 300


async def documents(run: Run) -> list[Row]:
    """Generated documents, from admission to a dry run of every object that serves them."""
    async with connect(str(run.server.kubeconfig)) as connection:
        client = ApiClient.over(connection)
        await client.make_namespace(NAMESPACE)
        fuzz = fuzzing.Fuzzing(client)
        tally = await run_all(run, run.plans(fuzzing.AREA, _DOCUMENTS), fuzz.run)
        dry_runs = sum(fuzz.objects.values())
    refused, planned = tally.total("refused"), tally.total("planned")
    return [
        tally.row(
            run,
            area=fuzzing.AREA,
            promise="API server and contract give one answer to a generated resource; what is accepted is built, "
            "rolled out and settles without a traceback, and the API server takes every object of it",
            bound="0 differences",
            measured=f"{refused:.0f} refused, {planned:.0f} planned with {dry_runs:,} objects in a dry run, "
            f"{len(tally.failures)} differences",
        )
    ]


async def transitions(run: Run) -> list[Row]:
    """Good, bad, other and good again, each followed by a pass."""
    async with connect(str(run.server.kubeconfig)) as connection:
        client = ApiClient.over(connection)
        await client.make_namespace(fuzzing.TRANSITIONS)
        fuzz = fuzzing.Fuzzing(client)
        tally = Tally()
        for plan in run.plans(fuzzing.TRANSITIONS, _CHANGES):
            if run.is_over:
                break
            tally.add(await fuzz.transition(plan))
    return [
        tally.row(
            run,
            area=fuzzing.TRANSITIONS,
            promise="A stored pipeline goes from good to bad, to another and back: each change is refused, or the "
            "next pass says `Accepted` with a reason, for this generation",
            bound="0 without a verdict",
            measured=f"{3 * len(tally.outcomes):,} changes, {len(tally.failures)} without a verdict",
        )
    ]
