"""Folders of a checkpoint in diffusers layout, and of what is added to one; standard library only."""

from collections.abc import Mapping

from diffusion_contract.enums import Component

TEXT_ENCODER = "text_encoder"
TEXT_ENCODER_2 = "text_encoder_2"
IMAGE_ENCODER = "image_encoder"
UNET = "unet"
VAE = "vae"
CONTROLNET = "controlnet"
IP_ADAPTER = "ip_adapter"
LORA = "lora"
SAFETY_CHECKER = "safety_checker"
# A source of its own, which has the folder `vae`.
PREVIEW_VAE = "preview_vae"
# Likewise, with the folder `unet`.
REFINER = "refiner"

# The subfolder with the weights that a component is named by; None for one without weights.
WEIGHTS: Mapping[Component, str | None] = {
    Component.TEXT_ENCODER: TEXT_ENCODER,
    Component.TEXT_ENCODER_2: TEXT_ENCODER_2,
    Component.IMAGE_ENCODER: IMAGE_ENCODER,
    Component.VAE_ENCODER: VAE,
    Component.CONTROLNET: CONTROLNET,
    Component.ZERO_RESIDUALS: UNET,
    Component.DENOISER: UNET,
    Component.DENOISER_SHALLOW: UNET,
    Component.DENOISER_UNGUIDED: UNET,
    Component.DENOISER_SHALLOW_UNGUIDED: UNET,
    Component.REFINER: UNET,
    Component.SCHEDULER_STEP: None,
    Component.VAE_DECODER: VAE,
    Component.PREVIEW_DECODER: VAE,
    Component.SAFETY_CHECKER: SAFETY_CHECKER,
}
