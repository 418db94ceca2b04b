"""LoRAs as trainers and libraries write them: merged as the libraries merge them, or refused by their own name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file, save_file

from diffusion_builder.components import lora, parts
from diffusion_builder.components.parts import LoraWeights
from diffusion_builder.errors import BadInputError, Reason
from tests.support.builder.lora_references import CASES, FOLDER, model_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The library has no types.
_Model = Any
_Unet: Any = UNet2DConditionModel
_convert: Any = _convert_non_diffusers_lora_to_diffusers
_map_blocks: Any = _maybe_map_sgm_blocks_to_diffusers
_to_peft: Any = convert_unet_state_dict_to_peft
_LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
_OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
_TEXT = "encoder.layers.0.self_attn.q_proj"
_DOWN, _UP = f"unet.{_LAYER}.lora_A.weight", f"unet.{_LAYER}.lora_B.weight"


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_is_merged_as_peft_or_lycoris_merges_it(name: str) -> None:
    weights = load_file(FOLDER / name / "weights.safetensors")
    model = model_of({key.removeprefix("base."): value for key, value in weights.items() if key.startswith("base.")})
    lora.merge(model, parts.UNET, (LoraWeights(FOLDER / name / "lora", CASES[name].weight),))
    # An adapter that changes nothing would prove nothing.
    assert all(
        key.endswith(".bias") or (weights[f"merged.{key}"] != weights[f"base.{key}"]).any()
        for key in model.state_dict()
    )
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, weights[f"merged.{key}"], rtol=1e-4, atol=1e-5)


def _write(folder: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(dict(state), folder / "lora.safetensors", dict(metadata or {}))
    return folder


def _factors(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 8, generator=generator), torch.randn(8, 2, generator=generator)


def _model(*layers: str) -> torch.nn.Module:
    weights = {f"{layer}.weight": torch.zeros(8, 8) for layer in layers}
    return model_of(weights | {f"{layer}.bias": torch.zeros(8) for layer in layers})


_NAMES: Mapping[str, tuple[str, str, str, str]] = {
    # name of `down`, name of `up`, part, layer
    "older diffusers, no prefix": (
        f"{_LAYER.removesuffix('.to_q')}.processor.to_q_lora.down.weight",
        f"{_LAYER.removesuffix('.to_q')}.processor.to_q_lora.up.weight", parts.UNET, _LAYER,
    ),
    "older diffusers, output": (
        f"{_OUT.removesuffix('.to_out.0')}.processor.to_out_lora.down.weight",
        f"{_OUT.removesuffix('.to_out.0')}.processor.to_out_lora.up.weight", parts.UNET, _OUT,
    ),
    "older diffusers, text": (
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight", parts.TEXT_ENCODER, _TEXT,
    ),
    "diffusers, text": (
        f"text_encoder.text_model.{_TEXT}.lora_linear_layer.down.weight",
        f"text_encoder.text_model.{_TEXT}.lora_linear_layer.up.weight", parts.TEXT_ENCODER, _TEXT,
    ),
    "peft around the UNet": (
        f"base_model.model.{_LAYER}.lora_A.weight", f"base_model.model.{_LAYER}.lora_B.weight", parts.UNET, _LAYER,
    ),
    "peft around the pipeline": (
        f"base_model.model.unet.{_LAYER}.lora_A.weight", f"base_model.model.unet.{_LAYER}.lora_B.weight", parts.UNET,
        _LAYER,
    ),
    "peft with the adapter's name": (
        f"base_model.model.{_LAYER}.lora_A.style.weight", f"base_model.model.{_LAYER}.lora_B.style.weight", parts.UNET,
        _LAYER,
    ),
    "peft around the text encoder": (
        f"base_model.model.text_model.{_TEXT}.lora_A.weight", f"base_model.model.text_model.{_TEXT}.lora_B.weight",
        parts.TEXT_ENCODER, _TEXT,
    ),
    "peft and torch.compile": (
        f"unet.{_LAYER}.lora_A.default_0.weight", f"unet.{_LAYER}.lora_B.default_0.weight", parts.UNET, _LAYER,
    ),
    "ComfyUI": (
        f"diffusion_model.{_LAYER}.lora_down.weight", f"diffusion_model.{_LAYER}.lora_up.weight", parts.UNET, _LAYER,
    ),
    "kohya, text": (
        f"lora_te_text_model_{_TEXT.replace('.', '_')}.lora_down.weight",
        f"lora_te_text_model_{_TEXT.replace('.', '_')}.lora_up.weight", parts.TEXT_ENCODER, _TEXT,
    ),
    "LyCORIS alone": (
        f"lycoris_{_LAYER.replace('.', '_')}.lora_down.weight", f"lycoris_{_LAYER.replace('.', '_')}.lora_up.weight",
        parts.UNET, _LAYER,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", _NAMES)
def test_names_of_every_trainer_mean_their_layer(tmp_path: Path, form: str) -> None:
    down_name, up_name, part, layer = _NAMES[form]
    down, up = _factors()
    model = _model(layer)
    folder = _write(tmp_path / "lora", {down_name: down, up_name: up})
    lora.merge(model, part, (LoraWeights(folder, 1.0),))
    torch.testing.assert_close(model.get_submodule(layer).weight, up @ down)


@pytest.fixture(scope="module")
def unet() -> _Model:
    """As SD 1.x is built, but narrow: kohya's names count its blocks."""
    torch.manual_seed(0)
    return _Unet(
        sample_size=8, block_out_channels=(8, 8, 8, 8), cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4
    )


# As kohya writes SD 1.x with the names of the latent diffusion model's own code.
_LDM = (
    "input_blocks_1_1_transformer_blocks_0_attn1_to_q", "input_blocks_2_1_proj_in", "input_blocks_4_0_in_layers_2",
    "input_blocks_7_1_transformer_blocks_0_ff_net_0_proj", "input_blocks_3_0_op", "middle_block_1_proj_out",
    "middle_block_2_out_layers_3", "output_blocks_3_1_transformer_blocks_0_attn2_to_out_0",
    "output_blocks_5_2_conv", "output_blocks_11_1_transformer_blocks_0_attn2_to_k", "output_blocks_0_0_skip_connection",
    "input_blocks_5_0_emb_layers_1", "input_blocks_0_0", "time_embed_2",
)  # fmt: skip


@pytest.mark.parametrize("name", _LDM)
def test_names_of_latent_diffusion_mean_the_layer_that_diffusers_converts_them_to(
    tmp_path: Path,
    unet: _Model,
    name: str,
) -> None:
    down, up = f"lora_unet_{name}.lora_down.weight", f"lora_unet_{name}.lora_up.weight"
    state = {down: torch.ones(1, 1), up: torch.ones(1, 1)}
    converted, _ = _convert(_map_blocks(dict(state), unet.config))
    keys = [key for key in _to_peft(converted) if ".lora_A" in key or ".lora.down" in key]
    layer = unet.get_submodule(keys[0].removeprefix("unet.").partition(".lora")[0])
    before = layer.weight.detach().clone()
    shape = (before.shape[0], before[0].numel())
    state = {down: torch.ones(1, shape[1]), up: torch.ones(shape[0], 1)}
    folder = _write(tmp_path / "lora", state)
    lora.merge(unet, parts.UNET, (LoraWeights(folder, 1.0),))
    after = layer.weight.detach().clone()
    layer.weight.data = before
    torch.testing.assert_close(after, before + 1.0)


def test_the_upsampler_of_a_block_without_attention_has_its_own_number(tmp_path: Path, unet: _Model) -> None:
    # diffusers takes output_blocks.2.1 for attention; in the model's own code it is what doubles the size.
    layer = unet.up_blocks[0].upsamplers[0].conv
    before = layer.weight.detach().clone()
    state = {
        "lora_unet_output_blocks_2_1_conv.lora_down.weight": torch.ones(1, 72),
        "lora_unet_output_blocks_2_1_conv.lora_up.weight": torch.ones(8, 1),
    }
    lora.merge(unet, parts.UNET, (LoraWeights(_write(tmp_path / "lora", state), 1.0),))
    after = layer.weight.detach().clone()
    layer.weight.data = before
    torch.testing.assert_close(after, before + 1.0)


def _header(**settings: object) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in settings.items()})}


_HEADERS: Mapping[str, tuple[dict[str, str], Reason, str]] = {
    "no JSON": ({"lora_adapter_metadata": "not json"}, Reason.INVALID_WEIGHTS, "lora_adapter_metadata in its header"),
    "nested": ({"lora_adapter_metadata": "[" * 100_000}, Reason.INVALID_WEIGHTS, "lora_adapter_metadata"),
    "a list": ({"lora_adapter_metadata": "[]"}, Reason.INVALID_WEIGHTS, "no JSON object"),
    "null": (_header(lora_alpha=None), Reason.INVALID_WEIGHTS, r"unet\.lora_alpha is 'None'"),
    "text": (_header(lora_alpha="big"), Reason.INVALID_WEIGHTS, r"unet\.lora_alpha is 'big'"),
    "not finite": (_header(lora_alpha=float("nan")), Reason.INVALID_WEIGHTS, r"unet\.lora_alpha"),
    "a list of patterns": (_header(alpha_pattern=["to_q"]), Reason.INVALID_WEIGHTS, r"unet\.alpha_pattern"),
    "a pattern without a number": (
        _header(alpha_pattern={"to_q": None}),
        Reason.INVALID_WEIGHTS,
        r"alpha_pattern\.to_q",
    ),
    "a pattern that is none": (_header(alpha_pattern={"[": 1}), Reason.INVALID_WEIGHTS, "no regular expression"),
    "a pattern without end": (_header(alpha_pattern={"(a*)*b": 1}), Reason.UNSUPPORTED_LORA, "too involved"),
    "another rank": (_header(r=3, lora_alpha=1), Reason.INVALID_WEIGHTS, "has the rank 2, its header says 3"),
    "no magnitudes": (_header(use_dora=True), Reason.INVALID_WEIGHTS, "use_dora is set"),
    "a changed base": (_header(init_lora_weights="pissa_niter_4"), Reason.UNSUPPORTED_LORA, "pissa_niter_4"),
    "another method": (_header(peft_type="OFT"), Reason.UNSUPPORTED_LORA, "peft_type is 'OFT'"),
    "another computation": (_header(use_qalora=True), Reason.UNSUPPORTED_LORA, "use_qalora"),
}


@pytest.mark.parametrize("name", _HEADERS)
def test_a_header_that_makes_no_sense_is_named(tmp_path: Path, name: str) -> None:
    metadata, reason, says = _HEADERS[name]
    down, up = _factors()
    state = {f"unet.{_LAYER}.lora_A.weight": down, f"unet.{_LAYER}.lora_B.weight": up}
    with pytest.raises(BadInputError, match=says) as caught:
        lora.merge(_model(_LAYER), parts.UNET, (LoraWeights(_write(tmp_path / "lora", state, metadata), 1.0),))
    assert caught.value.reason is reason


def test_a_layers_own_alpha_counts_before_the_headers(tmp_path: Path) -> None:
    down, up = _factors()
    state = {
        f"unet.{_LAYER}.lora_A.weight": down,
        f"unet.{_LAYER}.lora_B.weight": up,
        f"unet.{_LAYER}.alpha": torch.tensor(1.0),
    }
    model = _model(_LAYER)
    lora.merge(model, parts.UNET, (LoraWeights(_write(tmp_path / "lora", state, _header(lora_alpha=64)), 1.0),))
    torch.testing.assert_close(model.get_submodule(_LAYER).weight, up @ down / 2)


_Shapes = dict[str, tuple[int, ...]]
_KOHYA = f"lora_unet_{_LAYER.replace('.', '_')}"
_PAIR: _Shapes = {_DOWN: (2, 8), _UP: (8, 2)}
_UNSERVED: Mapping[str, tuple[_Shapes, str]] = {
    "OFT": ({f"{_KOHYA}.oft_blocks": (2, 2)}, "holds OFT"),
    "BOFT": ({f"base_model.model.{_LAYER}.boft_R": (2, 2)}, "holds BOFT"),
    "IA3": ({f"{_KOHYA}.on_input": (1,)}, "holds IA3"),
    "GLoRA": ({f"{_KOHYA}.a1.weight": (2, 2)}, "holds GLoRA"),
    "norm layers": ({"lora_unet_conv_norm_out.w_norm": (2,)}, "norm layers"),
    "a textual inversion": ({"bundle_emb.cat.string_to_param.*": (1, 8)}, "textual inversion"),
    "an embedding of A1111": ({"emb_params": (2, 8)}, "textual inversion embedding"),
    "an embedding of diffusers": ({"<cat-toy>": (8,)}, "textual inversion embedding"),
    "an embedding of SDXL": ({"clip_l": (1, 8), "clip_g": (1, 12)}, "textual inversion embedding"),
}
_OTHER: Mapping[str, tuple[_Shapes, str]] = {
    "SDXL": ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (1, 8)}, "another kind"),
    "Flux": ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (1, 8)}, "another kind"),
    "vectors instead of matrices": ({_DOWN: (2,), _UP: (8, 2)}, "8 x 1, the model's has 8 x 8"),
    "lengths of another layer": (_PAIR | {f"unet.{_LAYER}.lora_magnitude_vector": (7,)}, "lengths of DoRA"),
}
_INVALID: Mapping[str, tuple[_Shapes, str]] = {
    "a checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": (4, 4)}, "no entry of a LoRA"),
    "half a LoHa": ({f"unet.{_LAYER}.hada_w1_a": (8, 2), f"unet.{_LAYER}.hada_w1_b": (2, 8)}, "hada_w2_a"),
    "half a LoKr": ({f"unet.{_LAYER}.lokr_w1": (2, 2)}, "lokr_w2"),
    "magnitudes alone": ({f"unet.{_LAYER}.lora_magnitude_vector": (8,)}, "counterpart"),
    "two adapters": (
        {f"unet.{_LAYER}.lora_A.one.weight": (2, 8), f"unet.{_LAYER}.lora_A.two.weight": (2, 8)}, "the same layer",
    ),
    "factors that do not fit": ({_DOWN: (2, 8), _UP: (8, 3)}, "do not fit each other"),
    "numbers instead of matrices": ({_DOWN: (), _UP: ()}, "rank 0"),
    "rank 0": ({_DOWN: (0, 8), _UP: (8, 0)}, "rank 0"),
    "alpha of two numbers": (_PAIR | {f"unet.{_LAYER}.alpha": (2,)}, "one number"),
}  # fmt: skip
_REFUSED: Mapping[str, tuple[_Shapes, Reason, str]] = {
    name: (shapes, reason, says)
    for reason, cases in (
        (Reason.UNSUPPORTED_LORA, _UNSERVED), (Reason.COMPONENT_MISMATCH, _OTHER), (Reason.INVALID_WEIGHTS, _INVALID),
    )
    for name, (shapes, says) in cases.items()
}  # fmt: skip


@pytest.mark.parametrize("name", _REFUSED)
def test_what_cannot_be_merged_is_refused_by_its_own_name(tmp_path: Path, name: str) -> None:
    shapes, reason, says = _REFUSED[name]
    folder = _write(tmp_path / "lora", {key: torch.ones(shape) for key, shape in shapes.items()})
    with pytest.raises(BadInputError, match=says) as caught:
        lora.merge(_model(_LAYER), parts.UNET, (LoraWeights(folder, 1.0),))
    assert caught.value.reason is reason


def test_a_training_that_has_failed_is_named(tmp_path: Path) -> None:
    down, up = _factors()
    folder = _write(tmp_path / "lora", {_DOWN: down * float("nan"), _UP: up})
    with pytest.raises(BadInputError, match="not finite") as caught:
        lora.merge(_model(_LAYER), parts.UNET, (LoraWeights(folder, 1.0),))
    assert caught.value.reason is Reason.INVALID_WEIGHTS
