"""`validate` reads files, folders and standard input, and tells about all of them in one block."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from diffusion_operator.cli import cli
from diffusion_operator.errors import BadInputError
from tests.support.resource_parts import pipeline

OTHER = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


def validate(*paths: object, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["validate", *map(str, paths)], input=stdin)


def objection(*paths: object, stdin: str = "") -> str:
    """The text of the one error."""
    outcome = validate(*paths, stdin=stdin)
    assert isinstance(outcome.exception, BadInputError), outcome.output
    return str(outcome.exception)


def write(file: Path, *documents: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump_all(documents))
    return file


def test_several_files_and_folders_are_read(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", pipeline("one"), OTHER)
    write(tmp_path / "folder" / "two.yml", pipeline("two"))
    write(tmp_path / "folder" / "below" / "values.yaml", OTHER)
    (tmp_path / "folder" / "below" / "three.json").write_text(json.dumps(pipeline("three")))
    (tmp_path / "folder" / "README.md").write_text("- [not: yaml")
    write(tmp_path / "folder" / ".git" / "broken.yaml", pipeline("four", precision="float8"))
    outcome = validate(one, tmp_path / "folder")
    assert outcome.exit_code == 0
    assert [line.split(": ")[1] for line in outcome.output.splitlines()] == [
        "one is valid",
        "three is valid",
        "two is valid",
    ]


def test_standard_input_is_read() -> None:
    assert "standard input: shapes is valid" in validate("-", stdin=json.dumps(pipeline())).output
    assert "standard input: shapes is not valid" in objection("-", stdin=json.dumps(pipeline(precision="float8")))


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", pipeline("a", precision="float8"), pipeline("b"))
    second = write(tmp_path / "b.yaml", pipeline("c", rollouts={}))
    outcome = validate(first, second)
    assert f"{first}: b is valid" in outcome.output
    text = str(outcome.exception)
    assert re.search(
        r"a\.yaml: a is not valid:\n  spec\.precision: .*\n.*b\.yaml: c is not valid:\n  spec\.rollouts", text
    )


def test_what_kubectl_get_prints_is_a_list() -> None:
    live = pipeline() | {"status": {"observedGeneration": 3}}
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [live, OTHER, None]})
    assert validate("-", stdin=text).exit_code == 0
    typed = {
        "apiVersion": "diffusion-operator.io/v1alpha1",
        "kind": "DiffusionPipelineList",
        "items": [pipeline(precision="x")],
    }
    assert "spec.precision" in objection("-", stdin=json.dumps(typed))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "standard input holds no DiffusionPipeline"),
        ("3\n---\n- kind: DiffusionPipeline\n", "standard input holds no DiffusionPipeline"),
        ("kind: [", "standard input is not YAML"),
        ("\ud800", "byte 0 is no UTF-8"),
        ("kind: DiffusionPipeline\nkind: DiffusionPipeline\n", "kind given twice"),
        ("[" * 5000, "standard input is not YAML"),
        ('{"kind": "List", "items": 3}', "holds no DiffusionPipeline"),
        ("kind: DiffusionPipeline\n? [a]\n: b\n", "standard input"),
    ],
)
def test_what_is_no_manifest_gets_one_readable_error(text: str, words: str) -> None:
    outcome = CliRunner().invoke(cli, ["validate", "-"], input=text.encode("utf-8", "surrogatepass"))
    assert isinstance(outcome.exception, BadInputError), outcome.exception
    assert words in str(outcome.exception)
    assert outcome.exception.exit_code == 64


def test_a_folder_without_a_pipeline_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", OTHER)
    assert objection(tmp_path) == f"{tmp_path} holds no DiffusionPipeline."


def test_plan_reads_standard_input_too() -> None:
    outcome = CliRunner().invoke(cli, ["plan", "--offline", "-"], input=json.dumps(pipeline()))
    assert outcome.exit_code == 0
    assert "DiffusionPipeline default/shapes" in outcome.output
