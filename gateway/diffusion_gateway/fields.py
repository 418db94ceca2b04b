"""The fields of a request to the images API, as pydantic checks them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from diffusion_contract.tensors import MAX_STEPS
from diffusion_gateway.ensembles import Quality  # noqa: TC001 - pydantic reads it
from diffusion_gateway.errors import ApiError, unknown_parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

OutputFormat = Literal["png", "jpeg", "webp"]
MAX_SEED = 2**32
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
# Fields of the OpenAI API and of its cousins that no pipeline serves, and what to do instead.
_REFUSED = {
    "loras": "LoRAs are merged when the pipeline is built (spec.model.loras), send none",
    "style": "describe it in the prompt",
    "input_fidelity": "send strength, where less keeps more of the image",
    "url": "send the image itself: URLs are not fetched",
    "image_url": "send the image itself: URLs are not fetched",
    "num_images": "send n",
    "num_images_per_prompt": "send n",
    "height": "send size, as 512x768 (width x height)",
    "width": "send size, as 512x768 (width x height)",
    "steps": "send num_inference_steps",
}


def _parse_size(value: object) -> object:
    if value in (None, "", "auto"):
        return None
    sides = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if sides is None:
        raise ValueError("send width x height in pixels, such as 512x768, or auto")
    return int(sides[1]), int(sides[2])


def _only(*values: str, advice: str) -> BeforeValidator:
    """A field of the OpenAI API of which some values are what the gateway does anyway."""

    def check(value: object) -> object:
        if value not in (None, *values):
            raise ValueError(f"{value!r} is not supported: {advice}")
        return value

    return BeforeValidator(check)


class ImageFields(BaseModel):
    """Fields of both requests; those that it does not list are inputs of the pipeline, and checked against it."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    prompt: str = Field(max_length=32_000)
    model: str | None = None
    n: int = Field(default=1, ge=1, le=128)
    size: Annotated[tuple[int, int] | None, BeforeValidator(_parse_size)] = None
    quality: Quality = "auto"
    num_inference_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    scheduler: str | None = Field(default=None, max_length=64)
    seed: int | None = Field(default=None, ge=0, lt=MAX_SEED)
    negative_prompt: str | None = Field(default=None, max_length=32_000)
    output_format: OutputFormat = "png"
    output_compression: int | None = Field(default=None, ge=0, le=100)
    stream: bool = False
    partial_images: int = Field(default=0, ge=0, le=3)
    response_format: Annotated[str | None, _only("b64_json", advice="send b64_json, or leave it out")] = None
    background: Annotated[str | None, _only("auto", "opaque", advice="images are opaque, leave it out")] = None
    moderation: Annotated[str | None, _only("auto", advice="the pipeline decides, leave it out")] = None
    # Who the user of the application is: neither used nor logged.
    user: str | None = Field(default=None, max_length=512)
    safety_identifier: str | None = Field(default=None, max_length=512)

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Fields that are inputs of the pipeline by their own names."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}


def parse_fields(values: Mapping[str, object]) -> ImageFields:
    """Check the fields of a request.

    Args:
        values: by name; from JSON, or texts from a form.

    Raises:
        ApiError: one is wrong or not served; the error names it.
    """
    for name, advice in _REFUSED.items():
        if values.get(name) is not None:
            raise unknown_parameter(name, advice)
    nulls_left_out = {name: value for name, value in values.items() if value is not None}
    try:
        fields = ImageFields.model_validate(nulls_left_out)
    except ValidationError as error:
        raise _first_problem(error) from error
    return _check_combinations(fields)


def _check_combinations(fields: ImageFields) -> ImageFields:
    if fields.num_inference_steps is not None and fields.quality != "auto":
        raise ApiError("quality and num_inference_steps both say how many steps: send one of them", "quality")
    if fields.partial_images and not fields.stream:
        raise ApiError("partial images come as events: send stream true as well", "partial_images")
    if fields.output_compression is not None and fields.output_format == "png":
        raise ApiError("PNG has no compression level here: send output_format jpeg or webp", "output_compression")
    return fields


def _first_problem(error: ValidationError) -> ApiError:
    problem = error.errors(include_url=False, include_context=False)[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "missing":
        return ApiError(f"{name} is missing: send it", name, code="missing_required_parameter")
    text = problem["msg"].removeprefix("Value error, ")
    return ApiError(f"{name}: {text[0].lower()}{text[1:]}", name)
