"""`diffusion-builder build`: a spec from a file, or made of options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffusion_builder.cli.command import result_option, run_command, store_option
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusion_builder.stages.progress import Mode
    from diffusion_builder.stages.run import Result, StageContext
    from diffusion_contract.spec import DiffusionPipelineSpec

DEFAULT_SHAPES = json.dumps(
    {
        "batch": {"min": 1, "opt": 4, "max": 8},
        "height": {"min": 64, "opt": 64, "max": 128},
        "width": {"min": 64, "opt": 64, "max": 128},
    }
)
_JSON = "JSON"


@click.command()
@store_option
@click.option(
    "--spec", type=click.Path(path_type=Path), help="YAML or JSON file with all of this; see docs/builder.md."
)
@click.option("--path", help="Folder with a checkpoint.")
@click.option("--repo", help="Repository on the hub instead, ORG/NAME.")
@click.option("--revision", help="Commit, 40 hex digits.")
@click.option("--url", help="tar, tar.gz or zip file on a web server instead.")
@click.option("--sha256", help="Of that file, 64 hex digits.")
@click.option("--options", metavar=_JSON, help="LoRAs, ControlNets, IP-Adapter and more: `model` of a spec.")
@click.option("--precision", help="float32, float16 or bfloat16.  [default: float16 on a GPU, else float32]")
@click.option("--component-precision", multiple=True, metavar="NAME=P", help="Precision of one component.")
@click.option("--runtime", help="onnxruntime or tensorrt.  [default: what the target needs]")
@click.option("--target", help="cpu, or a GPU product such as NVIDIA-L4; with --spec the name of a target.")
@click.option("--steps", help="Step counts of text to image, one ensemble each.  [default: 4,20]")
@click.option("--pipelines", metavar=_JSON, help="Tasks and their step counts, instead of --steps.")
@click.option("--scheduler", help="Such as DDIM or Euler.  [default: that of the checkpoint]")
@click.option("--shapes", metavar=_JSON, help="min, opt and max of batch, height and width.")
@click.option("--dry-run", is_flag=True, help="Only validate the spec, and print the engines that it needs.")
@click.option("--no-parity", is_flag=True, help="Skip the stage parity: do not compare the repository with diffusers.")
@result_option
@click.pass_obj
def build(mode: Mode, /, store: Path, result: Path | None, *, no_parity: bool, dry_run: bool, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Run all stages; what is in the store already is not made again."""
    if dry_run:
        run_command(mode, store, result, lambda _: _validation_result(*_spec(**options)))
        return

    def work(context: StageContext) -> Result:
        from diffusion_builder.stages.build import build as run

        spec, target = _spec(**options)
        return _summary(run(context, spec, target, parity=not no_parity))

    outcome = run_command(mode, store, result, work)
    click.echo(f"repository: {store.resolve() / 'repositories' / outcome['digest'] / 'models'}", err=True)


def _validation_result(spec: DiffusionPipelineSpec, target: str | None) -> Result:
    """The engines of the spec; nothing is fetched."""
    from diffusion_builder.stages.build import choose_target
    from diffusion_contract.engines import engines

    names = [target] if target is not None else [item.name for item in spec.targets]
    skus = [choose_target(spec, name).sku for name in names]
    return {"valid": True, "skus": skus, "engines": [engine.name for engine in engines(spec)]}


_METRICS = ("digest", "minPSNR", "worstPSNR", "worstLatentError", "accelerationPSNR")


def _summary(results: Sequence[Result]) -> Result:
    """The repository's result, the metrics of its parity, and which stages had something to do."""
    (repository,) = (item for item in results if item["stage"] == "assemble")
    metrics = [
        {name: item[name] for name in _METRICS if item[name] is not None}
        for item in results if item["stage"] == "parity"
    ]  # fmt: skip
    executed = [[item["stage"], item.get("component", ""), item["cached"]] for item in results]
    return {**repository, **({"parity": metrics[0]} if metrics else {}), "stages": executed}


def read_file(path: Path) -> DiffusionPipelineSpec:
    """Read a spec, or a whole DiffusionPipeline, from a file in YAML or JSON.

    Raises:
        BadInputError: it cannot be read, or is not valid; the message names the fields.
    """
    import yaml

    from diffusion_builder.arguments import invalid
    from diffusion_contract.documents import InvalidSpecError, read_local, read_pipeline

    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(Reason.INVALID_SPEC, f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        text = " ".join(str(error).split())
        raise BadInputError(Reason.INVALID_SPEC, f"{path} is neither YAML nor JSON: {text}") from error
    try:
        return read_pipeline(body) if isinstance(body, dict) and "kind" in body else read_local(body)
    except InvalidSpecError as error:
        raise invalid(str(path), error.problems) from error


def _spec(spec: Path | None, target: str | None, **options: Any) -> tuple[DiffusionPipelineSpec, str | None]:  # noqa: ANN401
    """The spec, and the name of the target where one was chosen."""
    from diffusion_builder.arguments import invalid
    from diffusion_contract.documents import InvalidSpecError, read_local

    set_options = {name: value for name, value in options.items() if value}
    if spec is not None:
        if set_options:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(set_options))
            raise BadInputError(Reason.INVALID_ARGUMENT, f"{names}: with --spec these are fields of the file")
        return read_file(spec), target
    try:
        return read_local(_spec_body(set_options, target)), None
    except InvalidSpecError as error:
        raise invalid("build", error.problems) from error


def _spec_body(options: Mapping[str, Any], target: str | None) -> Mapping[str, Any]:
    """Spec of the options, in the form of a file."""
    model_options = _json(options, "options", "{}")
    if not isinstance(model_options, dict):
        raise BadInputError(Reason.INVALID_SPEC, "--options must be a JSON object")
    gpu = {} if target in (None, "cpu") else {"gpu": {"product": target}}
    body = {
        "model": {**model_options, "source": _source(options)},
        **({"scheduler": {"type": options["scheduler"]}} if "scheduler" in options else {}),
        **({"precision": options["precision"]} if "precision" in options else {}),
        "componentPrecision": dict(_pair(text) for text in options.get("component_precision", ())),
        "shapes": _json(options, "shapes", DEFAULT_SHAPES),
        "engines": {"runtime": options.get("runtime")},
        "targets": [{"name": "gpu" if gpu else "cpu", **gpu}],
    }
    if "pipelines" in options:
        if "steps" in options:
            raise BadInputError(Reason.INVALID_ARGUMENT, "give either --steps or --pipelines")
        return {**body, "pipelines": _json(options, "pipelines", "[]")}
    return {**body, "pipelines": [{"task": "generate", "steps": _steps(options.get("steps", "4,20"))}]}


def _source(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """One of a folder, a repository, an archive; what does not go together is for the spec to say."""
    sources: dict[str, Any] = {"path": options["path"]} if "path" in options else {}
    for kind, names in (("huggingFace", ("repo", "revision")), ("archive", ("url", "sha256"))):
        fields = {name: options[name] for name in names if name in options}
        if fields:
            sources[kind] = fields
    if not sources:
        raise BadInputError(
            Reason.INVALID_ARGUMENT,
            "give --spec FILE, or a checkpoint: --path FOLDER, --repo and --revision, or --url and --sha256",
        )
    return sources


def _json(options: Mapping[str, Any], name: str, default: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(options.get(name, default))
    except ValueError as error:
        raise BadInputError(Reason.INVALID_SPEC, f"--{name} is not JSON: {error}") from error


def _pair(text: str) -> tuple[str, str]:
    name, equals, precision = text.partition("=")
    if not equals:
        raise BadInputError(
            Reason.INVALID_ARGUMENT, f"--component-precision {text!r}: give NAME=PRECISION, such as vae_decoder=float32"
        )
    return name, precision


def _steps(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise BadInputError(
            Reason.INVALID_ARGUMENT, f"--steps {text!r}: give numbers separated by commas, such as 4,20"
        )
    return tuple(int(part) for part in parts)
