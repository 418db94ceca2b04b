"""Command line: one command per stage, and `build` for all of them."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffusion_builder.cli.build import DEFAULT_SHAPES, build
from diffusion_builder.cli.command import stage_command
from diffusion_builder.cli.store import store_group
from diffusion_builder.errors import ExitCode
from diffusion_builder.stages import run as stages
from diffusion_builder.stages.progress import Mode
from diffusion_contract.enums import Component
from diffusion_contract.limits import HTTP_PORT, METRICS_PORT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from diffusion_builder.stages.run import Result, StageContext

# Shells report a program that ended by a signal so.
_SIGNALLED = 128


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--progress", type=click.Choice([str(mode) for mode in Mode]), default=str(Mode.AUTO), show_default=True,
    help="auto: a table on a terminal, plain lines elsewhere. json: one object a line on stderr.",
)  # fmt: skip
@click.version_option(package_name="diffusion-operator")
@click.pass_context
def cli(context: click.Context, progress: str) -> None:
    """Turn a diffusers checkpoint into engines and an unrolled Triton ensemble.

    Exit codes: 0 ok, 1 server not ready, 64 bad input, 69 something outside is unavailable, 70 internal error,
    74 problem of the store.
    """
    context.obj = Mode(progress)


@stage_command(cli)
@click.option("--repo", help="Repository on the hub, ORG/NAME. HF_ENDPOINT chooses the hub.")
@click.option("--revision", help="Commit, 40 hex digits.")
@click.option("--path", type=click.Path(path_type=Path), help="Folder with a checkpoint, instead of a hub.")
@click.option("--url", help="tar, tar.gz or zip file on a web server, instead of a hub.")
@click.option("--sha256", help="Of that file, 64 hex digits.")
@click.option("--component", help="Fetch only this: text_encoder, denoiser, vae, controlnet, lora, ip_adapter, ...")
@click.option("--file", help="Which safetensors file is the LoRA or IP-Adapter, where there are several.")
@click.option("--subfolder", help="Folder of the source that is taken as its root.")
@click.option("--variant", help="Which weights to take, such as fp16; default: the plain ones, or the only variant.")
@click.option(
    "--root", type=click.Path(path_type=Path), help="Folder that links of --path may lead to, such as a claim's mount."
)
def fetch(context: StageContext, /, **arguments: Any) -> Result:  # noqa: ANN401 - click's options
    """Bring a checkpoint or one component into the store."""
    return stages.fetch(context, stages.FetchArguments(**arguments))


@stage_command(cli)
@click.option("--source", required=True, help="Digest of the source.")
@click.option("--component", required=True, type=click.Choice([str(item) for item in Component]))
@click.option("--precision", default="float32", show_default=True, help="float32, float16 or bfloat16.")
@click.option("--options", default="{}", help="JSON: LoRAs, ControlNets, IP-Adapter and more; see docs/components.md.")
def export(context: StageContext, /, component: str, **arguments: str) -> Result:
    """Export one component to ONNX and compare it with torch."""
    return stages.export(context, component=Component(component), **arguments)


@stage_command(cli, "compile")
@click.option("--onnx", required=True, help="Digest of the exported graph.")
@click.option("--runtime", default="onnxruntime", show_default=True, help="onnxruntime or tensorrt.")
@click.option("--sku", default="cpu", show_default=True, help="cpu, or a GPU product such as NVIDIA-L4.")
@click.option("--shapes", default=DEFAULT_SHAPES, help="JSON: min, opt, max of batch, height, width.")
@click.option("--optimization-level", type=int, default=3, show_default=True, help="tensorrt: 0 (quick) to 5.")
@click.option("--workspace", type=int, help="tensorrt: scratch memory for kernels in MiB; default: all of the GPU.")
@click.option("--layers", is_flag=True, help="tensorrt: write the engine's layers beside it as JSON.")
def compile_(context: StageContext, /, **arguments: Any) -> Result:  # noqa: ANN401 - click's options
    """Compile one component for a SKU."""
    return stages.compile_(context, stages.CompileArguments(**arguments))


@stage_command(cli)
@click.option("--spec", required=True, help="JSON: source, engines, pipelines, schedulers, shapes and the like.")
def assemble(context: StageContext, spec: str) -> Result:
    """Assemble a Triton model repository."""
    return stages.assemble(context, spec)


@stage_command(cli)
@click.option("--repository", required=True, help="Digest of the repository.")
def parity(context: StageContext, repository: str) -> Result:
    """Compare images of a repository with those of diffusers."""
    return stages.parity(context, repository)


@stage_command(cli)
@click.option("--repository", required=True, help="Digest of the repository.")
def verify(context: StageContext, repository: str) -> Result:
    """Compare every file of a repository and its engines with the manifests."""
    return stages.verify(context, repository)


@stage_command(cli, "smoke-test")
@click.option("--url", default=f"http://127.0.0.1:{HTTP_PORT}", show_default=True, help="HTTP address of the server.")
@click.option("--repository", required=True, help="Digest of the repository that is served.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds for each image.")
def smoke_test(context: StageContext, url: str, repository: str, timeout: float) -> Result:
    """Request one image of every ensemble of a running server."""
    return stages.smoke_test(context, url, repository, timeout)


@stage_command(cli)
@click.option("--stable", required=True, help="HTTP address of the stable revision's server.")
@click.option("--canary", required=True, help="HTTP address of the canary's server.")
@click.option("--spec", required=True, help="JSON: revisions, ensembles, prompts, limits; see docs/builder.md.")
@click.option("--export", type=click.Path(path_type=Path), help="Folder for a copy of the images, for a scorer.")
@click.option("--score", type=click.Path(path_type=Path), help="JSON file that a scorer has left: passed, message.")
def compare(context: StageContext, /, **arguments: Any) -> Result:  # noqa: ANN401 - click's options
    """Compare images of two servers for the golden prompts; a bad canary is a result, not an error."""
    return stages.compare(context, stages.CompareArguments(**arguments))


@cli.command()
@click.option(
    "--metrics", default=f"http://127.0.0.1:{METRICS_PORT}/metrics", show_default=True, help="The server's metrics."
)
@click.option("--min-wait", default=5.0, show_default=True, help="Minimum wait, seconds.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait at most.")
def drain(metrics: str, min_wait: float, timeout: float) -> None:
    """Wait until a server has answered all that it has; for the preStop hook of its pod."""
    from diffusion_builder.serving.drain import drain, read_load

    click.echo("idle" if drain(lambda: read_load(metrics), min_wait, timeout) else "time is up", err=True)


cli.add_command(build)
cli.add_command(store_group)


def _terminated(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_SIGNALLED + number)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; a mistake on the command line is bad input, like any other."""
    # Kubernetes sends SIGTERM first: leave as an error does, so that nothing half-written remains.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(_SIGNALLED + signal.SIGINT)
    except click.ClickException as error:
        error.show()
        sys.exit(int(ExitCode.BAD_INPUT))


if __name__ == "__main__":
    main()
