"""The command line of the devcluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from tools.common.cli import run_command
from tools.common.errors import bad_input
from tools.devcluster.cluster import Cluster
from tools.devcluster.layout import Network, default_root, layout_at
from tools.devcluster.nodes import Node, parse_nodes
from tools.devcluster.report import component_table, environment, node_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.common.log import Logger

_WIDTH = 120
_component = click.argument("component")
_node = click.option("--node", metavar="NAME", help="For kubelet and containerd; may be left out with one node.")
_force = click.option("--force", is_flag=True, help="Stop by SIGKILL.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 (a component failed) or 64 (change something)."""
    return run_command(cli, "python -m tools.devcluster", arguments)


@click.group()
@click.pass_context
def cli(context: click.Context) -> None:
    """A real Kubernetes for demo and tests."""
    context.obj = Cluster(layout_at(default_root()), Network(), _logger())


def _logger() -> Logger:
    """A logger that writes to standard error how long the command has run."""
    start = time.monotonic()
    return lambda text: click.echo(f"[{time.monotonic() - start:6.1f} s] {text}", err=True)


@cli.command()
@click.option(
    "--nodes",
    "nodes_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Nodes file; without it the nodes stay as they are.",
)
@click.pass_obj
def up(cluster: Cluster, nodes_file: Path | None) -> None:
    """Start the cluster, or bring it up to date."""
    cluster.up(_read_nodes(nodes_file))


@cli.command()
@click.pass_obj
def build(cluster: Cluster) -> None:
    """Build the programs without starting anything."""
    cluster.build()


@cli.command()
@click.pass_obj
def down(cluster: Cluster) -> None:
    """Stop the cluster and leave nothing behind."""
    cluster.down()


@cli.command()
@click.pass_obj
def status(cluster: Cluster) -> None:
    """List components and nodes."""
    console = Console(width=_WIDTH, highlight=False)
    console.print(component_table(cluster))
    if cluster.is_up:
        console.print()
        console.print(node_table(cluster))


@cli.command()
@click.pass_obj
def kubeconfig(cluster: Cluster) -> None:
    """Print the kubeconfig's path."""
    click.echo(cluster.layout.kubeconfig)


@cli.command()
@click.pass_obj
def env(cluster: Cluster) -> None:
    """Print shell exports: eval $(python -m tools.devcluster env)."""
    click.echo(environment(cluster))


@cli.command("push-info")
@click.pass_obj
def push_info(cluster: Cluster) -> None:
    """Print the registry's host:port."""
    click.echo(cluster.network.registry)


@cli.command()
@_component
@_node
@click.pass_obj
def pid(cluster: Cluster, component: str, node: str | None) -> None:
    """Print a component's pid."""
    click.echo(cluster.processes.pid(cluster.qualified(component, node)))


@cli.command()
@_component
@_node
@_force
@click.pass_obj
def stop(cluster: Cluster, component: str, node: str | None, *, force: bool) -> None:
    """Stop a component (for example etcd, kubelet, containerd)."""
    cluster.stop(cluster.qualified(component, node), force=force)


@cli.command()
@_component
@_node
@click.pass_obj
def start(cluster: Cluster, component: str, node: str | None) -> None:
    """Start a component that was stopped."""
    cluster.start(cluster.qualified(component, node))


@cli.command()
@_component
@_node
@_force
@click.pass_obj
def restart(cluster: Cluster, component: str, node: str | None, *, force: bool) -> None:
    """Stop and start a component."""
    name = cluster.qualified(component, node)
    cluster.stop(name, force=force)
    cluster.start(name)


def _read_nodes(path: Path | None) -> tuple[Node, ...] | None:
    if path is None:
        return None
    try:
        return parse_nodes(path.read_text(), str(path))
    except OSError as error:
        raise bad_input(f"cannot read the nodes file {path}: {error.strerror}", do="name a file") from error
