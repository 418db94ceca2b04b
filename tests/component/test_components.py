"""Each component computes what diffusers and transformers compute, and rejects parts that do not belong together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from transformers import CLIPTextModel

from diffusion_builder.components.options import check
from diffusion_builder.components.parts import LoraWeights
from diffusion_builder.components.registry import COMPONENTS, Sizes, example
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import Component
from diffusion_contract.exports import ExportOptions
from tests.support.builder import parts
from tests.support.builder.loading import both, guided, load, run, unet_of, written

if TYPE_CHECKING:
    from pathlib import Path


# The libraries have no types.
_Vae: Any = AutoencoderKL
_Control: Any = ControlNetModel
_rescale: Any = rescale_noise_cfg


_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)


@torch.no_grad()
def test_guidance_rescale_is_that_of_diffusers(tmp_path: Path) -> None:
    folders = written(tmp_path, {"unet": parts.unet()})
    inputs, output = run(Component.DENOISER, load(Component.DENOISER, folders, guidance_rescale=True))
    latent, text = inputs["model_input"].repeat(2, 1, 1, 1), both(inputs, "text_embeddings")
    raw = unet_of(folders["unet"])(latent, inputs["timestep"][:, 0].repeat(2), text).sample
    amount = inputs["guidance_rescale"][:, :, None, None]
    torch.testing.assert_close(output, _rescale(guided(inputs, raw), raw.chunk(2)[1], amount))


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd1", "sd2", "heads-of-40"])
def test_rewritten_transformer_blocks_compute_what_diffusers_computes(tmp_path: Path, name: str) -> None:
    folders = written(tmp_path, {"unet": parts.unet(name)})
    inputs, output = run(Component.DENOISER, load(Component.DENOISER, folders))
    latent, text = inputs["model_input"].repeat(2, 1, 1, 1), both(inputs, "text_embeddings")
    raw = unet_of(folders["unet"])(latent, inputs["timestep"][:, 0].repeat(2), text).sample
    torch.testing.assert_close(output, guided(inputs, raw))


@torch.no_grad()
def test_an_inpainting_unet_reads_latent_mask_and_masked_latent_in_this_order(tmp_path: Path) -> None:
    folders = written(tmp_path, {"unet": parts.unet("inpainting")})
    inputs, output = run(Component.DENOISER, load(Component.DENOISER, folders))
    latent = torch.cat([inputs["model_input"], inputs["latent_mask"], inputs["masked_latent"]], dim=1).repeat(
        2, 1, 1, 1
    )
    text = both(inputs, "text_embeddings")
    raw = unet_of(folders["unet"])(latent, inputs["timestep"][:, 0].repeat(2), text).sample
    torch.testing.assert_close(output, guided(inputs, raw))


@torch.no_grad()
def test_vae_encoder_gives_scaled_moments(tmp_path: Path) -> None:
    folders = written(tmp_path, {"vae": parts.vae()})
    inputs, (mean, std) = run(Component.VAE_ENCODER, load(Component.VAE_ENCODER, folders))
    model: Any = _Vae.from_pretrained(folders["vae"], low_cpu_mem_usage=False)
    distribution = model.encode(inputs["pixels"]).latent_dist
    torch.testing.assert_close(mean, distribution.mean * model.config.scaling_factor)
    torch.testing.assert_close(std, distribution.std * model.config.scaling_factor)


@torch.no_grad()
def test_clip_skip_and_long_prompts_are_those_of_diffusers(tmp_path: Path) -> None:
    folders = written(tmp_path, {"text_encoder": parts.text_encoder()})
    loaded = load(Component.TEXT_ENCODER, folders, clip_skip=1, long_prompts=True)
    inputs, output = run(Component.TEXT_ENCODER, loaded, Sizes(2, 8, 8, chunks=3))
    model: Any = CLIPTextModel.from_pretrained(folders["text_encoder"])
    assert output.shape == (2, 2, 48, 32)
    for window in range(3):
        span = slice(16 * window, 16 * (window + 1))
        hidden = model(inputs["input_ids"][:, 1, span], output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(output[:, 1, span], model.final_layer_norm(hidden))


@pytest.mark.parametrize("name", ["sd1", "sd2"])
@torch.no_grad()
def test_two_controlnets_add_up_as_in_diffusers(tmp_path: Path, name: str) -> None:
    control, size = Component.CONTROLNET, Sizes(2, 9, 7)
    unet = written(tmp_path, {"unet": parts.unet(name)})["unet"]
    denoiser = load(Component.DENOISER, {"unet": unet}, control_nets=2)
    interface = COMPONENTS[Component.DENOISER].interface(denoiser.facts)
    inputs = dict(zip([item.name for item in interface.inputs], example(interface, denoiser, size, 3), strict=True))
    latent, time = inputs["model_input"].repeat(2, 1, 1, 1), inputs["timestep"][:, 0].repeat(2)
    text = both(inputs, "text_embeddings")
    down, middle = [torch.zeros(())] * 99, torch.zeros(())
    for number in (1, 2):
        folder = written(tmp_path / str(number), {"controlnet": parts.controlnet(name, seed=number)})["controlnet"]
        loaded = load(control, {"controlnet": folder, "unet": unet}, control_net="0" * 64)
        image, scale, step = torch.rand(2, 3, 72, 56), torch.tensor([[0.5], [1.5]]), torch.tensor([[0], [63]])
        # Each sample is at another step; only that step's scale may count.
        scales = torch.full((2, 64), 7.0).scatter(1, step, scale)
        arguments = (inputs["model_input"], inputs["timestep"], inputs["text_embeddings"], image, scales, step.int())
        inputs[f"residuals_{number}"] = loaded.module(*arguments)
        model: Any = _Control.from_pretrained(folder, low_cpu_mem_usage=False)
        weight = scale.repeat(2, 1)[:, :, None, None]
        residuals = model(latent, time, text, image.repeat(2, 1, 1, 1), return_dict=False)
        down = [total + weight * residual for total, residual in zip(down, residuals[0], strict=False)]
        middle = middle + weight * residuals[1]
    output = denoiser.module(*inputs.values())
    raw = unet_of(unet)(
        latent, time, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    torch.testing.assert_close(output, guided(inputs, raw), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [Sizes(2, 9, 7), Sizes(1, 8, 8)])
@torch.no_grad()
def test_without_a_controlnet_the_residuals_are_zeros_of_the_same_shape(tmp_path: Path, size: Sizes) -> None:
    where = written(tmp_path, {"unet": parts.unet(), "controlnet": parts.controlnet()})
    _, real = run(Component.CONTROLNET, load(Component.CONTROLNET, where, control_net="0" * 64), size)
    _, zeros = run(Component.ZERO_RESIDUALS, load(Component.ZERO_RESIDUALS, where), size)
    assert (zeros.shape, zeros.dtype) == (real.shape, real.dtype)
    assert real.any()
    assert not zeros.any()


_LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"
_CONVOLUTION = "down_blocks.0.resnets.0.conv1"


def _lora(layer: str, down: str, up: str, prefix: str = "unet.") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        f"{prefix}{layer}{down}.weight": torch.randn(2, 16, generator=generator),
        f"{prefix}{layer}{up}.weight": torch.randn(16, 2, generator=generator),
    }


_FORMATS: dict[str, tuple[dict[str, torch.Tensor], dict[str, str]]] = {
    "peft": (_lora(_LAYER, ".lora_A", ".lora_B"), {"lora_adapter_metadata": '{"unet.lora_alpha": 1}'}),
    "diffusers": (
        _lora(_LAYER, ".lora.down", ".lora.up") | {f"unet.{_LAYER}.alpha": torch.tensor(1.0)}, {},
    ),
    "processor": (
        _lora(_LAYER.replace("to_out.0", "processor.to_out_lora"), ".down", ".up")
        | {f"unet.{_LAYER}.alpha": torch.tensor(1.0)}, {},
    ),
    "kohya": (
        _lora(_LAYER.replace(".", "_"), ".lora_down", ".lora_up", "lora_unet_")
        | {f"lora_unet_{_LAYER.replace('.', '_')}.alpha": torch.tensor(1.0)}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", list(_FORMATS))
def test_a_lora_is_added_with_its_weight_and_alpha_in_every_file_format(tmp_path: Path, form: str) -> None:
    state, metadata = _FORMATS[form]
    folders = written(tmp_path, {"unet": parts.unet(), "lora": parts.files(state, metadata)})
    loaded: Any = load(Component.DENOISER, {"unet": folders["unet"]}, (LoraWeights(folders["lora"], 0.5),))
    down, up = (tensor for key, tensor in sorted(state.items()) if "alpha" not in key)
    plain = unet_of(folders["unet"]).get_submodule(_LAYER).weight
    # alpha 1 at rank 2
    torch.testing.assert_close(loaded.module.model.get_submodule(_LAYER).weight, plain + 0.5 * 0.5 * (up @ down))


@torch.no_grad()
def test_loras_of_convolutions_and_text_encoder_add_up(tmp_path: Path) -> None:
    down, up = torch.randn(2, 16, 3, 3), torch.randn(16, 2, 1, 1)
    text = "text_model.encoder.layers.0.self_attn.q_proj"
    state = {
        f"unet.{_CONVOLUTION}.lora_A.weight": down, f"unet.{_CONVOLUTION}.lora_B.weight": up,
        f"text_encoder.{text}.lora_A.weight": torch.ones(1, 32),
        f"text_encoder.{text}.lora_B.weight": torch.ones(32, 1),
    }  # fmt: skip
    writers = {"unet": parts.unet(), "text_encoder": parts.text_encoder(), "lora": parts.files(state)}
    folders = written(tmp_path, writers)
    loras = (LoraWeights(folders["lora"], 1.0), LoraWeights(folders["lora"], -0.25))
    unet: Any = load(Component.DENOISER, folders, loras).module
    pixels = torch.randn(1, 16, 5, 5)
    low = torch.nn.functional.conv2d(pixels, down, padding=1)
    wanted_output = unet_of(folders["unet"]).get_submodule(_CONVOLUTION)(pixels)
    wanted_output = wanted_output + 0.75 * torch.nn.functional.conv2d(low, up)
    got = unet.model.get_submodule(_CONVOLUTION)(pixels)
    torch.testing.assert_close(got, wanted_output, rtol=1e-4, atol=1e-4)
    encoder: Any = load(Component.TEXT_ENCODER, folders, loras).module
    plain: Any = CLIPTextModel.from_pretrained(folders["text_encoder"])
    change = encoder.model.encoder.layers[0].self_attn.q_proj.weight - plain.encoder.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(change, torch.full((32, 32), 0.75))


@pytest.mark.parametrize(
    ("state", "reason", "says"),
    [
        (_lora("up_blocks.7.nothing", ".lora_A", ".lora_B"), Reason.COMPONENT_MISMATCH, "no such layer"),
        (_lora("conv_out", ".lora_A", ".lora_B"), Reason.COMPONENT_MISMATCH, "16 x 16, the model's has 4 x 144"),
        ({f"unet.{_LAYER}.lora_A.weight": torch.ones(2, 16)}, Reason.INVALID_WEIGHTS, "counterpart"),
        ({f"unet.{_LAYER}.hada_w1_a": torch.ones(16, 2)}, Reason.INVALID_WEIGHTS, "lacks its counterpart"),
    ],
)
def test_a_lora_for_another_base_is_rejected(
    tmp_path: Path, state: dict[str, torch.Tensor], reason: Reason, says: str
) -> None:
    folders = written(tmp_path, {"unet": parts.unet(), "lora": parts.files(state)})
    with pytest.raises(BadInputError, match=says) as caught:
        load(Component.DENOISER, {"unet": folders["unet"]}, (LoraWeights(folders["lora"], 1.0),))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("name", "says"), [("sd2", "cross_attention_dim is 40, the UNet has 32"), ("one-level", "block_out_channels")]
)
def test_a_controlnet_for_another_base_is_rejected(tmp_path: Path, name: str, says: str) -> None:
    folders = written(tmp_path, {"unet": parts.unet(), "controlnet": parts.controlnet(name)})
    with pytest.raises(BadInputError, match=says) as caught:
        load(Component.CONTROLNET, folders, control_net="0" * 64)
    assert caught.value.reason is Reason.COMPONENT_MISMATCH


@pytest.mark.parametrize(
    ("entry", "value", "reason", "says"),
    [
        ("cross_attention_dim", None, Reason.INVALID_CONFIG, "lacks cross_attention_dim"),
        ("block_out_channels", [16, "32"], Reason.INVALID_CONFIG, "a list of positive integers"),
        ("in_channels", True, Reason.INVALID_CONFIG, "a positive integer"),
        ("in_channels", 5, Reason.UNSUPPORTED_COMPONENT, "in_channels 5 with out_channels 4"),
        ("time_cond_proj_dim", 256, Reason.INVALID_WEIGHTS, "Do config.json and weights belong together"),
        ("time_cond_proj_dim", "256", Reason.INVALID_CONFIG, "time_cond_proj_dim is '256', a positive integer"),
        ("time_cond_proj_dim", 3, Reason.INVALID_CONFIG, "time_cond_proj_dim is 3, at least 4"),
        ("layers_per_block", 2, Reason.INVALID_WEIGHTS, "Do config.json and weights belong together"),
        ("block_out_channels", [16, 48], Reason.INVALID_WEIGHTS, "size mismatch"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, entry: str, value: object, reason: Reason, says: str) -> None:
    folders = written(tmp_path, {"unet": parts.unet()})
    path = folders["unet"] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
    with pytest.raises(BadInputError, match=says) as caught:
        load(Component.DENOISER, folders)
    assert caught.value.reason is reason


def test_an_option_that_would_be_ignored_is_rejected() -> None:
    with pytest.raises(BadInputError, match="vae_decoder has no option clipSkip; it has: none"):
        check(Component.VAE_DECODER, ExportOptions(clip_skip=1))
    with pytest.raises(BadInputError, match="controlnet needs the option controlNet"):
        check(Component.CONTROLNET, ExportOptions())
