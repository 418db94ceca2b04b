"""An AutoencoderTiny in the place of the checkpoint's autoencoder: its latents are not drawn."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from diffusion_builder.compare.metrics import psnr
from diffusion_builder.components import configs
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.parity import in_process
from diffusion_builder.stages.build import build
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from diffusion_contract.enums import Component
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint as sd_checkpoint
from tests.support.builder.loading import load, run, written
from tests.support.builder.repository import SHAPES, context
from tests.support.builder.xl_checkpoints import write_xl_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from diffusion_contract.spec import DiffusionPipelineSpec

_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
# The library has no types.
_Tiny: Any = AutoencoderTiny
_Kl: Any = AutoencoderKL
_CHECKPOINTS: Mapping[str, Callable[[Path, str], Path]] = {
    "sd1": sd_checkpoint,
    "inpainting": sd_checkpoint,
    "sdxl": write_xl_checkpoint,
}
_TASKS = ("generate", "img2img", "inpaint")


def _spec(folder: Path, unet: str, write_vae: parts.Write) -> DiffusionPipelineSpec:
    write_vae(folder / "tiny" / "vae")
    model = {
        "source": {"path": str(_CHECKPOINTS[unet](folder / "checkpoint", unet))},
        "components": {"vae": {"source": {"path": str(folder / "tiny")}}},
        **({"family": "StableDiffusionXL"} if unet == "sdxl" else {}),
    }
    tasks = ("inpaint",) if unet == "inpainting" else _TASKS
    return read_local(
        {
            "model": model,
            "shapes": json.loads(SHAPES),
            "pipelines": [{"task": task, "steps": [2]} for task in tasks],
            # Noise of each step is drawn after that of the latent, where one is drawn.
            "scheduler": {"type": "EulerAncestral"},
        }
    )


@torch.no_grad()
def test_previews_alone_may_have_an_autoencoder_of_their_own(tmp_path: Path) -> None:
    body = _preview_spec(tmp_path, parts.tiny_vae())
    store = Store(tmp_path / "store")
    digest = build(context(store.root), read_local(body), parity=False)[-1]["digest"]
    with in_process.load_repository(store, store.get(Kind.REPOSITORY, str(digest))) as server:
        ensemble = server.ensembles["generate_2_pipeline"]
        request = {"prompt": np.array([[b"a red circle"]], object), "seed": np.array([[7]], np.int64)}
        names = ("preview_1", "preview_latent_after_1", "encoded_image", "latent")
        outputs = in_process.execute(ensemble, request, names, lambda step: server.runs[step.model.name])
    for name, latent, model, folder in (
        ("preview_1", "preview_latent_after_1", _Tiny, tmp_path / "tiny" / "vae"),
        ("encoded_image", "latent", _Kl, tmp_path / "checkpoint" / "vae"),
    ):
        vae = model.from_pretrained(folder, low_cpu_mem_usage=False)
        decoded = vae.decode(torch.from_numpy(outputs[latent]) / vae.config.scaling_factor).sample
        expected = VaeImageProcessor().postprocess(decoded, output_type="pil")[0]
        actual = Image.open(io.BytesIO(outputs[name][0, 0]))
        assert psnr(np.asarray(actual), np.asarray(expected)) >= 45.0, name


def _preview_spec(folder: Path, write_vae: parts.Write) -> dict[str, Any]:
    write_vae(folder / "tiny" / "vae")
    checkpoint = sd_checkpoint(folder / "checkpoint", "sd1")
    return {
        "model": {
            "source": {"path": str(checkpoint)},
            "previewVae": {"source": {"path": str(folder / "tiny")}},
        },
        "shapes": json.loads(SHAPES),
        "pipelines": [{"task": "generate", "steps": [2], "previews": [1]}],
    }


def test_parity_compares_images_with_the_autoencoder_of_images(store: Path, tmp_path: Path) -> None:
    report = build(context(store), read_local(_preview_spec(tmp_path, parts.tiny_vae())))[-1]
    assert report["worstPSNR"] >= report["minPSNR"] == 35.0


def test_an_autoencoder_of_previews_of_another_latent_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    body = _preview_spec(tmp_path, parts.tiny_vae(latent=16))
    with pytest.raises(BadInputError, match="preview_decoder has channels 16, the checkpoint around it has 4"):
        build(context(tmp_path / "store"), read_local(body))
    assert not list((tmp_path / "store" / "onnx").glob("*"))


@torch.no_grad()
def test_both_halves_compute_what_diffusers_computes(tmp_path: Path) -> None:
    folders = written(tmp_path, {"vae": parts.tiny_vae()})
    model = _Tiny.from_pretrained(folders["vae"], low_cpu_mem_usage=False)
    inputs, (mean, std) = run(Component.VAE_ENCODER, load(Component.VAE_ENCODER, folders))
    torch.testing.assert_close(mean, model.encode(inputs["pixels"]).latents * 0.7)
    assert not std.any()
    inputs, image = run(Component.VAE_DECODER, load(Component.VAE_DECODER, folders))
    torch.testing.assert_close(image, model.decode(inputs["latent"] / 0.7).sample)


@pytest.mark.parametrize("unet", _CHECKPOINTS)
def test_every_task_draws_what_diffusers_draws(store: Path, tmp_path: Path, unet: str) -> None:
    report = build(context(store), _spec(tmp_path, unet, parts.tiny_vae()))[-1]
    assert report["worstPSNR"] >= report["minPSNR"] == 35.0
    assert report["worstLatentError"] < 1e-3


def test_a_checkpoint_may_have_one_itself(store: Path, tmp_path: Path) -> None:
    folder = sd_checkpoint(tmp_path / "checkpoint", "sd1", parts.tiny_vae())
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "vae": ["diffusers", "AutoencoderTiny"]}))
    spec = read_local({"model": {"source": {"path": str(folder)}}, "shapes": json.loads(SHAPES)})
    report = build(context(store), spec)[-1]
    assert report["worstPSNR"] >= 35.0


def test_a_tiny_autoencoder_stays_in_half_precision_whatever_force_upcast_says(tmp_path: Path) -> None:
    """As its class in diffusers, which registers false whatever the file says."""
    spec = _spec(tmp_path, "sdxl", parts.tiny_vae())
    path = tmp_path / "tiny" / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"force_upcast": True}))
    results = build(context(tmp_path / "store"), spec.model_copy(update={"precision": "float16"}))
    exported = {item["component"]: item["precision"] for item in results if item["stage"] == "export"}
    assert exported["vae_decoder"] == exported["vae_encoder"] == "float16"


_WRONG: Mapping[str, tuple[dict[str, object], str]] = {
    "another class": ({"_class_name": "ConsistencyDecoderVAE"}, "AutoencoderKL, AutoencoderTiny"),
    "other sizes": ({"upsampling_scaling_factor": 3}, "upsampling_scaling_factor is 3"),
    "halves of other lengths": ({"num_encoder_blocks": [1, 1]}, "lists of blocks"),
    "no list": ({"decoder_block_out_channels": 64}, "decoder_block_out_channels is 64"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    change, says = _WRONG[name]
    spec = _spec(tmp_path, "sd1", parts.tiny_vae())
    path = tmp_path / "tiny" / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInputError, match=says):
        build(context(tmp_path / "store"), spec)


def test_one_of_another_latent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"pixels_per_latent|channels") as caught:
        build(context(tmp_path / "store"), _spec(tmp_path, "sd1", parts.tiny_vae(latent=16)))
    assert caught.value.reason is Reason.COMPONENT_MISMATCH


def test_defaults_are_those_of_the_class(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny"}))
    config, library = configs.read(tmp_path, "vae"), _Tiny().config
    for entry in configs.DEFAULTS[configs.TINY_VAE]:
        value = library[entry]
        assert config[entry] == (list(value) if isinstance(value, tuple) else value), entry
