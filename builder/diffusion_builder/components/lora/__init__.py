"""LoRAs and their relatives (LoHa, LoKr, DoRA), merged into weights before export."""

from diffusion_builder.components.lora.merge import merge

__all__ = ["merge"]
