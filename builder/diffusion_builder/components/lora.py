"""LoRAs, merged into weights before export: W + weight * (alpha / rank) * up @ down (arXiv 2106.09685, section 4.1).

Read are the names of diffusers (old and new), PEFT and kohya. All agree when dots are written as underscores.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from diffusion_builder.components import parts
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from diffusion_builder.components.base import Model

_TARGETS: Mapping[str, str] = {
    "unet.": parts.UNET,
    "lora_unet_": parts.UNET,
    "text_encoder.": parts.TEXT_ENCODER,
    "lora_te_": parts.TEXT_ENCODER,
    "lora_te1_": parts.TEXT_ENCODER,
}
_ENDING = re.compile(
    r"(?:\.lora_(?P<peft>[AB])(?:\.default)?\.weight"
    r"|(?:\.lora|\.lora_linear_layer|_lora)[._](?P<side>down|up)\.weight"
    r"|\.(?P<alpha>alpha))$"
)
_SIDES: Mapping[str, str] = {"A": "down", "B": "up", "down": "down", "up": "up"}
_METADATA = "lora_adapter_metadata"


@dataclass
class _Update:
    """What a file has for one weight."""

    key: str
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class _File:
    """A LoRA: target part → flattened module name → update."""

    name: str
    updates: Mapping[str, Mapping[str, _Update]] = field(default_factory=dict)


def merge(model: Model, part: str, loras: tuple[parts.Lora, ...], optional_prefix: str = "") -> None:
    """Add LoRAs to a model's weights, in place.

    Args:
        model: a torch module.
        part: `unet` or `text_encoder`: which entries of the files are meant.
        loras: in order; entries for the other part are left alone.
        optional_prefix: of module names, there or not.

    Raises:
        BadInputError: not a LoRA, or one for another base model.
    """
    modules: dict[str, nn.Module] = {_flat(name, optional_prefix): module for name, module in model.named_modules()}
    for item in loras:
        file = read(item.folder)
        for name, update in file.updates.get(part, {}).items():
            _add(file, update, modules.get(_flat(name, _flat(optional_prefix))), item.weight)


def read(folder: Path) -> _File:
    """Read the one safetensors file of a LoRA.

    Raises:
        BadInputError: none or several files, or an entry that is no part of a LoRA.
    """
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise BadInputError(Reason.INVALID_WEIGHTS, f"a LoRA is one safetensors file; there are {len(files)}")
    updates: dict[str, dict[str, _Update]] = {}
    with safe_open(files[0], framework="pt") as stream:
        for key in sorted(stream.keys()):
            _sort_in(files[0].name, key, stream.get_tensor, updates)
        alphas = _alphas(stream.metadata() or {})
    for part, alpha in alphas.items():
        for update in updates.get(part, {}).values():
            update.alpha = alpha if update.alpha is None else update.alpha
    return _File(files[0].name, updates)


def _sort_in(file: str, key: str, load: Callable[[str], torch.Tensor], updates: dict[str, dict[str, _Update]]) -> None:
    ending = _ENDING.search(key)
    prefix = next((prefix for prefix in _TARGETS if key.startswith(prefix)), None)
    if ending is None or prefix is None:
        raise BadInputError(
            Reason.INVALID_WEIGHTS,
            f"{file}: {key!r} is no entry of a LoRA for text encoder or UNet (LoHa, LoKr and DoRA are not served)",
        )
    module = key[len(prefix) : ending.start()].replace(".processor.", ".")
    module = f"{module}.0" if module.endswith("to_out") else module
    update = updates.setdefault(_TARGETS[prefix], {}).setdefault(_flat(module), _Update(key))
    if ending["alpha"]:
        update.alpha = float(load(key))
    else:
        setattr(update, _SIDES[ending["peft"] or ending["side"]], load(key).float())


def _alphas(metadata: Mapping[str, str]) -> dict[str, float]:
    """Part name to alpha, from what diffusers writes into the header."""
    settings = json.loads(metadata.get(_METADATA, "{}"))
    return {
        part: float(settings[f"{part}.lora_alpha"])
        for part in (parts.UNET, parts.TEXT_ENCODER)
        if f"{part}.lora_alpha" in settings
    }


def _add(file: _File, update: _Update, module: nn.Module | None, weight: float) -> None:
    target = getattr(module, "weight", None)
    if not isinstance(target, torch.Tensor):
        raise _other_base(file, update, "this model has no such layer")
    down, up = update.down, update.up
    if down is None or up is None:
        raise BadInputError(Reason.INVALID_WEIGHTS, f"{file.name}: {update.key} lacks its counterpart (up or down)")
    rank, out = down.shape[0], up.shape[0]
    has, needs = (out, down[0].numel()), (target.shape[0], target[0].numel())
    if has != needs or up.numel() != out * rank:
        raise _other_base(
            file, update, f"it is for a layer of {has[0]} x {has[1]}, the model's has {needs[0]} x {needs[1]}"
        )
    scale = weight * (rank if update.alpha is None else update.alpha) / rank
    delta = (up.reshape(out, rank) @ down.reshape(rank, -1)).reshape(target.shape)
    target.data = (target.data.float() + scale * delta).to(target.dtype)


def _other_base(file: _File, update: _Update, why: str) -> BadInputError:
    return BadInputError(
        Reason.COMPONENT_MISMATCH, f"the LoRA {file.name} is for another base model: {update.key}: {why}"
    )


def _flat(name: str, optional_prefix: str = "") -> str:
    return name.removeprefix(optional_prefix).replace(".", "_")
