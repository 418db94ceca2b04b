"""IP-Adapter: a projection of the reference image's embedding, and attention to it in every cross attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch.nn import functional

from diffusion_builder.components import configs, parts
from diffusion_builder.components.attention import ReferenceAttention
from diffusion_builder.components.residuals import level_sizes
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from diffusion_builder.components.base import TorchModel

_PROJECTION = "image_proj."
_ATTENTION = "ip_adapter."
_TO_KEY = "to_k_ip.weight"
# The first layer of the kinds of projection: plain, plus, and full.
_MATRICES = ("proj.weight", "proj_in.weight", "proj.0.weight")


@dataclass(frozen=True)
class IPAdapterWeights:
    """The weights of an IP-Adapter.

    Args:
        projection: of the embedding to tokens.
        attention: keys and values of every cross attention, by number and name.
    """

    projection: Mapping[str, torch.Tensor]
    attention: Mapping[str, torch.Tensor]

    @property
    def reads_hidden_states(self) -> bool:
        """Whether it reads all patches (plus, full) instead of the image's one embedding."""
        return "proj.weight" not in self.projection

    @property
    def image_width(self) -> int:
        """Features per element of what it reads."""
        for name in _MATRICES:
            if name in self.projection:
                return int(self.projection[name].shape[1])
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            "this kind of IP-Adapter is not supported: it must read the output of a CLIP image encoder "
            "(plain, plus, full)",
        )

    @property
    def text_width(self) -> int:
        """Features per token of the UNet that it was trained with."""
        return int(next(tensor for name, tensor in self.attention.items() if name.endswith(_TO_KEY)).shape[1])


def read(folder: Path) -> IPAdapterWeights:
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
    flat = next((name for name in _MATRICES if name in projection and projection[name].dim() != 2), None)  # noqa: PLR2004
    flat = flat or next((name for name in attention if name.endswith(_TO_KEY) and attention[name].dim() != 2), None)  # noqa: PLR2004
    if flat is not None:
        raise BadInputError(Reason.INVALID_WEIGHTS, f"{files[0].name} is no IP-Adapter: {flat} is no matrix")
    face = any("lora" in name for name in attention) or any("perceiver" in name for name in projection)
    if not projection or not any(name.endswith(_TO_KEY) for name in attention):
        raise BadInputError(
            Reason.INVALID_WEIGHTS,
            f"{files[0].name} is no IP-Adapter: it lacks {_PROJECTION}* or {_ATTENTION}*.{_TO_KEY}",
        )
    if face:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{files[0].name} is a Face ID adapter: it needs a face recognizer, which is not supported",
        )
    return IPAdapterWeights(projection, attention)


def image_facts(folders: Mapping[str, Path], adapter: IPAdapterWeights | None) -> dict[str, int]:
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
            "model.safetensors) into the adapter's or the checkpoint's source, or name its own: ipAdapter.imageEncoder",
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
class InstalledAdapter:
    """An adapter inside a UNet.

    Args:
        processors: of every cross attention.
        image_length: elements of the embeddings of one image.
        reads_hidden_states: as the adapter's.
    """

    processors: tuple[ReferenceAttention, ...]
    image_length: int
    reads_hidden_states: bool

    def apply(self, embeddings: torch.Tensor, scale: torch.Tensor, region: torch.Tensor) -> dict[str, Any]:
        """Prepare the UNet's next call.

        Args:
            embeddings: [2B, N, P] or [2B, N*T, D] of N images.
            scale: [2B, 1].
            region: [2B, 1, h, w], 1 where the images apply.

        Returns:
            Entries of the call's added conditions.
        """
        weights = _weights(scale, region, max(processor.level for processor in self.processors))
        for processor in self.processors:
            processor.weight = weights[processor.level]
        if self.reads_hidden_states:
            # Not `unflatten`: the exporter would fix the sizes that the projection computes from its result.
            embeddings = embeddings.reshape(embeddings.shape[0], -1, self.image_length, embeddings.shape[2])
        return {"image_embeds": [embeddings]}


def _weights(scale: torch.Tensor, region: torch.Tensor, deepest: int) -> list[torch.Tensor]:
    """The scale times the region as attention at each level sees it, [2B, N, 1].

    As diffusers' IPAdapterMaskProcessor.downsample, which guesses height and width of a level from their product;
    here they are known.
    """
    height, width = region.shape[-2:]
    weights: list[torch.Tensor] = []
    for size in level_sizes(height, width, deepest):
        # Bicubic to the same size changes nothing.
        resized = functional.interpolate(region, size=size, mode="bicubic") if weights else region
        weights.append(scale[:, :, None] * resized.flatten(1)[:, :, None])
    return weights


def install(model: TorchModel, adapter: IPAdapterWeights, image_length: int) -> InstalledAdapter:
    """Put an adapter into a UNet.

    Args:
        model: the UNet.
        adapter: its weights.
        image_length: elements of the embeddings of one image.

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
    processors = []
    for name, module in model.named_modules():
        processor: TorchModel = getattr(module, "processor", None)
        if hasattr(processor, "to_k_ip"):
            # A plain attribute: `set_processor` does not replace a processor with weights by one of another class.
            level = _downsampling_level(name, len(model.config.block_out_channels) - 1)
            module.processor = ReferenceAttention(processor.to_k_ip[0], processor.to_v_ip[0], level)
            processors.append(module.processor)
    return InstalledAdapter(tuple(processors), image_length, adapter.reads_hidden_states)


def _downsampling_level(name: str, deepest: int) -> int:
    """How often the latent has been halved, by the name of a module: `down_blocks.1...`, `mid_block...`."""
    block, _, suffix = name.partition(".")
    if block == "mid_block":
        return deepest
    number = int(suffix.partition(".")[0])
    return number if block == "down_blocks" else deepest - number


def _check_blocks(model: TorchModel) -> None:
    """An adapter sits beside the second, cross attention of each transformer block; diffusers knows no other place."""
    crossed = model.config.only_cross_attention
    other = [name for name in model.attn_processors if not name.endswith(("attn1.processor", "attn2.processor"))]
    if other or (any(crossed) if isinstance(crossed, list | tuple) else crossed):
        what = other[0].removesuffix(".processor") if other else "only_cross_attention"
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT, f"an IP-Adapter cannot be put into this UNet, because of its {what}"
        )
