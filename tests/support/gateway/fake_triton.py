"""A Triton that answers when a test lets it, for tests of what stands in front of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from diffusion_gateway.errors import ApiError, unavailable
from diffusion_gateway.inference import EncodedImages
from diffusion_gateway.triton import TritonServer
from tests.support.gateway.pipelines import image_file, shapes_pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusion_gateway.ensembles import Pipeline
    from diffusion_gateway.inference import InferenceRequest
    from diffusion_gateway.settings import PipelineAddress


class FakeTriton(TritonServer):
    """Serves the ensembles of `shapes_pipeline` with images of one color.

    Attributes:
        requests: that arrived, with their headers.
        cancelled: how many calls were cancelled.
        discoveries: how often it was looked at.
        is_up: whether it answers.
        failure: that it answers with, if any.
        gate: closed, calls wait.
        withheld: seeds whose images a safety checker withholds; None without one.
    """

    def __init__(self, pipeline: PipelineAddress) -> None:
        self.name, self.address = pipeline.name, pipeline.address
        self.requests: list[tuple[InferenceRequest, Mapping[str, str]]] = []
        self.cancelled = self.discoveries = 0
        self.is_up = True
        self.failure: ApiError | None = None
        self.withheld: frozenset[int] | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def close(self) -> None:
        """Nothing is open."""

    async def discover(self) -> Pipeline:
        """The pipeline."""
        self.discoveries += 1
        if not self.is_up:
            raise unavailable("it does not answer")
        return shapes_pipeline(is_checked=self.withheld is not None)

    async def infer(self, request: InferenceRequest, headers: Mapping[str, str], seconds: float) -> EncodedImages:
        """One image for each seed."""
        del seconds
        self.requests.append((request, headers))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        tensors = {tensor.name: tensor.array for tensor in request.tensors}
        file_format = tensors["output_format"][0, 0].decode()
        seeds = [int(seed) for seed in tensors["seed"][:, 0]]
        contents = tuple(image_file(file_format=file_format, color=(seed % 256, 0, 0)) for seed in seeds)
        return EncodedImages(
            contents, tuple(seed in (self.withheld or ()) for seed in seeds) if request.has_flags else None
        )
