"""Configuration files of the Python models: the numbers of the checkpoint and of the profile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from diffusion_contract import python_models
from diffusion_contract.tensors import WEIGHTING_FACTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusion_builder.repository.tiers import NamedScheduler
    from diffusion_contract.model_facts import ModelFacts
    from diffusion_contract.spec import Shapes

# CLIP's own, which every IP-Adapter's image encoder was trained with (transformers' OPENAI_CLIP_MEAN and _STD).
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def conditioner_config(
    facts: ModelFacts,
    shapes: Shapes,
    control_nets: Sequence[str],
    schedulers: Sequence[NamedScheduler],
    denoising_start: float | None = None,
) -> str:
    """The conditioner's `conditioner.json`.

    Args:
        facts: the checkpoint's numbers.
        shapes: the profile.
        control_nets: names of the ControlNets.
        schedulers: that requests may choose among.
        denoising_start: fraction of the denoising after which a refiner takes over; None without one.
    """
    return _text(
        {
            "channels": facts.channels,
            **_sizes(facts, shapes),
            "slots": facts.slots,
            "schedulers": [{"name": one.name, **one.settings.to_json()} for one in schedulers],
            "inpainting": bool(facts.inpainting),
            "textLength": facts.text_length,
            "textWidth": facts.text_width,
            "textChunks": max(1, facts.text_chunks),
            "imageLength": facts.image_length,
            "imageWidth": facts.image_width,
            "controlNets": list(control_nets),
            **({"pooledWidth": facts.pooled_width} if facts.pooled_width else {}),
            **({"deterministicEncoder": True} if facts.deterministic_encoder else {}),
            **({} if denoising_start is None else {"denoisingStart": denoising_start}),
        }
    )


def tokenizer_config(facts: ModelFacts, index: Mapping[str, object]) -> str:
    """The tokenizer's `tokenizers.json`; empty where nothing is set.

    Args:
        facts: the checkpoint's numbers.
        index: the checkpoint's model_index.json, where it has two text encoders.
    """
    syntax = {number: name for name, number in WEIGHTING_FACTS.items()}[facts.prompt_weighting]
    body: dict[str, object] = {
        **({"zeroNegative": bool(index.get("force_zeros_for_empty_prompt", True))} if facts.pooled_width else {}),
        **({"windows": facts.text_chunks} if facts.text_chunks else {}),
        **({"promptWeighting": syntax} if facts.prompt_weighting else {}),
    }
    return _text(body) if body else ""


def preprocessor_config(facts: ModelFacts, shapes: Shapes, control_nets: Sequence[str]) -> str:
    """The preprocessor's `preprocessor.json`."""
    reads_references = facts.image_size > 0
    return _text(
        {
            **_sizes(facts, shapes),
            "imageSize": facts.image_size,
            "imageMean": list(_CLIP_MEAN) if reads_references else [],
            "imageStd": list(_CLIP_STD) if reads_references else [],
            "controlNets": list(control_nets),
        }
    )


def conditioner_parameters(shapes: Shapes) -> dict[str, str]:
    """What the conditioner's configuration says to clients."""
    buckets = [[one.height, one.width] for one in shapes.buckets or ()]
    return {python_models.BUCKETS_PARAMETER: json.dumps(buckets)} if buckets else {}


def _sizes(facts: ModelFacts, shapes: Shapes) -> dict[str, object]:
    return {
        "pixelsPerLatent": facts.pixels_per_latent,
        "height": shapes.height.model_dump(),
        "width": shapes.width.model_dump(),
        **({"buckets": [[one.height, one.width] for one in shapes.buckets]} if shapes.buckets else {}),
    }


def _text(body: dict[str, object]) -> str:
    return json.dumps(body, indent=1) + "\n"
