"""One operator process: wait for the CRD, win the election, work until stopped."""

import asyncio
import contextlib
import logging
import signal
from dataclasses import dataclass, field

import kopf

from diffusion_operator.api import GROUP, PLURAL
from diffusion_operator.errors import OperatorError, UnavailableError
from diffusion_operator.handlers.controller import Controller, kopf_settings
from diffusion_operator.handlers.endpoints import HealthChecks, serve
from diffusion_operator.kube_client import KubeClient, connect
from diffusion_operator.leader_election import LeaderElection, Timing, lease_reference
from diffusion_operator.metrics import Metrics
from diffusion_operator.rights import read_restrictions
from diffusion_operator.settings import Settings

log = logging.getLogger(__name__)
PREFLIGHT_SECONDS = 1.0
PREFLIGHT_TRIES = 30
"""Between two warnings."""


def run(settings: Settings, timing: Timing | None = None) -> None:
    """Run the operator until it is stopped.

    Args:
        settings: of the process.
        timing: of the election; None for the usual one.

    Raises:
        LeaseLostError: another process leads now.
        UnavailableError: a watch or an endpoint cannot continue; the process must be restarted.
    """
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(Process(settings, timing or Timing()).run())


@dataclass
class Process:
    """What lives as long as the process."""

    settings: Settings
    timing: Timing = field(default_factory=Timing)
    metrics: Metrics = field(default_factory=Metrics)
    controller: Controller | None = None

    async def run(self) -> None:
        """Everything from start to end."""
        _stop_on_sigterm()
        async with connect() as client, serve(self.settings, self._health_checks()):
            await preflight(client)
            if not self.settings.lease_namespace:
                self.controller = Controller(client, self.settings, self.metrics)
                await self._work(client, self.controller, asyncio.Event())
                return
            lease = lease_reference(self.settings.lease_namespace, self.settings.lease_name)
            election = LeaderElection(client, lease, self.settings.identity, self.timing)
            # A leader that was paused learns of its successor only after it has begun to work again.
            self.controller = Controller(client.fenced(election.leads), self.settings, self.metrics)
            try:
                await election.acquire()
                await self._work_while_leading(client, self.controller, election)
            finally:
                await election.release()

    def _health_checks(self) -> HealthChecks:
        return HealthChecks(
            # Before there is a controller, and while another process leads, any answer means alive.
            alive=lambda: self.controller is None or self.controller.is_alive(),
            ready=lambda: self.controller is not None,
            metrics=self.metrics.render,
        )

    async def _work_while_leading(self, client: KubeClient, controller: Controller, election: LeaderElection) -> None:
        stop = asyncio.Event()
        holding = asyncio.create_task(election.renew_until_lost(), name="lease")
        working = asyncio.create_task(self._work(client, controller, stop), name="work")
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

    async def _work(self, client: KubeClient, controller: Controller, stop: asyncio.Event) -> None:
        self.metrics.set_leader(leads=True)
        namespaces = self.settings.watch_namespaces
        try:
            await kopf.operator(
                registry=controller.registry(await read_restrictions(client, namespaces)),
                settings=kopf_settings(),
                standalone=True,
                # kopf's own default asks the password database, which does not list a uid that a namespace assigns.
                identity=self.settings.identity,  # type: ignore[arg-type] # a NewType that kopf does not export
                clusterwide=not namespaces,
                namespaces=list(namespaces),
                stop_flag=stop,
            )
        except OperatorError:
            raise
        except Exception as error:
            raise UnavailableError(f"The operator cannot continue: {error or type(error).__name__}.") from error
        finally:
            self.metrics.set_leader(leads=False)


async def preflight(client: KubeClient) -> None:
    """Wait until the API server serves our custom resource: kopf would watch nothing and say nothing.

    Without an end, since a process that ends is started again only after pauses of up to five minutes.
    """
    tries = 0
    while not await _serves_pipelines(client):
        if tries % PREFLIGHT_TRIES == 0:
            log.warning("the API server does not know %s.%s: install the CRD (crds.enabled=true)", PLURAL, GROUP)
        tries += 1
        await asyncio.sleep(PREFLIGHT_SECONDS)


async def _serves_pipelines(client: KubeClient) -> bool:
    try:
        return await client.serves_pipelines()
    except UnavailableError as error:
        log.warning("waiting for the API server: %s", error)
        return False


def _stop_on_sigterm() -> None:
    """As process 1 of a container it would be ignored otherwise; kopf takes the signal over once it runs."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
