"""One operator process: wait for the CRD, win the election, work until told to stop."""

import asyncio
import contextlib
import logging
import signal
from dataclasses import dataclass, field

import kopf

from diffusion_operator.api import GROUP, PLURAL
from diffusion_operator.cluster import Cluster, connect
from diffusion_operator.errors import OperatorError, UnavailableError
from diffusion_operator.handlers import Wiring, kopf_settings
from diffusion_operator.handlers.endpoints import Answers, serve
from diffusion_operator.lease import Election, lease
from diffusion_operator.metrics import Metrics
from diffusion_operator.settings import Settings

log = logging.getLogger(__name__)
PREFLIGHT_TRIES = 30


def run(settings: Settings) -> None:
    """Run the operator until it is told to stop.

    Raises:
        LeaseLostError: another process leads now.
        UnavailableError: a watch or an endpoint cannot go on; the process is to be started anew.
    """
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(Process(settings).live())


@dataclass
class Process:
    """What lives as long as the process."""

    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    wiring: Wiring | None = None

    async def live(self) -> None:
        """Everything from start to end."""
        _stop_on_sigterm()
        async with connect() as cluster, serve(self.settings, self._answers()):
            await preflight(cluster)
            self.wiring = Wiring(cluster, self.settings, self.metrics)
            if not self.settings.lease_namespace:
                await self._work(self.wiring, asyncio.Event())
                return
            election = Election(
                cluster, lease(self.settings.lease_namespace, self.settings.lease_name), self.settings.identity
            )
            try:
                await election.win()
                await self._work_while_leading(self.wiring, election)
            finally:
                await election.resign()

    def _answers(self) -> Answers:
        return Answers(
            # Before there is a wiring, and while another process leads, answering at all is being alive.
            alive=lambda: self.wiring is None or self.wiring.is_alive(),
            ready=lambda: self.wiring is not None,
            metrics=self.metrics.text,
        )

    async def _work_while_leading(self, wiring: Wiring, election: Election) -> None:
        stop = asyncio.Event()
        holding = asyncio.create_task(election.hold(), name="lease")
        working = asyncio.create_task(self._work(wiring, stop), name="work")
        try:
            await asyncio.wait({holding, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.set()
            await asyncio.wait({working})
            holding.cancel()
            await asyncio.wait({holding})
        working.result()
        if not holding.cancelled():
            holding.result()

    async def _work(self, wiring: Wiring, stop: asyncio.Event) -> None:
        self.metrics.led(leads=True)
        namespaces = self.settings.watch_namespaces
        try:
            await kopf.operator(
                registry=wiring.registry(),
                settings=kopf_settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=list(namespaces),
                stop_flag=stop,
            )
        except OperatorError:
            raise
        except Exception as error:
            raise UnavailableError(f"The operator cannot go on: {error or type(error).__name__}.") from error
        finally:
            self.metrics.led(leads=False)


async def preflight(cluster: Cluster) -> None:
    """Wait until the API server serves our custom resource: kopf would watch nothing and say nothing.

    Raises:
        UnavailableError: it still does not.
    """
    for _ in range(PREFLIGHT_TRIES):
        if await cluster.serves_pipelines():
            return
        await asyncio.sleep(1)
    raise UnavailableError(f"The API server does not know {PLURAL}.{GROUP}: install the CRD (crds.enabled=true).")


def _stop_on_sigterm() -> None:
    """As process 1 of a container it would be ignored otherwise; kopf takes the signal over once it runs."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
