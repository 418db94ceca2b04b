"""What the contract leaves open and a checkpoint decides."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusion_contract.tensors import Tensor


@dataclass(frozen=True)
class ModelFacts:
    """What the contract leaves open and a checkpoint decides.

    Args:
        channels: latent channels.
        pixels_per_latent: edge of the square of pixels that one latent element stands for.
        text_length: tokens per prompt.
        text_width: features per token.
        slots: rows of scheduler state (1 for one-step methods).
        vocabulary: tokens that the text encoder has an embedding for; 0 where its graph does not record them.
        text_chunks: windows of `text_length` tokens that a prompt may have; 0 when it has exactly one.
        image_size: edge of a reference image in pixels.
        image_length: elements that the image encoder makes of one reference image.
        image_width: features per element.
        inpainting: whether the denoiser reads mask and masked image.
        guidance_rescale: whether it reads an amount of guidance rescale.
        ip_adapter: whether it reads reference images.
        controlnets: how many ControlNets' residuals it adds.
        first_text_width: features per token of the first of two text encoders; 0 where there is one.
        pooled_width: features of the second text encoder's embedding of a whole prompt; 0 where there is none.
        refiner_text_width: features per token that a refiner reads, those of the second text encoder; 0 without one.
        vocabulary_2: tokens that the second text encoder has an embedding for.
        prompt_weighting: syntax of weights in prompts: 0 none, 1 A1111, 2 Compel.
        deterministic_encoder: whether the VAE's encoder gives one latent and no distribution to draw from.
        shallow_layers: layers of the last up block that a shallow denoiser computes; 0 where there is none.
        deep_channels: channels of the features that it is given.
        shallow_text: whether its layers read the text and reference images.
    """

    channels: int
    pixels_per_latent: int
    text_length: int
    text_width: int
    slots: int
    vocabulary: int = 0
    text_chunks: int = 0
    image_size: int = 0
    image_length: int = 0
    image_width: int = 0
    inpainting: int = 0
    guidance_rescale: int = 0
    ip_adapter: int = 0
    controlnets: int = 0
    first_text_width: int = 0
    pooled_width: int = 0
    refiner_text_width: int = 0
    vocabulary_2: int = 0
    prompt_weighting: int = 0
    deterministic_encoder: int = 0
    shallow_layers: int = 0
    deep_channels: int = 0
    shallow_text: int = 0

    @classmethod
    def merge(cls, facts_by_component: Mapping[str, Mapping[str, int]]) -> Self:
        """Join the facts of all components.

        Args:
            facts_by_component: those that each has recorded.

        Raises:
            ValueError: two components disagree, or a fact is missing.
        """
        sizes: dict[str, int] = {}
        for component, facts in facts_by_component.items():
            for name, value in facts.items():
                if sizes.setdefault(name, value) != value:
                    raise ValueError(f"{component} has {name} {value}, another component has {sizes[name]}")
        missing = sorted({field.name for field in fields(cls) if field.default is MISSING} - sizes.keys())
        if missing:
            raise ValueError(f"no component says {', '.join(missing)}")
        return cls(**{field.name: sizes[field.name] for field in fields(cls) if field.name in sizes})

    def dims(self, tensor: Tensor) -> tuple[int, ...]:
        """Replace names by this checkpoint's numbers; dynamic ones, and those of what it does not have, by -1."""
        sizes = asdict(self) | {"table_columns": self.slots + 2, "table_rows": self.slots + 1}
        if self.text_chunks:
            del sizes["text_length"]
        return tuple((sizes.get(dim) or -1) if isinstance(dim, str) else dim for dim in tensor.dims)
