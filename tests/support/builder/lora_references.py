"""Adapters that PEFT and LyCORIS have made, and the weights that these libraries merge them into.

Both libraries bring `accelerate` along, with which diffusers and transformers load models in another way than the
builder's image does: so they are in no environment of the project, and what they compute is kept as files. Made with
peft 0.21.2 and lycoris-lora 4.1.3; again, in a scratch environment with the builder's dependencies:

    uv run --with peft==0.21.2 --with lycoris-lora==4.1.3 python -m tests.support.builder.lora_references
"""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).parent / "golden" / "loras"
_BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
_QUERY, _KEY, _OUT = f"{_BLOCK}.attn1.to_q", f"{_BLOCK}.attn2.to_k", f"{_BLOCK}.attn2.to_out.0"
_CONVOLUTION = "down_blocks.0.resnets.0.conv1"
_SHAPES: Mapping[str, tuple[int, ...]] = {_QUERY: (8, 8), _KEY: (8, 12), _OUT: (8, 8), _CONVOLUTION: (8, 4, 3, 3)}
_LAST = ("to_q", "to_k", "to_out.0", "conv1")
# The libraries have no types.
_Model = Any
_Library = Any


def model_of(weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """Layers under their names in a UNet, with these weights: `<layer>.weight` and `<layer>.bias`."""
    root = nn.Module()
    for name in sorted({key.rpartition(".")[0] for key in weights}):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        layer: nn.Module = (
            nn.Linear(weight.shape[1], weight.shape[0])
            if weight.dim() == 2
            else nn.Conv2d(weight.shape[1], weight.shape[0], (weight.shape[2], weight.shape[3]), padding=1)
        )
        layer.load_state_dict({"weight": weight, "bias": bias})
        *above, last = name.split(".")
        parent = root
        for word in above:
            if not hasattr(parent, word):
                parent.add_module(word, nn.Module())
            parent = parent.get_submodule(word)
        parent.add_module(last, layer)
    return root.requires_grad_(requires_grad=False)


def _base() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in _SHAPES.items()}
    return weights | {f"{name}.bias": torch.randn(shape[0], generator=generator) for name, shape in _SHAPES.items()}


def _randomised(model: _Model, mark: str) -> None:
    """Fresh adapters change nothing, since one of their factors is zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if any(word in name for word in mark.split()):
            scale = 1.0 if "magnitude" in name or "dora_scale" in name else 0.3
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.data = parameter.data + noise.abs() if scale == 1.0 else noise


@dataclass(frozen=True)
class Case:
    """An adapter and how much of it is merged.

    Args:
        write: writes its file into a folder and returns the merged weights.
        weight: how much of it is added.
    """

    write: Callable[[Path, float], Mapping[str, torch.Tensor]]
    weight: float = 1.0


def _peft(config: str, save: str = "header", **fields: object) -> Callable[[Path, float], Mapping[str, torch.Tensor]]:
    def write(folder: Path, weight: float) -> Mapping[str, torch.Tensor]:
        peft: _Library = importlib.import_module("peft")
        model: _Model = peft.get_peft_model(model_of(_base()), getattr(peft, config)(**fields))
        _randomised(model, "lora_ hada_ lokr_")
        if save == "beside":
            model.save_pretrained(folder)
            (folder / "README.md").unlink()
        else:
            state = peft.get_peft_model_state_dict(model)
            metadata = model.peft_config["default"].to_dict()
            layers = {key.removeprefix("base_model.model."): tensor for key, tensor in state.items()}
            metadata = {key: sorted(value) if isinstance(value, set) else value for key, value in metadata.items()}
            pipeline: _Model = StableDiffusionPipeline
            pipeline.save_lora_weights(folder, layers, unet_lora_adapter_metadata=metadata)
        for layer in model.modules():
            if hasattr(layer, "scale_layer"):
                layer.scale_layer(weight)
        return _weights(model.merge_and_unload())

    return write


def _lycoris(algorithm: str, **fields: object) -> Callable[[Path, float], Mapping[str, torch.Tensor]]:
    def write(folder: Path, weight: float) -> Mapping[str, torch.Tensor]:
        lycoris: _Library = importlib.import_module("lycoris")
        lycoris.LycorisNetwork.apply_preset({"target_module": ["Linear", "Conv2d"]})
        lycoris.LycorisNetwork.LORA_PREFIX = "lora_unet"
        model = model_of(_base())
        network: _Model = lycoris.create_lycoris(model, 1.0, linear_dim=4, linear_alpha=2.0, algo=algorithm, **fields)
        network.apply_to()
        _randomised(network, "lora_ hada_ lokr_ dora_scale")
        folder.mkdir(parents=True, exist_ok=True)
        network.save_weights(folder / "lora.safetensors", torch.float32, {"ss_network_module": "lycoris.kohya"})
        # What the layers compute: `merge_to` of this version applies the scale of LoHa and LoKr twice.
        network.set_multiplier(weight)
        return {key: tensor for name in _SHAPES for key, tensor in _measured(name, model.eval()).items()}

    return write


@torch.no_grad()
def _measured(name: str, model: nn.Module) -> dict[str, torch.Tensor]:
    """Weight and bias of a layer, as its answers to single ones and to zeros show them."""
    layer, shape = model.get_submodule(name), _SHAPES[name]
    side = shape[2:]
    ones = torch.eye(shape[1]).reshape(shape[1], shape[1], *(1 for _ in side))
    nothing = torch.zeros(1, shape[1], *side)
    bias = layer(nothing)
    # One in the middle of an image: the answer is the kernel back to front.
    answers = layer(nn.functional.pad(ones, (1, 1, 1, 1)) if side else ones) - bias
    weight = answers.transpose(0, 1)
    return {
        f"{name}.weight": weight.flip(2, 3) if side else weight,
        f"{name}.bias": bias[0].reshape(shape[0], -1)[:, 0],
    }


def _weights(model: nn.Module) -> Mapping[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name in _base()}


_LORA: Mapping[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": list(_LAST)}
_HADAMARD: Mapping[str, Any] = {"r": 4, "alpha": 6, "target_modules": list(_LAST)}
CASES: Mapping[str, Case] = {
    "peft-rslora": Case(_peft("LoraConfig", use_rslora=True, **_LORA)),
    "peft-patterns": Case(
        _peft(
            "LoraConfig", **_LORA, rank_pattern={"to_q": 2, "attn2.to_k": 3},
            alpha_pattern={"attn1.to_q": 5, "^down_blocks.0.resnets.0.conv1": 1, r".*\.attn2\.to_out.0": 9.5},
        )
    ),
    "peft-rslora-patterns-beside": Case(
        _peft(
            "LoraConfig", save="beside", use_rslora=True, **_LORA, rank_pattern={"to_q": 2}, alpha_pattern={"to_k": 3}
        ),
        0.5,
    ),
    "peft-dora": Case(_peft("LoraConfig", use_dora=True, **_LORA)),
    "peft-bias": Case(_peft("LoraConfig", lora_bias=True, **_LORA), -0.5),
    "peft-loha": Case(_peft("LoHaConfig", save="beside", use_effective_conv2d=True, **_HADAMARD), 0.75),
    "peft-lokr": Case(_peft("LoKrConfig", save="beside", **_HADAMARD)),
    "peft-lokr-both": Case(
        _peft("LoKrConfig", save="beside", decompose_both=True, use_effective_conv2d=True, **{**_HADAMARD, "r": 1}),
        0.5,
    ),
    "lycoris-locon": Case(_lycoris("locon", conv_dim=3, conv_alpha=1.0, use_tucker=True, rs_lora=True), 0.5),
    "lycoris-dora": Case(_lycoris("locon", conv_dim=4, dora_wd=True)),
    "lycoris-dora-columns": Case(_lycoris("locon", conv_dim=4, dora_wd=True, wd_on_output=False)),
    "lycoris-loha": Case(_lycoris("loha", conv_dim=2, use_tucker=True)),
    "lycoris-lokr": Case(_lycoris("lokr", conv_dim=1, factor=2, decompose_both=True), 0.5),
    "lycoris-lokr-whole": Case(_lycoris("lokr", conv_dim=64, full_matrix=True)),
    "lycoris-full": Case(_lycoris("full"), 0.5),
}  # fmt: skip


def main() -> None:
    """Write all cases anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, case in CASES.items():
        merged = case.write(FOLDER / name / "lora", case.weight)
        weights = {f"base.{key}": tensor for key, tensor in _base().items()}
        weights |= {f"merged.{key}": tensor.detach().contiguous().clone() for key, tensor in merged.items()}
        save_file(weights, FOLDER / name / "weights.safetensors")


if __name__ == "__main__":
    main()
