"""Merge LoRAs into a model: W + weight * scale * difference, with the scale that PEFT gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from diffusion_builder.components import parts
from diffusion_builder.components.lora import names, settings, updates
from diffusion_builder.components.lora.updates import Update
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import ModelFamily

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from diffusion_builder.components.base import TorchModel
    from diffusion_builder.components.lora.settings import Settings


# Inside file names and LoRAs of text encoders this prefix comes and goes with the library's version.
_OPTIONAL_PREFIX = "text_model."


@dataclass(frozen=True)
class _File:
    """A LoRA: part → flat name of a layer → update; and what is said about the strength of each part."""

    name: str
    updates: Mapping[str, Mapping[str, Update]] = field(default_factory=dict)
    settings: Mapping[str, Settings] = field(default_factory=dict)


def merge(
    model: TorchModel,
    part: str,
    loras: tuple[parts.LoraWeights, ...],
    family: ModelFamily = ModelFamily.STABLE_DIFFUSION,
) -> None:
    """Add LoRAs to a model's weights, in place.

    Args:
        model: a torch module.
        part: `unet`, `text_encoder` or `text_encoder_2`: which entries of the files are meant.
        loras: in order; entries for other parts are left alone.
        family: of the checkpoint.

    Raises:
        BadInputError: not a LoRA, one of a kind that cannot be merged, or one for another base model.
    """
    optional_prefix = "" if part == parts.UNET else _OPTIONAL_PREFIX
    modules = _layers(model, part, optional_prefix)
    for lora in loras:
        file = read(lora.folder, family)
        for name, update in file.updates.get(part, {}).items():
            module = modules.get(names.flatten(name, optional_prefix))
            _add(file, update, module, _Strength(file.settings.get(part), lora.weight))


def _layers(model: TorchModel, part: str, optional_prefix: str) -> Mapping[str, nn.Module]:
    """Flat name to layer; a UNet's also by the names of the latent diffusion model's own code."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    by_name = {names.flatten(name, optional_prefix): module for name, module in modules.items()}
    if part != parts.UNET or not hasattr(model, "config"):
        return by_name
    aliases = names.ldm_aliases(modules, model.config.layers_per_block)
    return {**{alias: modules[name] for alias, name in aliases.items()}, **by_name}


def read(folder: Path, family: ModelFamily = ModelFamily.STABLE_DIFFUSION) -> _File:
    """Read the one safetensors file of a LoRA for a checkpoint of a family.

    Raises:
        BadInputError: none or several files, an entry that is no part of a LoRA, or a header that makes no sense.
    """
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise BadInputError(Reason.INVALID_WEIGHTS, f"a LoRA is one safetensors file; there are {len(files)}")
    name = files[0].name
    entries: dict[str, dict[str, Update]] = {}
    with safe_open(files[0], framework="pt") as stream:
        for key in sorted(stream.keys()):
            _add_entry(names.parse(name, key, family), (name, key), stream.get_tensor(key), entries)
        strength = settings.read(folder, name, stream.metadata() or {})
    file = _File(name, entries, strength)
    for part, layers in entries.items():
        for update in layers.values():
            _check(file, update, strength.get(part))
    return file


def _add_entry(
    entry: names.Entry, place: tuple[str, str], stored: torch.Tensor, entries: dict[str, dict[str, Update]]
) -> None:
    file, key = place
    layers = entries.setdefault(entry.part, {})
    update = layers.setdefault(names.flatten(entry.module), Update(key, entry.module))
    tensor = stored.float()
    if not torch.isfinite(tensor).all():
        raise BadInputError(
            Reason.INVALID_WEIGHTS, f"{file}: {key} holds numbers that are not finite: its training has failed"
        )
    if entry.factor in update.tensors or (entry.factor == "alpha" and update.alpha is not None):
        raise BadInputError(
            Reason.INVALID_WEIGHTS, f"{file}: {key} and {update.key} are for the same layer: take a file with one LoRA"
        )
    if entry.factor != "alpha":
        update.tensors[entry.factor] = tensor
        return
    if tensor.numel() != 1:
        raise BadInputError(Reason.INVALID_WEIGHTS, f"{file}: {key} must be one number, it has {tensor.numel()}")
    update.alpha = float(tensor)


def _check(file: _File, update: Update, strength: Settings | None) -> None:
    """Reject what is incomplete, or is not what the header says."""
    missing = update.missing()
    if missing is not None:
        raise BadInputError(
            Reason.INVALID_WEIGHTS, f"{file.name}: {update.key} lacks its counterpart ({missing}): is it cut off?"
        )
    dora = bool(update.tensors.keys() & {"magnitude", "dora_scale"})
    if strength is not None and strength.use_dora and not dora:
        raise BadInputError(
            Reason.INVALID_WEIGHTS, f"{file.name}: use_dora is set, but {update.key} has no lora_magnitude_vector"
        )
    rank, expected = update.rank(), strength.rank_of(update.module) if strength is not None else None
    if rank is not None and (rank == 0 or (expected or rank) != rank):
        needed = f"its header says {expected}" if expected else "at least 1 is needed"
        raise BadInputError(Reason.INVALID_WEIGHTS, f"{file.name}: {update.key} has the rank {rank}, {needed}")


@dataclass(frozen=True)
class _Strength:
    """How much of a file is added.

    Args:
        settings: of the file's part.
        weight: what the pipeline asks for.
    """

    settings: Settings | None
    weight: float

    def of(self, update: Update) -> float:
        """What a layer's difference is multiplied by: the layer's own alpha counts before the header's."""
        rank = update.rank()
        if self.settings is not None and self.settings.peft_type == "LOKR" and rank is None:
            # PEFT divides by the configured rank, also where both factors are whole.
            rank = self.settings.rank_of(update.module)
        if rank is None or (update.alpha is None and self.settings is None):
            return self.weight
        if update.alpha is not None:
            return self.weight * update.alpha / rank
        return self.weight * (self.settings.scale(update.module, rank) if self.settings else 1.0)


def _add(file: _File, update: Update, module: nn.Module | None, strength: _Strength) -> None:
    target = getattr(module, "weight", None)
    if not isinstance(target, torch.Tensor):
        raise _base_mismatch(file, update, "this model has no such layer")
    scale = strength.of(update)
    difference = _difference(file, update, target)
    weight = target.data.float()
    if difference is not None:
        weight = weight + scale * difference
    try:
        weight = updates.rescale(weight, update.tensors)
    except RuntimeError as error:
        raise _base_mismatch(file, update, "the lengths of DoRA are not as many as the layer's rows") from error
    target.data = weight.to(target.dtype)
    for name, factor in (("up_bias", scale), ("diff_b", strength.weight)):
        if name in update.tensors:
            _add_bias(file, update, module, factor * update.tensors[name])


def _difference(file: _File, update: Update, target: torch.Tensor) -> torch.Tensor | None:
    try:
        difference = update.difference(target.shape)
        has = None if difference is None else (difference.shape[0], difference[0].numel())
    except (RuntimeError, IndexError, ValueError) as error:
        raise BadInputError(
            Reason.INVALID_WEIGHTS, f"{file.name}: the factors of {update.key} do not fit each other"
        ) from error
    if difference is None or has is None:
        return None
    needs = (target.shape[0], target[0].numel())
    if has != needs:
        raise _base_mismatch(
            file, update, f"it is for a layer of {has[0]} x {has[1]}, the model's has {needs[0]} x {needs[1]}"
        )
    return difference.reshape(target.shape)


def _add_bias(file: _File, update: Update, module: nn.Module | None, difference: torch.Tensor) -> None:
    bias = getattr(module, "bias", None)
    if not isinstance(bias, torch.Tensor) or bias.shape != difference.shape:
        raise _base_mismatch(file, update, "the layer has no such bias")
    bias.data = (bias.data.float() + difference).to(bias.dtype)


def _base_mismatch(file: _File, update: Update, why: str) -> BadInputError:
    return BadInputError(
        Reason.COMPONENT_MISMATCH, f"the LoRA {file.name} is for another base model: {update.key}: {why}"
    )
