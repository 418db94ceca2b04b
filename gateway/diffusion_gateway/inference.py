"""From the fields of a request to the tensors of Triton requests. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from diffusion_contract import python_models
from diffusion_contract.python_models import CONTROLNET, GENERATE, IMG2IMG, INPAINT, IP_ADAPTER
from diffusion_contract.tensors import DType
from diffusion_gateway.ensembles import Selection
from diffusion_gateway.errors import ApiError, unknown_parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from diffusion_gateway.ensembles import Ensemble, Pipeline
    from diffusion_gateway.fields import ImageFields

Array = NDArray[Any]
Files = dict[str, tuple[bytes, ...]]
IMAGE, MASK = "image", "mask"
CONTROL_IMAGE = python_models.control_image("").pixels.name
_FILE = python_models.INPUT_IMAGE.file.name.removeprefix(python_models.INPUT_IMAGE.pixels.name)
_INPUT_IMAGE = python_models.INPUT_IMAGE.pixels.name
IMAGE_FIELDS = frozenset(
    {
        IMAGE,
        MASK,
        *(item.pixels.name for item in (python_models.IP_ADAPTER_IMAGE, python_models.IP_ADAPTER_MASK)),
        python_models.BLEND_MASK.pixels.name,
    }
)
_ARRAYS: Mapping[DType, tuple[type[Any], type[np.generic]]] = {
    DType.FP32: (float, np.float32),
    DType.INT32: (int, np.int32),
    DType.INT64: (int, np.int64),
    DType.BOOL: (bool, np.bool_),
    DType.BYTES: (str, np.object_),
}
# Inputs that fields of another name set; by these names clients cannot set them.
_API_FIELDS: Mapping[str, str] = {
    python_models.HEIGHT.name: "size",
    python_models.WIDTH.name: "size",
    python_models.QUALITY.name: "output_compression",
    _INPUT_IMAGE: IMAGE,
}
_INT32_MAX = 2**31


@dataclass(frozen=True)
class TensorValue:
    """One input tensor of a Triton request, batch first."""

    name: str
    dtype: DType
    array: Array


@dataclass(frozen=True)
class InferenceRequest:
    """One request to Triton.

    Args:
        ensemble: its name.
        tensors: its inputs.
        output: that is computed: an encoded image per sample.
        has_flags: whether the safety checker's verdict is an output, too.
        priority: of Triton: 1 before 2; 0 leaves it to the server.
    """

    ensemble: str
    tensors: tuple[TensorValue, ...]
    output: str = python_models.ENCODED_IMAGE.name
    has_flags: bool = False
    priority: int = 0


@dataclass(frozen=True)
class EncodedImages:
    """What Triton answers.

    Args:
        contents: an image file for each sample.
        flags: whether the safety checker withholds the image of a sample; None where there is no checker.
    """

    contents: tuple[bytes, ...]
    flags: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class ImageJob:
    """What answers one request of a client.

    Args:
        request: for the images.
        previews: for partial images, in the order of their denoiser calls.
        seeds: of the images.
        steps: of the ensemble.
    """

    request: InferenceRequest
    previews: tuple[InferenceRequest, ...]
    seeds: tuple[int, ...]
    steps: int

    @property
    def cost(self) -> int:
        """Images that Triton makes for it, previews among them."""
        return len(self.seeds) * (1 + len(self.previews))


def is_image_field(name: str) -> bool:
    """Whether a field of this name holds an image."""
    return name in IMAGE_FIELDS or name.startswith(CONTROL_IMAGE)


def field_of_input(name: str) -> str:
    """The field of the API that sets an input of the pipeline."""
    return _API_FIELDS.get(name.removesuffix(_FILE), name.removesuffix(_FILE))


def plan_job(pipeline: Pipeline, fields: ImageFields, files: Files, seed: int) -> ImageJob:
    """Decide which ensemble answers, and with which tensors.

    Args:
        pipeline: that the request names.
        fields: of the request.
        files: name of an image field to its files.
        seed: of the first image; the next ones count up.

    Raises:
        ApiError: the pipeline does not serve this request.
    """
    ensemble = pipeline.select(_selection(fields, files))
    if fields.size is not None:
        pipeline.check_size(fields.size)
    if fields.n > ensemble.max_batch:
        raise ApiError(f"n {fields.n} is not supported: send 1 to {ensemble.max_batch}", "n")
    seeds = tuple(seed + number for number in range(fields.n))
    tensors = (
        *_core_tensors(fields, seeds, ensemble),
        *_extension_tensors(fields, ensemble),
        *_file_tensors(files, ensemble, fields.n),
    )
    request = InferenceRequest(ensemble.name, tensors, has_flags=python_models.FLAGGED.name in ensemble.outputs)
    previews = tuple(
        replace(request, output=python_models.preview(calls).name, has_flags=False)
        for calls in _preview_calls(fields, ensemble)
    )
    return ImageJob(request, previews, seeds, ensemble.steps)


def _selection(fields: ImageFields, files: Files) -> Selection:
    task = INPAINT if MASK in files else IMG2IMG if IMAGE in files else GENERATE
    features = {CONTROLNET} if any(name.startswith(CONTROL_IMAGE) for name in files) else set()
    if python_models.IP_ADAPTER_IMAGE.pixels.name in files:
        features.add(IP_ADAPTER)
    return Selection(task, frozenset(features), fields.num_inference_steps, fields.quality, fields.scheduler or "")


def _preview_calls(fields: ImageFields, ensemble: Ensemble) -> Sequence[int]:
    """Evenly among those that the ensemble has, the last ones where there are fewer than are requested."""
    calls = ensemble.previews
    if fields.partial_images and not calls:
        raise ApiError(
            f"{ensemble.name} has no previews: send partial_images 0, or list previews in the pipeline",
            "partial_images",
            code="unsupported_parameter",
        )
    count = min(fields.partial_images, len(calls))
    return [calls[(index + 1) * len(calls) // count - 1] for index in range(count)]


def _core_tensors(fields: ImageFields, seeds: Sequence[int], ensemble: Ensemble) -> Iterator[TensorValue]:
    width, height = fields.size or (None, None)
    is_default = fields.scheduler in (None, ensemble.scheduler)
    values: Mapping[Any, object] = {
        python_models.PROMPT: fields.prompt,
        python_models.NEGATIVE_PROMPT: fields.negative_prompt,
        python_models.HEIGHT: height,
        python_models.WIDTH: width,
        python_models.SCHEDULER: None if is_default else fields.scheduler,
        python_models.OUTPUT_FORMAT: fields.output_format.upper(),
        # 0 is the smallest file of the OpenAI API; the pipeline counts from 1.
        python_models.QUALITY: None if fields.output_compression is None else max(1, fields.output_compression),
    }
    yield TensorValue(python_models.SEED.name, python_models.SEED.dtype, np.array(seeds, np.int64).reshape(-1, 1))
    for tensor, value in values.items():
        if value is not None:
            yield _repeated(tensor.name, tensor.dtype, value, len(seeds))


def _extension_tensors(fields: ImageFields, ensemble: Ensemble) -> Iterator[TensorValue]:
    for name, value in fields.inputs.items():
        dtype = ensemble.inputs.get(name)
        if name in _API_FIELDS:
            raise unknown_parameter(name, f"send {_API_FIELDS[name]}")
        if dtype is None or name.endswith(_FILE) or is_image_field(name) or f"{name}{_FILE}" in ensemble.inputs:
            raise unknown_parameter(name, f"{ensemble.name} has no such input, leave it out")
        yield _repeated(name, dtype, _convert(name, dtype, value), fields.n)


def _convert(name: str, dtype: DType, value: object) -> object:
    kind, _ = _ARRAYS[dtype]
    try:
        converted = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ApiError(f"{name}: {error.errors()[0]['msg'].lower()}", name) from error
    if dtype is DType.INT32 and not -_INT32_MAX <= converted < _INT32_MAX:
        raise ApiError(f"{name} {converted} is out of range: send a smaller number", name)
    return converted


def _file_tensors(files: Files, ensemble: Ensemble, count: int) -> Iterator[TensorValue]:
    for field, contents in files.items():
        name = (_INPUT_IMAGE if field == IMAGE else field) + _FILE
        if name not in ensemble.inputs:
            raise unknown_parameter(field, f"{ensemble.name} has no such input, leave it out")
        if len(contents) > 1 and field != python_models.IP_ADAPTER_IMAGE.pixels.name:
            raise ApiError(f"{field} was sent {len(contents)} times: send one image", field)
        array = np.empty((count, len(contents)), np.object_)
        array[:] = contents
        yield TensorValue(name, DType.BYTES, array)


def _repeated(name: str, dtype: DType, value: object, count: int) -> TensorValue:
    _, kind = _ARRAYS[dtype]
    return TensorValue(name, dtype, np.full((count, 1), value.encode() if isinstance(value, str) else value, kind))
