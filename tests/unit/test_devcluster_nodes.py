"""The nodes file: what it may say, and which place each node gets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.common.errors import BAD_INPUT, ToolError
from tools.common.files import write
from tools.devcluster.cluster import Cluster
from tools.devcluster.layout import Layout, Network
from tools.devcluster.nodes import (
    MAX_NODES,
    Node,
    PlacedNode,
    from_record,
    parse_nodes,
    place,
    removed_nodes,
    to_record,
)

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.lists(st.sampled_from([f"node-{i}" for i in range(MAX_NODES)]), min_size=1, unique=True)


def test_a_file_names_cpu_and_gpu_nodes() -> None:
    text = "nodes: [{name: cpu-0}, {name: l4-0, gpu: {product: NVIDIA-L4, count: 2}}]"

    assert parse_nodes(text, "nodes.yaml") == (Node("cpu-0"), Node("l4-0", "NVIDIA-L4", 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes: [", "is not YAML"),
        ("", "one key `nodes`"),
        ("nodes: []", "1 to 16"),
        ("nodes: [{name: a}]\nmore: 1", "one key `nodes`"),
        ("nodes: [{name: a}, {name: b, gpus: 1}]", "nodes[1] must be a mapping with the keys ['gpu', 'name']"),
        ("nodes: [3]", "nodes[0]"),
        ("nodes: [{}]", "nodes[0].name"),
        ("nodes: [{name: Big}]", "nodes[0].name"),
        ("nodes: [{name: a/../b}]", "nodes[0].name"),
        ("nodes: [{name: a, gpu: {product: NVIDIA-L4}}]", "nodes[0].gpu must be `host` or a mapping"),
        ("nodes: [{name: a, gpu: {product: 'NVIDIA L4', count: 1}}]", "nodes[0].gpu.product"),
        ("nodes: [{name: a, gpu: {product: NVIDIA-L4, count: 0}}]", "nodes[0].gpu.count"),
        ("nodes: [{name: a, gpu: {product: NVIDIA-L4, count: true}}]", "nodes[0].gpu.count"),
        ("nodes: [{name: a}, {name: b}, {name: a}]", "names a more than once"),
    ],
)
def test_a_wrong_file_is_refused_with_the_entry_and_the_field(text: str, expected: str) -> None:
    with pytest.raises(ToolError) as caught:
        parse_nodes(text, "nodes.yaml")

    assert expected in caught.value.what
    assert caught.value.what.startswith("nodes.yaml")
    assert caught.value.exit_code == BAD_INPUT


def test_gpus_are_labelled_as_gpu_feature_discovery_does() -> None:
    assert Node("a", "NVIDIA-L4", 2).labels == {
        "nvidia.com/gpu.product": "NVIDIA-L4",
        "nvidia.com/gpu.count": "2",
    }
    assert Node("a").labels == {}


def test_a_node_keeps_its_place_when_others_come_and_go() -> None:
    before = place([Node("a"), Node("b"), Node("c")], ())

    after = place([Node("c"), Node("d")], before)

    assert [(p.node.name, p.index) for p in after] == [("c", 2), ("d", 3)]
    assert [p.node.name for p in removed_nodes(after, before)] == ["a", "b"]


def test_a_changed_node_keeps_its_place_and_takes_its_new_gpus() -> None:
    before = place([Node("a", "NVIDIA-L4", 1)], ())

    assert place([Node("a", "NVIDIA-A10G", 2)], before) == (PlacedNode(Node("a", "NVIDIA-A10G", 2), 0),)


@given(NAMES, NAMES)
def test_no_two_nodes_share_a_place_even_while_old_ones_are_being_removed(first: list[str], second: list[str]) -> None:
    before = place(map(Node, first), ())
    after = place(map(Node, second), before)

    together = {p.node.name: p.index for p in (*after, *removed_nodes(after, before))}
    assert len(set(together.values())) == len(together)


def test_the_record_of_a_node_reads_back_as_written() -> None:
    placed = PlacedNode(Node("l4-0", "NVIDIA-L4", 1), 3)

    assert from_record(to_record(placed)) == placed


@pytest.mark.parametrize(
    ("names", "component", "node", "full"),
    [
        (["a"], "kubelet", None, "kubelet@a"),
        (["a", "b"], "kubelet", None, "kubelet"),
        (["a", "b"], "kubelet", "b", "kubelet@b"),
        (["a"], "etcd", None, "etcd"),
    ],
)
def test_the_only_node_need_not_be_named(
    tmp_path: Path, names: list[str], component: str, node: str | None, full: str
) -> None:
    layout = Layout(tmp_path)
    write(layout.nodes, json.dumps([to_record(placed) for placed in place(map(Node, names), ())]))

    assert Cluster(layout, Network(), print).qualified(component, node) == full
