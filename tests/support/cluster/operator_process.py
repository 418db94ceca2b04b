"""The operator as a process of its own, beside an API server."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tools.devcluster.bare import ApiServer

_STOP_SECONDS = 60


@contextmanager
def operator_process(server: ApiServer, log: Path, **settings: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run an operator as the ordinary user until the block ends; yields it and its metrics port.

    Args:
        server: what it works on.
        log: file that its output is added to.
        settings: as the environment names them, without the prefix.
    """
    with operator_of_checkout(server, log, settings) as process:
        yield process


@contextmanager
def operator_of_checkout(
    server: ApiServer, log: Path, settings: Mapping[str, object], sources: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The same with the code of another checkout; None for this one."""
    health, metrics = free_ports(2)
    variables = {"BUILDER_IMAGE": "b:1", "SERVING_IMAGE": "s:1", "LEASE_NAMESPACE": "default", **settings}
    variables |= {"HEALTH_PORT": health, "METRICS_PORT": metrics}
    environment = {f"DIFFUSION_OPERATOR_{name}": str(value) for name, value in variables.items()}
    if sources is not None:
        environment["PYTHONPATH"] = os.pathsep.join(str(sources / part) for part in ("contract", "operator"))
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "diffusion_operator", "run"],
            env=os.environ | environment | {"KUBECONFIG": str(server.user_kubeconfig)},
            stdout=sink,
            stderr=sink,
        )
    try:
        yield process, metrics
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)
