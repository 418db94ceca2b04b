"""What decides a graph's tensors, and what an export may be asked for, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.arguments import parse
from diffusion_builder.components import configs
from diffusion_builder.components.options import check
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import Component
from diffusion_contract.exports import ExportOptions
from diffusion_contract.residuals import residual_elements, residual_facts
from diffusion_contract.tensors import (
    ENGINE_INTERFACES,
    MAX_CONTROLNETS,
    TEXT_TO_IMAGE,
    interface,
)

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST = "0" * 64


@pytest.mark.parametrize("component", TEXT_TO_IMAGE)
def test_a_plain_checkpoint_has_the_tensors_it_always_had(component: Component) -> None:
    assert interface(component, {"channels": 4, "text_width": 768}) == ENGINE_INTERFACES[component]


def test_traits_add_inputs_in_a_fixed_order() -> None:
    facts = {"controlnets": 2, "inpainting": 1, "guidance_rescale": 1, "ip_adapter": 1}
    names = [tensor.name for tensor in interface(Component.DENOISER, facts).inputs]
    assert names == [
        "model_input", "timestep", "text_embeddings", "guidance", "guidance_rescale", "latent_mask", "masked_latent",
        "image_embeddings", "ip_adapter_scale", "ip_adapter_region", "residuals_1", "residuals_2",
    ]  # fmt: skip


def test_residuals_of_sd15_are_counted_with_each_level_rounded_up() -> None:
    # Twelve residuals of the down blocks and the middle one, from diffusers' ControlNet for SD 1.5.
    layout = [(320, 0)] * 3 + [(320, 1), (640, 1), (640, 1), (640, 2), (1280, 2), (1280, 2)] + [(1280, 3)] * 4
    facts = residual_facts(layout)
    assert residual_elements(facts, 64, 64) == 960 * 64 * 64 + 1600 * 32 * 32 + 3200 * 16 * 16 + 5120 * 8 * 8
    assert residual_elements(facts, 9, 11) == 960 * 9 * 11 + 1600 * 5 * 6 + 3200 * 3 * 3 + 5120 * 2 * 2
    assert residual_elements({"channels": 4}, 64, 64) == 0


@pytest.mark.parametrize(
    ("component", "options"),
    [
        (Component.VAE_DECODER, {"clipSkip": 1}),
        (Component.SCHEDULER_STEP, {"loras": [{"source": _DIGEST}]}),
        (Component.TEXT_ENCODER, {"guidanceRescale": True}),
        (Component.CONTROLNET, {"controlNets": 1}),
    ],
)
def test_an_option_of_another_component_is_rejected(component: Component, options: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="has no option") as caught:
        check(component, parse(ExportOptions, json.dumps(options), "--options"))
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "options",
    [
        '{"clipSkip": -1}',
        f'{{"controlNets": {MAX_CONTROLNETS + 1}}}',
        '{"loras": [{"source": "short"}]}',
        f'{{"loras": [{{"source": "{_DIGEST}", "weight": NaN}}]}}',
        '{"unknown": 1}',
        "not JSON",
    ],
)
def test_wrong_options_are_rejected(options: str) -> None:
    with pytest.raises(BadInputError, match=r"--options|clipSkip|controlNets|loras|unknown") as caught:
        parse(ExportOptions, options, "--options")
    assert caught.value.reason is Reason.INVALID_SPEC


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latent_channels": None}, "lacks latent_channels"),
        ({"latent_channels": 0}, "latent_channels is 0, a positive integer is needed"),
        ({"block_out_channels": []}, "a list of positive integers is needed"),
        ({"scaling_factor": "big"}, "scaling_factor is 'big', a positive number is needed"),
    ],
)
def test_a_wrong_entry_of_a_configuration_is_named(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    config = {"latent_channels": 4, "block_out_channels": [8, 8], "scaling_factor": 0.18215}
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(BadInputError, match=says) as caught:
        configs.read(tmp_path, "vae")
    assert caught.value.reason is Reason.INVALID_CONFIG
    assert caught.value.message.startswith("vae/config.json")


def test_one_text_width_for_all_blocks_may_be_written_as_a_list() -> None:
    assert configs.text_width("unet", {"cross_attention_dim": [768, 768]}) == 768
    with pytest.raises(BadInputError, match="one width for all"):
        configs.text_width("unet", {"cross_attention_dim": [768, 1024]})


def test_a_cached_export_is_found_without_importing_torch() -> None:
    code = "import sys, diffusion_builder.stages.export; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(sys.path)}).returncode
        == 0
    )
