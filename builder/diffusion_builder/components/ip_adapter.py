"""IP-Adapter: a projection of the reference picture's embedding, and attention to it in every cross attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from diffusion_builder.components import configs, parts
from diffusion_builder.components.attention import ReferenceAttention
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from diffusion_builder.components.base import Model

_PROJECTION = "image_proj."
_ATTENTION = "ip_adapter."
_TO_KEY = "to_k_ip.weight"


@dataclass(frozen=True)
class Adapter:
    """The weights of an IP-Adapter.

    Args:
        projection: of the embedding to tokens.
        attention: keys and values of every cross attention, by number and name.
    """

    projection: Mapping[str, torch.Tensor]
    attention: Mapping[str, torch.Tensor]

    @property
    def reads_hidden_states(self) -> bool:
        """Whether it reads all patches (plus, full) instead of the picture's one embedding."""
        return "proj.weight" not in self.projection

    @property
    def image_width(self) -> int:
        """Features per element of what it reads."""
        for name, axis in (("proj.weight", 1), ("proj_in.weight", 1), ("proj.0.weight", 1)):
            if name in self.projection:
                return int(self.projection[name].shape[axis])
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            "this kind of IP-Adapter is not served: it must read what a CLIP image encoder gives (plain, plus, full)",
        )

    @property
    def text_width(self) -> int:
        """Features per token of the UNet that it was trained with."""
        return int(next(tensor for name, tensor in self.attention.items() if name.endswith(_TO_KEY)).shape[1])


def read(folder: Path) -> Adapter:
    """Read the one safetensors file of an IP-Adapter.

    Raises:
        BadInputError: none or several files, or it holds something else.
    """
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise BadInputError(
            Reason.INVALID_WEIGHTS, f"an IP-Adapter is one safetensors file; {len(files)} are in its source"
        )
    state = load_file(files[0])
    projection, attention = (
        {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        for prefix in (_PROJECTION, _ATTENTION)
    )
    face = any("lora" in name for name in attention) or any("perceiver" in name for name in projection)
    if not projection or not any(name.endswith(_TO_KEY) for name in attention):
        raise BadInputError(
            Reason.INVALID_WEIGHTS,
            f"{files[0].name} is no IP-Adapter: it lacks {_PROJECTION}* or {_ATTENTION}*.{_TO_KEY}",
        )
    if face:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{files[0].name} is a Face ID adapter: it needs a face recogniser, not served",
        )
    return Adapter(projection, attention)


def image_facts(folders: Mapping[str, Path], adapter: Adapter | None) -> dict[str, int]:
    """Sizes of `image_embeddings`, from the image encoder's configuration.

    Args:
        folders: parts of the sources.
        adapter: what reads the embeddings; None for the one projected embedding.

    Raises:
        BadInputError: there is no image encoder, or the adapter is for another one.
    """
    if parts.IMAGE_ENCODER not in folders:
        raise BadInputError(
            Reason.MISSING_COMPONENT,
            "the IP-Adapter comes without its image encoder: put the folder image_encoder (config.json, "
            "model.safetensors) into the adapter's or the checkpoint's source",
        )
    config = configs.read(folders[parts.IMAGE_ENCODER], parts.IMAGE_ENCODER)
    if adapter is not None and adapter.reads_hidden_states:
        patches = (config["image_size"] // config["patch_size"]) ** 2
        facts = {"image_length": patches + 1, "image_width": config["hidden_size"]}
    else:
        facts = {"image_length": 1, "image_width": config["projection_dim"]}
    if adapter is not None and adapter.image_width != facts["image_width"]:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"the IP-Adapter reads {adapter.image_width} features, its image encoder gives {facts['image_width']}: "
            "use the image encoder that it was trained with",
        )
    return facts


@dataclass(frozen=True)
class Installed:
    """An adapter inside a UNet.

    Args:
        processors: of every cross attention.
        reads_hidden_states: as the adapter's.
    """

    processors: tuple[ReferenceAttention, ...]
    reads_hidden_states: bool

    def conditions(self, embeddings: torch.Tensor, scale: torch.Tensor) -> dict[str, Any]:
        """Prepare the UNet's next call.

        Args:
            embeddings: [2B, 1, P] or [2B, T, D].
            scale: [2B, 1].

        Returns:
            Further arguments of the call.
        """
        for processor in self.processors:
            processor.scale = scale
        # The second dimension counts pictures: one embedding has it, patches do not.
        return {
            "added_cond_kwargs": {"image_embeds": [embeddings[:, None] if self.reads_hidden_states else embeddings]}
        }


def install(model: Model, adapter: Adapter) -> Installed:
    """Put an adapter into a UNet.

    Raises:
        BadInputError: it was trained for another UNet, or this UNet has attention that it cannot be put beside.
    """
    _check_blocks(model)
    width = configs.text_width(parts.UNET, model.config)
    if adapter.text_width != width:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"the IP-Adapter is for a UNet with text of width {adapter.text_width}, this one has {width}",
        )
    state = {"image_proj": dict(adapter.projection), "ip_adapter": dict(adapter.attention)}
    try:
        # diffusers knows the file formats; what it installs is then replaced by processors with a weight per sample.
        model._load_ip_adapter_weights([state], low_cpu_mem_usage=False)  # noqa: SLF001
    except (RuntimeError, KeyError) as error:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"the IP-Adapter is for another UNet: {str(error).splitlines()[-1].strip()[:300]}",
        ) from error
    found = []
    for module in model.modules():
        processor: Model = getattr(module, "processor", None)
        if hasattr(processor, "to_k_ip"):
            # A plain attribute: `set_processor` refuses to replace a processor with weights by one of another class.
            module.processor = ReferenceAttention(processor.to_k_ip[0], processor.to_v_ip[0])
            found.append(module.processor)
    return Installed(tuple(found), adapter.reads_hidden_states)


def _check_blocks(model: Model) -> None:
    """An adapter sits beside the second, cross attention of each transformer block; diffusers knows no other place."""
    crossed = model.config.only_cross_attention
    other = [name for name in model.attn_processors if not name.endswith(("attn1.processor", "attn2.processor"))]
    if other or (any(crossed) if isinstance(crossed, list | tuple) else crossed):
        what = other[0].removesuffix(".processor") if other else "only_cross_attention"
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT, f"an IP-Adapter cannot be put into this UNet, because of its {what}"
        )
