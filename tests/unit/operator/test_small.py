"""Settings, comparison of objects, conditions, the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from diffusion_operator import conditions, settings
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.api.status import Condition
from diffusion_operator.cli import cli, main
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from diffusion_operator.errors import BadInputError
from diffusion_operator.handlers.controller import affected_pipelines
from diffusion_operator.matching import contains
from diffusion_operator.reconcile import PipelineKey
from tests.support.operator.fake_cluster import minimal_spec
from tests.support.paths import ROOT

IMAGES = {"DIFFUSION_OPERATOR_BUILDER_IMAGE": "b:1", "DIFFUSION_OPERATOR_SERVING_IMAGE": "s:1"}


def test_settings_have_defaults_and_read_lists() -> None:
    actual = settings.from_environment(IMAGES | {"DIFFUSION_OPERATOR_WATCH_NAMESPACES": "a, b,"})
    assert actual.watch_namespaces == ("a", "b")
    assert actual.resync_seconds == 300
    assert actual.log_format == "text"


@pytest.mark.parametrize(
    ("variables", "variable"),
    [
        ({}, "BUILDER_IMAGE"),
        (IMAGES | {"DIFFUSION_OPERATOR_RESYNC_SECONDS": "soon"}, "RESYNC_SECONDS"),
        (IMAGES | {"DIFFUSION_OPERATOR_RESYNC_SECONDS": "0"}, "RESYNC_SECONDS"),
        (IMAGES | {"DIFFUSION_OPERATOR_LOG_FORMAT": "xml"}, "LOG_FORMAT"),
    ],
)
def test_a_bad_setting_is_named(variables: dict[str, str], variable: str) -> None:
    with pytest.raises(BadInputError, match=variable):
        settings.from_environment(variables)


@pytest.mark.parametrize(
    ("observed", "desired", "expected"),
    [
        ({"a": 1, "added": 2}, {"a": 1}, True),
        ({"a": 2}, {"a": 1}, False),
        ({}, {"a": 1}, False),
        ({}, {"a": {}, "b": [], "c": False}, True),
        ({"a": [{"x": 1, "added": 2}]}, {"a": [{"x": 1}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"cpu": "1"}, {"cpu": "1000m"}, True),
        ({"cpu": 1}, {"cpu": "1"}, True),
        ({"memory": "2Gi"}, {"memory": "2G"}, False),
        ({"name": "e"}, {"name": "E"}, False),
        ({"memory": "1.5k"}, {"memory": 1500}, True),
        ({"memory": ""}, {"memory": "0"}, False),
    ],
)
def test_contains(observed: dict[str, Any], desired: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    assert contains(observed, desired) is expected


def finding(kind: ConditionType, reason: str, *, ok: bool = False) -> ConditionUpdate:
    return ConditionUpdate(kind, reason, f"about {reason}", ok=ok)


def test_ready_names_trouble_before_progress() -> None:
    waiting = finding(ConditionType.ENGINES_READY, Reason.EXPORTING)
    broken = finding(ConditionType.AVAILABLE, Reason.IMAGE_PULL_BACK_OFF)
    assert conditions.ready_condition([waiting, broken]).reason == Reason.IMAGE_PULL_BACK_OFF
    assert conditions.ready_condition([waiting]).reason == Reason.EXPORTING
    assert conditions.ready_condition([finding(ConditionType.AVAILABLE, Reason.SERVING, ok=True)]).ok


def test_a_reason_of_the_builder_needs_action() -> None:
    assert conditions.needs_action(finding(ConditionType.ENGINES_READY, "PickleOnly"))
    assert not conditions.needs_action(finding(ConditionType.ENGINES_READY, Reason.FETCHING))


def test_the_transition_time_moves_only_with_the_status() -> None:
    before = Condition(
        type="Ready", status="False", reason="Fetching", message="", observed_generation=1, last_transition_time="then"
    )
    [same] = conditions.merge_conditions([finding(ConditionType.READY, Reason.EXPORTING)], {"Ready": before}, 2, "now")
    assert (same.last_transition_time, same.reason, same.observed_generation) == ("then", "Exporting", 2)
    [changed] = conditions.merge_conditions(
        [finding(ConditionType.READY, Reason.READY, ok=True)], {"Ready": before}, 2, "now"
    )
    assert changed.last_transition_time == "now"


def test_an_event_of_a_shared_job_wakes_all_its_pipelines() -> None:
    references = [{"kind": "DiffusionPipeline", "name": "a"}, {"kind": "DiffusionPipeline", "name": "b"}]
    body = {"metadata": {"ownerReferences": references, "labels": {"diffusion-operator.io/pipeline": "a"}}}
    assert list(affected_pipelines("studio", body)) == [PipelineKey("studio", "a"), PipelineKey("studio", "b")]


def test_validate_names_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:  # noqa: ANN401
    file = tmp_path / "pipeline.yaml"
    spec = minimal_spec() | {"precision": "float8"}
    file.write_text(json.dumps({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": spec}))
    monkeypatch.setattr("sys.argv", ["diffusion-operator", "validate", str(file)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 64
    error_text = capsys.readouterr().err
    assert "spec.precision" in error_text
    assert "Traceback" not in error_text


def test_validate_accepts_the_example() -> None:
    example = ROOT / "examples" / "pipeline.yaml"
    result = CliRunner().invoke(cli, ["validate", str(example)])
    assert result.exit_code == 0, result.output


def test_crd_check_fails_on_drift(tmp_path: Path) -> None:
    file = tmp_path / "crd.yaml"
    assert CliRunner().invoke(cli, ["crd", "--write", str(file)]).exit_code == 0
    assert CliRunner().invoke(cli, ["crd", "--check", str(file)]).exit_code == 0
    file.write_text(file.read_text() + "x: 1\n")
    assert isinstance(CliRunner().invoke(cli, ["crd", "--check", str(file)]).exception, BadInputError)
