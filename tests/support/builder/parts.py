"""Small random parts of many shapes, and sources in a store made of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from diffusion_builder import digests
from diffusion_builder.store import Kind, Recipe, Store

Write = Callable[[Path], None]
# The library has no types.
_Unet: Any = UNet2DConditionModel
_Vae: Any = AutoencoderKL
_TinyVae: Any = AutoencoderTiny
_Control: Any = ControlNetModel
IMAGE_SIZE, PATCH, IMAGE_WIDTH, IMAGE_HIDDEN = 32, 16, 24, 32
SAFETY_THRESHOLD, SPECIAL_THRESHOLD = 0.455, 0.15

_SMALL: dict[str, Any] = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32, "attention_head_dim": 8, "norm_num_groups": 8,
}  # fmt: skip
POOLED_WIDTH = 24
_XL: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": [2, 4], "use_linear_projection": True, "transformer_layers_per_block": [1, 2],
    "cross_attention_dim": 72, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + POOLED_WIDTH,
}  # fmt: skip
# One UNet per thing that configurations of the family vary in.
UNETS: Mapping[str, Mapping[str, Any]] = {
    "sd1": {},
    "sd2": {
        "attention_head_dim": [2, 4], "use_linear_projection": True, "upcast_attention": True,
        "cross_attention_dim": 40,
    },
    # Heads of 40 features at the larger resolution, as in SD 1.5.
    "heads-of-40": {"block_out_channels": (80, 32), "attention_head_dim": 2},
    "inpainting": {"in_channels": 9},
    # Distilled with guidance as an embedding.
    "lcm": {"time_cond_proj_dim": 16},
    # Reads tokens of 32 and 40 features, an embedding of 24 and six numbers of 8 features.
    "sdxl": _XL,
    "sdxl-inpainting": {**_XL, "in_channels": 9},
    # Reads tokens of the second text encoder, an embedding of 24 and five numbers of 8 features.
    "sdxl-refiner": {
        **_XL, "cross_attention_dim": 40, "projection_class_embeddings_input_dim": 5 * 8 + POOLED_WIDTH,
    },
    "wide-latent": {
        "in_channels": 8, "out_channels": 8, "block_out_channels": (16, 24, 32), "layers_per_block": [1, 2, 1],
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "attention-everywhere": {
        "down_block_types": ("AttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "AttnUpBlock2D"), "resnet_time_scale_shift": "scale_shift",
        "act_fn": "gelu", "transformer_layers_per_block": 2,
    },
    "one-level": {
        "block_out_channels": (16,), "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",), "only_cross_attention": True, "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
}  # fmt: skip


def one_thread() -> Iterator[None]:
    """Compute in one thread: threads that wait for each other cost more than models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def unet(name: str = "sd1", seed: int = 0) -> Write:
    def write(folder: Path) -> None:
        torch.manual_seed(seed)
        _Unet(**{**_SMALL, **UNETS[name]}).save_pretrained(folder)

    return write


def controlnet(name: str = "sd1", seed: int = 0, levels: int = 4) -> Write:
    """A ControlNet whose last convolutions are not zero, as fresh ones are."""

    def write(folder: Path) -> None:
        torch.manual_seed(seed)
        base = _Unet(**{**_SMALL, **UNETS[name]})
        model = _Control.from_unet(base, conditioning_embedding_out_channels=(8, *(16,) * (levels - 1)))
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)

    return write


def vae(latent: int = 4, levels: int = 4, *, overflows: bool = False) -> Write:
    def write(folder: Path) -> None:
        torch.manual_seed(0)
        _Vae(
            in_channels=3, out_channels=3, latent_channels=latent, block_out_channels=(8,) * levels,
            norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels, scaling_factor=0.5, force_upcast=overflows,
        ).save_pretrained(folder)  # fmt: skip

    return write


def tiny_vae(levels: int = 4, latent: int = 4) -> Write:
    """A random AutoencoderTiny; its scaling factor is not that of published ones, which is 1."""

    def write(folder: Path) -> None:
        torch.manual_seed(2)
        _TinyVae(
            encoder_block_out_channels=(8,) * levels, decoder_block_out_channels=(8,) * levels,
            num_encoder_blocks=(1,) * levels, num_decoder_blocks=(1,) * levels, latent_channels=latent,
            scaling_factor=0.7,
        ).save_pretrained(folder)  # fmt: skip

    return write


def text_encoder(width: int = 32, activation: str = "quick_gelu") -> Write:
    """A random CLIP text encoder; as those of trained ones, means of its features are not 0."""

    def write(folder: Path) -> None:
        torch.manual_seed(0)
        config = CLIPTextConfig(
            vocab_size=99, hidden_size=width, intermediate_size=64, projection_dim=width, num_hidden_layers=3,
            num_attention_heads=2, max_position_embeddings=16, bos_token_id=97, eos_token_id=98,
            hidden_act=activation,
        )  # fmt: skip
        model = CLIPTextModel(config)
        torch.nn.init.uniform_(model.final_layer_norm.bias, 0.2, 0.4)
        model.save_pretrained(folder)

    return write


def text_encoder_2(width: int = 40, pooled: int = POOLED_WIDTH) -> Write:
    def write(folder: Path) -> None:
        torch.manual_seed(1)
        config = CLIPTextConfig(
            vocab_size=99, hidden_size=width, intermediate_size=64, projection_dim=pooled, num_hidden_layers=4,
            num_attention_heads=2, max_position_embeddings=16, bos_token_id=97, eos_token_id=98, hidden_act="gelu",
        )  # fmt: skip
        CLIPTextModelWithProjection(config).save_pretrained(folder)

    return write


def image_encoder(width: int = IMAGE_WIDTH) -> Write:
    def write(folder: Path) -> None:
        torch.manual_seed(0)
        config = CLIPVisionConfig(
            hidden_size=IMAGE_HIDDEN, intermediate_size=64, projection_dim=width, num_hidden_layers=3,
            num_attention_heads=2, image_size=IMAGE_SIZE, patch_size=PATCH,
        )  # fmt: skip
        CLIPVisionModelWithProjection(config).save_pretrained(folder)

    return write


def ip_adapter(name: str = "sd1", *, plus: bool = False, image_width: int = IMAGE_WIDTH) -> Write:
    """A random IP-Adapter in the file format that its authors publish."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        model = _Unet(**{**_SMALL, **UNETS[name]})
        width = int(model.config.cross_attention_dim)
        shapes = _resampler(width) if plus else _projection(width, image_width)
        number = 1
        for key, processor in model.attn_processors.items():
            if not key.endswith("attn1.processor"):
                hidden = dict(model.named_modules())[key.removesuffix(".processor")].to_k.out_features
                shapes |= {f"ip_adapter.{number}.to_{side}_ip.weight": (hidden, width) for side in "kv"}
                number += 2
            del processor
        state = {key: torch.randn(shape, generator=generator) * 0.2 for key, shape in shapes.items()}
        save_file(state, folder / "ip-adapter.safetensors")

    return write


def safety_checker() -> Write:
    """A random safety checker; its thresholds are such that about half of the images pass."""

    def write(folder: Path) -> None:
        torch.manual_seed(0)
        vision = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": IMAGE_SIZE, "patch_size": PATCH,
        }  # fmt: skip
        model: Any = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
        for entry in (model.concept_embeds, model.special_care_embeds, *model.vision_model.parameters()):
            entry.data = torch.randn(entry.shape) * 0.3
        model.visual_projection.weight.data = torch.randn(model.visual_projection.weight.shape)
        model.concept_embeds_weights.data = torch.full((17,), SAFETY_THRESHOLD)
        model.special_care_embeds_weights.data = torch.full((3,), SPECIAL_THRESHOLD)
        model.save_pretrained(folder)

    return write


def _projection(width: int, image_width: int) -> dict[str, tuple[int, ...]]:
    return {
        "image_proj.proj.weight": (4 * width, image_width), "image_proj.proj.bias": (4 * width,),
        "image_proj.norm.weight": (width,), "image_proj.norm.bias": (width,),
    }  # fmt: skip


def _resampler(width: int) -> dict[str, tuple[int, ...]]:
    inner = 64
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, 4, inner), "proj_in.weight": (inner, IMAGE_HIDDEN), "proj_in.bias": (inner,),
        "proj_out.weight": (width, inner), "proj_out.bias": (width,),
        "norm_out.weight": (width,), "norm_out.bias": (width,),
    }  # fmt: skip
    for layer in range(4):
        shapes |= {
            f"layers.{layer}.0.norm{number}.{kind}": (inner,) for number in (1, 2) for kind in ("weight", "bias")
        }
        shapes |= {
            f"layers.{layer}.0.to_q.weight": (inner, inner), f"layers.{layer}.0.to_kv.weight": (2 * inner, inner),
            f"layers.{layer}.0.to_out.weight": (inner, inner),
            f"layers.{layer}.1.0.weight": (inner,), f"layers.{layer}.1.0.bias": (inner,),
            f"layers.{layer}.1.1.weight": (4 * inner, inner), f"layers.{layer}.1.3.weight": (inner, 4 * inner),
        }  # fmt: skip
    return {f"image_proj.{key}": shape for key, shape in shapes.items()}


def files(state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Write:
    """One safetensors file."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(state), folder / "weights.safetensors", dict(metadata or {}))

    return write


def source(store: Store, parts: Mapping[str, Write], scratch: Path, pipeline: str = "StableDiffusionPipeline") -> str:
    """Publish a source of these parts; returns its digest."""
    contents = {}
    for name, write in parts.items():
        write(scratch / name)
        files = sorted(path for path in (scratch / name).iterdir() if path.is_file())
        contents[name] = digests.json_digest({path.name: digests.file_digest(path) for path in files})

    def fill(folder: Path) -> Mapping[str, Any]:
        shutil.copytree(scratch, folder, dirs_exist_ok=True)
        return {"pipelineClass": pipeline, "subfolders": contents}

    artifact, _ = store.publish(Recipe(Kind.SOURCE, {"test": contents}), fill)
    return str(artifact.manifest.digest)
