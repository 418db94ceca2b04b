"""What a person reads about the cluster."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from tools.common.errors import bad_input
from tools.devcluster.nodes import GPU_PRODUCT, GPU_RESOURCE

if TYPE_CHECKING:
    from tools.devcluster.cluster import Cluster

_KIB_PER_MIB = 1024


def environment(cluster: Cluster) -> str:
    """Return shell exports that point kubectl, helm and ctr at the cluster.

    Raises:
        ToolError: There is no cluster.
    """
    if not cluster.layout.kubeconfig.is_file():
        raise bad_input("there is no cluster", do="python -m tools.devcluster up")
    tools, path = str(cluster.layout.tools), os.environ.get("PATH", "")
    if tools not in path.split(":"):
        path = f"{tools}:{path}"
    kubeconfig = shlex.quote(str(cluster.layout.kubeconfig))
    return f"export KUBECONFIG={kubeconfig}\nexport PATH={shlex.quote(path)}"


def component_table(cluster: Cluster) -> Table:
    """Return one row per component with its pid and memory."""
    table = Table("COMPONENT", box=None, show_footer=True)
    components = {name: cluster.processes.find(name) for name in cluster.processes.names()}
    memory = {name: _memory_mib(running.pid) for name, running in components.items() if running}
    table.columns[0].footer = "together"
    table.add_column("PID", justify="right")
    table.add_column("MiB", justify="right", footer=f"{sum(memory.values()):.0f}")
    for name, running in components.items():
        table.add_row(name, str(running.pid) if running else "stopped", f"{memory.get(name, 0.0):.0f}")
    return table


def node_table(cluster: Cluster) -> Table:
    """Return one row per node with its readiness and GPUs.

    Raises:
        ToolError: The API server does not answer.
    """
    table = Table("NAME", "READY", "PRODUCT", "GPUS", box=None)
    for node in cluster.kubectl().get("nodes")["items"]:
        metadata, status = node["metadata"], node["status"]
        ready = next((each["status"] for each in status["conditions"] if each["type"] == "Ready"), "Unknown")
        gpus = status.get("allocatable", {}).get(GPU_RESOURCE, "")
        table.add_row(metadata["name"], ready, metadata.get("labels", {}).get(GPU_PRODUCT, ""), gpus)
    return table


def _memory_mib(pid: int) -> float:
    """Return the proportional set size: pages that components share are counted once in the sum."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / _KIB_PER_MIB
