"""Further nodes of the devcluster, which nobody uses but the test that has them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import yaml

from tests.support.cluster.fixtures import run_devcluster
from tools.devcluster.nodes import DEFAULT_NODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.cluster.kube import Kube, Object


@contextmanager
def further_nodes(folder: Path, entries: Sequence[Object]) -> Iterator[None]:
    """The devcluster has these nodes beside its usual ones while the block runs.

    Args:
        folder: for the nodes file.
        entries: as in a nodes file.
    """
    usual: list[Object] = [{"name": node.name} for node in DEFAULT_NODES]
    try:
        _bring_up(folder, [*usual, *entries])
        yield
    finally:
        _bring_up(folder, usual)


@contextmanager
def tainted_node(kube: Kube, folder: Path, name: str, taint: str) -> Iterator[None]:
    """One node more, on which pods that do not tolerate the taint are never placed, not even while it starts."""
    taints = [{"key": taint, "effect": "NoSchedule"}]
    kube.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": taints}})
    with further_nodes(folder, [{"name": name}]):
        yield


def _bring_up(folder: Path, entries: Sequence[Object]) -> None:
    file = folder / "nodes.yaml"
    file.write_text(yaml.safe_dump({"nodes": list(entries)}))
    process = run_devcluster("up", "--nodes", str(file))
    assert process.returncode == 0, process.stderr
