"""Accelerated loops: each variant of the denoiser, whole images without Triton, and batches on real Triton."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from diffusion_builder.components.registry import COMPONENTS, Sizes, example
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.parity import provenance, requests
from diffusion_builder.parity.accelerated import accelerated
from diffusion_builder.parity.reference import Reference
from diffusion_builder.stages.build import build
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from diffusion_contract.enums import Component
from diffusion_contract.spec import Acceleration
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint as sd_checkpoint
from tests.support.builder.conditioned import feature_sources
from tests.support.builder.loading import load, run, written
from tests.support.builder.repository import SHAPES, context
from tests.support.builder.shapes import SHAPES_OF, lora
from tests.support.builder.xl_checkpoints import write_xl_checkpoint
from tests.support.triton.client import ImageRequest, counts, psnr, send
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The libraries have no types.
_Pipeline: Any = StableDiffusionPipeline
_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
_INTERVAL_2 = {"deepCache": {"interval": 2}}
_TASKS = ("generate", "img2img", "inpaint")
_MIN_PSNR = 35.0


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 6), (9, 11)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", sorted(parts.UNETS.keys() - {"lcm"}))
def test_a_shallow_denoiser_on_its_own_deep_features_is_the_full_one(
    tmp_path: Path, name: str, layers: int, size: tuple[int, int]
) -> None:
    folders, sizes = written(tmp_path, {"unet": parts.unet(name)}), Sizes(2, *size)
    options: dict[str, Any] = {"shallow_layers": layers}
    if name.startswith("sdxl"):
        options["family"] = "StableDiffusionXL"
    full, shallow = (load(item, folders, **options) for item in (Component.DENOISER, Component.DENOISER_SHALLOW))
    inputs, (output, deep, negative_deep) = run(Component.DENOISER, full, sizes)
    assert full.facts == shallow.facts
    interface = COMPONENTS[Component.DENOISER_SHALLOW].interface(shallow.facts)
    examples = example(interface, shallow, sizes, seed=5)
    assert deep.shape == examples[[tensor.name for tensor in interface.inputs].index("deep_features")].shape
    inputs |= {"deep_features": deep, "negative_deep_features": negative_deep}
    torch.testing.assert_close(shallow.module(*(inputs[tensor.name] for tensor in interface.inputs)), output)
    # It has none of the layers below.
    weights = [sum(weight.numel() for weight in item.module.parameters()) for item in (full, shallow)]
    assert weights[1] < weights[0]
    assert not torch.allclose(shallow.module(*examples), output)


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("name", sorted(parts.UNETS.keys() - {"lcm"}))
def test_an_unguided_denoiser_is_the_guided_one_with_guidance_1(tmp_path: Path, name: str, layers: int) -> None:
    folders, sizes = written(tmp_path, {"unet": parts.unet(name)}), Sizes(2, 8, 6)
    options: dict[str, Any] = {"shallow_layers": layers}
    if name.startswith("sdxl"):
        options["family"] = "StableDiffusionXL"
    pairs = [(Component.DENOISER, Component.DENOISER_UNGUIDED)]
    if layers:
        pairs.append((Component.DENOISER_SHALLOW, Component.DENOISER_SHALLOW_UNGUIDED))
    for pair in pairs:
        guided, unguided = (load(item, folders, **options) for item in pair)
        interface = COMPONENTS[pair[0]].interface(guided.facts)
        names = [tensor.name for tensor in interface.inputs]
        inputs = dict(zip(names, example(interface, guided, sizes, seed=5), strict=True))
        inputs["guidance"] = torch.ones(2, 1)
        read = [tensor.name for tensor in COMPONENTS[pair[1]].interface(unguided.facts).inputs]
        assert inputs.keys() - set(read) <= {"guidance", "negative_deep_features"}
        expected, actual = guided.module(*inputs.values()), unguided.module(*(inputs[item] for item in read))
        if isinstance(expected, tuple):
            # Output and positive features.
            torch.testing.assert_close(actual, expected[:2])
        else:
            torch.testing.assert_close(actual, expected)


def test_the_reference_stops_guidance_as_a_callback_of_diffusers_does(tmp_path: Path) -> None:
    """https://huggingface.co/docs/diffusers/using-diffusers/callback has this recipe, for its plain pipeline."""
    base = sd_checkpoint(tmp_path / "base", "sd1")
    pipe = _Pipeline.from_pretrained(base, dtype=torch.float32, local_files_only=True, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)

    def stop(pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
        if step == 2:
            pipe._guidance_scale = 0.0  # noqa: SLF001 - as the recipe does
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        return tensors

    def latents(**arguments: Any) -> torch.Tensor:  # noqa: ANN401 - the library has no types
        generator = torch.Generator().manual_seed(3)
        images: torch.Tensor = pipe(
            "a blue star", num_inference_steps=5, height=64, width=64, guidance_scale=5.0, generator=generator,
            output_type="latent", **arguments,
        ).images  # fmt: skip
        return images

    expected = latents(callback_on_step_end=stop, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    with accelerated(pipe.unet, Acceleration.model_validate({"guidance": {"stop": 0.6}}), 5):
        actual = latents()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(latents(), expected, rtol=1e-3, atol=1e-3)


_CASES: Mapping[str, dict[str, Any]] = {
    "every task": {
        "pipelines": [{"task": task, "steps": [4, 5]} for task in _TASKS],
        "acceleration": {"deepCache": {"interval": 3, "branch": 1}},
    },
    "guidance": {
        "pipelines": [{"task": task, "steps": [4]} for task in _TASKS],
        "acceleration": {"guidance": {"stop": 0.5}},
    },
    "both": {
        "pipelines": [{"task": task, "steps": [5]} for task in _TASKS],
        "schedulers": [{"type": "Euler"}, {"type": "Heun"}],
        "acceleration": {**_INTERVAL_2, "guidance": {"stop": 0.3}},
    },
    "additions": {
        "pipelines": [
            {"task": "generate", "steps": [4], "features": ["ip_adapter"]},
            {"task": "generate", "steps": [3], "features": ["embeddings"]},
        ],
        "schedulers": [{"type": "Euler"}, {"type": "Heun"}],
        "acceleration": {**_INTERVAL_2, "guidance": {"stop": 0.4}},
    },
    "half precision": {
        "pipelines": [{"task": "generate", "steps": [3]}],
        "precision": "float16",
        "acceleration": _INTERVAL_2,
    },
}


def _model(folder: Path, family: str, *, additions: bool) -> dict[str, Any]:
    is_xl = family == "StableDiffusionXL"
    base = write_xl_checkpoint(folder / "base") if is_xl else sd_checkpoint(folder / "base", "sd1")
    model: dict[str, Any] = {"source": {"path": str(base)}, "family": family}
    if additions:
        lora(SHAPES_OF["SDXL" if is_xl else "SD 1.x"])(folder / "lora")
        model["loras"] = [{"source": {"path": str(folder / "lora")}, "weight": 0.5}]
        parts.ip_adapter("sdxl" if is_xl else "sd1")(folder / "adapter")
        parts.image_encoder()(folder / "adapter" / "image_encoder")
        model |= {"ipAdapter": {"source": {"path": str(folder / "adapter")}}, "guidanceRescale": True}
    return model


@pytest.mark.parametrize("family", ["StableDiffusion", "StableDiffusionXL"])
@pytest.mark.parametrize("name", _CASES)
def test_an_accelerated_repository_draws_what_diffusers_draws_with_the_same_calls(
    store: Path, tmp_path: Path, name: str, family: str
) -> None:
    model = _model(tmp_path, family, additions=name == "additions")
    spec = read_local({"model": model, "shapes": json.loads(SHAPES), **_CASES[name]})
    report = build(context(store), spec)[-1]
    assert len(report["ensembles"]) == len(spec.pipelines) * len(spec.all_schedulers)
    # Without the same reuse in diffusers the images would differ by the price.
    assert report["accelerationPSNR"] + 15 < report["worstPSNR"] >= report["minPSNR"]


def test_a_repository_without_acceleration_reports_no_price(store: Path, tmp_path: Path) -> None:
    model = {"source": {"path": str(sd_checkpoint(tmp_path / "base", "sd1"))}}
    spec = read_local({"model": model, "shapes": json.loads(SHAPES), "pipelines": [{"task": "generate", "steps": [3]}]})
    assert build(context(store), spec)[-1]["accelerationPSNR"] is None


def test_guidance_stops_with_controlnets_as_in_diffusers(store: Path, tmp_path: Path) -> None:
    model = {"source": {"path": str(sd_checkpoint(tmp_path / "base", "sd1"))}, **feature_sources(tmp_path)}
    pipelines = [{"task": "generate", "steps": [3], "features": features} for features in (["controlnet"], None)]
    spec = read_local(
        {
            "model": model, "shapes": json.loads(SHAPES), "pipelines": pipelines,
            "acceleration": {"guidance": {"stop": 0.4}},
        }
    )  # fmt: skip
    report = build(context(store), spec)[-1]
    assert report["accelerationPSNR"] + 15 < report["worstPSNR"] >= report["minPSNR"]


@pytest.mark.parametrize(
    ("unet", "acceleration", "says"),
    [
        ("sd1", {"deepCache": {"interval": 2, "branch": 2}}, "branches 0 to 1 can be computed in every call, not 2"),
        ("lcm", _INTERVAL_2, "reads guidance as an embedding"),
        ("lcm", {"guidance": {"stop": 0.5}}, "reads guidance as an embedding"),
    ],
)
def test_a_unet_that_cannot_be_accelerated_is_refused_before_anything_is_exported(
    tmp_path: Path, unet: str, acceleration: dict[str, Any], says: str
) -> None:
    model = {"source": {"path": str(sd_checkpoint(tmp_path / "base", unet))}}
    spec = read_local({"model": model, "shapes": json.loads(SHAPES), "acceleration": acceleration})
    with pytest.raises(BadInputError, match=says) as caught:
        build(context(tmp_path / "store"), spec)
    assert caught.value.reason in (Reason.INVALID_ARGUMENT, Reason.UNSUPPORTED_COMPONENT)
    assert not list((tmp_path / "store" / "onnx").glob("*"))


_MODELS = ("5_denoiser", "5_denoiser_shallow", "5_denoiser_unguided", "5_denoiser_shallow_unguided")


def test_on_triton_requests_at_different_steps_share_all_denoisers(tmp_path: Path) -> None:
    base = sd_checkpoint(tmp_path / "base", "sd1")
    acceleration = {"deepCache": {"interval": 3}, "guidance": {"stop": 0.6}}
    fields = {"scheduler": {"type": "DDIM"}, "acceleration": acceleration}
    pipelines = [{"task": "generate", "steps": [4, 20], "previews": [2]}]
    spec = read_local(
        {"model": {"source": {"path": str(base)}}, "shapes": json.loads(SHAPES), "pipelines": pipelines, **fields}
    )
    store = Store(tmp_path / "store")
    repository = store.get(Kind.REPOSITORY, str(build(context(store.root), spec, parity=False)[-1]["digest"]))
    sources = provenance.trace_provenance(store, repository)
    reference = Reference(sources)
    request = requests.TestRequest("generate_4_pipeline", "generate", 4, 64, 64)
    sent = ImageRequest(
        4, requests.PROMPTS, requests.NEGATIVE, requests.SEEDS, [requests.GUIDANCE] * 2, [64] * 2, [64] * 2
    )
    expected = {
        steps: reference.generate(replace(request, steps=steps), sources.acceleration).images for steps in (4, 20)
    }
    with serve(repository.path / "models") as server, ThreadPoolExecutor(8) as pool:
        for steps, images in expected.items():
            assert psnr(send(server.http, replace(sent, steps=steps)), images) >= _MIN_PSNR
        before = {name: counts(server.http, name) for name in _MODELS}
        tiers = (4, 20, 20, 20) * 2
        answers = list(pool.map(lambda steps: send(server.http, replace(sent, steps=steps)), tiers))
        assert all(psnr(image, expected[steps]) >= _MIN_PSNR for steps, image in zip(tiers, answers, strict=True))
        done = {name: counts(server.http, name).since(earlier) for name, earlier in before.items()}
    # Two samples of each request: 2 of 4 steps, of which 2 are guided, and 6 of 20, of which 12 are.
    schedule = {"5_denoiser": (1, 4), "_shallow": (1, 8), "_unguided": (1, 3), "_shallow_unguided": (1, 5)}
    for (name, (of_4, of_20)), model in zip(schedule.items(), _MODELS, strict=True):
        assert model.endswith(name)
        assert done[model].samples == 2 * (2 * of_4 + 6 * of_20), model
        assert done[model].mean_batch > 2.0, model
