"""Answering a request for images: from its body to encoded images."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from diffusion_gateway.errors import ApiError
from diffusion_gateway.fields import MAX_SEED, parse_fields
from diffusion_gateway.image_files import check_image
from diffusion_gateway.inference import IMAGE, MASK, plan_job
from diffusion_gateway.keys import LOW_PRIORITY
from diffusion_gateway.masks import convert_mask
from diffusion_gateway.provenance import Provenance, embed, xmp_packet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from diffusion_gateway.admission import Admission, Caller
    from diffusion_gateway.bodies import RequestBody
    from diffusion_gateway.catalog import Catalog
    from diffusion_gateway.fields import ImageFields
    from diffusion_gateway.inference import Files, ImageJob, InferenceRequest
    from diffusion_gateway.settings import Settings
    from diffusion_gateway.signing import ContentSigner
    from diffusion_gateway.tracing import RequestTracer


@dataclass(frozen=True)
class ImageTask:
    """A request that was read and checked.

    Args:
        model: name of the pipeline.
        fields: of the request.
        job: what Triton is sent.
        is_edit: whether it is an edit.
    """

    model: str
    fields: ImageFields
    job: ImageJob
    is_edit: bool


@dataclass(frozen=True)
class Images:
    """Encoded images of one request to Triton.

    Args:
        contents: one file for each seed.
        preview: number of the preview, from 0; None for the finished images.
        flags: which of them the safety checker withholds; None where there is no checker.
    """

    contents: tuple[bytes, ...]
    preview: int | None = None
    flags: tuple[bool, ...] | None = None


class ImageService:
    """Makes images.

    Args:
        catalog: of the pipelines.
        admission: that lets requests run.
        settings: of the gateway.
        tracer: of its requests.
        signer: of images; None signs none.
    """

    def __init__(
        self,
        catalog: Catalog,
        admission: Admission,
        settings: Settings,
        tracer: RequestTracer,
        signer: ContentSigner | None = None,
    ) -> None:
        self._catalog, self._admission, self._settings, self._signer = catalog, admission, settings, signer
        self._tracer = tracer
        # One at a time: a mask of the largest size takes 64 MiB.
        self._worker = ThreadPoolExecutor(1, "images")

    def close(self) -> None:
        """End the thread that decodes masks and signs images."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def check_room(self) -> None:
        """Reject a request before it is read, where there is one pipeline only.

        Raises:
            ApiError: as many requests wait as may wait.
        """
        name = self._catalog.only_name
        if name is not None:
            self._admission.check_room(name)

    async def prepare(self, body: RequestBody, caller: Caller, *, is_edit: bool) -> ImageTask:
        """Check a request and decide how it is answered.

        Raises:
            ApiError: it is not served.
        """
        fields = parse_fields(body.values)
        pipeline = self._catalog.find(fields.model)
        self._check_size(fields)
        _check_task(body.files, is_edit=is_edit)
        files = await self._check_files(body.files) if body.files else {}
        seed = secrets.randbelow(MAX_SEED - fields.n) if fields.seed is None else fields.seed
        job = plan_job(pipeline, fields, files, seed)
        if caller.priority == LOW_PRIORITY:
            job = _with_priority(job, LOW_PRIORITY)
        return ImageTask(pipeline.name, fields, job, is_edit)

    async def _check_files(self, files: Files) -> Files:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, _checked_files, files, self._settings.limits.pixels)

    def _check_size(self, fields: ImageFields) -> None:
        width, height = fields.size or (0, 0)
        if width * height > self._settings.limits.pixels:
            raise ApiError(f"size {width}x{height} has more than {self._settings.limits.pixels} pixels", "size")

    async def images(self, task: ImageTask, caller: Caller, headers: Mapping[str, str]) -> Images:
        """The finished images.

        Raises:
            ApiError: the limits, the pipeline or the time do not allow them.
        """
        async with self._slot(task, caller):
            return await self._infer(task, task.job.request, None, headers)

    async def stream(self, task: ImageTask, caller: Caller, headers: Mapping[str, str]) -> AsyncGenerator[Images]:
        """Previews as they come, then the finished images; previews that come later are left out.

        Raises:
            ApiError: as in `images`.
        """
        async with self._slot(task, caller):
            final = asyncio.ensure_future(self._infer(task, task.job.request, None, headers))
            previews = [
                asyncio.ensure_future(self._infer(task, request, number, headers))
                for number, request in enumerate(task.job.previews)
            ]
            try:
                for preview in previews:
                    await asyncio.wait({preview, final}, return_when=asyncio.FIRST_COMPLETED)
                    if final.done():
                        break
                    yield preview.result()
                yield await final
            finally:
                for call in (final, *previews):
                    call.cancel()
                await asyncio.gather(final, *previews, return_exceptions=True)

    @asynccontextmanager
    async def _slot(self, task: ImageTask, caller: Caller) -> AsyncIterator[None]:
        seconds = self._settings.limits.request_seconds
        try:
            async with asyncio.timeout(seconds), AsyncExitStack() as stack:
                with self._tracer.step("wait"):
                    await stack.enter_async_context(self._admission.admit(task.model, caller, task.job.cost))
                yield
        except TimeoutError as error:
            message = f"the model {task.model} did not answer within {seconds:g} s: send it again later"
            raise ApiError(message, status=HTTPStatus.GATEWAY_TIMEOUT, code="timeout") from error

    async def _infer(
        self, task: ImageTask, request: InferenceRequest, preview: int | None, headers: Mapping[str, str]
    ) -> Images:
        server = self._catalog.servers[task.model]
        with self._tracer.call(request.ensemble, headers) as call_headers:
            encoded = await server.infer(request, call_headers, self._settings.limits.request_seconds)
        if encoded.flags is not None and all(encoded.flags):
            text = "the safety checker withholds what this request gives: change the prompt, or send another seed"
            raise ApiError(text, "prompt", code="moderation_blocked")
        pairs = zip(encoded.contents, task.job.seeds, strict=True)
        marked = [embed(content, self._packet(task, seed)) for content, seed in pairs]
        signed = await self._sign(task, marked) if preview is None else marked
        return Images(tuple(signed), preview, encoded.flags)

    async def _sign(self, task: ImageTask, contents: list[bytes]) -> list[bytes]:
        if self._signer is None:
            return contents
        sign = partial(self._signer.sign, output_format=task.fields.output_format, is_edit=task.is_edit)
        return await asyncio.get_running_loop().run_in_executor(self._worker, lambda: [sign(one) for one in contents])

    def _packet(self, task: ImageTask, seed: int) -> bytes:
        provenance = self._settings.provenance
        return xmp_packet(
            Provenance(
                task.is_edit,
                task.model if provenance.model else "",
                task.fields.prompt if provenance.prompt else "",
                seed if provenance.seed else None,
            )
        )


def _check_task(files: Files, *, is_edit: bool) -> None:
    if is_edit and IMAGE not in files:
        raise ApiError("image is missing: send it", IMAGE, code="missing_required_parameter")
    for name in (IMAGE, MASK):
        if not is_edit and name in files:
            raise ApiError(f"{name} is not supported here: send it to /v1/images/edits", name, code="unknown_parameter")


def _checked_files(files: Files, max_pixels: int) -> Files:
    checked: Files = {}
    for name, contents in files.items():
        pairs = [check_image(name, content, max_pixels) for content in contents]
        checked[name] = tuple(convert_mask(*pair) if name == MASK else pair[0] for pair in pairs)
    return checked


def _with_priority(job: ImageJob, priority: int) -> ImageJob:
    return replace(
        job,
        request=replace(job.request, priority=priority),
        previews=tuple(replace(preview, priority=priority) for preview in job.previews),
    )
