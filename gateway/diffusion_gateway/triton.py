"""Triton over gRPC: which ensembles there are, and inference that can be cancelled."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from http import HTTPStatus
from itertools import cycle
from typing import TYPE_CHECKING, Any

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from diffusion_contract import python_models
from diffusion_contract.tensors import DType
from diffusion_gateway.ensembles import CONDITIONER, Pipeline, candidates, describe
from diffusion_gateway.errors import ApiError, unavailable
from diffusion_gateway.inference import EncodedImages, field_of_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusion_gateway.ensembles import Ensemble
    from diffusion_gateway.inference import InferenceRequest
    from diffusion_gateway.settings import PipelineAddress

_LOG = logging.getLogger(__name__)
_DISCOVERY_SECONDS = 10.0
_UNLIMITED = -1
# A Service spreads connections among pods, not requests: with several, requests take turns among pods.
_CONNECTIONS = 4
_CHANNEL: list[tuple[str, int | str]] = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.max_send_message_length", _UNLIMITED),
    ("grpc.max_receive_message_length", _UNLIMITED),
    ("grpc.keepalive_time_ms", 60_000),
]
_ENSEMBLE_PREFIX = re.compile(r"^in ensemble '[^']*', ")
_BOTH_SENT = re.compile(r"^(\w+) and \w+ were both sent")
_SIDE_AS_WELL = re.compile(r"send (?:width|height) as well")
_NOT_TOGETHER = re.compile(
    r"height (\d+) and width (\d+) are not supported together: send height and width of one of (.*) \(height x width\)"
)
_FIRST_WORD = re.compile(r"^\W*(\w+)")
_DTYPES = {dtype.config_name: dtype for dtype in DType}


class TritonServer:
    """The Triton of one pipeline.

    Args:
        pipeline: its name and address.
    """

    def __init__(self, pipeline: PipelineAddress) -> None:
        self.name, self.address = pipeline.name, pipeline.address
        self._clients = [
            triton.InferenceServerClient(pipeline.address, channel_args=channel_options(pipeline))
            for _ in range(_CONNECTIONS)
        ]
        self._turns = cycle(self._clients)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.close() for client in self._clients))

    async def discover(self) -> Pipeline:
        """The pipeline with the ensembles that are ready.

        Raises:
            ApiError: Triton does not answer, or serves no pipeline of this project.
        """
        client = next(self._turns)
        try:
            metadata, response = await asyncio.gather(
                client.get_model_metadata(CONDITIONER, client_timeout=_DISCOVERY_SECONDS),
                client.get_model_config(CONDITIONER, client_timeout=_DISCOVERY_SECONDS),
            )
        except InferenceServerException as error:
            raise unavailable(f"the model {self.name} does not answer at {self.address}: {error.message()}") from error
        names = sorted(candidates(output.name for output in metadata.outputs))
        ensembles = await asyncio.gather(*(self._describe(name) for name in names))
        served = tuple(ensemble for ensemble in ensembles if ensemble is not None)
        return Pipeline(self.name, served, _buckets(response.config.parameters))

    async def _describe(self, name: str) -> Ensemble | None:
        try:
            response = await next(self._turns).get_model_config(name, client_timeout=_DISCOVERY_SECONDS)
        except InferenceServerException:
            return None
        config = response.config
        return describe(
            name,
            {tensor.name: _dtype(tensor) for tensor in config.input},
            [tensor.name for tensor in config.output],
            config.max_batch_size,
        )

    async def infer(self, request: InferenceRequest, headers: Mapping[str, str], seconds: float) -> EncodedImages:
        """Encoded images, one for each sample; a cancelled call is cancelled in Triton, between two steps.

        Args:
            request: what Triton is sent.
            headers: that go on to a route.
            seconds: to wait for the answer.

        Raises:
            ApiError: Triton rejects it, or does not answer.
        """
        outputs = [request.output, *([python_models.FLAGGED.name] if request.has_flags else [])]
        try:
            result = await next(self._turns).infer(
                request.ensemble,
                [_input(tensor.name, tensor.dtype, tensor.array) for tensor in request.tensors],
                outputs=[triton.InferRequestedOutput(name) for name in outputs],
                priority=request.priority,
                client_timeout=seconds,
                headers=dict(headers),
            )
        except InferenceServerException as error:
            names = {tensor.name for tensor in request.tensors}
            problem = explain(self.name, str(error.status()), error.message() or "", names)
            if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                _LOG.warning("the model %s: %s: %s", self.name, error.status(), error.message())
            raise problem from error
        values = [result.as_numpy(name).reshape(-1) for name in outputs]
        return EncodedImages(tuple(map(bytes, values[0])), tuple(map(bool, values[1])) if request.has_flags else None)


def channel_options(pipeline: PipelineAddress) -> list[tuple[str, int | str]]:
    """Options of the gRPC channels to a pipeline."""
    return [*_CHANNEL, *([("grpc.default_authority", pipeline.authority)] if pipeline.authority else [])]


def explain(model: str, status: str, message: str, inputs: set[str]) -> ApiError:
    """Translate an error of Triton.

    Args:
        model: name of the pipeline.
        status: of gRPC, such as `StatusCode.UNAVAILABLE`.
        message: of Triton or of one of the pipeline's models.
        inputs: names of the tensors that were sent.
    """
    code, text = status.removeprefix("StatusCode."), _ENSEMBLE_PREFIX.sub("", message)
    if code == "DEADLINE_EXCEEDED":
        return ApiError(
            f"the model {model} did not answer in time: send it again later",
            status=HTTPStatus.GATEWAY_TIMEOUT,
            code="timeout",
        )
    if code in {"UNAVAILABLE", "CANCELLED"} or "unknown model" in text or "not ready" in text:
        return unavailable(f"the model {model} does not answer now: send it again")
    together = _NOT_TOGETHER.match(text)
    if together is not None:
        return ApiError(_not_together(*together.groups()), "size")
    word = _BOTH_SENT.match(text) or _FIRST_WORD.match(text)
    name = word[1] if word is not None else ""
    if code == "INVALID_ARGUMENT" or is_input(name, inputs):
        return ApiError(_in_api_words(text), field_of_input(name) if is_input(name, inputs) else "")
    return ApiError(
        f"the model {model} failed: send it again; its server's log says why",
        status=HTTPStatus.BAD_GATEWAY,
        code="pipeline_error",
    )


def _not_together(height: str, width: str, sizes: str) -> str:
    """The API says width first, and both in one word."""
    served = " or ".join("x".join(reversed(size.split(" x "))) for size in sizes.split(", "))
    return f"size {width}x{height} is not supported: send {served}"


def _in_api_words(text: str) -> str:
    name = python_models.INPUT_IMAGE.pixels.name
    text = re.sub(rf"\b{name}\b", field_of_input(name), text.replace(python_models.INPUT_IMAGE.file.name, name))
    return _SIDE_AS_WELL.sub("send size as well", text)


def is_input(name: str, inputs: set[str]) -> bool:
    """Whether a message begins with an input that was sent, or one that is missing."""
    return bool(name) and (name in inputs or f"{name}_file" in inputs or name == python_models.INPUT_IMAGE.pixels.name)


def _buckets(parameters: Any) -> tuple[tuple[int, int], ...]:  # noqa: ANN401 - protobuf's messages have no types
    """Width and height of each."""
    name = python_models.BUCKETS_PARAMETER
    pairs = json.loads(parameters[name].string_value) if name in parameters else ()
    return tuple((width, height) for height, width in pairs)


def _dtype(tensor: Any) -> DType:  # noqa: ANN401 - protobuf's messages have no types
    field = type(tensor).DESCRIPTOR.fields_by_name["data_type"]
    return _DTYPES[field.enum_type.values_by_number[tensor.data_type].name]


def _input(name: str, dtype: DType, array: Any) -> Any:  # noqa: ANN401 - tritonclient has no types
    tensor = triton.InferInput(name, list(array.shape), str(dtype))
    tensor.set_data_from_numpy(array)
    return tensor
