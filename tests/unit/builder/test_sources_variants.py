"""Variants of weights: under which name they are fetched, and in which shards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from diffusion_builder import sources
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources.layout import Selection
from diffusion_builder.store import Store
from tests.support.builder.file_server import UNET, files_of
from tests.support.builder.folder_sources import as_variant, fetch, fetch_error

if TYPE_CHECKING:
    from pathlib import Path


def _in_shards(folder: Path, index: str, shard: str) -> None:
    plain = folder / UNET
    plain.rename(plain.with_name(shard))
    (plain.parent / index).write_text(json.dumps({"metadata": {}, "weight_map": {"w": shard}}))


def test_weights_that_are_there_as_a_variant_only_are_taken_under_their_usual_name(
    checkpoint: Path, pristine_checkpoint: Path, tmp_path: Path
) -> None:
    as_variant(checkpoint)
    # As such repositories are: pickles of both kinds beside them.
    (checkpoint / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (checkpoint / "unet" / "diffusion_pytorch_model.fp16.bin").write_bytes(b"pickle")
    reported: list[str] = []
    artifact, _ = sources.from_folder(Store(tmp_path / "store"), checkpoint, lambda name, _: reported.append(name))
    assert artifact == fetch(tmp_path, pristine_checkpoint)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in reported


@pytest.mark.parametrize(
    ("index", "shard"),
    [
        # Of diffusers, of transformers, and of older versions.
        (
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        ),
        (
            "diffusion_pytorch_model.safetensors.fp16.index.json",
            "diffusion_pytorch_model-00001-of-00001.fp16.safetensors",
        ),
    ],
)
def test_a_variant_may_be_in_shards(checkpoint: Path, tmp_path: Path, index: str, shard: str) -> None:
    _in_shards(checkpoint, index, shard)
    assert files_of(fetch(tmp_path, checkpoint, Selection("unet"))) == {
        "unet/config.json", "unet/diffusion_pytorch_model.safetensors.index.json", f"unet/{shard}",
    }  # fmt: skip


def test_shards_of_a_variant_are_no_part_of_the_plain_weights(checkpoint: Path, tmp_path: Path) -> None:
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    _in_shards(checkpoint, "diffusion_pytorch_model.safetensors.index.json", shard)
    (checkpoint / "unet" / "diffusion_pytorch_model-00001-of-00001.fp16.safetensors").write_bytes(b"unused")
    assert "unet/diffusion_pytorch_model-00001-of-00001.fp16.safetensors" not in files_of(
        fetch(tmp_path, checkpoint, Selection("unet"))
    )


def test_a_variant_is_taken_where_it_is_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    weights = (checkpoint / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    (checkpoint / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(weights)
    # The other parts have none; as diffusers does, their plain weights are taken.
    artifact = fetch(tmp_path, checkpoint, Selection(variant="non_ema"))
    assert (artifact.path / UNET).read_bytes() == weights
    assert artifact != fetch(tmp_path, checkpoint)


def test_a_variant_that_is_nowhere_and_one_that_is_ambiguous_are_named(checkpoint: Path, tmp_path: Path) -> None:
    as_variant(checkpoint, "bf16", keep=True)
    error = fetch_error(tmp_path, checkpoint, Selection(variant="fp16"))
    assert (error.reason, "'fp16'" in error.message, "bf16" in error.message) == (Reason.MISSING_FILE, True, True)
    as_variant(checkpoint, "fp16")
    error = fetch_error(tmp_path, checkpoint, Selection("unet"))
    assert (error.reason, "bf16, fp16" in error.message, "variant" in error.message) == (
        Reason.MISSING_FILE,
        True,
        True,
    )
    assert UNET in files_of(fetch(tmp_path, checkpoint, Selection("unet", variant="bf16")))


@pytest.mark.parametrize("variant", ["", "../x", "fp16/..", "a b", "x" * 65])
def test_a_variant_is_a_word(variant: str) -> None:
    with pytest.raises(BadInputError, match="variant") as caught:
        Selection(variant=variant)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
