"""Give what `benchmarks.ensemble --device cuda --prepare` has written a UNet of Stable Diffusion 1.5's size.

844 million random weights: a step costs what it costs in production, the images are noise.

    python -m benchmarks.large_unet FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from diffusion_builder.components.parts import UNET
from diffusion_contract import tensors
from diffusion_contract.enums import Component

# As in the checkpoint's own configuration; text width and latent channels stay the demo checkpoint's.
_SIZES = {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "layers_per_block": 2,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}


def main() -> None:
    """Overwrite the weights."""
    folder = Path(sys.argv[1], tensors.MODEL_NAMES[Component.DENOISER], "1", UNET)
    torch.manual_seed(0)
    # The library has no types.
    library: Any = UNet2DConditionModel
    model = library.from_config({**json.loads((folder / "config.json").read_text()), **_SIZES})
    model.half().save_pretrained(folder)
    print(f"{sum(each.numel() for each in model.parameters()) / 1e6:.0f} million weights in {folder}")


if __name__ == "__main__":
    main()
