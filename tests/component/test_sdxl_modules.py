"""Components of Stable Diffusion XL compute what diffusers and transformers compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from diffusion_builder.components import sizes
from diffusion_builder.components.parts import LoadContext, LoraWeights
from diffusion_builder.components.registry import COMPONENTS
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import Component, ModelFamily, Precision
from diffusion_contract.exports import ExportOptions
from tests.support.builder import parts
from tests.support.builder.loading import both, guided, run, unet_of, written

if TYPE_CHECKING:
    from pathlib import Path

    from diffusion_builder.components.base import LoadedModule

_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)
_XL = {"family": ModelFamily.STABLE_DIFFUSION_XL}
# The libraries have no types.
_Text: Any = CLIPTextModel
_PooledText: Any = CLIPTextModelWithProjection


def _load(
    component: Component, folders: dict[str, Path], loras: tuple[LoraWeights, ...] = (), **options: object
) -> LoadedModule:
    shaping = {name: folder for name, folder in folders.items() if name in sizes.SUBFOLDERS}
    context = LoadContext(
        folders, ExportOptions.model_validate({**_XL, **options}), loras, sizes.read_shape_facts(shaping)
    )
    return COMPONENTS[component].load(context, Precision.FLOAT32)


def _encoders(root: Path) -> dict[str, Path]:
    return written(root, {"text_encoder": parts.text_encoder(), "text_encoder_2": parts.text_encoder_2()})


@torch.no_grad()
@pytest.mark.parametrize("clip_skip", [0, 1])
def test_text_is_the_penultimate_layer_of_both_encoders(tmp_path: Path, clip_skip: int) -> None:
    folders = _encoders(tmp_path)
    inputs, first = run(Component.TEXT_ENCODER, _load(Component.TEXT_ENCODER, folders, clip_skip=clip_skip))
    second_module = _load(Component.TEXT_ENCODER_2, folders, clip_skip=clip_skip).module
    joint, pooled = second_module(inputs["input_ids"], first)
    hidden, models = [], (_Text, _PooledText)
    for model_class, folder in zip(models, folders.values(), strict=True):
        output = model_class.from_pretrained(folder)(inputs["input_ids"].flatten(0, 1), output_hidden_states=True)
        states = [torch.unflatten(state, 0, (-1, 2)) for state in output.hidden_states]
        # diffusers skips no layers of negative prompts.
        hidden.append(torch.stack([states[-2][:, 0], states[-2 - clip_skip][:, 1]], dim=1))
    torch.testing.assert_close(first, hidden[0])
    torch.testing.assert_close(joint, torch.cat(hidden, dim=-1))
    torch.testing.assert_close(pooled, torch.unflatten(output.text_embeds, 0, (-1, 2)))


@torch.no_grad()
def test_ids_of_minus_one_are_encoded_as_zeros(tmp_path: Path) -> None:
    folders = _encoders(tmp_path)
    inputs, usual = run(Component.TEXT_ENCODER, _load(Component.TEXT_ENCODER, folders))
    ids = inputs["input_ids"].clone()
    ids[:, 0] = -1
    first = _load(Component.TEXT_ENCODER, folders).module(ids)
    assert not first[:, 0].any()
    torch.testing.assert_close(first[:, 1], usual[:, 1])
    joint, pooled = _load(Component.TEXT_ENCODER_2, folders).module(ids, first)
    assert not joint[:, 0].any()
    assert not pooled[:, 0].any()
    assert joint[:, 1].all()
    assert pooled[:, 1].all()


@torch.no_grad()
def test_the_denoiser_reads_embedding_and_sizes_as_diffusers_does(tmp_path: Path) -> None:
    folders = written(tmp_path, {"unet": parts.unet("sdxl")})
    inputs, output = run(Component.DENOISER, _load(Component.DENOISER, folders))
    latent, text = inputs["model_input"].repeat(2, 1, 1, 1), both(inputs, "text_embeddings")
    conditions = {"text_embeds": both(inputs, "pooled_embeddings"), "time_ids": both(inputs, "time_ids")}
    raw = unet_of(folders["unet"])(
        latent, inputs["timestep"][:, 0].repeat(2), text, added_cond_kwargs=conditions
    ).sample
    torch.testing.assert_close(output, guided(inputs, raw))


def _kohya(layer: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        f"{layer}.lora_down.weight": torch.randn(2, columns, generator=generator),
        f"{layer}.lora_up.weight": torch.randn(rows, 2, generator=generator),
        f"{layer}.alpha": torch.tensor(2.0),
    }


_TEXT_LAYER = "text_model_encoder_layers_0_self_attn_q_proj"
_LAYERS: dict[str, tuple[Component, str, int, int, str]] = {
    "first encoder": (
        Component.TEXT_ENCODER, f"lora_te1_{_TEXT_LAYER}", 32, 32, "model.encoder.layers.0.self_attn.q_proj"
    ),
    "second encoder": (
        Component.TEXT_ENCODER_2, f"lora_te2_{_TEXT_LAYER}", 40, 40,
        "model.text_model.encoder.layers.0.self_attn.q_proj",
    ),
    "down block": (
        Component.DENOISER, "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k", 32, 72,
        "model.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
    ),
    "middle block": (
        Component.DENOISER, "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_v", 32, 72,
        "model.mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
    ),
    "up block": (
        Component.DENOISER, "lora_unet_output_blocks_1_1_proj_in", 32, 32, "model.up_blocks.0.attentions.1.proj_in"
    ),
    "embedding of sizes": (
        Component.DENOISER, "lora_unet_label_emb_0_0", 64, 72, "model.add_embedding.linear_1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _LAYERS)
def test_loras_of_kohya_change_the_layer_that_they_name(tmp_path: Path, name: str) -> None:
    component, layer, rows, columns, module = _LAYERS[name]
    state = _kohya(layer, rows, columns)
    writers = {
        "unet": parts.unet("sdxl"), "text_encoder": parts.text_encoder(), "text_encoder_2": parts.text_encoder_2(),
        "lora": parts.files(state),
    }  # fmt: skip
    folders = written(tmp_path, writers)
    plain: Any = _load(component, folders).module
    changed: Any = _load(component, folders, (LoraWeights(folders["lora"], 0.5),)).module
    difference = changed.get_submodule(module).weight - plain.get_submodule(module).weight
    expected = 0.5 * state[f"{layer}.lora_up.weight"] @ state[f"{layer}.lora_down.weight"]
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "key", "says"),
    [
        ("StableDiffusion", f"lora_te2_{_TEXT_LAYER}", "another kind of model.*a UNet with one text encoder"),
        ("StableDiffusion", "text_encoder_2.encoder.layers.0.self_attn.q_proj", "a UNet with one text encoder"),
        ("StableDiffusionXL", f"lora_te_{_TEXT_LAYER}", "another kind of model.*two text encoders"),
        ("StableDiffusionXL", "lora_te3_encoder", "another kind of model.*two text encoders"),
        ("StableDiffusionXL", "lora_unet_up_blocks_3_attentions_0_proj_in", "no such layer"),
    ],
)
def test_a_lora_of_the_other_family_is_refused(tmp_path: Path, family: str, key: str, says: str) -> None:
    unet = "sdxl" if family == "StableDiffusionXL" else "sd1"
    folders = written(tmp_path, {"unet": parts.unet(unet), "lora": parts.files(_kohya(key, 8, 8))})
    with pytest.raises(BadInputError, match=says) as caught:
        _load(Component.DENOISER, folders, (LoraWeights(folders["lora"], 1.0),), family=family)
    assert caught.value.reason is Reason.COMPONENT_MISMATCH


@pytest.mark.parametrize(
    ("component", "model", "family", "says"),
    [
        (Component.DENOISER, "sd1", "StableDiffusionXL", "unet/config.json .* is of the family StableDiffusion,"),
        (Component.DENOISER, "sdxl", "StableDiffusion", "is of the family StableDiffusionXL, StableDiffusion is"),
        (Component.CONTROLNET, "sdxl", "StableDiffusion", "controlnet/config.json .* of the family StableDiffusionXL"),
        (Component.CONTROLNET, "sd1", "StableDiffusionXL", "controlnet/config.json .* of the family StableDiffusion,"),
    ],
)
def test_a_model_of_the_other_family_is_refused(
    tmp_path: Path, component: Component, model: str, family: str, says: str
) -> None:
    other = "sd1" if component is Component.CONTROLNET and family == "StableDiffusion" else model
    folders = written(tmp_path, {"unet": parts.unet(other), "controlnet": parts.controlnet(model)})
    control: dict[str, Any] = {"control_net": "0" * 64} if component is Component.CONTROLNET else {}
    with pytest.raises(BadInputError, match=says) as caught:
        _load(component, folders, family=family, **control)
    assert caught.value.reason is Reason.COMPONENT_MISMATCH


def test_the_second_encoder_alone_and_too_many_skipped_layers_are_refused(tmp_path: Path) -> None:
    folders = _encoders(tmp_path)
    with pytest.raises(BadInputError, match="needs the first text encoder beside it") as caught:
        _load(Component.TEXT_ENCODER_2, {"text_encoder_2": folders["text_encoder_2"]})
    assert caught.value.reason is Reason.MISSING_COMPONENT
    with pytest.raises(BadInputError, match="clipSkip is 2, but text_encoder has 3 layers"):
        _load(Component.TEXT_ENCODER, folders, clip_skip=2)
