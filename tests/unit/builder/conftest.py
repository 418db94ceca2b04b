"""A checkpoint in diffusers layout that is complete and tiny; its weights are a few bytes."""

from __future__ import annotations

import json
import shutil
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _weights(content: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    return struct.pack("<Q", len(header)) + header + content


@pytest.fixture(scope="session")
def pristine_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    root = tmp_path_factory.mktemp("checkpoint")
    files: dict[str, bytes] = {
        "model_index.json": json.dumps(_INDEX).encode(),
        "text_encoder/config.json": b'{"architectures": ["CLIPTextModel"]}',
        "text_encoder/model.safetensors": _weights(b"text"),
        "unet/config.json": b'{"_class_name": "UNet2DConditionModel"}',
        "unet/diffusion_pytorch_model.safetensors": _weights(b"unet" * 1000),
        "vae/config.json": b'{"_class_name": "AutoencoderKL"}',
        "vae/diffusion_pytorch_model.safetensors": _weights(b"vae"),
        "tokenizer/tokenizer_config.json": b"{}",
        "tokenizer/vocab.json": b'{"a": 0, "auto_map": 1}',
        "tokenizer/merges.txt": b"#version: 0.2\na b\n",
        "scheduler/scheduler_config.json": b"{}",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def checkpoint(pristine_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(pristine_checkpoint, tmp_path / "checkpoint")
