"""Checkpoints for the conformance run: shapes of SD 1.x and 2.x with random weights, tiny and in full size."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.support.builder.checkpoints import write_checkpoint
from tests.support.builder.xl_checkpoints import write_xl_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

# The tokenizer of `write_checkpoint`.
_TINY_LENGTH = 16


def _unet(attention: int, **changes: Any) -> Any:  # noqa: ANN401 - diffusers has no types
    """A UNet whose innermost resolution has no attention, as in SD 1.x and 2.x.

    Args:
        attention: how many resolutions have it; TensorRT for RTX needs seconds for each such block.
        changes: further entries of the configuration.
    """
    build: Any = UNet2DConditionModel
    return build(
        down_block_types=(*("CrossAttnDownBlock2D",) * attention, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * attention),
        **changes,
    )


def _vae(widths: tuple[int, ...], groups: int) -> Any:  # noqa: ANN401 - diffusers has no types
    build: Any = AutoencoderKL
    return build(
        latent_channels=4, block_out_channels=widths, norm_num_groups=groups, layers_per_block=2, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * len(widths), up_block_types=("UpDecoderBlock2D",) * len(widths),
    )  # fmt: skip


def _tiny_text(folder: Path, width: int, activation: str, layers: int) -> CLIPTextModel:
    tokens = len(json.loads((folder / "tokenizer" / "vocab.json").read_text()))
    config = CLIPTextConfig(
        vocab_size=tokens, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        hidden_act=activation, num_attention_heads=4, max_position_embeddings=_TINY_LENGTH, projection_dim=width,
    )  # fmt: skip
    return CLIPTextModel(config)


def _replace(folder: Path, **parts: Any) -> Path:  # noqa: ANN401 - models of two libraries
    for name, model in parts.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        model.save_pretrained(folder / name)
    return folder


def write_sd1_like(folder: Path) -> Path:
    """SD 1.x in small: one number of heads everywhere, convolutions around attention; a VAE of factor 4."""
    torch.manual_seed(1)
    write_checkpoint(folder)
    return _replace(
        folder,
        text_encoder=_tiny_text(folder, 48, "quick_gelu", 3),
        unet=_unet(
            2, layers_per_block=1, block_out_channels=(32, 64, 64), attention_head_dim=8, cross_attention_dim=48,
            norm_num_groups=16,
        ),
        vae=_vae((16, 32, 32), 8),
    )  # fmt: skip


def write_sd2_like(folder: Path) -> Path:
    """SD 2.x in small: v-prediction, heads per resolution, linear layers around attention."""
    torch.manual_seed(2)
    scheduler: Any = DDIMScheduler
    write_checkpoint(folder)
    return _replace(
        folder,
        text_encoder=_tiny_text(folder, 64, "gelu", 4),
        unet=_unet(
            2, layers_per_block=1, block_out_channels=(32, 64, 96), attention_head_dim=(2, 4, 6),
            use_linear_projection=True, cross_attention_dim=64, norm_num_groups=16,
        ),
        vae=_vae((16, 32, 32, 64), 16),
        scheduler=scheduler(prediction_type="v_prediction", beta_schedule="scaled_linear", clip_sample=False),
    )  # fmt: skip


def write_full_size_sd1(folder: Path) -> Path:
    """SD 1.5 in its real size, 1.07 billion random weights in half precision: 2.1 GB on disk, the peak in memory."""
    write_checkpoint(folder)
    with torch.device("meta"):
        parts = {
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                    max_position_embeddings=77, projection_dim=768,
                )
            ),
            "unet": _unet(3, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8, cross_attention_dim=768),
            "vae": _vae((128, 256, 512, 512), 32),
        }  # fmt: skip
    for name in list(parts):
        # One at a time, and gone before the next.
        _replace(folder, **{name: _fill(parts.pop(name))})
    return folder


def write_full_size_sdxl(folder: Path) -> Path:
    """SDXL's base model in its real size, 3.47 billion random weights in half precision: 6.9 GB on disk."""
    write_xl_checkpoint(folder)
    tokens = len(json.loads((folder / "tokenizer" / "vocab.json").read_text()))
    shared: dict[str, Any] = {
        "max_position_embeddings": 77, "bos_token_id": tokens - 5, "eos_token_id": tokens - 4,
    }  # fmt: skip
    unet: Any = UNet2DConditionModel
    with torch.device("meta"):
        parts = {
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                    projection_dim=768, **shared,
                )
            ),
            "text_encoder_2": CLIPTextModelWithProjection(
                CLIPTextConfig(
                    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
                    hidden_act="gelu", projection_dim=1280, **shared,
                )
            ),
            "unet": unet(
                sample_size=128, block_out_channels=(320, 640, 1280), attention_head_dim=(5, 10, 20),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 10), cross_attention_dim=2048, use_linear_projection=True,
                addition_embed_type="text_time", addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            ),
            "vae": _vae((128, 256, 512, 512), 32),
        }  # fmt: skip
    for name in list(parts):
        # One at a time, and gone before the next.
        _replace(folder, **{name: _fill(parts.pop(name))})
    return folder


def _fill(model: Any) -> Any:  # noqa: ANN401 - models of two libraries
    """Give a model without memory random weights; each tensor others, as the exporter joins equal ones."""
    model = model.half().to_empty(device="cpu")
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).half() * 0.02
    with torch.no_grad():
        for index, (name, weight) in enumerate(model.named_parameters()):
            if weight.ndim == 1:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                flat = weight.view(-1)
                start = noise.roll(7919 * index)
                for begin in range(0, flat.numel(), noise.numel()):
                    piece = flat[begin : begin + noise.numel()]
                    piece.copy_(start[: piece.numel()])
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    return model
