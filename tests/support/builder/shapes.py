"""Shapes of checkpoints: the UNets that the product has to take, and what can be added to each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion_contract.enums import LOOP_DENOISERS, Component, ModelFamily
from tests.support.builder import parts


@dataclass(frozen=True)
class Shape:
    """A checkpoint: its UNet, the sizes around it, and what can be added to it.

    Args:
        unet: of parts.UNETS.
        text_width: features per token.
        latent: channels.
        levels: of the VAE; 2 to the power of one less is its pixels per latent.
        control: ControlNet for it, of parts.UNETS; empty where diffusers has none of this shape.
        adapter: whether its attention has a place for an IP-Adapter.
        plus: whether the adapter reads patches.
        family: architecture of the checkpoint.
        refiner: whether a refiner belongs to it.
    """

    unet: str
    text_width: int = 32
    latent: int = 4
    levels: int = 4
    control: str = ""
    adapter: bool = True
    plus: bool = False
    family: ModelFamily = ModelFamily.STABLE_DIFFUSION
    refiner: bool = False

    @property
    def is_xl(self) -> bool:
        """Whether it has two text encoders."""
        return self.family is ModelFamily.STABLE_DIFFUSION_XL

    @property
    def components(self) -> tuple[Component, ...]:
        """All that it has."""
        added = {
            Component.TEXT_ENCODER_2: self.is_xl,
            Component.CONTROLNET: bool(self.control),
            Component.ZERO_RESIDUALS: bool(self.control),
            Component.IMAGE_ENCODER: self.adapter,
            Component.SAFETY_CHECKER: False,
            **dict.fromkeys(LOOP_DENOISERS[1:], False),
            Component.REFINER: self.refiner,
        }
        return tuple(component for component in Component if added.get(component, True))

    @property
    def particular(self) -> tuple[Component, ...]:
        """Those that another checkpoint has in another shape."""
        usual = Shape("sd1")
        other = {
            Component.TEXT_ENCODER: self.is_xl,
            Component.TEXT_ENCODER_2: self.is_xl,
            Component.DENOISER: True,
            Component.REFINER: self.refiner,
            Component.CONTROLNET: bool(self.control),
            Component.VAE_ENCODER: self.levels != usual.levels,
            Component.VAE_DECODER: self.levels != usual.levels,
        }
        return tuple(component for component, there in other.items() if there)


SHAPES_OF = {
    "SD 1.x": Shape("sd1", control="sd1"),
    "SD 2.x": Shape("sd2", text_width=40, control="sd2", plus=True),
    "inpainting": Shape("inpainting", control="sd1"),
    "wide latent, uneven blocks": Shape("wide-latent", latent=8, levels=3, plus=True),
    "attention everywhere": Shape("attention-everywhere", control="attention-everywhere", adapter=False),
    "SDXL": Shape(
        "sdxl", text_width=72, control="sdxl", plus=True, family=ModelFamily.STABLE_DIFFUSION_XL, refiner=True
    ),
    "SDXL inpainting": Shape("sdxl-inpainting", text_width=72, family=ModelFamily.STABLE_DIFFUSION_XL),
    "one level": Shape("one-level", levels=2, control="one-level", adapter=False),
}


def lora(shape: Shape) -> parts.Write:
    """A LoRA for UNet and text encoders of this shape."""
    channels = 9 if shape.unet.endswith("inpainting") else shape.latent
    widths = {"text_encoder": 32, "text_encoder_2": 40} if shape.is_xl else {"text_encoder": shape.text_width}
    state = {
        "unet.conv_in.lora_A.weight": torch.ones(1, channels, 3, 3),
        "unet.conv_in.lora_B.weight": torch.ones(16, 1, 1, 1),
    }
    for part, width in widths.items():
        layer = f"{part}.text_model.encoder.layers.0.self_attn.q_proj"
        state |= {f"{layer}.lora_A.weight": torch.ones(1, width), f"{layer}.lora_B.weight": torch.ones(width, 1)}
    return parts.files(state)
