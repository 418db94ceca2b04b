"""The command line of the devcluster."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tools.devcluster.cluster import Cluster
from tools.devcluster.errors import BAD_INPUT, DevclusterError, bad_input
from tools.devcluster.layout import Network, default_root, layout_at
from tools.devcluster.nodes import Node, parse_nodes
from tools.devcluster.report import environment, table

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 (a component failed) or 64 (change something)."""
    options = parser().parse_args(arguments)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        cluster = Cluster(layout_at(default_root()), Network(), say)
        _run(options, cluster)
    except DevclusterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return _INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = _Parser(prog="python -m tools.devcluster", description="A real Kubernetes for demo and tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the cluster, or bring it up to date")
    up.add_argument("--nodes", type=Path, help="nodes file; without it the nodes stay as they are")
    for name, text in {
        "build": "build the programs without starting anything",
        "down": "stop the cluster and leave nothing behind",
        "status": "list components and nodes",
        "kubeconfig": "print the kubeconfig's path",
        "env": "print shell exports: eval $(python -m tools.devcluster env)",
        "push-info": "print the registry's host:port",
    }.items():
        commands.add_parser(name, help=text)
    for name, text in {
        "pid": "print a component's pid",
        "stop": "stop a component",
        "start": "start a stopped component",
        "restart": "stop and start a component",
    }.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("component", help="for example etcd, kubelet, containerd")
        command.add_argument("--node", help="for kubelet and containerd; may be left out with one node")
        command.add_argument("--force", action="store_true", help="stop by SIGKILL")
    return parser


class _Parser(argparse.ArgumentParser):
    """Usage errors are bad input."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"error: {message}\n")


def _run(options: argparse.Namespace, cluster: Cluster) -> None:
    match options.command:
        case "up":
            cluster.up(_nodes(options.nodes))
        case "build":
            cluster.build()
        case "down":
            cluster.down()
        case "status":
            print(table(cluster))
        case "kubeconfig":
            print(cluster.layout.kubeconfig)
        case "env":
            print(environment(cluster))
        case "push-info":
            print(cluster.network.registry)
        case _:
            _run_component(options, cluster)


def _run_component(options: argparse.Namespace, cluster: Cluster) -> None:
    name = cluster.qualified(options.component, options.node)
    if options.command == "pid":
        print(cluster.processes.pid(name))
    if options.command in {"stop", "restart"}:
        cluster.stop(name, force=options.force)
    if options.command in {"start", "restart"}:
        cluster.start(name)


def _nodes(path: Path | None) -> tuple[Node, ...] | None:
    if path is None:
        return None
    try:
        return parse_nodes(path.read_text(), str(path))
    except OSError as error:
        raise bad_input(f"cannot read the nodes file {path}: {error.strerror}", do="name a file") from error
