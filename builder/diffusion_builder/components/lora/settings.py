"""What a LoRA's header, or the adapter_config.json beside it, says about its strength."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from diffusion_builder.components import parts
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Where diffusers writes the settings of PEFT into the header of a safetensors file.
_METADATA = "lora_adapter_metadata"
# PEFT's own file beside adapter_model.safetensors.
_ADAPTER_CONFIG = "adapter_config.json"
# PEFT's default, where its settings do not say.
_ALPHA = 8.0
# These start from a changed base model, which nobody has here.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings that make another computation of the same tensors.
_UNSUPPORTED = (
    "alora_invocation_tokens", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication",
    "monteclora_config", "trainable_token_indices", "use_bdlora", "use_qalora",
)  # fmt: skip
# A stranger's regular expression can run for ever; real ones are names, with a wildcard at most.
_PLAIN_PATTERN = re.compile(r"[^(){}+?]{1,256}")
_MAX_WILDCARDS = 2
_PARTS = (parts.UNET, parts.TEXT_ENCODER, parts.TEXT_ENCODER_2)
_Value = TypeVar("_Value")


class Settings(BaseModel):
    """The settings of PEFT that decide how strong an adapter is.

    Args:
        peft_type: the method.
        alpha: `lora_alpha` of LoRA, `alpha` of LoHa and LoKr.
        r: the rank; None where the file says nothing.
        use_rslora: divide by the rank's square root (arXiv 2312.03732).
        use_dora: the file has magnitudes (arXiv 2402.09353).
        alpha_pattern: other alphas, by names or regular expressions of layers.
        rank_pattern: other ranks.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    peft_type: Literal["LORA", "LOHA", "LOKR"] = "LORA"
    alpha: FiniteFloat = Field(default=_ALPHA, validation_alias=AliasChoices("lora_alpha", "alpha"))
    r: int | None = Field(default=None, ge=1)
    use_rslora: bool = False
    use_dora: bool = False
    alpha_pattern: dict[str, FiniteFloat] | None = None
    rank_pattern: dict[str, int] | None = None

    def alpha_of(self, module: str) -> float:
        """The alpha of a layer, by its name in the file."""
        return _lookup(self.alpha_pattern or {}, module, self.alpha)

    def rank_of(self, module: str) -> int | None:
        """The rank that a layer must have, or None where nothing is said."""
        return _lookup(dict(self.rank_pattern or {}), module, self.r)

    def scale(self, module: str, rank: int) -> float:
        """What the product of a layer's factors is multiplied by, as PEFT does it."""
        return self.alpha_of(module) / (math.sqrt(rank) if self.use_rslora else rank)


def read(folder: Path, file: str, metadata: Mapping[str, str]) -> Mapping[str, Settings]:
    """Read what is said about a LoRA's strength.

    Args:
        folder: of the file.
        file: its name, for messages.
        metadata: of its header.

    Returns:
        Part name to settings, for the parts that something is said about.

    Raises:
        BadInputError: it cannot be read, or asks for something that is not supported; the message names the field.
    """
    where = f"{file}: {_METADATA} in its header"
    header = _object(where, metadata.get(_METADATA, "{}"))
    settings: dict[str, Settings] = {}
    for part in _PARTS:
        fields = {key.removeprefix(f"{part}."): value for key, value in header.items() if key.startswith(f"{part}.")}
        if fields:
            settings[part] = _settings(f"{where}: {part}.", fields)
    # A file for one model alone says it without a prefix.
    plain = {key: value for key, value in header.items() if "." not in key}
    source = f"{where}: "
    if not plain and (folder / _ADAPTER_CONFIG).exists():
        source, plain = (
            f"{_ADAPTER_CONFIG}: ",
            dict(_object(_ADAPTER_CONFIG, (folder / _ADAPTER_CONFIG).read_text(encoding="utf-8"))),
        )
    if plain:
        common = _settings(source, plain)
        settings = {part: settings.get(part, common) for part in _PARTS}
    return settings


def _object(where: str, text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"{where} is not JSON ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise _invalid(f"{where} is no JSON object")
    return value


def _settings(where: str, fields: Mapping[str, Any]) -> Settings:
    init = fields.get("init_lora_weights")
    if isinstance(init, str) and init.startswith(_CHANGED_BASE):
        raise _unsupported(
            f"{where}init_lora_weights is {init[:40]!r}: it belongs to a base model that was changed first"
        )
    for name in _UNSUPPORTED:
        if fields.get(name):
            raise _unsupported(f"{where}{name} is {str(fields[name])[:40]!r}, which is not supported")
    if fields.get("peft_type") not in (None, "LORA", "LOHA", "LOKR"):
        raise _unsupported(f"{where}peft_type is {str(fields['peft_type'])[:40]!r}; supported are LORA, LOHA and LOKR")
    try:
        settings = Settings.model_validate({key: value for key, value in fields.items() if key != "peft_type" or value})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(word) for word in first["loc"])
        raise _invalid(f"{where}{field} is {str(first['input'])[:40]!r}: {first['msg']}") from error
    for pattern in (*(settings.alpha_pattern or ()), *(settings.rank_pattern or ())):
        _check_pattern(where, pattern)
    return settings


def _check_pattern(where: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise _invalid(f"{where}the pattern {pattern[:80]!r} is no regular expression") from error
    if not _PLAIN_PATTERN.fullmatch(pattern) or pattern.count("*") > _MAX_WILDCARDS:
        raise _unsupported(f"{where}the pattern {pattern[:80]!r} is too involved: name the layers")


def _lookup(pattern: Mapping[str, _Value], module: str, default: _Value) -> _Value:
    """As peft.utils.other.get_pattern_key: the first key that is the end of the name, between dots."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _invalid(why: str) -> BadInputError:
    return BadInputError(Reason.INVALID_WEIGHTS, f"{why}: take the file as it was saved, or save it again")


def _unsupported(why: str) -> BadInputError:
    return BadInputError(Reason.UNSUPPORTED_LORA, f"{why}: merge it into the checkpoint with the program that made it")
