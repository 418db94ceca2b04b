"""Nodes with the machine's own GPUs: how they are found, named and handed to pods."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.common.errors import BAD_INPUT, ToolError
from tools.devcluster.build import NVIDIA, RUNTIME, content_key
from tools.devcluster.commands import Commands
from tools.devcluster.gpus import HostGpus, driver_root_of, find_host_gpus, parse_gpus
from tools.devcluster.layout import Layout, Network
from tools.devcluster.nodes import (
    Node,
    PlacedNode,
    from_record,
    parse_nodes,
    to_record,
    with_host_gpus,
)

H200 = "GPU 0: NVIDIA H200 (UUID: GPU-8d2ce1a0-53f5-4a1e-9f5c-0b8f9c1d2e3f)\n"
L4 = "GPU 1: NVIDIA L4 (UUID: GPU-1b2ce1a0-53f5-4a1e-9f5c-0b8f9c1d2e3f)\n"
SLICE = "  MIG 1g.18gb     Device  0: (UUID: MIG-3a2ce1a0-53f5-4a1e-9f5c-0b8f9c1d2e3f)\n"
HOST = Node("gpu-0", host_gpus=True)


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        (H200, HostGpus("NVIDIA-H200", 1)),
        (H200 + H200.replace("GPU 0", "GPU 1"), HostGpus("NVIDIA-H200", 2)),
        (H200 + SLICE, HostGpus("NVIDIA-H200", 1)),
        (H200.replace("H200", "GeForce RTX 4090"), HostGpus("NVIDIA-GeForce-RTX-4090", 1)),
        (H200 + L4, None),
        ("No devices found.\n", None),
        ("", None),
    ],
)
def test_the_gpus_are_those_that_nvidia_smi_lists_where_all_are_of_one_product(
    listing: str, expected: HostGpus | None
) -> None:
    assert parse_gpus(listing) == expected


@pytest.mark.parametrize(
    ("program", "root"),
    [
        ("/usr/bin/nvidia-smi", "/"),
        ("/bin/nvidia-smi", "/"),
        ("/usr/local/bin/nvidia-smi", "/"),
        ("/usr/local/nvidia/bin/nvidia-smi", "/usr/local/nvidia"),
        ("/run/nvidia/driver/usr/bin/nvidia-smi", "/run/nvidia/driver"),
    ],
)
def test_the_driver_is_where_nvidia_smi_is(program: str, root: str) -> None:
    assert driver_root_of(Path(program)) == Path(root)


def _driver(folder: Path, script: str) -> Path:
    program = folder / "driver/bin/nvidia-smi"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_a_machine_with_a_driver_has_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _driver(tmp_path, f'test "$1" = -L && echo "{H200.strip()}"')
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    assert find_host_gpus() == HostGpus("NVIDIA-H200", 1, tmp_path / "driver")


def test_a_driver_that_fails_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _driver(tmp_path, f'echo "{H200.strip()}"; exit 9')
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    assert find_host_gpus() is None


def test_a_file_gives_the_machines_gpus_to_one_node() -> None:
    assert parse_nodes("nodes: [{name: cpu-0}, {name: gpu-0, gpu: host}]", "nodes.yaml") == (Node("cpu-0"), HOST)

    with pytest.raises(ToolError) as caught:
        parse_nodes("nodes: [{name: a, gpu: host}, {name: b, gpu: host}]", "nodes.yaml")
    assert caught.value.exit_code == BAD_INPUT
    assert "more than one node" in caught.value.what


def test_the_node_carries_the_label_of_the_gpu_that_is_there() -> None:
    node = with_host_gpus(HOST, HostGpus("NVIDIA-H200", 1, Path("/usr/local/nvidia")))

    assert node.labels == {"nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/gpu.count": "1"}
    assert from_record(json.loads(json.dumps(to_record(PlacedNode(node, 3))))) == PlacedNode(node, 3)


def test_a_node_without_host_gpus_is_left_as_it_is() -> None:
    assert with_host_gpus(Node("l4-0", "NVIDIA-L4", 2), None) == Node("l4-0", "NVIDIA-L4", 2)


def test_a_machine_without_gpus_cannot_give_them_to_a_node() -> None:
    with pytest.raises(ToolError) as caught:
        with_host_gpus(HOST, None)
    assert caught.value.exit_code == BAD_INPUT
    assert "gpu-0" in caught.value.what


def test_the_device_plugin_writes_a_cdi_specification_for_the_drivers_folder() -> None:
    commands = Commands(Layout(Path("/cache")), Network(), Path("/kube"), Path("/runtime"))
    node = with_host_gpus(HOST, HostGpus("NVIDIA-H200", 1, Path("/usr/local/nvidia")))

    component = commands.device_plugin(node, Path("/nvidia"))

    assert component.name == "device-plugin@gpu-0"
    assert component.argv == ("/nvidia/nvidia-device-plugin",)
    assert component.env["DEVICE_LIST_STRATEGY"] == "cdi-cri"
    assert component.env["NVIDIA_CDI_HOOK_PATH"] == "/nvidia/nvidia-cdi-hook"
    assert component.env["NVIDIA_DRIVER_ROOT"] == component.env["DRIVER_ROOT_CTR_PATH"] == "/usr/local/nvidia"
    assert component.env["NVIDIA_DEV_ROOT"] == "/"
    assert component.env["LD_LIBRARY_PATH"].split(":")[0] == "/usr/local/nvidia/lib64"


def test_a_driver_among_the_systems_files_needs_no_library_path() -> None:
    commands = Commands(Layout(Path("/cache")), Network(), Path("/kube"), Path("/runtime"))

    component = commands.device_plugin(with_host_gpus(HOST, HostGpus("NVIDIA-L4", 1)), Path("/nvidia"))

    assert "LD_LIBRARY_PATH" not in component.env


def test_only_the_device_plugin_is_built_with_a_c_compiler() -> None:
    assert NVIDIA.cgo
    assert not RUNTIME.cgo
    assert content_key(NVIDIA, NVIDIA.folder / NVIDIA.name)
