"""The arguments of `serving.tracing` make a real Triton send one span for every step to a collector."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx

from diffusion_contract.spec import Serving, Target
from diffusion_contract.spec.serving import Tracing
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.deployment import RevisionSpec, serving_revision
from diffusion_operator.settings import Settings
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


class Collector(ThreadingHTTPServer):
    """Keeps what is sent to it: OTLP, which Triton sends as JSON."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self) -> list[dict[str, Any]]:
        """All spans."""
        scopes = [scope for entry in self._entries() for scope in entry["scopeSpans"]]
        return [span for scope in scopes for span in scope["spans"]]

    def span_names(self) -> list[str]:
        """Names of all spans."""
        return [span["name"] for span in self.spans()]

    def resources(self) -> list[dict[str, str]]:
        """What the sender says that it is, each once."""
        attributes = [
            {
                item["key"]: item["value"]["stringValue"]
                for item in entry["resource"]["attributes"]
                if item["key"].startswith("service.")
            }
            for entry in self._entries()
        ]
        return [item for index, item in enumerate(attributes) if item not in attributes[:index]]

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for body in self.bodies for entry in json.loads(body)["resourceSpans"]]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


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
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        with serve(tmp_path, flags=flags(collector.endpoint)) as triton:
            body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
            answer = httpx.post(f"{triton.http}/v2/models/generate_20_pipeline/infer", json=body, timeout=300)
            assert answer.json()["outputs"][0]["data"] == [0.5]
            wait_until(lambda: "InferRequest" in collector.span_names(), 60, lambda: str(collector.span_names()))
        collector.shutdown()
    names = collector.span_names()
    assert names.count("5_denoiser") == STEPS
    assert names.count("generate_20_pipeline") == 1
    assert collector.resources() == [{"service.name": "shapes", "service.namespace": "studio"}]


def test_spans_behind_the_images_api_belong_to_the_callers_trace(built: Built, tmp_path: Path) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    body = {"prompt": "a red circle", "num_inference_steps": SHORT}
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        with (
            serve(built.models, flags=flags(collector.endpoint)) as triton,
            start_gateway(tmp_path, "--pipeline", f"shapes={triton.grpc}", "--auth", "none") as gateway,
        ):
            headers = {"traceparent": f"00-{trace}-{span}-01"}
            url = f"{gateway.url}/v1/images/generations"
            assert httpx.post(url, json=body, headers=headers, timeout=300).status_code == 200
            wait_until(lambda: "InferRequest" in collector.span_names(), 60, lambda: str(collector.span_names()))
        collector.shutdown()
    assert collector.span_names().count("5_denoiser") == SHORT
    assert {item["traceId"].lower() for item in collector.spans()} == {trace}
    assert span in {item.get("parentSpanId", "").lower() for item in collector.spans()}
