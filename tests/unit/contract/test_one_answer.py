"""A custom resource gets one answer: from the contract, from `validate`, and from `build --spec`.

The API server's own answer to the same table is asked for by tests/cluster/test_admission.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from diffusion_builder.cli import main as builder
from diffusion_builder.models.schedule import SchedulerSettings, SchedulerType
from diffusion_contract.documents import InvalidSpecError, read_pipeline, read_spec
from diffusion_contract.spec import DiffusionPipelineSpec, Scheduler
from diffusion_operator import cli as operator
from diffusion_operator.errors import BadInputError
from tests.support.custom_resources import ACCEPTED
from tests.support.refused_resources import NAMES, REFUSED
from tests.support.resource_parts import GPU, HUB, SLICE, pipeline

ROOT = Path(__file__).parents[3]
EXAMPLES = {
    f"{file.name}: {document['metadata']['name']}": document
    for file in sorted((ROOT / "examples").rglob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
    if isinstance(document, dict) and document.get("kind") == "DiffusionPipeline"
}
VALID = {**EXAMPLES, **{name: pipeline(**spec) for name, spec in ACCEPTED.items()}}
RULED = ("x-kubernetes-validations",)


def objections(document: dict[str, Any], folder: Path) -> dict[str, str]:
    """What each reader objects to; empty where it accepts."""
    file = folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump(document))
    return {"contract": _contract(document), "validate": _validate(file), "build": _build(file, folder)}


def _contract(document: dict[str, Any]) -> str:
    try:
        read_pipeline(document)
    except InvalidSpecError as error:
        return str(error)
    return ""


def _validate(file: Path) -> str:
    outcome = CliRunner().invoke(operator.cli, ["validate", str(file)])
    assert outcome.exception is None or isinstance(outcome.exception, BadInputError), outcome.exception
    return str(outcome.exception or "")


def _build(file: Path, folder: Path) -> str:
    result = folder / "result.json"
    arguments = ["build", "--store", str(folder / "store"), "--spec", str(file), "--dry-run", "--result", str(result)]
    code = _exit_code(arguments)
    body = json.loads(result.read_text())
    assert (code == 0) == body.get("valid", False)
    return str(body["error"]["message"]) if code else ""


def _exit_code(arguments: list[str]) -> int:
    try:
        builder.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_table_is_large_and_has_every_example() -> None:
    assert len(ACCEPTED) + len(REFUSED) > 100
    assert len({name.partition(":")[0] for name in EXAMPLES}) == 4


@pytest.mark.parametrize("name", VALID)
def test_what_is_served_is_accepted_by_every_reader(tmp_path: Path, name: str) -> None:
    assert objections(VALID[name], tmp_path) == {"contract": "", "validate": "", "build": ""}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_by_every_reader(tmp_path: Path, name: str) -> None:
    refused = REFUSED[name]
    objections_by_reader = objections(pipeline(**refused.spec), tmp_path)
    # Kubernetes names the entry that is a duplicate, and quotes its own words for limits.
    field = refused.field.rpartition("[")[0] if refused.words == "Duplicate" else refused.field
    ruled = any(refused.words in message for message in MESSAGES)
    for reader, text in objections_by_reader.items():
        assert field in text, reader
        assert not ruled or refused.words in text, reader


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gets_one_answer(tmp_path: Path, name: str) -> None:
    for reader, text in objections(pipeline(name), tmp_path).items():
        assert (NAMES[name] in text) if NAMES[name] else (text == ""), reader


@pytest.mark.parametrize(
    "change",
    [{"apiVersion": "diffusion-operator.io/v1"}, {"metadata": {}}, {"spec": None}, {"spec": []}, {"specs": {}}],
)
def test_a_head_gets_one_answer(tmp_path: Path, change: dict[str, Any]) -> None:
    document = {**pipeline(), **change}
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(document))
    assert _contract(document)
    assert _validate(file)


def _messages(schema: Any) -> list[str]:  # noqa: ANN401 - any JSON
    if isinstance(schema, list):
        return [text for item in schema for text in _messages(item)]
    if not isinstance(schema, dict):
        return []
    own = [entry["message"] for name in RULED for entry in schema.get(name, [])]
    return own + [text for item in schema.values() for text in _messages(item)]


MESSAGES = _messages(DiffusionPipelineSpec.model_json_schema())


def test_every_rule_of_the_crd_refuses_something_in_the_table() -> None:
    """So that each rule's form in Python is compared with its form in CEL."""
    answers = [_contract(pipeline(**refused.spec)) for refused in REFUSED.values()]
    # A change of a claim is known to the API server alone; test_admission has those.
    changes = ("never shrink", "of an existing claim cannot change")
    silent = {text for text in MESSAGES if not any(text in answer for answer in answers)}
    assert {text for text in silent if not any(words in text for words in changes)} == set()


def test_the_sku_of_a_slice_has_its_profile() -> None:
    spec = read_spec({"model": {"source": HUB}, "targets": [SLICE, GPU, {"name": "cpu"}]})
    assert [target.sku for target in spec.targets] == ["NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA-L4", "cpu"]


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize(
    "setting",
    [
        {"useKarrasSigmas": True},
        {"useExponentialSigmas": True},
        {"useKarrasSigmas": True, "useExponentialSigmas": True},
        {"predictionType": "sample"},
        {"predictionType": "v_prediction"},
        {"timestepSpacing": "trailing"},
        {"timestepSpacing": "linspace"},
    ],
    ids=str,
)
def test_a_scheduler_is_accepted_exactly_where_its_table_can_be_made(
    type_: SchedulerType, setting: dict[str, Any]
) -> None:
    body = {"scheduler": {"type": str(type_), **setting}, "model": {"source": HUB}, "targets": [{"name": "cpu"}]}
    try:
        read_spec(body)
        accepted = True
    except InvalidSpecError:
        accepted = False
    overrides = Scheduler.model_construct(**{_SNAKE[name]: value for name, value in setting.items()}).overrides()
    try:
        SchedulerSettings.from_config(type_, {}, overrides)
        served = True
    except ValueError:
        served = False
    assert accepted == served


_SNAKE = {
    "useKarrasSigmas": "use_karras_sigmas",
    "useExponentialSigmas": "use_exponential_sigmas",
    "predictionType": "prediction_type",
    "timestepSpacing": "timestep_spacing",
}
