"""Names inside the files of LoRAs: which model, which layer and which factor an entry is for.

Read are the names of diffusers (old and new), PEFT, kohya, LyCORIS and ComfyUI. Layers are compared by their flat
names, with underscores instead of dots: kohya writes no others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_builder.components import parts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import ModelFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Wrappers of PEFT, torch.compile and DistributedDataParallel around a model.
_WRAPPERS = re.compile(r"^(?:base_model\.model\.|_orig_mod\.|module\.)+")
_PREFIXES: Mapping[str, str] = {
    "unet.": parts.UNET,
    "lora_unet_": parts.UNET,
    "diffusion_model.": parts.UNET,
    "model.diffusion_model.": parts.UNET,
    "text_encoder.": parts.TEXT_ENCODER,
    "lora_te_": parts.TEXT_ENCODER,
    "lora_te1_": parts.TEXT_ENCODER,
    "cond_stage_model.transformer.": parts.TEXT_ENCODER,
    "text_encoders.clip_l.transformer.": parts.TEXT_ENCODER,
}
# Files for Stable Diffusion XL tell its two text encoders apart; those of others have one.
_XL_PREFIXES: Mapping[str, str] = {
    **{prefix: part for prefix, part in _PREFIXES.items() if part == parts.UNET},
    **dict.fromkeys(("text_encoder.", "lora_te1_", "text_encoders.clip_l.transformer."), parts.TEXT_ENCODER),
    **dict.fromkeys(("text_encoder_2.", "lora_te2_", "text_encoders.clip_g.transformer."), parts.TEXT_ENCODER_2),
}
# First words of layers' names, where a file is for one model and says no prefix.
_FIRST_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("conv_in", "conv_out", "time_embedding", "down_blocks", "mid_block", "up_blocks"), parts.UNET),
    **dict.fromkeys(("time_embed", "input_blocks", "middle_block", "output_blocks"), parts.UNET),
    **dict.fromkeys(("add_embedding", "label_emb"), parts.UNET),
    **dict.fromkeys(("text_model", "encoder", "embeddings"), parts.TEXT_ENCODER),
}
_OTHER_MODELS = (
    "text_encoder_2.", "text_encoder_3.", "text_encoders.", "transformer.", "lora_te2_", "lora_te3_", "lora_prior_",
    "lora_transformer_", "lora_te_", "cond_stage_model.",
)  # fmt: skip
_KINDS: Mapping[ModelFamily, str] = {
    ModelFamily.STABLE_DIFFUSION: "a UNet with one text encoder",
    ModelFamily.STABLE_DIFFUSION_XL: "the UNet and the two text encoders of Stable Diffusion XL",
}
_ENDING = re.compile(
    r"(?:\.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight"
    r"|\.lora_B(?:\.[^.]+)?\.(?P<bias>bias)"
    r"|\.lora_embedding_(?P<embedding>[AB])(?:\.[^.]+)?"
    r"|(?:\.lora|\.lora_linear_layer|_lora)[._](?P<side>down|up|mid)\.weight"
    r"|\.(?P<magnitude>lora_magnitude_vector)(?:\.[^.]+){0,2}"
    r"|\.(?P<lycoris>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))(?:\.[^.]+)?"
    r"|\.(?P<plain>alpha|dora_scale|diff|diff_b))$"
)
_SIDES: Mapping[str, str] = {"A": "down", "B": "up", "down": "down", "up": "up", "mid": "mid"}
# LyCORIS outside of kohya's trainer: one prefix for any model.
_ANY_MODEL = "lycoris_"
# What else trainers write, by a part of its names; none of it can be merged here.
_UNSUPPORTED: Mapping[str, str] = {
    ".oft_": "OFT",
    ".boft_": "BOFT",
    ".on_input": "IA3",
    ".ia3_": "IA3",
    ".a1.weight": "GLoRA",
    ".b1.weight": "GLoRA",
    ".vera_lambda": "VeRA",
    ".w_norm": "trained norm layers of LyCORIS",
    ".b_norm": "trained norm layers of LyCORIS",
    "bundle_emb.": "a textual inversion that is bundled with it",
}
# How A1111, SDXL's trainers and diffusers name the only tensors of such a file.
_EMBEDDING = re.compile(r"emb_params|clip_[gl]|string_to_param(?:\..+)?|<[^<>]+>")
_LEVEL = re.compile(
    r"(?P<side>down|up)_blocks\.(?P<block>\d+)\.(?P<kind>resnets|attentions|\w+samplers)\.(?P<layer>\d+)"
)
_MIDDLE: Mapping[str, str] = {
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_LDM_ENDS: Mapping[str, str] = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_LDM_RESNET: Mapping[str, str] = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


@dataclass(frozen=True)
class Entry:
    """Where a tensor of a file belongs.

    Args:
        part: `unet`, `text_encoder` or `text_encoder_2`.
        module: the layer's name as the file has it, without the model's prefix.
        factor: which tensor of the layer's update it is, such as `down`.
    """

    part: str
    module: str
    factor: str


def parse(file: str, key: str, family: ModelFamily) -> Entry:
    """Understand the name of one tensor.

    Args:
        file: for messages.
        key: the name.
        family: of the checkpoint.

    Raises:
        BadInputError: an entry that is not supported, is for another kind of model, or has nothing to do with a LoRA.
    """
    plain = _WRAPPERS.sub("", key)
    for mark, method in _UNSUPPORTED.items():
        if mark in key:
            raise BadInputError(
                Reason.UNSUPPORTED_LORA,
                f"{file} holds {method} ({key[:200]!r}), which cannot be merged: take one made with LoRA, LoHa, LoKr "
                "or DoRA, or merge it into the checkpoint with the program that made it",
            )
    if _EMBEDDING.fullmatch(key):
        raise BadInputError(
            Reason.UNSUPPORTED_LORA,
            f"{file} is a textual inversion embedding ({key[:200]!r}), not a LoRA: put its token into the checkpoint "
            "with diffusers' load_textual_inversion, and name the checkpoint that save_pretrained then writes",
        )
    prefix, part = _model(plain, family)
    ending = _ENDING.search(plain)
    if part is None and plain.startswith(_OTHER_MODELS):
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"the LoRA {file} is for another kind of model: {key[:200]!r}; it must be for {_KINDS[family]}",
        )
    if ending is None or part is None:
        raise BadInputError(
            Reason.INVALID_WEIGHTS,
            f"{file}: {key[:200]!r} is no entry of a LoRA, LoHa, LoKr or DoRA for text encoder or UNet",
        )
    return Entry(part, _module(part, plain[len(prefix) : ending.start()]), _factor(ending))


def _model(key: str, family: ModelFamily) -> tuple[str, str | None]:
    """The prefix of a name, and the part that it means."""
    prefixes = _XL_PREFIXES if family is ModelFamily.STABLE_DIFFUSION_XL else _PREFIXES
    prefix = max((prefix for prefix in prefixes if key.startswith(prefix)), key=len, default="")
    if prefix:
        return prefix, prefixes[prefix]
    prefix, end = (_ANY_MODEL, "_") if key.startswith(_ANY_MODEL) else ("", ".")
    name = key.removeprefix(prefix)
    return prefix, next(
        (part for word, part in _FIRST_WORDS.items() if name.startswith((f"{word}{end}", f"{word}."))), None
    )


def _module(part: str, name: str) -> str:
    """The layer as the model calls it; older diffusers wrote attention processors."""
    name = (
        name.replace(".processor.", ".").removesuffix("_lora").removesuffix(".lora").removesuffix(".lora_linear_layer")
    )
    if part != parts.UNET:
        return re.sub(r"(self_attn[._])to_(q|k|v|out)$", r"\1\2_proj", name)
    return f"{name}.0" if name.endswith("to_out") else name


def _factor(ending: re.Match[str]) -> str:
    if ending["embedding"]:
        return f"embedding_{_SIDES[ending['embedding']]}"
    if ending["bias"]:
        return "up_bias"
    if ending["peft"] or ending["side"]:
        return _SIDES[ending["peft"] or ending["side"]]
    return ending["lycoris"] or ending["plain"] or "magnitude"


def flatten(name: str, optional_prefix: str = "") -> str:
    """A layer's name with underscores, without a prefix that comes and goes with the library's version."""
    return name.replace(".", "_").removeprefix(optional_prefix.replace(".", "_"))


def ldm_aliases(names: Iterable[str], layers: int | list[int]) -> Mapping[str, str]:
    """The names that layers of a UNet had in the latent diffusion model's own code, which kohya and ComfyUI use.

    Args:
        names: dotted names of a UNet2DConditionModel's modules.
        layers: its `layers_per_block`.

    Returns:
        Flat old name to dotted new name.
    """
    modules = tuple(names)
    blocks = 1 + max((int(level["block"]) for level in map(_LEVEL.match, modules) if level), default=0)
    counts = [layers] * blocks if isinstance(layers, int) else list(layers)
    crossed = {level["block"] for level in map(_LEVEL.match, modules) if level and level["kind"] == "attentions"
               and level["side"] == "up"}  # fmt: skip
    aliases = {_ldm(name, counts, crossed): name for name in modules}
    return {flatten(alias): name for alias, name in aliases.items() if alias}


def _ldm(name: str, counts: list[int], crossed: set[str]) -> str:
    """The old name of a layer, or nothing."""
    if name in _LDM_ENDS:
        return _LDM_ENDS[name]
    for new, old in _MIDDLE.items():
        if name.startswith(f"{new}."):
            return f"{old}.{_inner(name.removeprefix(f'{new}.'), resnet='resnets' in new)}"
    level = _LEVEL.match(name)
    if level is None or len(name) == level.end():
        return ""
    block, layer, inner = int(level["block"]), int(level["layer"]), name[level.end() + 1 :]
    down = level["side"] == "down"
    before = sum(count + 1 for count in (counts if down else counts[::-1])[:block])
    count = counts[block] if down else counts[::-1][block]
    if level["kind"] == "downsamplers":
        return f"input_blocks.{1 + before + count}.0.op" if inner == "conv" else ""
    if level["kind"] == "upsamplers":
        return f"output_blocks.{before + count}.{2 if level['block'] in crossed else 1}.{inner}"
    resnet = level["kind"] == "resnets"
    first = f"input_blocks.{1 + before + layer}" if down else f"output_blocks.{before + layer}"
    return f"{first}.{0 if resnet else 1}.{_inner(inner, resnet=resnet)}"


def _inner(name: str, *, resnet: bool) -> str:
    return _LDM_RESNET.get(name, name) if resnet else name
