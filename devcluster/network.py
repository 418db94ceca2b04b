"""The host's side of the network: one device with addresses, a few iptables rules, forwarding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.layout import NAME, Layout, Network
from devcluster.shell import attempt, run, write

if TYPE_CHECKING:
    from devcluster.nodes import PlacedNode

_SYSCTL = Path("/proc/sys")
# Changed by us (forwarding) or by the kubelet (the rest): `down` puts them back.
_TUNABLES = (
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_TOOLS = ("iptables", "ip6tables")


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


def ensure(layout: Layout, network: Network) -> None:
    """Make the device with the control address, the rules, and forwarding."""
    _remember_tunables(layout)
    (_SYSCTL / "net/ipv4/ip_forward").write_text("1")
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


def remove(layout: Layout, network: Network) -> None:
    """Remove the device and every rule, ours and kube-proxy's, and put kernel settings back."""
    for table, chain, rule in rules(network):
        while not attempt(["iptables", "-w", "-t", table, "-D", chain, *rule]).returncode:
            pass
    for tool in _TOOLS:
        script = kube_chains_removal(attempt([f"{tool}-save"]).stdout)
        if script:
            run([f"{tool}-restore", "-w", "--noflush"], stdin=script)
    attempt(["ip", "link", "delete", network.device])
    _restore_tunables(layout)


def kube_chains_removal(saved: str) -> str:
    """Return the iptables-restore input that removes every KUBE- chain and every jump to one.

    Args:
        saved: What iptables-save printed.
    """
    script: list[str] = []
    for block in saved.split("*")[1:]:
        lines = block.splitlines()
        chains = [line[1:].split()[0] for line in lines if line.startswith(":KUBE-")]
        jumps = [line for line in lines if line.startswith("-A ") and _jumps_in(line)]
        if chains:
            script += [f"*{lines[0]}", *(f":{chain} - [0:0]" for chain in chains)]
            script += [f"-D {line.removeprefix('-A ')}" for line in jumps]
            script += [*(f"-X {chain}" for chain in chains), "COMMIT"]
    return "\n".join(script) + "\n" if script else ""


def _jumps_in(rule: str) -> bool:
    """Say whether a rule outside kube-proxy's chains jumps into one of them."""
    return not rule.startswith("-A KUBE-") and " -j KUBE-" in rule


def _remember_tunables(layout: Layout) -> None:
    path = layout.state / "tunables.json"
    if path.is_file():
        return
    found = {name: (_SYSCTL / name).read_text().strip() for name in _TUNABLES if (_SYSCTL / name).is_file()}
    write(path, json.dumps(found))


def _restore_tunables(layout: Layout) -> None:
    path = layout.state / "tunables.json"
    if path.is_file():
        for name, value in json.loads(path.read_text()).items():
            (_SYSCTL / name).write_text(value)
