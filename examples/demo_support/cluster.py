"""The cluster: the embedded one, or the one that KUBECONFIG names."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from examples.demo_support.errors import DemoError
from tools.devcluster.layout import default_root, layout_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.demo_support.commands import Tools
    from examples.demo_support.settings import Settings

_DEVCLUSTER = (sys.executable, "-m", "tools.devcluster")


@dataclass(frozen=True)
class Cluster:
    """How to reach a cluster.

    Attributes:
        tools: Programs with KUBECONFIG and PATH set for it.
        registry: host:port that images are pushed to and pulled from; empty where the images are elsewhere.
        context: One line for the person: which cluster this is.
    """

    tools: Tools
    registry: str
    context: str


def own_kubeconfig() -> Path:
    """Return where the embedded cluster's kubeconfig lies, whether or not the cluster is up."""
    return layout_at(default_root()).kubeconfig


def bring_up(settings: Settings, tools: Tools, tell: Callable[[str], None], nodes: Path | None = None) -> Cluster:
    """Return a cluster that answers; the embedded one is started where it is not running.

    Args:
        settings: of the demo.
        tools: programs.
        tell: is told each line of progress.
        nodes: file with the nodes of the embedded cluster; None for those that it has.

    Raises:
        DemoError: It cannot be started or reached.
    """
    if settings.kubeconfig:
        version = tools.output("kubectl", "get", "--raw", "/version", what=f"Reaching {settings.kubeconfig}")
        if "gitVersion" not in version:
            raise DemoError(f"{settings.kubeconfig} does not lead to a Kubernetes API server.")
        return Cluster(tools, settings.registry, f"your cluster ({settings.kubeconfig})")
    up = [*_DEVCLUSTER, "up", *(["--nodes", str(nodes)] if nodes else [])]
    tools.follow(up, tell, what="Starting the embedded cluster (python -m tools.devcluster up)")
    ready = tools.with_environment(exported(tools.output(*_DEVCLUSTER, "env")))
    registry = tools.output(*_DEVCLUSTER, "push-info").split()[-1]
    return Cluster(ready, registry, "embedded Kubernetes")


def exported(text: str) -> dict[str, str]:
    """Return the variables that lines of the form `export NAME=value` set."""
    pairs = (word.partition("=") for word in shlex.split(text, comments=True))
    return {name: value for name, assigned, value in pairs if assigned and name.isidentifier()}
