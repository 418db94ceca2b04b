"""The arguments of `serving.tracing` make a real Triton send one span for every step to a collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from diffusion_contract.spec import Serving, Target
from diffusion_contract.spec.serving import Tracing
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.deployment import RevisionSpec, serving_revision
from diffusion_operator.settings import Settings
from tests.support.collector import collector
from tests.support.gateway.running import start_gateway
from tests.support.triton.tritonserver import serve, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.builder.repository import Built

STEPS, SHORT = 20, 4
MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        tensors = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", tensor)]) for tensor in tensors]
"""
TENSORS = """
input [{name: "X" data_type: TYPE_FP32 dims: [1]}]
output [{name: "Y" data_type: TYPE_FP32 dims: [1]}]
"""


def unrolled(models: Path) -> None:
    """An ensemble that calls the model `5_denoiser` once for every step."""
    calls = [
        f'{{model_name: "5_denoiser" model_version: -1 input_map {{key: "X" value: "{_tensor(step)}"}} '
        f'output_map {{key: "Y" value: "{_tensor(step + 1)}"}}}}'
        for step in range(STEPS)
    ]
    configurations = {
        "5_denoiser": f'backend: "python" {TENSORS}',
        "generate_20_pipeline": f'platform: "ensemble" {TENSORS} ensemble_scheduling {{step [{", ".join(calls)}]}}',
    }
    for name, text in configurations.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "config.pbtxt").write_text(text)
    (models / "5_denoiser" / "1" / "model.py").write_text(MODEL)


def _tensor(step: int) -> str:
    return {0: "X", STEPS: "Y"}.get(step, f"x{step}")


def flags(endpoint: str) -> list[str]:
    """As the operator writes them."""
    serving = Serving(tracing=Tracing(endpoint=endpoint, rate=1))
    spec = RevisionSpec(Target(name="cpu"), serving, "b" * 64, "store", STEPS)
    revision = serving_revision(spec, Owner("shapes", "studio", "1"), Settings("builder", "triton"))
    arguments: list[str] = revision.pod["containers"][0]["args"]
    return [argument for argument in arguments if argument.startswith("--trace-config")]


def test_a_request_of_twenty_steps_has_twenty_spans_of_the_denoiser(tmp_path: Path) -> None:
    unrolled(tmp_path)
    with collector() as spans, serve(tmp_path, flags=flags(spans.endpoint)) as triton:
        body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
        answer = httpx.post(f"{triton.http}/v2/models/generate_20_pipeline/infer", json=body, timeout=300)
        assert answer.json()["outputs"][0]["data"] == [0.5]
        wait_until(lambda: "InferRequest" in spans.span_names(), 60, lambda: str(spans.span_names()))
        names = spans.span_names()
    assert names.count("5_denoiser") == STEPS
    assert names.count("generate_20_pipeline") == 1
    assert spans.services() == [{"service.name": "shapes", "service.namespace": "studio"}]


@pytest.mark.parametrize("is_traced", [False, True], ids=["without spans of its own", "with spans of its own"])
def test_spans_behind_the_images_api_belong_to_the_callers_trace(
    built: Built, tmp_path: Path, *, is_traced: bool
) -> None:
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    body = {"prompt": "a red circle", "num_inference_steps": SHORT}
    with collector() as spans:
        options = ["--trace-endpoint", spans.endpoint, "--trace-resource", "service.name=shapes-api"]
        with (
            serve(built.models, flags=flags(spans.endpoint)) as triton,
            start_gateway(
                tmp_path, "--pipeline", f"shapes={triton.grpc}", "--auth", "none", *(options if is_traced else [])
            ) as gateway,
        ):
            headers = {"traceparent": f"00-{trace}-{caller}-01"}
            url = f"{gateway.url}/v1/images/generations"
            assert httpx.post(url, json=body, headers=headers, timeout=300).status_code == 200
            wait_until(lambda: "InferRequest" in spans.span_names(), 60, lambda: str(spans.span_names()))
    assert spans.span_names().count("5_denoiser") == SHORT
    assert {span.trace for span in spans.spans()} == {trace}
    by_name = {span.name: span for span in spans.spans()}
    parents = [by_name["InferRequest"].parent]
    if is_traced:
        request, call = by_name["POST /v1/images/generations"], by_name["infer"]
        assert parents == [call.id]
        assert call.parent == by_name["wait"].parent == request.id
        assert request.resource["service.name"] == "shapes-api"
        parents = [request.parent]
    assert parents == [caller]
