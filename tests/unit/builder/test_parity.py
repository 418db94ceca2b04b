"""The check runs what is published as Triton would, and what is too far from diffusers fails with its numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.parity import in_process, python_backend, requests, stage
from diffusion_builder.parity.in_process import GeneratedImages
from diffusion_builder.repository.graph import Ensemble, EnsembleStep, Port, TritonModel
from diffusion_contract.enums import Precision
from diffusion_contract.python_models import IMG2IMG
from diffusion_contract.tensors import DType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_GOLDEN = Path(__file__).parent / "golden"


def test_our_own_configurations_are_read_back() -> None:
    text = (_GOLDEN / "generate_2_pipeline.pbtxt").read_text()
    config = in_process.read_config(text, "x")
    assert (config.name, config.platform) == ("generate_2_pipeline", "ensemble")
    steps = config.ensemble_scheduling.step
    assert [step.model_name for step in steps].count("5_denoiser") == 2
    assert sum(len(step.input_map) for step in steps) == text.count("input_map")
    assert {tensor.name: tensor.optional for tensor in config.input}["prompt"] is False
    assert {tensor.name: list(tensor.dims) for tensor in config.output}["image"] == [-1, -1, 3]


@pytest.mark.parametrize("text", ["a {", "a: ", "a: [1", "}", 'a: "x', "a: }", "a b: 1", "max_batch_sizes: 8"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        in_process.read_config(text, "7_x/config.pbtxt")
    assert caught.value.reason is Reason.INVALID_ENSEMBLE
    assert "7_x/config.pbtxt" in caught.value.message


_MODEL = """
import triton_python_backend_utils as pb_utils
from .other import factor

class TritonPythonModel:
    def execute(self, requests):
        (request,) = requests
        tensor = pb_utils.get_input_tensor_by_name(request, "x")
        if tensor is None:
            return [pb_utils.InferenceResponse([], pb_utils.TritonError("send x"))]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", tensor.as_numpy() * factor)])]
"""


def test_a_python_model_runs_without_triton_and_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(_MODEL)
    (tmp_path / "other.py").write_text("factor = 3\n")
    before = set(sys.modules)
    with python_backend.load_model("4_x", tmp_path) as run:
        assert run({"x": np.array([2])}, ["y"])["y"].tolist() == [6]
        with pytest.raises(BadInputError, match="4_x rejects the test request: send x"):
            run({}, ["y"])
    assert {name for name in set(sys.modules) - before if "served" in name or "triton" in name} == set()
    # An artifact must be what its manifest says, also after it was executed.
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["model.py", "other.py"]


def _port(name: str, *, optional: bool = False) -> Port:
    return Port(name, DType.FP32, (1,), optional)


def _model(name: str, inputs: str, outputs: str) -> TritonModel:
    return TritonModel(name, tuple(map(_port, inputs.split())), tuple(map(_port, outputs.split())))


def _graph() -> Ensemble:
    add, preview, end = _model("add", "a b", "sum"), _model("preview", "x", "y"), _model("end", "x", "y")
    return Ensemble(
        "generate_1_pipeline",
        (_port("one"), _port("two", optional=True)),
        (_port("image"), _port("preview_1")),
        (
            EnsembleStep(end, {"x": "mid"}, {"y": "image"}),
            EnsembleStep(preview, {"x": "mid"}, {"y": "preview_1"}),
            EnsembleStep(add, {"a": "one", "b": "two"}, {"sum": "mid"}),
        ),
    )


def test_only_needed_steps_run_in_the_order_of_their_data_and_optional_inputs_may_be_absent() -> None:
    ran: list[str] = []

    def run(step: EnsembleStep) -> Any:  # noqa: ANN401 - a function of arrays
        def call(inputs: Mapping[str, Any], output_names: Sequence[str]) -> Mapping[str, Any]:
            ran.append(f"{step.model.name} {sorted(inputs)}")
            return {name: np.add(sum(inputs.values()), 1) for name in output_names}

        return call

    outputs = in_process.execute(_graph(), {"one": np.array([1])}, ("image",), run)
    assert outputs["image"].tolist() == [3]
    assert ran == ["add ['a']", "end ['x']"]


def _ensemble(name: str, *inputs: str) -> Ensemble:
    return Ensemble(name, tuple(_port(item) for item in inputs), (), ())


def test_one_question_for_the_fewest_steps_of_every_combination() -> None:
    control = ("control_image_canny", "control_image_canny_file")
    names = [
        _ensemble("generate_20_pipeline"), _ensemble("generate_4_pipeline"), _ensemble("generate_4_heun_pipeline"),
        _ensemble("img2img_8_pipeline"), _ensemble("inpaint_controlnet_ip_adapter_8_pipeline", *control),
        _ensemble("generate_embeddings_4_pipeline"), _ensemble("something_else"),
    ]  # fmt: skip
    requests_by_ensemble = requests.test_requests(names, (64, 72), (16, 32, 0))
    assert requests_by_ensemble.keys() == {item.name for item in names[1:-1]}
    inpaint = requests_by_ensemble["inpaint_controlnet_ip_adapter_8_pipeline"]
    assert (inpaint.control_nets, inpaint.ip_adapter) == (("canny",), True)
    tensors = inpaint.tensors()
    assert tensors["mask"].shape == (2, 64, 72)
    assert tensors["control_image_canny"].shape == (2, 64, 72, 3)
    assert "prompt" not in requests_by_ensemble["generate_embeddings_4_pipeline"].tensors()


@pytest.mark.parametrize("steps", [1, 2, 4, 20, 50, 64])
def test_of_a_longer_schedule_diffusers_runs_the_last_steps(steps: int) -> None:
    request = requests.TestRequest("img2img_1_pipeline", IMG2IMG, steps, 64, 64)
    total = request.schedule_steps
    assert min(int(total * request.strength), total) == steps
    assert min(int((total - 1) * request.strength), total - 1) < steps


def _images(shade: int, latent: float) -> GeneratedImages:
    return GeneratedImages(np.full((2, 8, 8, 3), shade, np.uint8), np.full((2, 4, 1, 1), latent, np.float32))


def test_the_figures_are_of_the_worst_image_and_a_failure_names_them() -> None:
    metrics = stage.measure(_images(100, 0.0), _images(110, 0.25))
    assert metrics.psnr == pytest.approx(28.13, abs=0.01)
    assert metrics.latent_error == 0.25
    assert stage.measure(_images(1, 0.0), _images(1, 0.0)).psnr == 99.0


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers_fail_however_the_image_looks(error: float) -> None:
    metrics = {"generate_4_pipeline": stage.ParityMetrics(99.0, error)}
    with pytest.raises(BadInputError, match=r"generate_4_pipeline: 99\.0 dB") as caught:
        stage.require_parity(metrics, Precision.FLOAT32)
    assert caught.value.reason is Reason.PARITY_FAILED


def test_half_precision_may_be_further_away() -> None:
    metrics = {"generate_4_pipeline": stage.ParityMetrics(32.0, 0.1)}
    stage.require_parity(metrics, Precision.FLOAT16)
    with pytest.raises(BadInputError, match="1 of 1 kinds of ensembles"):
        stage.require_parity(metrics, Precision.FLOAT32)
