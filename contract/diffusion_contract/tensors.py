"""The one place that knows tensor names, dtypes and shapes of every component.

A dimension is a number, or a name whose value is either a fact of the checkpoint (see `model_facts`) or dynamic.
All tensors are per sample: the batch dimension is never written down here and always comes first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from .enums import DENOISERS, SHALLOW_DENOISERS, UNGUIDED_DENOISERS, Component, PromptWeighting

if TYPE_CHECKING:
    from collections.abc import Mapping

# Bumped whenever tensors or their meaning change, so that repositories built before are built again.
CONTRACT_VERSION = 5
# Coefficient tables are padded to this many rows, so that requests of different tiers batch together.
MAX_STEPS = 64
# A prompt longer than the text encoder's window is encoded in pieces, at most so many. More would only cost memory in
# every engine's profile: 4 pieces of 77 tokens are about 200 words.
MAX_TEXT_CHUNKS = 4
# ControlNets whose residuals one denoiser adds up.
MAX_CONTROLNETS = 4
# Reference images that one sample may bring for the IP-Adapter.
MAX_REFERENCE_IMAGES = 4
# Encodings that Compel joins for one prompt: one of all of it, and one without each text of a weight below 1.
MAX_TEXT_MASKS = 8
# Smallest latent that torch draws with its vectorized normal generator, which `models/noise.py` reproduces.
MIN_PIXELS = 32

Dimension = int | str


_LATENT_DIMS: tuple[Dimension, ...] = ("channels", "latent_height", "latent_width")
_REGION_DIMS: tuple[Dimension, ...] = (1, "latent_height", "latent_width")
_PIXEL_DIMS: tuple[Dimension, ...] = (3, "height", "width")


class DType(StrEnum):
    """Element types, by the names of Triton's HTTP protocol."""

    BOOL = "BOOL"
    BYTES = "BYTES"
    FP32 = "FP32"
    INT32 = "INT32"
    INT64 = "INT64"
    UINT8 = "UINT8"

    @property
    def config_name(self) -> str:
        """The name that config.pbtxt uses."""
        return "TYPE_STRING" if self is DType.BYTES else f"TYPE_{self.value}"


# What text to image needs; every repository has these.
TEXT_TO_IMAGE = (Component.TEXT_ENCODER, Component.DENOISER, Component.SCHEDULER_STEP, Component.VAE_DECODER)


@dataclass(frozen=True)
class Tensor:
    """A named tensor of one sample.

    Args:
        name: its name in graphs, requests and configurations.
        dtype: element type.
        dims: dimensions without the batch.
        optional: whether a request may leave it out.
    """

    name: str
    dtype: DType
    dims: tuple[Dimension, ...]
    optional: bool = False


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a model, in order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


INPUT_IDS = Tensor("input_ids", DType.INT64, (2, "text_length"))
TEXT_EMBEDDINGS = Tensor("text_embeddings", DType.FP32, (2, "text_length", "text_width"))
# Ids of the second text encoder's own tokenizer.
INPUT_IDS_2 = Tensor("input_ids_2", DType.INT64, (2, "text_length"))
# Of the first of two text encoders; the second one puts its own features behind them.
FIRST_TEXT_EMBEDDINGS = Tensor("first_text_embeddings", DType.FP32, (2, "text_length", "first_text_width"))
# One embedding for each whole prompt.
POOLED_EMBEDDINGS = Tensor("pooled_embeddings", DType.FP32, (2, "pooled_width"))
# Original size, top left corner of the crop and target size, as height and width each (negative, positive).
TIME_IDS = Tensor("time_ids", DType.FP32, (2, 6))
# What a refiner reads of the second text encoder, where negative prompts that are left out are empty texts.
REFINER_TEXT_EMBEDDINGS = Tensor("refiner_text_embeddings", DType.FP32, (2, "text_length", "refiner_text_width"))
REFINER_POOLED_EMBEDDINGS = Tensor("refiner_pooled_embeddings", DType.FP32, (2, "pooled_width"))
# Original size and top left corner of the crop, as height and width each, and aesthetic score (negative, positive).
REFINER_TIME_IDS = Tensor("refiner_time_ids", DType.FP32, (2, 5))
STATE = Tensor("state", DType.FP32, ("slots", *_LATENT_DIMS))
MODEL_INPUT = Tensor("model_input", DType.FP32, _LATENT_DIMS)
TIMESTEP = Tensor("timestep", DType.FP32, (1,))
GUIDANCE = Tensor("guidance", DType.FP32, (1,))
GUIDANCE_RESCALE = Tensor("guidance_rescale", DType.FP32, (1,))
MODEL_OUTPUT = Tensor("model_output", DType.FP32, _LATENT_DIMS)
# What enters the last layers of the last up block from below, of the positive and of the negative prompt.
DEEP_FEATURES = Tensor("deep_features", DType.FP32, ("deep_channels", "latent_height", "latent_width"))
NEGATIVE_DEEP_FEATURES = Tensor("negative_deep_features", DEEP_FEATURES.dtype, DEEP_FEATURES.dims)
STEP_INDEX = Tensor("step_index", DType.INT32, (1,))
# Fresh noise of one call; zeros where the scheduler draws none.
NOISE = Tensor("noise", DType.FP32, _LATENT_DIMS)
# Columns: slots, model output, noise. Rows: new slots, then the predicted original sample.
TABLE = Tensor("table", DType.FP32, (MAX_STEPS, "table_rows", "table_columns"))
# Of each call: timestep, input scale, and the factors of IMAGE_LATENT_AND_NOISE that hold after it.
LEVELS = Tensor("levels", DType.FP32, (MAX_STEPS, 4))
# The latent of the given image and the noise that the request began with.
IMAGE_LATENT_AND_NOISE = Tensor("image_latent_and_noise", DType.FP32, (2, *_LATENT_DIMS))
LATENT = Tensor("latent", DType.FP32, _LATENT_DIMS)
PREVIEW_LATENT = Tensor("preview_latent", DType.FP32, _LATENT_DIMS)
# 1 where the image is repainted, 0 where it is preserved: what inpainting UNets were trained with.
LATENT_MASK = Tensor("latent_mask", DType.FP32, _REGION_DIMS)
MASKED_LATENT = Tensor("masked_latent", DType.FP32, _LATENT_DIMS)
# Pixels in [-1, 1].
PIXELS = Tensor("pixels", DType.FP32, _PIXEL_DIMS)
LATENT_MEAN = Tensor("latent_mean", DType.FP32, _LATENT_DIMS)
LATENT_STD = Tensor("latent_std", DType.FP32, _LATENT_DIMS)
# Reference images, 1 to MAX_REFERENCE_IMAGES, as CLIPImageProcessor leaves them.
REFERENCE_PIXELS = Tensor("reference_pixels", DType.FP32, ("references", 3, "image_size", "image_size"))
# The elements of all reference images, one image after the other: references x image_length.
IMAGE_EMBEDDINGS = Tensor("image_embeddings", DType.FP32, (2, "image_elements", "image_width"))
IP_ADAPTER_SCALE = Tensor("ip_adapter_scale", DType.FP32, (1,))
# 1 where the reference images apply.
IP_ADAPTER_REGION = Tensor("ip_adapter_region", DType.FP32, _REGION_DIMS)
# Pixels in [0, 1].
CONTROL_IMAGE = Tensor("control_image", DType.FP32, _PIXEL_DIMS)
# Of each call.
CONTROL_SCALES = Tensor("control_scales", DType.FP32, (MAX_STEPS,))
# All residuals of a ControlNet in one tensor (negative, positive): see `residuals.residual_elements`.
RESIDUALS = Tensor("residuals", DType.FP32, (2, "residuals"))
DECODED_IMAGE = Tensor("decoded_image", DType.FP32, _PIXEL_DIMS)
# 1 where the safety checker wants an image withheld, else 0.
SAFETY_FLAG = Tensor("safety_flag", DType.FP32, (1,))
# By how much the worst concept exceeds its threshold.
SAFETY_MARGIN = Tensor("safety_margin", DType.FP32, (1,))


@dataclass(frozen=True)
class Weighting:
    """What one text encoder weighs its prompts with.

    Args:
        weights: of each token.
        masks: 0 for the tokens that an encoding leaves out, 1 for the others.
        mask_weights: of each of these encodings; their sum is 1.
        empty_ids: of the empty prompt, which weights count from.
        unparsed_ids: of the prompts with their syntax, which embeddings of whole prompts are made from.
    """

    weights: Tensor
    masks: Tensor
    mask_weights: Tensor
    empty_ids: Tensor
    unparsed_ids: Tensor


def _weighting(suffix: str) -> Weighting:
    return Weighting(
        Tensor(f"token_weights{suffix}", DType.FP32, (2, "text_length")),
        Tensor(f"token_masks{suffix}", DType.FP32, (2, "text_masks", "text_length")),
        Tensor(f"mask_weights{suffix}", DType.FP32, (2, "text_masks")),
        Tensor(f"empty_ids{suffix}", DType.INT64, ("text_length",)),
        Tensor(f"unparsed_ids{suffix}", DType.INT64, (2, "text_length")),
    )


WEIGHTING, SECOND_WEIGHTING = _weighting(""), _weighting("_2")

# What a scheduler step reads besides the model's output, and hands to the next step.
NEXT_PREFIX = "next_"


def next_tensor(tensor: Tensor) -> Tensor:
    """The output through which a step hands this tensor to the step after it."""
    return Tensor(NEXT_PREFIX + tensor.name, tensor.dtype, tensor.dims)


# Of a checkpoint without traits of its own; see `interface`.
ENGINE_INTERFACES: Mapping[Component, Interface] = {
    Component.TEXT_ENCODER: Interface((INPUT_IDS,), (TEXT_EMBEDDINGS,)),
    Component.TEXT_ENCODER_2: Interface(
        (INPUT_IDS_2, FIRST_TEXT_EMBEDDINGS), (TEXT_EMBEDDINGS, POOLED_EMBEDDINGS)
    ),
    Component.IMAGE_ENCODER: Interface((REFERENCE_PIXELS,), (IMAGE_EMBEDDINGS,)),
    Component.VAE_ENCODER: Interface((PIXELS,), (LATENT_MEAN, LATENT_STD)),
    Component.CONTROLNET: Interface(
        (MODEL_INPUT, TIMESTEP, TEXT_EMBEDDINGS, CONTROL_IMAGE, CONTROL_SCALES, STEP_INDEX), (RESIDUALS,)
    ),
    # Zeros for requests without ControlNet, so that they share the denoiser with those that have one.
    Component.ZERO_RESIDUALS: Interface((MODEL_INPUT,), (RESIDUALS,)),
    Component.DENOISER: Interface((MODEL_INPUT, TIMESTEP, TEXT_EMBEDDINGS, GUIDANCE), (MODEL_OUTPUT,)),
    Component.DENOISER_SHALLOW: Interface(
        (MODEL_INPUT, TIMESTEP, TEXT_EMBEDDINGS, GUIDANCE, DEEP_FEATURES, NEGATIVE_DEEP_FEATURES), (MODEL_OUTPUT,)
    ),
    Component.DENOISER_UNGUIDED: Interface((MODEL_INPUT, TIMESTEP, TEXT_EMBEDDINGS), (MODEL_OUTPUT,)),
    Component.DENOISER_SHALLOW_UNGUIDED: Interface(
        (MODEL_INPUT, TIMESTEP, TEXT_EMBEDDINGS, DEEP_FEATURES), (MODEL_OUTPUT,)
    ),
    # A UNet as the others, with ports of the same names.
    Component.REFINER: Interface(
        (
            MODEL_INPUT, TIMESTEP, replace(REFINER_TEXT_EMBEDDINGS, name=TEXT_EMBEDDINGS.name), GUIDANCE,
            POOLED_EMBEDDINGS, replace(REFINER_TIME_IDS, name=TIME_IDS.name),
        ),
        (MODEL_OUTPUT,),
    ),
    Component.SCHEDULER_STEP: Interface(
        (STATE, MODEL_OUTPUT, NOISE, STEP_INDEX, TABLE, LEVELS, IMAGE_LATENT_AND_NOISE, LATENT_MASK),
        (
            next_tensor(STATE), next_tensor(MODEL_INPUT), next_tensor(TIMESTEP), next_tensor(STEP_INDEX), LATENT,
            PREVIEW_LATENT,
        ),
    ),
    Component.VAE_DECODER: Interface((LATENT,), (DECODED_IMAGE,)),
    # Of another autoencoder of the same latents.
    Component.PREVIEW_DECODER: Interface((LATENT,), (DECODED_IMAGE,)),
    Component.SAFETY_CHECKER: Interface((DECODED_IMAGE,), (SAFETY_FLAG, SAFETY_MARGIN)),
}  # fmt: skip

# Facts that are traits: when they are not zero, a denoiser has further inputs, in this order.
GUIDANCE_RESCALE_TRAIT = "guidance_rescale"
INPAINTING_TRAIT = "inpainting"
IP_ADAPTER_TRAIT = "ip_adapter"
CONTROLNETS_TRAIT = "controlnets"
# A full denoiser hands out what a shallow one reads.
DEEP_FEATURES_TRAIT = "deep_channels"
# A shallow denoiser without cross attention reads neither text nor reference images.
SHALLOW_TEXT_TRAIT = "shallow_text"
_CONTEXTS = {TEXT_EMBEDDINGS.name, IMAGE_EMBEDDINGS.name, IP_ADAPTER_SCALE.name, IP_ADAPTER_REGION.name}
# A denoiser and its ControlNets read these of a checkpoint with two text encoders.
POOLED_TRAIT = "pooled_width"
# The first of two text encoders gives its features to the second one.
FIRST_TEXT_TRAIT = "first_text_width"
_POOLED: tuple[Tensor, ...] = (POOLED_EMBEDDINGS, TIME_IDS)
# The second text encoder also gives what a refiner reads.
REFINER_TRAIT = "refiner_text_width"
REFINER_TEXT: tuple[Tensor, ...] = (REFINER_TEXT_EMBEDDINGS, REFINER_POOLED_EMBEDDINGS)
_TRAITS: Mapping[str, tuple[Tensor, ...]] = {
    GUIDANCE_RESCALE_TRAIT: (GUIDANCE_RESCALE,),
    INPAINTING_TRAIT: (LATENT_MASK, MASKED_LATENT),
    IP_ADAPTER_TRAIT: (IMAGE_EMBEDDINGS, IP_ADAPTER_SCALE, IP_ADAPTER_REGION),
    POOLED_TRAIT: _POOLED,
}
# Values of the fact prompt_weighting.
WEIGHTING_FACTS: Mapping[PromptWeighting, int] = {
    PromptWeighting.NONE: 0,
    PromptWeighting.A1111: 1,
    PromptWeighting.COMPEL: 2,
}


def interface(component: Component, facts: Mapping[str, int]) -> Interface:
    """The tensors of one graph.

    Args:
        component: which one.
        facts: what its manifest records; traits among them add inputs to a denoiser and its ControlNets, and outputs
            to a denoiser.
    """
    plain = ENGINE_INTERFACES[component]
    if component in (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2):
        inputs = (*plain.inputs, *weighting_inputs(component, facts))
        is_first = component is Component.TEXT_ENCODER and facts.get(FIRST_TEXT_TRAIT)
        is_refined = component is Component.TEXT_ENCODER_2 and facts.get(REFINER_TRAIT)
        outputs = (*plain.outputs, *REFINER_TEXT) if is_refined else plain.outputs
        return Interface(inputs, (FIRST_TEXT_EMBEDDINGS,) if is_first else outputs)
    if component is Component.REFINER:
        rescale = (GUIDANCE_RESCALE,) if facts.get(GUIDANCE_RESCALE_TRAIT) else ()
        return Interface((*plain.inputs, *rescale), plain.outputs)
    if component is Component.CONTROLNET and facts.get(POOLED_TRAIT):
        return Interface((*plain.inputs, *_POOLED), plain.outputs)
    if component not in DENOISERS:
        return plain
    traits = [tensor for trait, tensors in _TRAITS.items() if facts.get(trait) for tensor in tensors]
    residuals = [residual_input(number) for number in range(1, facts.get(CONTROLNETS_TRAIT, 0) + 1)]
    inputs = (*plain.inputs, *traits, *residuals)
    if component in UNGUIDED_DENOISERS:
        inputs = tuple(tensor for tensor in inputs if tensor is not GUIDANCE_RESCALE)
    if component in SHALLOW_DENOISERS and not facts.get(SHALLOW_TEXT_TRAIT):
        inputs = tuple(tensor for tensor in inputs if tensor.name not in _CONTEXTS)
    return Interface(inputs, (*plain.outputs, *_deep_features(component, facts)))


def _deep_features(component: Component, facts: Mapping[str, int]) -> tuple[Tensor, ...]:
    """What a denoiser leaves for shallow ones."""
    if component in SHALLOW_DENOISERS or not facts.get(DEEP_FEATURES_TRAIT):
        return ()
    return (DEEP_FEATURES,) if component in UNGUIDED_DENOISERS else (DEEP_FEATURES, NEGATIVE_DEEP_FEATURES)


def weighting_inputs(component: Component, facts: Mapping[str, int]) -> tuple[Tensor, ...]:
    """What a text encoder weighs its prompts with.

    Args:
        component: one of the text encoders.
        facts: the fact prompt_weighting among them, where there is one.
    """
    is_second = component is Component.TEXT_ENCODER_2
    tensors = SECOND_WEIGHTING if is_second else WEIGHTING
    weighting = facts.get("prompt_weighting", 0)
    if weighting == WEIGHTING_FACTS[PromptWeighting.A1111]:
        return (tensors.weights,)
    if weighting == WEIGHTING_FACTS[PromptWeighting.COMPEL]:
        inputs = (tensors.weights, tensors.masks, tensors.mask_weights, tensors.empty_ids)
        return (*inputs, tensors.unparsed_ids) if is_second else inputs
    return ()


def residual_input(number: int) -> Tensor:
    """The denoiser's input for the residuals of a ControlNet, counted from 1."""
    return Tensor(f"{RESIDUALS.name}_{number}", RESIDUALS.dtype, RESIDUALS.dims)


# A ControlNet's model has its name behind it: `5_controlnet_canny`.
MODEL_NAMES: Mapping[Component, str] = {
    Component.TEXT_ENCODER: "2_text_encoder",
    Component.TEXT_ENCODER_2: "2_text_encoder_2",
    Component.IMAGE_ENCODER: "3_image_encoder",
    Component.VAE_ENCODER: "3_vae_encoder",
    Component.CONTROLNET: "5_controlnet",
    Component.ZERO_RESIDUALS: "5_zero_residuals",
    Component.DENOISER: "5_denoiser",
    Component.DENOISER_SHALLOW: "5_denoiser_shallow",
    Component.DENOISER_UNGUIDED: "5_denoiser_unguided",
    Component.DENOISER_SHALLOW_UNGUIDED: "5_denoiser_shallow_unguided",
    Component.REFINER: "5_refiner",
    Component.SCHEDULER_STEP: "6_scheduler_step",
    Component.VAE_DECODER: "7_vae_decoder",
    Component.PREVIEW_DECODER: "7_preview_decoder",
    Component.SAFETY_CHECKER: "7_safety_checker",
}
