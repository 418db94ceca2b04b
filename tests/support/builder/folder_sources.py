"""Fetches from folders, and checkpoints in other forms than the plain one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from diffusion_builder import sources
from diffusion_builder.errors import BadInputError
from diffusion_builder.sources.layout import Selection
from diffusion_builder.store import Artifact, Store
from tests.support.builder.file_server import ignore

if TYPE_CHECKING:
    from pathlib import Path

STEMS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


def fetch(tmp_path: Path, folder: Path, selection: Selection | None = None, root: Path | None = None) -> Artifact:
    """The source artifact of a folder."""
    return sources.from_folder(Store(tmp_path / "store"), folder, ignore, selection or Selection(), root)[0]


def fetch_error(
    tmp_path: Path, folder: Path, selection: Selection | None = None, root: Path | None = None
) -> BadInputError:
    """The error of a folder that is rejected, which leaves nothing in the store."""
    with pytest.raises(BadInputError) as caught:
        fetch(tmp_path, folder, selection, root)
    assert not list((tmp_path / "store").glob("sources/*"))
    return caught.value


def as_variant(folder: Path, name: str = "fp16", *, keep: bool = False) -> None:
    """Rename the weights as diffusers does for a variant."""
    for part, stem in STEMS.items():
        plain = folder / part / f"{stem}.safetensors"
        (shutil.copyfile if keep else shutil.move)(plain, folder / part / f"{stem}.{name}.safetensors")
