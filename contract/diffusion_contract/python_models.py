"""Tensors of requests and of the Python models beside the engines.

Every input of a Python model is optional in its configuration; an ensemble maps those that its task and features use.
This file, `tensors.py` and `enums.py` are copied into every Python model, which reads and writes tensors by these
names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from . import tensors
from .enums import Component
from .tensors import DType, Interface, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GENERATE, IMG2IMG, INPAINT = TASKS = ("generate", "img2img", "inpaint")
CONTROLNET, IP_ADAPTER, EMBEDDINGS = FEATURES = ("controlnet", "ip_adapter", "embeddings")

TOKENIZER_NAME = "1_tokenizer"
PREPROCESSOR_NAME = "1_preprocessor"
CONDITIONER_NAME = "4_conditioner"
POSTPROCESSOR_NAME = "8_postprocessor"
# A parameter in the configuration of the conditioner: JSON, [height, width] of each size that is served, in pixels.
# Without it, all sizes within the ranges are.
BUCKETS_PARAMETER = "buckets"


class ImageInput(NamedTuple):
    """An image that a request sends as pixels or as an encoded file."""

    pixels: Tensor
    file: Tensor


def _number(name: str, dtype: DType = DType.FP32) -> Tensor:
    return Tensor(name, dtype, (1,), optional=True)


def _pair(name: str) -> Tensor:
    return Tensor(name, DType.INT32, (2,), optional=True)


def _image_input(name: str, *dims: int) -> ImageInput:
    return ImageInput(
        Tensor(name, DType.UINT8, dims, optional=True), Tensor(f"{name}_file", DType.BYTES, (1,), optional=True)
    )


PROMPT = Tensor("prompt", DType.BYTES, (1,))
NEGATIVE_PROMPT = Tensor("negative_prompt", DType.BYTES, (1,), optional=True)
PROMPT_EMBEDDINGS = Tensor("prompt_embeddings", DType.FP32, ("text_length", "text_width"))
NEGATIVE_PROMPT_EMBEDDINGS = Tensor(
    "negative_prompt_embeddings", DType.FP32, ("text_length", "text_width"), optional=True
)
# Texts and embeddings of checkpoints with two text encoders.
PROMPT_2, NEGATIVE_PROMPT_2 = _number("prompt_2", DType.BYTES), _number("negative_prompt_2", DType.BYTES)
POOLED_PROMPT_EMBEDDINGS = Tensor("pooled_prompt_embeddings", DType.FP32, ("pooled_width",), optional=True)
NEGATIVE_POOLED_PROMPT_EMBEDDINGS = replace(POOLED_PROMPT_EMBEDDINGS, name="negative_pooled_prompt_embeddings")
# Height and width, or row and column, each in pixels.
ORIGINAL_SIZE, NEGATIVE_ORIGINAL_SIZE = _pair("original_size"), _pair("negative_original_size")
CROP_TOP_LEFT, NEGATIVE_CROP_TOP_LEFT = _pair("crop_top_left"), _pair("negative_crop_top_left")
TARGET_SIZE, NEGATIVE_TARGET_SIZE = _pair("target_size"), _pair("negative_target_size")
# In the order of `tensors.TIME_IDS`.
SIZE_CONDITIONS = (ORIGINAL_SIZE, CROP_TOP_LEFT, TARGET_SIZE)
NEGATIVE_SIZE_CONDITIONS = (NEGATIVE_ORIGINAL_SIZE, NEGATIVE_CROP_TOP_LEFT, NEGATIVE_TARGET_SIZE)
# How well images are to please, as the refiner of Stable Diffusion XL has learned it.
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = _number("aesthetic_score"), _number("negative_aesthetic_score")
SEED = _number("seed", DType.INT64)
HEIGHT, WIDTH = _number("height", DType.INT32), _number("width", DType.INT32)
GUIDANCE_SCALE, GUIDANCE_RESCALE = _number("guidance_scale"), _number("guidance_rescale")
STRENGTH, ETA = _number("strength"), _number("eta")
SCHEDULER = _number("scheduler", DType.BYTES)
INPUT_IMAGE = _image_input("input_image", -1, -1, 3)
MASK = _image_input("mask", -1, -1)
MASK_FEATHER = _number("mask_feather")
IP_ADAPTER_IMAGE = ImageInput(
    Tensor("ip_adapter_image", DType.UINT8, (-1, -1, -1, 3), optional=True),
    Tensor("ip_adapter_image_file", DType.BYTES, (-1,), optional=True),
)
IP_ADAPTER_MASK = _image_input("ip_adapter_mask", -1, -1)
IP_ADAPTER_WEIGHT = _number("ip_adapter_weight")
BLEND_MASK = _image_input("blend_mask", -1, -1)
BLEND_FEATHER, COLOR_MATCH = _number("blend_feather"), _number("color_match")
PASTE_BACK = _number("paste_back", DType.BOOL)
SHARPEN, CONTRAST = _number("sharpen"), _number("contrast")
UPSCALE_HEIGHT, UPSCALE_WIDTH = _number("upscale_height", DType.INT32), _number("upscale_width", DType.INT32)
OUTPUT_FORMAT, QUALITY = _number("output_format", DType.BYTES), _number("quality", DType.INT32)
# Postprocessing of any image.
ENHANCEMENT = (SHARPEN, CONTRAST, UPSCALE_HEIGHT, UPSCALE_WIDTH, OUTPUT_FORMAT, QUALITY)
# Postprocessing that needs the input image.
BLENDING = (*INPUT_IMAGE, *BLEND_MASK, BLEND_FEATHER, COLOR_MATCH)
# All of it but the images: the conditioner reads these too, so that it rejects a wrong one before the first step.
POSTPROCESS_NUMBERS = (BLEND_FEATHER, COLOR_MATCH, PASTE_BACK, *ENHANCEMENT)

# Passed through by a model that may reject a request, so that no engine is running when it does.
VALIDATED_INPUT_IDS = replace(tensors.INPUT_IDS, name="validated_input_ids")
VALIDATED_REFERENCE_PIXELS = replace(tensors.REFERENCE_PIXELS, name="validated_reference_pixels")
VALIDATED_MODEL_INPUT = replace(tensors.MODEL_INPUT, name="validated_model_input")
MASKED_PIXELS = replace(tensors.PIXELS, name="masked_pixels")
MASKED_MEAN = replace(tensors.LATENT_MEAN, name="masked_mean")
MASKED_STD = replace(tensors.LATENT_STD, name="masked_std")
ZERO_NOISE = replace(tensors.NOISE, name="zero_noise")
STEP_MASK = replace(tensors.LATENT_MASK, name="step_mask")
REQUEST_TEXT_EMBEDDINGS = replace(tensors.TEXT_EMBEDDINGS, name="request_text_embeddings")
REQUEST_POOLED_EMBEDDINGS = replace(tensors.POOLED_EMBEDDINGS, name="request_pooled_embeddings")
ZERO_IMAGE_EMBEDDINGS = replace(tensors.IMAGE_EMBEDDINGS, name="zero_image_embeddings")
FULL_IP_ADAPTER_REGION = replace(tensors.IP_ADAPTER_REGION, name="full_ip_adapter_region")
IMAGE = Tensor("image", DType.UINT8, ("height", "width", 3))
ENCODED_IMAGE = Tensor("encoded_image", DType.BYTES, (1,))
# The same file as text, for clients that speak JSON.
ENCODED_IMAGE_BASE64 = Tensor("encoded_image_base64", DType.BYTES, (1,))
# Whether the safety checker withholds the image, which is black then.
FLAGGED = Tensor("flagged", DType.BOOL, (1,))

TOKENIZER = Interface((PROMPT, NEGATIVE_PROMPT), (tensors.INPUT_IDS,))
TWO_TOKENIZERS = Interface(
    (PROMPT, NEGATIVE_PROMPT, PROMPT_2, NEGATIVE_PROMPT_2), (tensors.INPUT_IDS, tensors.INPUT_IDS_2)
)
POSTPROCESSOR = Interface(
    (
        tensors.DECODED_IMAGE, *BLENDING, *MASK, PASTE_BACK, *ENHANCEMENT, replace(tensors.SAFETY_FLAG, optional=True),
    ),
    (IMAGE, ENCODED_IMAGE, ENCODED_IMAGE_BASE64),
)  # fmt: skip


def with_flag(postprocessor: Interface) -> Interface:
    """Inputs and outputs of the postprocessor behind a safety checker."""
    return Interface(postprocessor.inputs, (*postprocessor.outputs, FLAGGED))


def control_image(name: str) -> ImageInput:
    """The image that a ControlNet follows."""
    return _image_input(f"control_image_{name}", -1, -1, 3)


def control_pixels(name: str) -> Tensor:
    """The control image in the form that the ControlNet's engine reads."""
    return replace(tensors.CONTROL_IMAGE, name=f"control_pixels_{name}")


def control_scale(name: str) -> Tensor:
    """Weight of a ControlNet."""
    return _number(f"control_scale_{name}")


def control_start(name: str) -> Tensor:
    """Fraction of the steps before which a ControlNet has no effect."""
    return _number(f"control_start_{name}")


def control_end(name: str) -> Tensor:
    """Fraction of the steps after which a ControlNet has no effect."""
    return _number(f"control_end_{name}")


def control_numbers(name: str) -> tuple[Tensor, ...]:
    """Weight of a ControlNet and the range of steps in which it applies."""
    return control_scale(name), control_start(name), control_end(name)


def control_scales(name: str) -> Tensor:
    """Weight of a ControlNet at each call."""
    return replace(tensors.CONTROL_SCALES, name=f"{tensors.CONTROL_SCALES.name}_{name}")


def noise_of(call: int) -> Tensor:
    """The conditioner's output with the fresh noise of a call."""
    return replace(tensors.NOISE, name=f"{tensors.NOISE.name}_{call}")


def table_of(key: str) -> Tensor:
    """The conditioner's output with the table of an ensemble.

    An ensemble cannot hold constants, so it names task, steps and scheduler by the table that it maps:
    `<task>_<steps>[_<scheduler>]`.
    """
    return replace(tensors.TABLE, name=f"{tensors.TABLE.name}_{key}")


# What every request has or brings about: the batch size is read from the first that is there.
BATCH_TENSORS = (tensors.INPUT_IDS, PROMPT_EMBEDDINGS, tensors.GUIDANCE)
_BATCH_INPUTS = tuple(replace(tensor, optional=True) for tensor in (tensors.INPUT_IDS, PROMPT_EMBEDDINGS))
_MOMENTS = tuple(
    replace(tensor, optional=True)
    for tensor in (tensors.LATENT_MEAN, tensors.LATENT_STD, MASKED_MEAN, MASKED_STD)
)  # fmt: skip
# What each scheduler step passes to the next; the conditioner makes the first ones.
LOOP_TENSORS = (tensors.STATE, tensors.MODEL_INPUT, tensors.TIMESTEP, tensors.STEP_INDEX)


def preprocessor(control_nets: Sequence[str]) -> Interface:
    """Inputs and outputs of the preprocessor; tensors of other models are read for the batch or passed through."""
    images = [tensor for name in control_nets for tensor in control_image(name)]
    return Interface(
        (
            *_BATCH_INPUTS, replace(tensors.GUIDANCE, optional=True), replace(tensors.MODEL_INPUT, optional=True),
            HEIGHT, WIDTH, *INPUT_IMAGE, *MASK, MASK_FEATHER, *IP_ADAPTER_IMAGE, *IP_ADAPTER_MASK, *BLEND_MASK,
            *images,
        ),
        (
            VALIDATED_INPUT_IDS, VALIDATED_MODEL_INPUT, tensors.PIXELS, MASKED_PIXELS, tensors.LATENT_MASK,
            tensors.REFERENCE_PIXELS, tensors.IP_ADAPTER_REGION, *(control_pixels(name) for name in control_nets),
        ),
    )  # fmt: skip


def conditioner(keys: Sequence[str], calls: int, control_nets: Sequence[str]) -> Interface:
    """Inputs and outputs of the conditioner.

    Args:
        keys: of all tables: see `table_of`.
        calls: most denoiser calls of an ensemble whose calls may draw noise.
        control_nets: their names.
    """
    numbers = [tensor for name in control_nets for tensor in control_numbers(name)]
    return Interface(
        (
            *_BATCH_INPUTS, NEGATIVE_PROMPT_EMBEDDINGS, SEED, GUIDANCE_SCALE, GUIDANCE_RESCALE, HEIGHT, WIDTH,
            STRENGTH, ETA, SCHEDULER, *_MOMENTS, replace(tensors.LATENT_MASK, optional=True), IP_ADAPTER_WEIGHT,
            replace(tensors.REFERENCE_PIXELS, optional=True), *POSTPROCESS_NUMBERS, *numbers,
        ),
        (
            *(table_of(key) for key in keys), *LOOP_TENSORS, tensors.LEVELS, tensors.IMAGE_LATENT_AND_NOISE, STEP_MASK,
            tensors.GUIDANCE, tensors.GUIDANCE_RESCALE, ZERO_NOISE, *(noise_of(call) for call in range(calls)),
            tensors.MASKED_LATENT, VALIDATED_INPUT_IDS, VALIDATED_REFERENCE_PIXELS, REQUEST_TEXT_EMBEDDINGS,
            ZERO_IMAGE_EMBEDDINGS, tensors.IP_ADAPTER_SCALE, FULL_IP_ADAPTER_REGION,
            *(control_scales(name) for name in control_nets),
        ),
    )  # fmt: skip


def with_pooled(conditioner: Interface) -> Interface:
    """Inputs and outputs of the conditioner of a checkpoint with two text encoders."""
    pooled = (POOLED_PROMPT_EMBEDDINGS, NEGATIVE_POOLED_PROMPT_EMBEDDINGS)
    return Interface(
        (*conditioner.inputs, *pooled, *SIZE_CONDITIONS, *NEGATIVE_SIZE_CONDITIONS),
        (*conditioner.outputs, tensors.TIME_IDS, REQUEST_POOLED_EMBEDDINGS),
    )


def with_refiner(conditioner: Interface) -> Interface:
    """Inputs and outputs of the conditioner of a checkpoint with a refiner."""
    return Interface(
        (*conditioner.inputs, AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE),
        (*conditioner.outputs, tensors.REFINER_TIME_IDS),
    )


def tokenizer(facts: Mapping[str, int]) -> Interface:
    """Inputs and outputs of the tokenizer.

    Args:
        facts: of the checkpoint: whether it has two text encoders, and how prompts are weighted.
    """
    plain = TWO_TOKENIZERS if facts.get(tensors.POOLED_TRAIT) else TOKENIZER
    components = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)[: len(plain.outputs)]
    weighting = [tensor for component in components for tensor in tensors.weighting_inputs(component, facts)]
    return Interface(plain.inputs, (*plain.outputs, *weighting))


def request_inputs(control_nets: Sequence[str]) -> tuple[Tensor, ...]:
    """Everything that a request can bring, in the order in which ensembles list it."""
    images = [tensor for name in control_nets for tensor in (*control_image(name), *control_numbers(name))]
    return (
        PROMPT, NEGATIVE_PROMPT, PROMPT_2, NEGATIVE_PROMPT_2, PROMPT_EMBEDDINGS, NEGATIVE_PROMPT_EMBEDDINGS,
        POOLED_PROMPT_EMBEDDINGS, NEGATIVE_POOLED_PROMPT_EMBEDDINGS, SEED, GUIDANCE_SCALE, GUIDANCE_RESCALE, HEIGHT,
        WIDTH, *SIZE_CONDITIONS, *NEGATIVE_SIZE_CONDITIONS, AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE, SCHEDULER, ETA,
        STRENGTH, *INPUT_IMAGE, *MASK,
        MASK_FEATHER, *images,
        *IP_ADAPTER_IMAGE, *IP_ADAPTER_MASK, IP_ADAPTER_WEIGHT, *BLEND_MASK, BLEND_FEATHER, PASTE_BACK, COLOR_MATCH,
        *ENHANCEMENT,
    )  # fmt: skip


def preview(calls: int) -> Tensor:
    """The encoded image that stopping after this number of denoiser calls would give."""
    return replace(ENCODED_IMAGE, name=f"preview_{calls}")


def control_model(name: str) -> str:
    """Name of the model of a ControlNet."""
    return f"{tensors.MODEL_NAMES[Component.CONTROLNET]}_{name}"


def ensemble_name(task: str, features: Sequence[str], tier: str) -> str:
    """The name under which a tier is served: `<task>[_<feature>...]_<tier>_pipeline`.

    Args:
        task: `generate`, `img2img` or `inpaint`.
        features: of the ensemble, in the order of `FEATURES`.
        tier: `<steps>[_<scheduler>]`.
    """
    return "_".join([task, *features, tier, "pipeline"])


def json_ensemble_name(task: str, features: Sequence[str], tier: str) -> str:
    """The name of the ensemble for Triton's `generate` endpoint: `<task>[_<feature>...]_<tier>_json`."""
    return "_".join([task, *features, tier, "json"])
