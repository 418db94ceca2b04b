"""The declarative list of nodes: what a file says, and which place each node gets. Pure."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from tools.common.errors import ToolError, bad_input

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tools.devcluster.gpus import HostGpus

MAX_NODES = 16
GPU_RESOURCE = "nvidia.com/gpu"
GPU_PRODUCT = "nvidia.com/gpu.product"
GPU_COUNT = "nvidia.com/gpu.count"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_PRODUCT = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_FIELDS = {"name", "gpu"}
_GPU_FIELDS = {"product", "count"}
_HOST = "host"


@dataclass(frozen=True)
class Node:
    """One node: a name, and its GPUs.

    Attributes:
        name: Of the node.
        gpu_product: As GPU feature discovery names it.
        gpu_count: How many it has.
        driver_root: Folder of the driver where the GPUs are the machine's own; empty where the node pretends.
        host_gpus: Whether it has the machine's own GPUs.
    """

    name: str
    gpu_product: str = ""
    gpu_count: int = 0
    driver_root: str = ""
    host_gpus: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """Node labels as NVIDIA's GPU feature discovery sets them."""
        if not self.gpu_count:
            return {}
        return {GPU_PRODUCT: self.gpu_product, GPU_COUNT: str(self.gpu_count)}


@dataclass(frozen=True)
class PlacedNode:
    """A node and its index, which fixes its addresses, ports and folder for as long as it exists."""

    node: Node
    index: int


DEFAULT_NODES = (Node("cpu-0"),)


def parse_nodes(text: str, origin: str) -> tuple[Node, ...]:
    """Read a nodes file: ``nodes: [{name: cpu-0}, {name: gpu-0, gpu: {product: NVIDIA-L4, count: 1}}]``.

    ``gpu: host`` stands for the machine's own GPUs.

    Raises:
        ToolError: The text is not such a list; the message names the entry and the field.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _wrong(origin, "is not YAML", str(error)) from error
    entries = document.get("nodes") if isinstance(document, dict) and set(document) == {"nodes"} else None
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_NODES:
        raise _wrong(origin, f"must hold one key `nodes` with a list of 1 to {MAX_NODES} nodes")
    nodes = tuple(_node(entry, f"{origin}: nodes[{i}]") for i, entry in enumerate(entries))
    names = [node.name for node in nodes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _wrong(origin, f"names {', '.join(twice)} more than once")
    if sum(node.host_gpus for node in nodes) > 1:
        raise _wrong(origin, "gives the machine's GPUs to more than one node")
    return nodes


def _node(entry: object, where: str) -> Node:
    if not isinstance(entry, dict) or not set(entry) <= _FIELDS:
        raise _wrong(where, f"must be a mapping with the keys {sorted(_FIELDS)}")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong(f"{where}.name", "must be 1 to 32 lower-case letters, digits and dashes")
    if "gpu" not in entry:
        return Node(name)
    return _gpu_node(name, entry["gpu"], f"{where}.gpu")


def _gpu_node(name: str, gpu: object, where: str) -> Node:
    if gpu == _HOST:
        return Node(name, host_gpus=True)
    if not isinstance(gpu, dict) or set(gpu) != _GPU_FIELDS:
        raise _wrong(where, f"must be `{_HOST}` or a mapping with the keys {sorted(_GPU_FIELDS)}")
    product, count = gpu["product"], gpu["count"]
    if not isinstance(product, str) or not _PRODUCT.fullmatch(product):
        raise _wrong(f"{where}.product", "must be a label value such as NVIDIA-L4")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_NODES:
        raise _wrong(f"{where}.count", f"must be a whole number from 1 to {MAX_NODES}")
    return Node(name, product, count)


def _wrong(where: str, what: str, detail: str = "") -> ToolError:
    return bad_input(f"{where} {what}", do="see docs/devcluster.md, section Nodes", detail=detail)


def with_host_gpus(node: Node, gpus: HostGpus | None) -> Node:
    """Return the node with what the machine has.

    Raises:
        ToolError: The node is to have the machine's GPUs, and there are none.
    """
    if not node.host_gpus:
        return node
    if gpus is None:
        raise bad_input(
            f"node {node.name} is to have this machine's GPUs, but nvidia-smi lists none, or several products",
            do="install NVIDIA's driver, or give the node a product and a count: see docs/devcluster.md, section Nodes",
        )
    return replace(node, gpu_product=gpus.product, gpu_count=gpus.count, driver_root=str(gpus.driver_root))


def place(nodes: Iterable[Node], existing: Iterable[PlacedNode]) -> tuple[PlacedNode, ...]:
    """Give every node an index: the one it has, else the lowest that no node holds."""
    indices = {placed.node.name: placed.index for placed in existing}
    free = iter(sorted(set(range(2 * MAX_NODES)) - set(indices.values())))
    return tuple(PlacedNode(node, indices[node.name] if node.name in indices else next(free)) for node in nodes)


def removed_nodes(nodes: Iterable[PlacedNode], existing: Iterable[PlacedNode]) -> tuple[PlacedNode, ...]:
    """Return the existing nodes that are not among `nodes`."""
    names = {placed.node.name for placed in nodes}
    return tuple(placed for placed in existing if placed.node.name not in names)


def to_record(placed: PlacedNode) -> dict[str, Any]:
    """Return what ``from_record`` reads."""
    return {"index": placed.index, **asdict(placed.node)}


def from_record(record: Mapping[str, Any]) -> PlacedNode:
    """Read what ``to_record`` wrote."""
    fields = dict(record)
    return PlacedNode(index=fields.pop("index"), node=Node(**fields))
