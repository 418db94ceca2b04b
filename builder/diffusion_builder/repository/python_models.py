"""Tensors of the models without an engine and of requests: what the Python models beside the engines exchange.

Every input of them is optional in their configurations; an ensemble maps those that its task and features use.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diffusion_contract import tensors
from diffusion_contract.tensors import DType, Interface, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

GENERATE, IMG2IMG, INPAINT = TASKS = ("generate", "img2img", "inpaint")
CONTROLNET, IP_ADAPTER, EMBEDDINGS = FEATURES = ("controlnet", "ip_adapter", "embeddings")

TOKENIZER_NAME = "1_tokenizer"
PREPROCESSOR_NAME = "1_preprocessor"
CONDITIONER_NAME = "4_conditioner"
POSTPROCESSOR_NAME = "8_postprocessor"


def _number(name: str, dtype: DType = DType.FP32) -> Tensor:
    return Tensor(name, dtype, (1,), optional=True)


def _picture(name: str, *dims: int) -> tuple[Tensor, Tensor]:
    """A picture as pixels, and as the bytes of a file; a request sends one of them."""
    return Tensor(name, DType.UINT8, dims, optional=True), Tensor(f"{name}_file", DType.BYTES, (1,), optional=True)


PROMPT = Tensor("prompt", DType.BYTES, (1,))
NEGATIVE_PROMPT = Tensor("negative_prompt", DType.BYTES, (1,), optional=True)
PROMPT_EMBEDDINGS = Tensor("prompt_embeddings", DType.FP32, ("text_length", "text_width"))
NEGATIVE_PROMPT_EMBEDDINGS = Tensor(
    "negative_prompt_embeddings", DType.FP32, ("text_length", "text_width"), optional=True
)
SEED = _number("seed", DType.INT64)
HEIGHT, WIDTH = _number("height", DType.INT32), _number("width", DType.INT32)
GUIDANCE_SCALE, GUIDANCE_RESCALE = _number("guidance_scale"), _number("guidance_rescale")
STRENGTH, ETA = _number("strength"), _number("eta")
SCHEDULER = _number("scheduler", DType.BYTES)
INPUT_IMAGE = _picture("input_image", -1, -1, 3)
MASK = _picture("mask", -1, -1)
MASK_FEATHER = _number("mask_feather")
IP_ADAPTER_IMAGE = (
    Tensor("ip_adapter_image", DType.UINT8, (-1, -1, -1, 3), optional=True),
    Tensor("ip_adapter_image_file", DType.BYTES, (-1,), optional=True),
)
IP_ADAPTER_MASK = _picture("ip_adapter_mask", -1, -1)
IP_ADAPTER_WEIGHT = _number("ip_adapter_weight")
BLEND_MASK = _picture("blend_mask", -1, -1)
BLEND_FEATHER, COLOR_MATCH = _number("blend_feather"), _number("color_match")
PASTE_BACK = _number("paste_back", DType.BOOL)
# What any picture can be finished with.
FINISH = (
    _number("sharpen"), _number("contrast"), _number("upscale_height", DType.INT32),
    _number("upscale_width", DType.INT32),
)  # fmt: skip
FORMAT = (_number("output_format", DType.BYTES), _number("quality", DType.INT32))
# What only a task that starts from a picture can do.
BLENDING = (*INPUT_IMAGE, *BLEND_MASK, BLEND_FEATHER, COLOR_MATCH)
# All of it that is no picture: the conditioner reads it too, to refuse it before the first step.
FINISH_NUMBERS = (BLEND_FEATHER, COLOR_MATCH, PASTE_BACK, *FINISH, *FORMAT)

# Handed on by a model that may refuse a request, so that no engine is at work when it does.
ACCEPTED_IDS = replace(tensors.INPUT_IDS, name="accepted_ids")
ACCEPTED_PIXELS = replace(tensors.REFERENCE_PIXELS, name="accepted_pixels")
ACCEPTED_INPUT = replace(tensors.MODEL_INPUT, name="accepted_input")
MASKED_PIXELS = replace(tensors.PIXELS, name="masked_pixels")
MASKED_MEAN = replace(tensors.LATENT_MEAN, name="masked_mean")
MASKED_STD = replace(tensors.LATENT_STD, name="masked_std")
NO_NOISE = replace(tensors.NOISE, name="no_noise")
STEP_MASK = replace(tensors.LATENT_MASK, name="step_mask")
TEXT_EMBEDDINGS_GIVEN = replace(tensors.TEXT_EMBEDDINGS, name="text_embeddings_given")
NO_IMAGE_EMBEDDINGS = replace(tensors.IMAGE_EMBEDDINGS, name="no_image_embeddings")
NO_REGION = replace(tensors.IP_ADAPTER_REGION, name="no_region")
IMAGE = Tensor("image", DType.UINT8, ("height", "width", 3))
ENCODED_IMAGE = Tensor("encoded_image", DType.BYTES, (1,))

TOKENIZER = Interface((PROMPT, NEGATIVE_PROMPT), (tensors.INPUT_IDS,))
POSTPROCESSOR = Interface(
    (
        tensors.DECODED, *BLENDING, *MASK, PASTE_BACK, *FINISH, *FORMAT, replace(tensors.FLAGGED, optional=True),
    ),
    (IMAGE, ENCODED_IMAGE),
)  # fmt: skip


def control_image(name: str) -> tuple[Tensor, Tensor]:
    """The picture that a ControlNet follows."""
    return _picture(f"control_image_{name}", -1, -1, 3)


def control_pixels(name: str) -> Tensor:
    """The same, as its engine reads it."""
    return replace(tensors.CONTROL_IMAGE, name=f"control_pixels_{name}")


def control_numbers(name: str) -> tuple[Tensor, ...]:
    """How much a ControlNet says, and from which share of the steps to which."""
    return tuple(_number(f"control_{what}_{name}") for what in ("scale", "start", "end"))


def control_scales(name: str) -> Tensor:
    """Its scale at each call."""
    return replace(tensors.CONTROL_SCALES, name=f"{tensors.CONTROL_SCALES.name}_{name}")


def noise_of(call: int) -> Tensor:
    """The conditioner's output with the fresh noise of a call."""
    return replace(tensors.NOISE, name=f"{tensors.NOISE.name}_{call}")


def table_of(key: str) -> Tensor:
    """The conditioner's output with the table of an ensemble.

    An ensemble cannot hold constants, so it says task, steps and scheduler by the name of the table that it maps:
    `<task>_<steps>[_<scheduler>]`.
    """
    return replace(tensors.TABLE, name=f"{tensors.TABLE.name}_{key}")


def preprocessor(control_nets: Sequence[str]) -> Interface:
    """Inputs and outputs of the preprocessor; what other models make is read only for its batch, or to be handed on."""
    images = [tensor for name in control_nets for tensor in control_image(name)]
    return Interface(
        (
            *_CARRIERS, replace(tensors.GUIDANCE, optional=True), replace(tensors.MODEL_INPUT, optional=True), HEIGHT,
            WIDTH, *INPUT_IMAGE, *MASK, MASK_FEATHER, *IP_ADAPTER_IMAGE, *IP_ADAPTER_MASK, *BLEND_MASK, *images,
        ),
        (
            ACCEPTED_IDS, ACCEPTED_INPUT, tensors.PIXELS, MASKED_PIXELS, tensors.LATENT_MASK,
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
            *_CARRIERS, NEGATIVE_PROMPT_EMBEDDINGS, SEED, GUIDANCE_SCALE, GUIDANCE_RESCALE, HEIGHT, WIDTH, STRENGTH,
            ETA, SCHEDULER, *_MOMENTS, replace(tensors.LATENT_MASK, optional=True), IP_ADAPTER_WEIGHT,
            replace(tensors.REFERENCE_PIXELS, optional=True), *FINISH_NUMBERS, *numbers,
        ),
        (
            *(table_of(key) for key in keys), *CARRIED, tensors.LEVELS, tensors.KEPT, STEP_MASK, tensors.GUIDANCE,
            tensors.GUIDANCE_RESCALE, NO_NOISE, *(noise_of(call) for call in range(calls)), tensors.MASKED_LATENT,
            ACCEPTED_IDS, ACCEPTED_PIXELS, TEXT_EMBEDDINGS_GIVEN, NO_IMAGE_EMBEDDINGS, tensors.IP_ADAPTER_SCALE,
            NO_REGION, *(control_scales(name) for name in control_nets),
        ),
    )  # fmt: skip


_CARRIERS = tuple(replace(tensor, optional=True) for tensor in (tensors.INPUT_IDS, PROMPT_EMBEDDINGS))
_MOMENTS = tuple(
    replace(tensor, optional=True)
    for tensor in (tensors.LATENT_MEAN, tensors.LATENT_STD, MASKED_MEAN, MASKED_STD)
)  # fmt: skip
# What each scheduler step hands to the next; the conditioner makes the first ones.
CARRIED = (tensors.STATE, tensors.MODEL_INPUT, tensors.TIMESTEP, tensors.STEP_INDEX)


def request_inputs(control_nets: Sequence[str]) -> tuple[Tensor, ...]:
    """Everything that a request can bring, in the order in which ensembles list it."""
    images = [tensor for name in control_nets for tensor in (*control_image(name), *control_numbers(name))]
    return (
        PROMPT, NEGATIVE_PROMPT, PROMPT_EMBEDDINGS, NEGATIVE_PROMPT_EMBEDDINGS, SEED, GUIDANCE_SCALE,
        GUIDANCE_RESCALE, HEIGHT, WIDTH, SCHEDULER, ETA, STRENGTH, *INPUT_IMAGE, *MASK, MASK_FEATHER, *images,
        *IP_ADAPTER_IMAGE, *IP_ADAPTER_MASK, IP_ADAPTER_WEIGHT, *BLEND_MASK, BLEND_FEATHER, PASTE_BACK, COLOR_MATCH,
        *FINISH, *FORMAT,
    )  # fmt: skip


def preview(calls: int) -> Tensor:
    """The picture as it would be when the denoiser stopped after so many calls, as a file."""
    return replace(ENCODED_IMAGE, name=f"preview_{calls}")


def control_model(name: str) -> str:
    """The model of a ControlNet."""
    return f"{tensors.MODEL_NAMES[tensors.Component.CONTROLNET]}_{name}"


def ensemble_name(task: str, features: Sequence[str], tier: str) -> str:
    """The name under which a tier is served: `<task>[_<feature>...]_<tier>_pipeline`.

    Args:
        task: `generate`, `img2img` or `inpaint`.
        features: those that the ensemble has, in the order of `FEATURES`.
        tier: `<steps>[_<scheduler>]`.
    """
    return "_".join([task, *features, tier, "pipeline"])
