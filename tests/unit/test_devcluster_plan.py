"""Addresses, folders and what the components are told."""

from __future__ import annotations

import json
import tomllib
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from tools.common.errors import ToolError
from tools.devcluster import configs
from tools.devcluster.addons import addons
from tools.devcluster.commands import ApiServerKeys, Commands, Identity
from tools.devcluster.layout import Layout, Network, default_root, layout_at
from tools.devcluster.network import rules
from tools.devcluster.nodes import MAX_NODES, Node, PlacedNode
from tools.devcluster.pki import Pair

NETWORK = Network()
FOLDERS = configs.NodeFolders("l4-0", Path("/cache/state/n1"), Path("/run/x/n1"))
# Service or pod subnets, API and kubelet ports of kubeadm, kind and k3s.
FOREIGN_SUBNETS = [IPv4Network(f"10.{n}.0.0/16") for n in (42, 43, 96, 244)]
FOREIGN_PORTS = {2379, 2380, 5000, 6443, 10248, 10249, 10250, 10256, 10257, 10259}


def pair(name: str) -> Pair:
    return Pair(Path(f"/pki/{name}.crt"), Path(f"/pki/{name}.key"))


def commands() -> Commands:
    return Commands(Layout(Path("/cache")), NETWORK, Path("/bin/kube"), Path("/bin/runtime"))


def ports() -> list[int]:
    return [value for name, value in vars(NETWORK).items() if name.endswith("_port")]


def test_subnets_and_ports_do_not_meet_those_of_kind_k3s_or_kubeadm() -> None:
    assert not any(NETWORK.cluster.overlaps(subnet) for subnet in FOREIGN_SUBNETS)
    assert FOREIGN_PORTS.isdisjoint(ports())


def test_no_two_nodes_and_no_two_purposes_share_an_address_or_a_port() -> None:
    places = range(2 * MAX_NODES)
    addresses = [NETWORK.control, *(NETWORK.node_address(i) for i in places)]
    per_node = [p + i for p in (NETWORK.kubelet_port, NETWORK.kubelet_health_port) for i in places]
    single = [p for p in ports() if p not in {NETWORK.kubelet_port, NETWORK.kubelet_health_port}]
    subnets = {NETWORK.node_pods(i) for i in places}

    assert len(set(addresses)) == len(addresses)
    assert len({*single, *per_node}) == len(single) + len(per_node)
    assert len(subnets) == len(places)
    assert all(subnet.subnet_of(NETWORK.pods) for subnet in subnets)
    assert not any(address in net for address in addresses for net in (NETWORK.pods, NETWORK.services))
    assert all(net.subnet_of(NETWORK.cluster) for net in (NETWORK.pods, NETWORK.services))


def test_only_traffic_that_leaves_the_cluster_is_masqueraded_and_every_rule_is_marked() -> None:
    planned = rules(NETWORK)

    masquerade = [rule for _, _, rule in planned if "MASQUERADE" in rule]
    assert masquerade == [[*masquerade[0]]]
    assert masquerade[0][:5] == ["-s", str(NETWORK.pods), "!", "-d", str(NETWORK.cluster)]
    assert all("diffusion-operator-devcluster" in rule for _, _, rule in planned)


def test_the_cache_variable_moves_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_OPERATOR_CACHE", "/somewhere")

    assert default_root() == Path("/somewhere/devcluster")


def test_a_folder_too_long_for_sockets_is_refused_before_anything_starts() -> None:
    with pytest.raises(ToolError, match="characters; sockets below it allow"):
        layout_at(Path("/" + "x" * 80))


def test_sockets_fit_under_the_longest_folder_that_is_accepted() -> None:
    for length in range(1, 120):
        root = Path("/" + "x" * length)
        try:
            layout = layout_at(root)
        except ToolError:
            return
        longest = layout.state / f"n{2 * MAX_NODES - 1}" / "kubelet" / "device-plugins" / "kubelet.sock"
        assert len(str(longest)) <= 107
    pytest.fail("no length was refused")


def test_shim_sockets_fit_whatever_the_cache_folder_is() -> None:
    assert len(str(Layout(Path("/cache")).run / "s" / ("0" * 64))) <= 107


def test_the_kubelet_sees_only_its_own_cgroup_logs_and_runtime() -> None:
    text = configs.kubelet(FOLDERS, NETWORK, 1, (Path("/ca"), Path("/crt"), Path("/key")))
    config = yaml.safe_load(text)

    assert config["cgroupRoot"] == "/diffusion-operator-devcluster/l4-0"
    assert config["podLogsDir"] == "/cache/state/n1/pod-logs"
    assert config["containerRuntimeEndpoint"] == "unix:///run/x/n1/containerd.sock"
    assert config["address"] == "10.212.0.11"
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}


def test_containerd_keeps_everything_in_the_nodes_folder_and_pulls_from_the_local_registry() -> None:
    config = tomllib.loads(configs.containerd(FOLDERS, Path("/run/x/s"), Path("/cache/registries")))
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]

    assert config["version"] == 3
    assert {config["root"], config["state"]} == {
        "/cache/state/n1/containerd",
        "/cache/state/n1/containerd-state",
    }
    assert runtime["netns_mounts_under_state_dir"] is True
    assert runtime["containerd"]["runtimes"]["runc"]["options"]["Root"] == "/cache/state/n1/runc"
    assert config["plugins"]["io.containerd.cri.v1.images"]["registry"]["config_path"] == "/cache/registries"
    assert config["plugins"]["io.containerd.shim.v1.manager"]["socket_dir"] == "/run/x/s"


def test_the_registry_listens_on_the_loopback_only() -> None:
    config = yaml.safe_load(configs.registry(Path("/cache/registry"), NETWORK.registry))

    assert config["http"]["addr"] == "127.0.0.1:15000"
    assert tomllib.loads(configs.registry_hosts(NETWORK.registry))["server"] == "http://127.0.0.1:15000"


def test_every_pod_packet_passes_the_hosts_packet_filter() -> None:
    plugin = json.loads(configs.cni(NETWORK.node_pods(1), Path("/leases")))["plugins"][0]

    assert plugin["type"] == "ptp"
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.213.1.0/24"}]]


def test_kube_proxy_leaves_the_tables_and_settings_of_others_alone() -> None:
    config = yaml.safe_load(configs.proxy(Path("/kubeconfig"), NETWORK, "cpu-0"))

    assert config["mode"] == "nftables"
    assert config["conntrack"] == {
        "maxPerCore": 0,
        "min": 0,
        "tcpEstablishedTimeout": "0s",
        "tcpCloseWaitTimeout": "0s",
    }


@pytest.mark.parametrize(("upstream", "forwards"), [("/etc/resolv.conf", True), ("", False)])
def test_dns_forwards_only_where_there_is_a_name_server(upstream: str, forwards: bool) -> None:  # noqa: FBT001
    text = configs.corefile(Path("/kubeconfig"), NETWORK, upstream)

    assert ("forward" in text) is forwards
    assert "bind 10.212.0.1" in text


def test_the_audit_log_holds_who_asked_for_what_and_never_a_body() -> None:
    levels = {rule["level"] for rule in yaml.safe_load(configs.audit_policy())["rules"]}

    assert levels == {"None", "Metadata"}


def test_the_api_server_has_rbac_node_authorisation_an_audit_log_and_no_open_address() -> None:
    own = pair("one")
    keys = ApiServerKeys(own, own, own, own, own, own, own, Path("/pki/sa.key"))
    argv = commands().apiserver(keys, Path("/audit-policy.yaml")).argv

    assert "--authorization-mode=Node,RBAC" in argv
    assert "--bind-address=10.212.0.1" in argv
    assert "--audit-log-path=/cache/state/logs/audit.log" in argv
    assert "--kubelet-preferred-address-types=InternalIP" in argv
    assert not any(flag.startswith(("--insecure", "--anonymous-auth=true")) for flag in argv)


def test_etcd_and_the_controllers_listen_on_the_loopback_only() -> None:
    identity = Identity(Path("/kubeconfig"), pair("scheduler"))
    etcd = commands().etcd(pair("etcd-ca"), pair("etcd")).argv
    listening = [flag for flag in etcd if flag.startswith("--listen-")]

    assert all("//127.0.0.1:" in flag for flag in listening)
    assert len(listening) == 2
    assert "--client-cert-auth" in etcd
    assert "--bind-address=127.0.0.1" in commands().scheduler(identity).argv
    manager = commands().controller_manager(identity, pair("ca"), Path("/sa.key"))
    assert "--bind-address=127.0.0.1" in manager.argv


def test_a_gpu_node_is_registered_with_its_product_label_and_a_cpu_node_without() -> None:
    gpu = PlacedNode(Node("l4-0", "NVIDIA-L4", 1), 1)
    cpu = PlacedNode(Node("cpu-0"), 0)
    kubelets = [
        commands().kubelet(placed, FOLDERS, Path("/kubelet.yaml"), Path("/kubeconfig")) for placed in (gpu, cpu)
    ]

    assert kubelets[0].name == "kubelet@l4-0"
    assert "--node-labels=nvidia.com/gpu.count=1,nvidia.com/gpu.product=NVIDIA-L4" in kubelets[0].argv
    assert "--node-ip=10.212.0.11" in kubelets[0].argv
    assert not any(flag.startswith("--node-labels") for flag in kubelets[1].argv)


def test_dns_answers_at_the_address_that_the_kubelets_tell_pods() -> None:
    service = next(item for item in addons(NETWORK) if item["kind"] == "Service")
    kubelet = yaml.safe_load(configs.kubelet(FOLDERS, NETWORK, 1, (Path("/a"), Path("/b"), Path("/c"))))

    assert kubelet["clusterDNS"] == [service["spec"]["clusterIP"]]


def test_the_storage_class_is_the_default_and_names_the_provisioner_that_runs() -> None:
    storage = next(item for item in addons(NETWORK) if item["kind"] == "StorageClass")
    argv = commands().volume_provisioner(Path("/kubeconfig"), storage["metadata"]["name"]).argv

    assert f"-provisioner={storage['provisioner']}" in argv
    assert storage["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
