"""The host's side of the network: one device with addresses and a few iptables rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.common.shell import attempt, run
from tools.devcluster.layout import NAME, Network

if TYPE_CHECKING:
    from tools.devcluster.nodes import PlacedNode


def rules(network: Network) -> list[tuple[str, str, list[str]]]:
    """Return our iptables rules as (table, chain, match and target)."""
    mark = ["-m", "comment", "--comment", NAME]
    pods = str(network.pods)
    outside = ["-s", pods, "!", "-d", str(network.cluster), *mark, "-j", "MASQUERADE"]
    return [
        ("nat", "POSTROUTING", outside),
        ("filter", "FORWARD", ["-s", pods, *mark, "-j", "ACCEPT"]),
        ("filter", "FORWARD", ["-d", pods, *mark, "-j", "ACCEPT"]),
    ]


def ensure(network: Network) -> None:
    """Make the device with the control address, and the rules."""
    attempt(["ip", "link", "add", network.device, "type", "bridge"])
    run(["ip", "link", "set", network.device, "up"])
    run(["ip", "address", "replace", f"{network.control}/32", "dev", network.device])
    for table, chain, rule in rules(network):
        if attempt(["iptables", "-w", "-t", table, "-C", chain, *rule]).returncode:
            run(["iptables", "-w", "-t", table, "-I", chain, *rule])


def ensure_node(network: Network, placed: PlacedNode) -> None:
    """Give a node its address."""
    address = f"{network.node_address(placed.index)}/32"
    run(["ip", "address", "replace", address, "dev", network.device])


def remove_node(network: Network, placed: PlacedNode) -> None:
    """Take a node's address away."""
    address = f"{network.node_address(placed.index)}/32"
    attempt(["ip", "address", "delete", address, "dev", network.device])


def remove(network: Network) -> None:
    """Remove the device and every rule, ours and kube-proxy's."""
    for table, chain, rule in rules(network):
        while not attempt(["iptables", "-w", "-t", table, "-D", chain, *rule]).returncode:
            pass
    for family_and_name in _proxy_tables():
        attempt(["nft", "delete", "table", *family_and_name])
    attempt(["ip", "link", "delete", network.device])


def rule_leftovers() -> list[str]:
    """Return the packet filter rules of the cluster that are there."""
    saved = attempt(["iptables-save"]).stdout.splitlines()
    tables = attempt(["nft", "list", "tables"]).stdout.splitlines()
    leftovers = [f"iptables {rule}" for rule in saved if rule.startswith("-A ") and NAME in rule]
    return leftovers + [f"nftables {table}" for table in tables if table.split()[1:] in _proxy_tables()]


def _proxy_tables() -> list[list[str]]:
    return [[family, "kube-proxy"] for family in ("ip", "ip6")]
