"""Configurations that hold only what differs from the library's defaults are read as the library reads them."""

from __future__ import annotations

import inspect
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

from diffusion_builder.components import configs, parts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import Component
from tests.support.builder import parts as written_parts
from tests.support.builder.loading import load, written

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The libraries have no types.
_Library = Any
_CLASSES: Mapping[str, _Library] = {
    parts.UNET: UNet2DConditionModel,
    parts.VAE: AutoencoderKL,
    parts.CONTROLNET: ControlNetModel,
    parts.TEXT_ENCODER: CLIPTextConfig,
    parts.IMAGE_ENCODER: CLIPVisionConfig,
    parts.SAFETY_CHECKER: CLIPConfig,
}


def _default(part: str, entry: str) -> object:
    if part in (parts.UNET, parts.VAE, parts.CONTROLNET):
        value = inspect.signature(_CLASSES[part].__init__).parameters[entry].default
    else:
        value = getattr(_CLASSES[part](), entry)
    return list(value) if isinstance(value, tuple) else value


def _read(folder: Path, part: str, config: object) -> Mapping[str, Any]:
    (folder / "config.json").write_text(json.dumps(config))
    return configs.read(folder, part)


@pytest.mark.parametrize("part", _CLASSES)
def test_an_entry_that_is_missing_is_the_librarys_default(tmp_path: Path, part: str) -> None:
    config = _read(tmp_path, part, {})
    for entry in configs.DEFAULTS[part]:
        if entry != "vision_config":
            assert config[entry] == _default(part, entry), entry
    if part == parts.SAFETY_CHECKER:
        vision = CLIPVisionConfig()
        assert {name: config["vision_config"][name] for name in ("hidden_size", "image_size", "patch_size")} == {
            "hidden_size": vision.hidden_size, "image_size": vision.image_size, "patch_size": vision.patch_size,
        }  # fmt: skip


@pytest.mark.parametrize(
    "vision",
    [
        {"vision_config": {"hidden_size": 960}},
        {"vision_config": {"image_size": 336, "patch_size": 14}},
        {"vision_config": None},
        # Of the time when a model's own configuration was kept twice: the other entry counts.
        {"vision_config": {"image_size": 336}, "vision_config_dict": {"hidden_size": 960, "patch_size": 14}},
        {"vision_config_dict": {"image_size": 448}},
    ],
)
def test_the_vision_model_of_a_safety_checker_is_read_as_the_library_reads_it(
    tmp_path: Path, vision: dict[str, Any]
) -> None:
    library: _Library = CLIPConfig(**json.loads(json.dumps(vision)))
    vision_config = _read(tmp_path, parts.SAFETY_CHECKER, vision)["vision_config"]
    for name in ("hidden_size", "image_size", "patch_size"):
        assert vision_config[name] == getattr(library.vision_config, name)


def test_a_text_encoders_entries_may_be_inside_of_a_whole_clip_models(tmp_path: Path) -> None:
    body = {"model_type": "clip", "text_config": {"hidden_size": 1024, "num_hidden_layers": 23}, "vision_config": {}}
    config = _read(tmp_path, parts.TEXT_ENCODER, body)
    library: _Library = CLIPTextConfig.from_pretrained(tmp_path)
    for entry in configs.DEFAULTS[parts.TEXT_ENCODER]:
        assert config[entry] == getattr(library, entry)


@pytest.mark.parametrize(
    ("part", "config", "says"),
    [
        (parts.SAFETY_CHECKER, {"vision_config": {"image_size": None}}, "lacks image_size"),
        (parts.SAFETY_CHECKER, {"vision_config": []}, "vision_config"),
        (parts.SAFETY_CHECKER, {"vision_config": {"image_size": [224, 448]}}, "image_size"),
        (parts.TEXT_ENCODER, {"text_config": "x"}, "text_config"),
        (parts.VAE, {"scaling_factor": float("nan")}, "scaling_factor"),
        (parts.VAE, {"scaling_factor": float("inf")}, "scaling_factor"),
        (parts.VAE, {"scaling_factor": 10**400}, "scaling_factor"),
        (parts.VAE, {"shift_factor": "x"}, "shift_factor"),
        (parts.UNET, {"in_channels": None}, "lacks in_channels"),
        (parts.UNET, {"layers_per_block": [1]}, "layers_per_block has 1 entries"),
    ],
)
def test_an_entry_that_makes_no_sense_is_named(tmp_path: Path, part: str, config: object, says: str) -> None:
    with pytest.raises(BadInputError, match=says) as caught:
        _read(tmp_path, part, config)
    assert caught.value.reason is Reason.INVALID_CONFIG


@pytest.mark.parametrize(
    ("part", "config", "says"),
    [
        (parts.VAE, {"out_channels": 4}, "out_channels is 4"),
        (parts.CONTROLNET, {"conditioning_channels": 1}, "conditioning_channels is 1"),
        (parts.UNET, {"encoder_hid_dim": 32}, "encoder_hid_dim 32"),
    ],
)
def test_a_model_with_other_inputs_is_not_served(tmp_path: Path, part: str, config: object, says: str) -> None:
    with pytest.raises(BadInputError, match=says) as caught:
        _read(tmp_path, part, config)
    assert caught.value.reason is Reason.UNSUPPORTED_COMPONENT


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path, {parts.TEXT_ENCODER: written_parts.text_encoder()})[parts.TEXT_ENCODER]
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 100}))
    with pytest.raises(BadInputError, match=r"token_embedding.weight is \[99, 32\], config.json requires \[100, 32\]"):
        load(Component.TEXT_ENCODER, {parts.TEXT_ENCODER: folder})


@pytest.mark.parametrize(
    ("name", "shape"),
    [("image_proj.proj.weight", (3,)), ("ip_adapter.1.to_k_ip.weight", ()), ("image_proj.proj.weight", ())],
)
def test_an_ip_adapter_with_vectors_in_the_place_of_matrices_is_bad_input(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    folders = written(tmp_path, {
        parts.UNET: written_parts.unet(), parts.IP_ADAPTER: written_parts.ip_adapter(),
        parts.IMAGE_ENCODER: written_parts.image_encoder(),
    })  # fmt: skip
    file = folders[parts.IP_ADAPTER] / "ip-adapter.safetensors"
    save_file(load_file(file) | {name: torch.ones(shape)}, file)
    with pytest.raises(BadInputError, match="is no matrix") as caught:
        load(Component.DENOISER, folders, ip_adapter="0" * 64)
    assert caught.value.reason is Reason.INVALID_WEIGHTS


_SPARSE: Mapping[Component, tuple[str, written_parts.Write]] = {
    Component.TEXT_ENCODER: (parts.TEXT_ENCODER, written_parts.text_encoder()),
    Component.IMAGE_ENCODER: (parts.IMAGE_ENCODER, written_parts.image_encoder()),
    Component.SAFETY_CHECKER: (parts.SAFETY_CHECKER, written_parts.safety_checker()),
}


@pytest.mark.parametrize("component", _SPARSE)
def test_a_component_loads_from_a_configuration_without_defaults(tmp_path: Path, component: Component) -> None:
    name, write = _SPARSE[component]
    folder = written(tmp_path, {name: write})[name]
    before = load(component, {name: folder})
    path = folder / "config.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps(_without_defaults(body)))
    assert len(path.read_text()) < len(json.dumps(body))
    after = load(component, {name: folder})
    assert after.facts == before.facts
    for (key, first), (_, second) in zip(
        before.module.state_dict().items(), after.module.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(first, second, msg=key)


def _without_defaults(body: dict[str, Any]) -> dict[str, Any]:
    """As `PreTrainedConfig.to_diff_dict` leaves out what equals the class's defaults."""
    default = {
        "clip_text_model": CLIPTextConfig, "clip_vision_model": CLIPVisionConfig, "clip": CLIPConfig,
    }.get(body.get("model_type", ""))  # fmt: skip
    library: _Library = default() if default else None
    sparse = {
        name: _without_defaults(value) if isinstance(value, dict) and "model_type" in value else value
        for name, value in body.items()
        if library is None or name in ("model_type", "architectures") or value != getattr(library, name, None)
    }
    # What says nothing but its kind is left out, too.
    return {
        name: value for name, value in sparse.items() if not (isinstance(value, dict) and set(value) <= {"model_type"})
    }


def test_layers_that_a_default_would_leave_out_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    library: _Library = CLIPTextConfig
    config = library(
        vocab_size=99, hidden_size=16, intermediate_size=16, num_hidden_layers=13, num_attention_heads=8,
        max_position_embeddings=16,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(tmp_path / "text_encoder")
    path = tmp_path / "text_encoder" / "config.json"
    body = json.loads(path.read_text())
    del body["num_hidden_layers"]
    path.write_text(json.dumps(body))
    with pytest.raises(BadInputError, match=r"layers\.12\.") as caught:
        load(Component.TEXT_ENCODER, {"text_encoder": tmp_path / "text_encoder"})
    assert caught.value.reason is Reason.INVALID_WEIGHTS
    # Who writes a smaller number down means it: a way of skipping the last layers.
    path.write_text(json.dumps(body | {"num_hidden_layers": 12}))
    load(Component.TEXT_ENCODER, {"text_encoder": tmp_path / "text_encoder"})


_STRANGE: Mapping[str, tuple[Component, str, tuple[object, ...]]] = {
    "num_attention_heads": (Component.TEXT_ENCODER, parts.TEXT_ENCODER, (7, "strange", 1e30)),
    "hidden_act": (Component.TEXT_ENCODER, parts.TEXT_ENCODER, (7, "strange", [])),
    "norm_num_groups": (Component.DENOISER, parts.UNET, (0, "strange", [[]])),
    "down_block_types": (Component.DENOISER, parts.UNET, (0, "strange", [], ["strange"] * 2)),
    "attention_head_dim": (Component.DENOISER, parts.UNET, (0, [], 1e30)),
    "act_fn": (Component.DENOISER, parts.UNET, (7, "strange", {})),
    "up_block_types": (Component.VAE_DECODER, parts.VAE, (0, "strange", [[]])),
    "layers_per_block": (Component.VAE_DECODER, parts.VAE, (-1, "strange", [])),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("parts")
    writers = {
        parts.TEXT_ENCODER: written_parts.text_encoder(), parts.UNET: written_parts.unet(),
        parts.VAE: written_parts.vae(),
    }  # fmt: skip
    return written(root, writers)


@pytest.mark.parametrize("entry", _STRANGE)
def test_a_strange_configuration_is_bad_input_and_no_bug(tmp_path: Path, pristine: dict[str, Path], entry: str) -> None:
    component, part, values = _STRANGE[entry]
    folder = shutil.copytree(pristine[part], tmp_path / part)
    path = folder / "config.json"
    body = json.loads(path.read_text())
    for value in values:
        path.write_text(json.dumps(body | {entry: value}))
        with pytest.raises(BadInputError, match=part) as caught:
            load(component, {part: folder})
        assert caught.value.reason in (Reason.INVALID_CONFIG, Reason.INVALID_WEIGHTS), value
