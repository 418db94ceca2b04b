"""Every command in the documentation exists, with the options that it is given."""

from __future__ import annotations

import importlib
import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from diffusion_builder.cli.main import cli as builder
from diffusion_gateway.cli import cli as gateway
from diffusion_operator.cli import cli as operator
from tests.support.documents import Command, blocks, commands, split
from tests.support.paths import ROOT
from tools.charttools.__main__ import cli as charttools
from tools.dashboards.__main__ import cli as dashboards
from tools.devcluster.cli import cli as devcluster
from tools.images.cli import cli as images
from tools.release.cli import cli as release

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

CLICK: dict[str, click.Command] = {
    "diffusion-operator": operator,
    "diffusion-builder": builder,
    "diffusion-gateway": gateway,
    "tools.images": images,
    "tools.release": release,
    "tools.devcluster": devcluster,
    "tools.charttools": charttools,
    "tools.dashboards": dashboards,
}
# A script to copy: it needs no more than tritonclient does.
ARGPARSE = {"examples/client.py": "examples.client"}
# Programs of others: that they are meant is all that is asked.
FOREIGN_PROGRAMS = re.compile(
    r"argocd|aws|base64|buildah|cd|cp|curl|cosign|docker|echo|eksctl|eval|export|flux|gcloud|git|gunzip|hf|jq|k3s|kind|kubeconform"
    r"|kustomize|perf_analyzer|pip|promtool|sed|skopeo|sudo|tar|tritonserver|uv|uvx|zcat"
)
KUBECTL = re.compile(
    "annotate|apply|create|delete|describe|diff|exec|expose|get|label|logs|patch|plugin|port-forward|run|rollout|wait"
)
HELM = re.compile("install|upgrade|uninstall|package|pull|push|template|test|lint|show|repo|dependency|status")


@cache
def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def make_problem(words: Sequence[str]) -> str:
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile(), flags=re.MULTILINE))
    variables_text = makefile() + (ROOT / "examples" / "demo_support" / "settings.py").read_text()
    wrong = [word for word in words if "=" not in word and word not in targets]
    wrong += [word for word in words if "=" in word and word.partition("=")[0] not in variables_text]
    return f"make has no {', '.join(wrong)}" if wrong else ""


def is_placeholder(value: str) -> bool:
    """FOLDER, NAME=P, STORE: what a reader replaces."""
    return value.upper() == value and not value.isdigit()


def click_problem(command: click.Command, words: Sequence[str], *, whole: bool) -> str:
    """Parse as click does, without converting paths, which exist on the reader's machine only."""
    context = click.Context(command, info_name=command.name, resilient_parsing=not whole)
    try:
        options, remaining, _ = command.make_parser(context).parse_args(list(words))
        for parameter in command.params:
            values = options.get(parameter.name or "")
            if whole and parameter.required and not (isinstance(values, (str, list, tuple)) and values):
                return f"{command.name} lacks {parameter.name}"
            for value in values if isinstance(values, (list, tuple)) else [values]:
                if isinstance(value, str) and not is_placeholder(value) and not isinstance(parameter.type, click.Path):
                    parameter.type.convert(value, parameter, context)
    except click.UsageError as error:
        return error.format_message()
    if not isinstance(command, click.Group):
        return f"{command.name} takes no {remaining}" if remaining else ""
    if not remaining:
        return f"{command.name} needs a command" if whole else ""
    inner = command.get_command(context, remaining[0])
    return (
        click_problem(inner, remaining[1:], whole=whole) if inner else f"{command.name} has no command {remaining[0]}"
    )


def argparse_problem(module: str, words: Sequence[str]) -> str:
    parser: argparse.ArgumentParser = importlib.import_module(module).parser()
    try:
        parser.parse_args(list(words))
    except SystemExit as stop:
        return "" if stop.code == 0 else f"{module} does not take {' '.join(words)}"
    return ""


def python_problem(words: Sequence[str], *, whole: bool) -> str:
    """`python -m MODULE`, `python FILE` or `python -c`."""
    if not words or words[0] == "-c" or words[:2] == ["-m", "pip"]:
        return ""
    name, arguments = (words[1], words[2:]) if words[0] == "-m" else (words[0], words[1:])
    if name in CLICK:
        return click_problem(CLICK[name], arguments, whole=whole)
    if name in ARGPARSE:
        return argparse_problem(ARGPARSE[name], arguments) if whole else ""
    path = ROOT / (name if name.endswith(".py") else name.replace(".", "/") + ".py")
    source = path if path.exists() else path.with_suffix("") / "__main__.py"
    if not source.exists():
        return f"there is no {name}"
    text = source.read_text()
    unknown = [word for word in arguments if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text]
    return f"{name} has no {', '.join(unknown)}" if unknown else ""


def files_of(words: Sequence[str]) -> list[str]:
    """What -f and --values name."""
    return [value for option, value in pairwise(words) if option in {"-f", "--values", "--filename"}]


def file_problem(name: str) -> str:
    """A file is in the repository, or a block of the documents shows it under its name, or it is a command's output."""
    is_in_documents = any(block.text.startswith(f"# {name}\n") for block in blocks())
    if is_in_documents or name == "-" or (ROOT / name).exists():
        return ""
    return f"{name} is neither in the repository nor shown (a block that begins with `# {name}`)"


def set_problem(assignment: str) -> str:
    """`--set a.b=c` names a value that the chart has."""
    place: Any = yaml.safe_load((ROOT / "charts" / "diffusion-operator" / "values.yaml").read_text())
    for part in assignment.partition("=")[0].split("."):
        if place in ({}, []):
            return ""
        if not isinstance(place, dict) or part not in place:
            return f"the chart has no value {assignment}"
        place = place[part]
    return ""


def kubectl_problem(words: Sequence[str]) -> str:
    if not KUBECTL.fullmatch(words[0]):
        return f"kubectl {words[0]} is not a command that the documents use"
    return next(filter(None, map(file_problem, files_of(words))), "")


def helm_problem(words: Sequence[str]) -> str:
    if not HELM.fullmatch(words[0]):
        return f"helm {words[0]} is not a command that the documents use"
    charts = [f"{word} does not exist" for word in words if word.startswith("charts/") and not (ROOT / word).exists()]
    sets = [set_problem(value) for option, value in pairwise(words) if option == "--set"]
    return next(filter(None, [*charts, *map(file_problem, files_of(words)), *sets]), "")


def problem(command: Command) -> str:
    """What is wrong with it; empty when nothing is."""
    if not command.words:
        return ""
    program, *words = command.words
    if command.words[:2] == ("kubectl", "diffusion"):
        program, *words = ("diffusion-operator", *words[1:])
    if program in CLICK:
        return click_problem(CLICK[program], words, whole=command.whole)
    checks: dict[str, Callable[[Sequence[str]], str]] = {
        "make": lambda arguments: make_problem([*arguments, *(f"{name}=" for name in command.variables)]),
        "python": lambda arguments: python_problem(arguments, whole=command.whole),
        "kubectl": kubectl_problem,
        "helm": helm_problem,
    }
    if program in checks:
        return checks[program](words) if words or program == "make" else ""
    return "" if FOREIGN_PROGRAMS.fullmatch(program) else f"{program} is no program that is known here"


def test_every_command_of_the_documents_exists_with_its_options() -> None:
    documented = commands()
    assert len(documented) > 50
    assert [f"{one.where}: {' '.join(one.words)}: {text}" for one in documented if (text := problem(one))] == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("diffusion-operator validat pipeline.yaml", "no command validat"),
        ("diffusion-operator plan pipeline.yaml --of-line", "--of-line"),
        ("diffusion-operator validate", "lacks paths"),
        ("diffusion-builder store gc --grace 24h", "lacks store"),
        ("diffusion-builder --progress xml build", "xml"),
        ("diffusion-builder store gc --store DIR --grase 24h", "--grase"),
        ("make dmo", "dmo"),
        ("PROMT=x make demo", "PROMT"),
        ("python -m tools.images tag", "no command tag"),
        ("python -m tools.images build nothing", "nothing"),
        ("python -m tools.devcluster up --node x", "--node"),
        ("python examples/client.py --promt x", "does not take"),
        ("python -m benchmarks.nothing", "there is no"),
        ("python examples/train_demo.py --ot x", "--ot"),
        ("kubectl aply -f examples/pipeline.yaml", "aply"),
        ("kubectl diffusion plna pipeline.yaml", "no command plna"),
        ("kubectl apply -f examples/pipline.yaml", "neither"),
        ("helm install x charts/diffusion-operater", "does not exist"),
        ("helm install x charts/diffusion-operator --set replicsa=2", "no value"),
        ("eval $(diffusion-operator nothing)", "no command nothing"),
        ("true && kubctl get dp", "kubctl"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, says: str) -> None:
    assert any(says in problem(one) for one in split(line, "here"))
