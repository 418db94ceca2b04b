"""IP-Adapter: what its image encoder gives and its attention computes is what diffusers makes of the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection

from diffusion_builder.components.registry import Sizes
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import Component
from tests.support.builder import parts
from tests.support.builder.loading import both, guided, load, run, unet_of, written

if TYPE_CHECKING:
    from pathlib import Path

_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)
_DIGEST = "0" * 64


@pytest.mark.parametrize("plus", [False, True])
@torch.no_grad()
def test_image_encoder_gives_what_the_adapter_reads(tmp_path: Path, *, plus: bool) -> None:
    folders = written(tmp_path, {"image_encoder": parts.image_encoder(), "ip_adapter": parts.ip_adapter(plus=plus)})
    loaded = load(Component.IMAGE_ENCODER, folders, ip_adapter=_DIGEST)
    inputs, output = run(Component.IMAGE_ENCODER, loaded, Sizes(2, 8, 8, references=3))
    model: Any = CLIPVisionModelWithProjection.from_pretrained(folders["image_encoder"])
    for sample, pixels in enumerate(inputs["reference_pixels"]):
        if plus:
            positive, negative = (
                model(value, output_hidden_states=True).hidden_states[-2].flatten(0, 1)
                for value in (pixels, torch.zeros_like(pixels))
            )
        else:
            positive = model(pixels).image_embeds
            negative = torch.zeros_like(positive)
        torch.testing.assert_close(output[sample], torch.stack([negative, positive]))


def _diffusers(folders: dict[str, Path]) -> Any:  # noqa: ANN401 - the library has no types
    """A UNet with the adapter, as load_ip_adapter makes it."""
    model = unet_of(folders["unet"])
    state = load_file(folders["ip_adapter"] / "ip-adapter.safetensors")
    nested = {
        part: {key.removeprefix(part + "."): value for key, value in state.items() if key.startswith(part)}
        for part in ("image_proj", "ip_adapter")
    }
    model._load_ip_adapter_weights([nested], low_cpu_mem_usage=False)  # noqa: SLF001 - what load_ip_adapter calls
    return model


def _reference(model: Any, alone: dict[str, torch.Tensor], references: int, masks: Any) -> torch.Tensor:  # noqa: ANN401
    """What diffusers makes of one sample."""
    for processor in model.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [float(alone["ip_adapter_scale"])]
    image = both(alone, "image_embeddings")
    plain = image.shape[1] == references
    raw = model(
        alone["model_input"].repeat(2, 1, 1, 1), alone["timestep"][0].repeat(2), both(alone, "text_embeddings"),
        added_cond_kwargs={"image_embeds": [image if plain else torch.unflatten(image, 1, (references, -1))]},
        cross_attention_kwargs=masks,
    ).sample  # fmt: skip
    return guided(alone, raw)


@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize("plus", [False, True])
@torch.no_grad()
def test_each_sample_has_its_own_images_and_scale(tmp_path: Path, *, plus: bool, references: int) -> None:
    writers = {
        "unet": parts.unet(), "image_encoder": parts.image_encoder(), "ip_adapter": parts.ip_adapter(plus=plus),
    }  # fmt: skip
    folders = written(tmp_path, writers)
    loaded = load(Component.DENOISER, folders, ip_adapter=_DIGEST)
    inputs, _ = run(Component.DENOISER, loaded, Sizes(2, 8, 6, references=references))
    inputs["ip_adapter_region"] = torch.ones_like(inputs["ip_adapter_region"])
    output = loaded.module(*inputs.values())
    model = _diffusers(folders)
    for sample in range(2):
        alone = {name: value[sample : sample + 1] for name, value in inputs.items()}
        expected = _reference(model, alone, references, None)
        torch.testing.assert_close(output[sample : sample + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (8, 12), (9, 11)])
@torch.no_grad()
def test_each_sample_has_its_own_region(tmp_path: Path, size: tuple[int, int], *, plus: bool) -> None:
    # Attention at each level, so that the region is seen in every size.
    writers = {
        "unet": parts.unet("wide-latent"), "image_encoder": parts.image_encoder(),
        "ip_adapter": parts.ip_adapter("wide-latent", plus=plus),
    }  # fmt: skip
    folders = written(tmp_path, writers)
    loaded = load(Component.DENOISER, folders, ip_adapter=_DIGEST)
    inputs, _ = run(Component.DENOISER, loaded, Sizes(2, *size))
    inputs["ip_adapter_region"] = (inputs["ip_adapter_region"] > 0).float()
    output = loaded.module(*inputs.values())
    model = _diffusers(folders)
    everywhere = {**inputs, "ip_adapter_region": torch.ones(2, 1, *size)}
    assert not torch.allclose(loaded.module(*everywhere.values()), output, atol=1e-2)
    for sample in range(2):
        alone = {name: value[sample : sample + 1] for name, value in inputs.items()}
        # [1, images, h, w], as IPAdapterMaskProcessor makes it.
        expected = _reference(model, alone, 1, {"ip_adapter_masks": [alone["ip_adapter_region"]]})
        torch.testing.assert_close(output[sample : sample + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("writers", "reason", "says"),
    [
        ({"ip_adapter": parts.ip_adapter()}, Reason.MISSING_COMPONENT, "without its image encoder"),
        (
            {"ip_adapter": parts.ip_adapter(image_width=7), "image_encoder": parts.image_encoder()},
            Reason.COMPONENT_MISMATCH, "reads 7 features, its image encoder gives 24",
        ),
        (
            {"ip_adapter": parts.ip_adapter("sd2"), "image_encoder": parts.image_encoder()},
            Reason.COMPONENT_MISMATCH, "width 40, this one has 32",
        ),
        (
            {"ip_adapter": parts.files({"other": torch.ones(1)}), "image_encoder": parts.image_encoder()},
            Reason.INVALID_WEIGHTS, "is no IP-Adapter",
        ),
    ],
)  # fmt: skip
def test_an_ip_adapter_that_does_not_fit_is_rejected(
    tmp_path: Path, writers: dict[str, parts.Write], reason: Reason, says: str
) -> None:
    folders = written(tmp_path, {"unet": parts.unet(), **writers})
    with pytest.raises(BadInputError, match=says) as caught:
        load(Component.DENOISER, folders, ip_adapter="0" * 64)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("name", "says"), [("one-level", "only_cross_attention"), ("attention-everywhere", "down_blocks.0.attentions.0")]
)
def test_an_ip_adapter_is_rejected_where_attention_has_no_place_for_it(tmp_path: Path, name: str, says: str) -> None:
    writers = {
        "unet": parts.unet(name), "ip_adapter": parts.ip_adapter(), "image_encoder": parts.image_encoder(),
    }  # fmt: skip
    with pytest.raises(BadInputError, match=says) as caught:
        load(Component.DENOISER, written(tmp_path, writers), ip_adapter="0" * 64)
    assert caught.value.reason is Reason.UNSUPPORTED_COMPONENT
