"""The command line `diffusion-operator`."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

import click
from rich.console import Console

from diffusion_contract.logs import configure_logging
from diffusion_operator import settings as operator_settings
from diffusion_operator.api.crd import as_yaml, definition, for_chart
from diffusion_operator.api.reference import markdown
from diffusion_operator.errors import BadInputError, OperatorError
from diffusion_operator.manifest_files import read_pipelines, require_valid
from diffusion_operator.settings import LogFormat

KUBECONFIG = click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False),
    help="Kubeconfig of the cluster. Defaults to kubectl's.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="diffusion-operator")
def cli() -> None:
    """Serve Stable Diffusion as an unrolled Triton ensemble, from one custom resource."""


@cli.command()
def run() -> None:
    """Run the operator; settings come from DIFFUSION_OPERATOR_* variables."""
    settings = operator_settings.from_environment(os.environ)
    _configure_logging(settings.log_format)
    # Only this command needs kopf and the Kubernetes client, which take a second to import.
    from diffusion_operator.handlers import process  # noqa: PLC0415

    process.run(settings)


@cli.command()
@click.option("--write", "target", type=click.Path(path_type=Path), help="Write the CRD to this file.")
@click.option("--check", type=click.Path(path_type=Path), help="Fail when this file is out of date.")
@click.option("--chart", is_flag=True, help="Print the chart's template: Helm upgrades it and never deletes it.")
def crd(target: Path | None, check: Path | None, *, chart: bool) -> None:
    """Print, write or check the CustomResourceDefinition."""
    _generate(as_yaml(for_chart(definition()) if chart else definition()), target, check)


@cli.command()
@click.option("--write", "target", type=click.Path(path_type=Path), help="Write the reference to this file.")
@click.option("--check", type=click.Path(path_type=Path), help="Fail when this file is out of date.")
def docs(target: Path | None, check: Path | None) -> None:
    """Print, write or check the API reference."""
    _generate(markdown(), target, check)


def _generate(text: str, target: Path | None, check: Path | None) -> None:
    if target is not None:
        target.write_text(text)
    if check is not None and (not check.exists() or check.read_text() != text):
        raise BadInputError(f"{check} is out of date: write it again with --write instead of --check.")
    if target is None and check is None:
        click.echo(text, nl=False)


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
def validate(paths: tuple[str, ...]) -> None:
    """Check the pipelines in PATHS, as the API server would: files, folders, or - for standard input.

    Ends with 0 when all are valid, and with 64 when one is not or a path cannot be read.
    """
    documents = read_pipelines(paths)
    for document in documents:
        if not document.problems():
            click.echo(f"{document.file}: {document.name} is valid")
    require_valid(documents)


@cli.command()
@click.argument("file", type=click.Path(exists=True, allow_dash=True))
@click.option(
    "--namespace", "-n", default="default", show_default=True, help="Namespace of pipelines that have none in FILE."
)
@KUBECONFIG
@click.option("--offline", is_flag=True, help="Use no cluster: plan as if nothing existed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(file: str, namespace: str, kubeconfig: str | None, *, offline: bool, as_json: bool) -> None:
    """Show what applying FILE would build and change; nothing is written."""
    documents = read_pipelines([file])
    require_valid(documents)
    from diffusion_operator import plan_command  # noqa: PLC0415 - the Kubernetes client takes a second to import

    options = plan_command.ClusterOptions(namespace, kubeconfig, offline)
    click.echo(plan_command.render_previews([item.document for item in documents], options, as_json=as_json))


@cli.group()
def rollout() -> None:
    """Show, promote or abort a canary."""


def _pipeline_arguments(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that name a pipeline."""
    namespace = click.option("--namespace", "-n", default="default", show_default=True)
    return click.argument("name")(namespace(KUBECONFIG(command)))


@rollout.command("status")
@_pipeline_arguments
@click.option("--watch", "-w", is_flag=True, help="Watch until the canary is promoted or rejected.")
def rollout_status(name: str, namespace: str, kubeconfig: str | None, *, watch: bool) -> None:
    """Show the revisions of the pipeline NAME, their weights and verdicts."""
    from diffusion_operator import rollout_command  # noqa: PLC0415 - same

    pipeline = rollout_command.PipelineRef(name, namespace, kubeconfig)
    asyncio.run(rollout_command.status(pipeline, Console(highlight=False), watch=watch))


@rollout.command()
@_pipeline_arguments
def promote(name: str, namespace: str, kubeconfig: str | None) -> None:
    """Give the canary of the pipeline NAME all of the traffic, whatever its verdicts."""
    _request("promote", name, namespace, kubeconfig)


@rollout.command()
@_pipeline_arguments
def abort(name: str, namespace: str, kubeconfig: str | None) -> None:
    """Abort the canary of the pipeline NAME; the stable revision keeps the traffic."""
    _request("abort", name, namespace, kubeconfig)


def _request(verb: Literal["promote", "abort"], name: str, namespace: str, kubeconfig: str | None) -> None:
    from diffusion_operator import rollout_command  # noqa: PLC0415 - same

    pipeline = rollout_command.PipelineRef(name, namespace, kubeconfig)
    click.echo(asyncio.run(rollout_command.request(pipeline, verb)))


def _configure_logging(log_format: LogFormat) -> None:
    configure_logging(log_format)
    # kopf logs every watched event; a person wants the decisions.
    for name in ("kopf.objects", "kopf.activities.probe", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def main() -> NoReturn:
    """Entry point: an expected error is one readable block, never a traceback."""
    try:
        cli(standalone_mode=False)
    except OperatorError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(BadInputError.exit_code)
    except click.Abort:
        sys.exit(130)
    sys.exit(0)
