"""What a person reads about the cluster."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tools.devcluster.errors import bad_input

if TYPE_CHECKING:
    from tools.devcluster.cluster import Cluster

_KIB_PER_MIB = 1024


def environment(cluster: Cluster) -> str:
    """Return shell exports that point kubectl, helm and ctr at the cluster.

    Raises:
        DevclusterError: There is no cluster.
    """
    if not cluster.layout.kubeconfig.is_file():
        raise bad_input("there is no cluster", do="python -m tools.devcluster up")
    tools, path = str(cluster.layout.tools), os.environ.get("PATH", "")
    if tools not in path.split(":"):
        path = f"{tools}:{path}"
    kubeconfig = shlex.quote(str(cluster.layout.kubeconfig))
    return f"export KUBECONFIG={kubeconfig}\nexport PATH={shlex.quote(path)}"


def table(cluster: Cluster) -> str:
    """Return one line per component with pid and memory, and kubectl's list of nodes."""
    rows = [f"{'COMPONENT':32} {'PID':>8} {'MiB':>6}"]
    total = 0.0
    for name in cluster.processes.names():
        running = cluster.processes.find(name)
        used = _memory_mib(running.pid) if running else 0.0
        total += used
        rows.append(f"{name:32} {running.pid if running else 'stopped':>8} {used:6.0f}")
    rows.append(f"{'together':32} {'':>8} {total:6.0f}")
    if cluster.is_up:
        columns = "NAME:.metadata.name,READY:.status.conditions[-1].status"
        gpus = r"PRODUCT:.metadata.labels.nvidia\.com/gpu\.product,GPUS:.status.allocatable.nvidia\.com/gpu"
        nodes = cluster.kubectl().attempt("get", "nodes", "-o", f"custom-columns={columns},{gpus}")
        rows += ["", (nodes.stdout or nodes.stderr).rstrip()]
    return "\n".join(rows)


def _memory_mib(pid: int) -> float:
    """Return the proportional set size: pages that components share are counted once in the sum."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / _KIB_PER_MIB
