"""The CRD, the chart's copy of it and the reference are what the models say."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from diffusion_contract.base import RULES
from diffusion_contract.durations import duration_microseconds, duration_seconds
from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator.api.crd import as_yaml, definition, for_chart
from diffusion_operator.api.reference import markdown
from tests.support.operator.fake_cluster import minimal_spec
from tests.support.paths import ROOT

SCHEMA = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
FILES = {
    "crds/diffusionpipelines.yaml": as_yaml(definition()),
    "charts/diffusion-operator/files/diffusionpipelines.yaml": as_yaml(definition()),
    "charts/diffusion-operator-crds/templates/diffusionpipelines.yaml": as_yaml(for_chart(definition())),
    "docs/api.md": markdown(),
}


@pytest.mark.parametrize("name", FILES)
def test_generated_files_are_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text() == FILES[name]


def every_schema(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    schemas = [(path, schema)]
    for name, item in schema.get("properties", {}).items():
        schemas += every_schema(item, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            schemas += every_schema(schema[key], f"{path}[]")
    return schemas


def test_the_schema_is_structural() -> None:
    for path, schema in every_schema(SCHEMA):
        assert "$ref" not in schema, path
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        assert not {"title", "const", "oneOf"} & set(schema), path


def test_every_field_of_the_spec_is_described() -> None:
    for path, schema in every_schema(SCHEMA["properties"]["spec"]):
        if not path.endswith("[]"):
            assert schema.get("description"), path


def test_lists_and_strings_are_bounded_so_that_rules_stay_cheap() -> None:
    for path, schema in every_schema(SCHEMA["properties"]["spec"]):
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if schema.get("type") == "string" and not path.endswith("[]"):
            assert "maxLength" in schema or "enum" in schema, path


def test_every_rule_says_something_to_a_person() -> None:
    messages = [entry["message"] for _, schema in every_schema(SCHEMA) for entry in schema.get(RULES, [])]
    assert len(messages) > 10
    assert all(len(message) > 20 for message in messages)


def test_every_default_is_in_the_schema_as_the_operator_fills_it_in() -> None:
    filled = DiffusionPipelineSpec.model_validate(minimal_spec()).model_dump(by_alias=True, exclude_none=True)
    # The API server must not add ranges: they would stay beside buckets that are set later.
    ranges = {side: filled["shapes"].pop(side) for side in ("height", "width")}
    usual = {"min": 256, "opt": 512, "max": 768}
    assert ranges == {"height": usual, "width": usual}
    assert filled == defaulted(SCHEMA["properties"]["spec"], minimal_spec())


def defaulted(schema: dict[str, Any], value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """As the API server fills in defaults."""
    if isinstance(value, list):
        return [defaulted(schema["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    result = dict(value)
    for name, item in schema["properties"].items():
        if name not in result and "default" in item:
            result[name] = item["default"]
        if name in result:
            result[name] = defaulted(item, result[name])
    return result


def test_an_unknown_field_is_never_ignored() -> None:
    with pytest.raises(ValidationError, match="rollouts"):
        DiffusionPipelineSpec.model_validate(minimal_spec() | {"rollouts": {}})


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("30m", 1800), ("2h", 7200)])
def test_seconds(text: str, value: int) -> None:
    assert duration_seconds(text) == value


@pytest.mark.parametrize(("text", "value"), [("0us", 0), ("500us", 500), ("5ms", 5000), ("1s", 1_000_000)])
def test_microseconds(text: str, value: int) -> None:
    assert duration_microseconds(text) == value


def test_the_examples_are_valid() -> None:
    examples = [*(ROOT / "examples").glob("*.yaml")]
    assert examples
    for file in examples:
        for document in yaml.safe_load_all(file.read_text()):
            if document.get("kind") == "DiffusionPipeline":
                DiffusionPipelineSpec.model_validate(document["spec"])


def test_the_chart_grants_no_wildcard_and_no_secret() -> None:
    text = (ROOT / "charts" / "diffusion-operator" / "templates" / "_helpers.tpl").read_text()
    block = text.partition('"diffusion-operator.rules" -}}')[2].partition("{{- end }}")[0]
    rules = yaml.safe_load(block)
    assert len(rules) > 5
    for entry in rules:
        assert "*" not in [*entry["apiGroups"], *entry["resources"], *entry["verbs"]]
        assert "secrets" not in entry["resources"]
