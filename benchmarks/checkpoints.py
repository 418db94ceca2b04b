"""A large checkpoint with random weights, to measure with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import diffusers
from transformers import CLIPTextConfig, CLIPTextModel

from tests.support.builder.checkpoints import write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

# The library has no types.
_DIFFUSERS: Any = diffusers


def write_large(folder: Path, *, full: bool) -> None:
    """Write a checkpoint of SD 1.5's shape with random weights."""
    write_checkpoint(folder)
    length = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())["model_max_length"]
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, projection_dim=768, num_hidden_layers=12,
        num_attention_heads=12, max_position_embeddings=length,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    channels = (320, 640, 1280, 1280) if full else (160, 320, 640, 640)
    _DIFFUSERS.UNet2DConditionModel(
        sample_size=64, block_out_channels=channels, cross_attention_dim=768, attention_head_dim=8
    ).save_pretrained(folder / "unet")
    _DIFFUSERS.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder / "vae")  # fmt: skip
