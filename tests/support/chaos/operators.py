"""The operator as a process of its own, forked from one that has its imports, so that it starts within a moment."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kubernetes.aio.config import kube_config

from diffusion_operator.handlers.process import run
from diffusion_operator.leader_election import Timing
from diffusion_operator.settings import Settings
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

SETTINGS = Settings("b:1", "s:1")
_STOP_SECONDS = 30.0


def _main(kubeconfig: str, settings: Settings, timing: Timing, log: str) -> None:
    """What the child does: as `diffusion-operator run`."""
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.environ["KUBECONFIG"] = kubeconfig
    # The client has read the variable when it was imported, which the parent of this process has done.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = kubeconfig
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    run(settings, timing)


@dataclass
class OperatorRunner:
    """Starts the operator, and starts it again when it has ended, as a kubelet does.

    Attributes:
        kubeconfig: of the API server or of a proxy in front of it.
        settings: without ports.
        log: file that its output is added to.
        timing: of the election.
        starts: how often it was started.
    """

    kubeconfig: Path
    settings: Settings
    log: Path
    timing: Timing = field(default_factory=Timing)
    starts: int = 0
    _process: ForkServerProcess | None = None
    _ended: list[int] = field(default_factory=list)

    def ensure(self) -> None:
        """Start it unless it runs."""
        if self._process is not None and self._process.is_alive():
            return
        health, metrics = free_ports(2)
        settings = replace(self.settings, health_port=health, metrics_port=metrics)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.support.chaos.operators", "tests.support.chaos.__main__"])
        arguments = (str(self.kubeconfig), settings, self.timing, str(self.log))
        self._process = context.Process(target=_main, args=arguments, daemon=True)
        self._process.start()
        self.starts += 1

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int:
        """Of the running process; 0 when there is none."""
        return (self._process.pid or 0) if self._process is not None else 0

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self._process is not None and self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)

    def stop(self) -> None:
        """End it for good."""
        if self._process is None:
            return
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self._process.join(_STOP_SECONDS)
        self.kill()
        self._process.join()

    def seconds_of_cpu(self) -> float:
        """Processor time of the running process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tail(self, size: int = 1500) -> str:
        """The last of its output."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""
