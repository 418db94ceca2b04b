"""The demo's canaries: what is applied, what is shown, and what counts as the end."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import yaml
from rich.console import Console

from diffusion_contract.spec import DiffusionPipelineSpec
from examples import demo_load_generator
from examples.demo_canary import CANARIES, FinishedCanary, summary
from examples.demo_support.canary import Result, canary_rows, document, final_result, save
from examples.demo_support.errors import DemoError
from examples.demo_support.install import PIPELINE_FILE
from examples.demo_support.load_generator import PROGRAM, LoadStats, manifest
from examples.demo_support.settings import ROOT, Settings


@pytest.mark.parametrize("name", CANARIES)
def test_the_canary_is_the_demos_pipeline_with_another_denoiser_and_a_rollout(name: str) -> None:
    body = document(name)
    spec = DiffusionPipelineSpec.model_validate(body["spec"])
    assert spec.rollout is not None
    assert spec.rollout.strategy == "Canary"
    assert body["spec"]["model"].pop("components")["denoiser"]["source"]["huggingFace"]["repo"] == f"demo/{name}"
    del body["spec"]["rollout"]
    assert body == yaml.safe_load(PIPELINE_FILE.read_text())


def status(phase: str, verdict: str, reason: str = "Passed", **target: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a status
    analysis = {"verdict": verdict, "reason": reason, "message": "because"}
    return {"targets": [{"name": "cpu", "phase": phase, "analysis": analysis, **target}]}


@pytest.mark.parametrize(
    ("status_json", "rows"),
    [
        ({"targets": [{"name": "cpu"}]}, []),
        (
            status("ImageComparison", "Inconclusive", imageComparison={"state": "Running"}),
            [("golden images · cpu", "Running", "because")],
        ),
        (
            status("Step", "Pass", imageComparison={"state": "Ready"}, canaryWeight=50),
            [("golden images · cpu", "Ready", ""), ("requests · cpu", "Ready", "50 % · because")],
        ),
        (
            status("Rejected", "Fail", "ImageQuality", imageComparison={"state": "Ready"}),
            [("golden images · cpu", "Failed", "because")],
        ),
        (
            status("Rejected", "Fail", "Latency", imageComparison={"state": "Ready"}),
            [("golden images · cpu", "Ready", ""), ("requests · cpu", "Failed", "0 % · because")],
        ),
    ],
)
def test_images_and_requests_are_rows(status_json: dict[str, Any], rows: list[tuple[str, str, str]]) -> None:
    assert [(row.name, row.state, row.detail) for row in canary_rows(status_json)] == rows


def test_only_what_is_said_about_this_generation_is_an_end() -> None:
    condition = {"type": "RolloutComplete", "status": "False", "reason": "CanaryRejected", "observedGeneration": 2}
    assert final_result({"conditions": [condition]}, 2) == "rejected"
    assert final_result({"conditions": [condition]}, 3) is None
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "observedGeneration": 3}
    assert final_result({"conditions": [condition, ready]}, 3) == "promoted"


def test_a_sheet_that_could_not_be_read_is_told() -> None:
    with pytest.raises(DemoError, match="contact sheet"):
        save(Result("promoted", 1.0, (), b""), ROOT / "out" / "never.png")


def test_the_users_pod_runs_the_program_of_this_checkout_at_the_strictest_level() -> None:
    program, deployment = json.loads(manifest("studio", "hub:1", "http://shapes:8000"))["items"]
    assert program["data"] == {PROGRAM.name: PROGRAM.read_text()}
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"][-1] == "http://shapes:8000"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"]


def test_what_the_users_tell_is_what_is_shown() -> None:
    count = demo_load_generator.Count()
    for error in ("", "", "503: no"):
        count.add(error)
    assert str(LoadStats(**json.loads(count.line(2.0)))) == "2 images, 1.0 a second, 1 failed (503: no)"


def test_the_end_names_verdicts_contact_sheets_and_what_the_users_got() -> None:
    rejected = Result("rejected", 41.0, ("ImageQuality: colours [shifted] by 0.356",), b"")
    text = summary(
        Settings(images={}),
        [FinishedCanary("wrong-colours", rejected, ROOT / "out" / "a.png")],
        LoadStats(7, 0, "", 3.5),
    )
    output = io.StringIO()
    Console(file=output, width=200).print(text)
    for words in ("rejected after 41 s", "colours [shifted] by 0.356", "out/a.png", "7 images, 3.5 a second, 0 failed"):
        assert words in output.getvalue()
