"""Accelerated loops: each variant of the denoiser, whole images without Triton, and batches on real Triton."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from diffusion_builder.components.registry import COMPONENTS, Sizes, example
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.parity import provenance, requests
from diffusion_builder.parity.reference import Reference
from diffusion_builder.stages.build import build
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from diffusion_contract.enums import Component
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint as sd_checkpoint
from tests.support.builder.loading import load, run, written
from tests.support.builder.repository import SHAPES, context
from tests.support.builder.shapes import SHAPES_OF, lora
from tests.support.builder.xl_checkpoints import write_xl_checkpoint
from tests.support.triton.client import ImageRequest, counts, psnr, send
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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


_CASES: Mapping[str, dict[str, Any]] = {
    "every task": {
        "pipelines": [{"task": task, "steps": [4, 5]} for task in _TASKS],
        "acceleration": {"deepCache": {"interval": 3, "branch": 1}},
    },
    "additions": {
        "pipelines": [
            {"task": "generate", "steps": [4], "features": ["ip_adapter"]},
            {"task": "generate", "steps": [3], "features": ["embeddings"]},
        ],
        "schedulers": [{"type": "Euler"}, {"type": "Heun"}],
        "acceleration": _INTERVAL_2,
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
    tmp_path: Path, name: str, family: str
) -> None:
    model = _model(tmp_path, family, additions=name == "additions")
    spec = read_local({"model": model, "shapes": json.loads(SHAPES), **_CASES[name]})
    report = build(context(tmp_path / "store"), spec)[-1]
    assert len(report["ensembles"]) == len(spec.pipelines) * len(spec.all_schedulers)
    # Without the same reuse in diffusers the images would differ by the price.
    assert report["accelerationPSNR"] + 15 < report["worstPSNR"] >= report["minPSNR"]


def test_a_repository_without_acceleration_reports_no_price(tmp_path: Path) -> None:
    model = {"source": {"path": str(sd_checkpoint(tmp_path / "base", "sd1"))}}
    spec = read_local({"model": model, "shapes": json.loads(SHAPES), "pipelines": [{"task": "generate", "steps": [3]}]})
    assert build(context(tmp_path / "store"), spec)[-1]["accelerationPSNR"] is None


@pytest.mark.parametrize(
    ("unet", "acceleration", "says"),
    [
        ("sd1", {"deepCache": {"interval": 2, "branch": 2}}, "branches 0 to 1 can be computed in every call, not 2"),
        ("lcm", _INTERVAL_2, "reads guidance as an embedding"),
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


def test_on_triton_requests_at_different_steps_share_both_denoisers(tmp_path: Path) -> None:
    base = sd_checkpoint(tmp_path / "base", "sd1")
    fields = {"scheduler": {"type": "DDIM"}, "acceleration": {"deepCache": {"interval": 3}}}
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
        before = {name: counts(server.http, name) for name in ("5_denoiser", "5_denoiser_shallow")}
        tiers = (4, 20, 20, 20) * 2
        answers = list(pool.map(lambda steps: send(server.http, replace(sent, steps=steps)), tiers))
        assert all(psnr(image, expected[steps]) >= _MIN_PSNR for steps, image in zip(tiers, answers, strict=True))
        done = {name: counts(server.http, name).since(earlier) for name, earlier in before.items()}
    # Two samples of each request: calls 0, 3, ... of both tiers are full.
    assert done["5_denoiser"].samples == 2 * (2 * 2 + 6 * 7)
    assert done["5_denoiser_shallow"].samples == 2 * (2 * 2 + 6 * 13)
    assert all(item.mean_batch > 2.0 for item in done.values())
