"""Answers of the API: JSON objects and events. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from diffusion_gateway.ensembles import size_text
from diffusion_gateway.image_files import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from diffusion_gateway.ensembles import Ensemble, Pipeline
    from diffusion_gateway.errors import ApiError

_OWNER = "diffusion-operator"


@dataclass(frozen=True)
class AnswerContext:
    """What all images of an answer share.

    Args:
        created: Unix time in seconds.
        output_format: png, jpeg or webp.
        quality: of the request.
        is_edit: whether the request was an edit.
    """

    created: int
    output_format: str
    quality: str
    is_edit: bool

    def images(self, contents: Sequence[bytes], seeds: Sequence[int], flags: Sequence[bool] | None = None) -> bytes:
        """The JSON answer with all images; `flags` are those of a safety checker."""
        triples = zip(contents, seeds, _flag_fields(flags, len(seeds)), strict=True)
        entries = [_object_parts(content, {"seed": seed, **flag}) for content, seed, flag in triples]
        fields = {
            "created": self.created,
            "background": "opaque",
            "output_format": self.output_format,
            "quality": self.quality,
            "size": _size(contents[0]),
        }
        first, *others = entries
        separated = (part for entry in others for part in (b",", *entry))
        return b"".join((b'{"data":[', *first, *separated, b"],", to_json(fields).removeprefix(b"{")))

    def partial_event(self, content: bytes, index: int) -> bytes:
        """The event with a preview; `index` counts the previews from 0."""
        return self._event("partial_image", content, {"partial_image_index": index})

    def completed_events(
        self, contents: Sequence[bytes], seeds: Sequence[int], flags: Sequence[bool] | None = None
    ) -> Iterator[bytes]:
        """An event with each finished image; `flags` are those of a safety checker."""
        for content, seed, flag in zip(contents, seeds, _flag_fields(flags, len(seeds)), strict=True):
            yield self._event("completed", content, {"seed": seed, **flag})

    def _event(self, name: str, content: bytes, fields: dict[str, Any]) -> bytes:
        kind = f"{'image_edit' if self.is_edit else 'image_generation'}.{name}"
        body = {
            "type": kind,
            "background": "opaque",
            "created_at": self.created,
            "output_format": self.output_format,
            "quality": self.quality,
            "size": _size(content),
        }
        return _sse(kind, *_object_parts(content, body | fields))


def _flag_fields(flags: Sequence[bool] | None, count: int) -> list[dict[str, bool]]:
    """The field `flagged` of each image; left out where nobody checks."""
    return [{"flagged": flag} for flag in flags] if flags is not None else [{}] * count


def error_event(error: ApiError) -> bytes:
    """The last event of a stream that fails."""
    return _sse("error", to_json({"type": "error", **error.body()}))


def model_list(pipelines: Iterable[Pipeline], created: int) -> dict[str, Any]:
    """Answer of `GET /v1/models`."""
    return {"object": "list", "data": [model_object(pipeline, created) for pipeline in pipelines]}


def model_object(pipeline: Pipeline, created: int) -> dict[str, Any]:
    """One model, with what it serves besides OpenAI's own fields."""
    return {
        "id": pipeline.name,
        "object": "model",
        "created": created,
        "owned_by": _OWNER,
        "sizes": [*map(size_text, pipeline.buckets)] or None,
        "ensembles": [_ensemble_object(ensemble) for ensemble in pipeline.ensembles],
    }


def _ensemble_object(ensemble: Ensemble) -> dict[str, Any]:
    return {
        "task": ensemble.task,
        "features": sorted(ensemble.features),
        "steps": ensemble.steps,
        "scheduler": ensemble.scheduler or None,
        "previews": ensemble.previews,
        "max_n": ensemble.max_batch,
    }


def _sse(name: str, *body: bytes) -> bytes:
    return b"".join((b"event: ", name.encode(), b"\ndata: ", *body, b"\n\n"))


def _object_parts(content: bytes, fields: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """A JSON object with the image before other fields, in parts that are joined once.

    A writer of JSON would look for what to escape in all of the image, which takes longer than base64 itself.
    """
    return b'{"b64_json":"', base64.b64encode(content), b'",' + to_json(fields).removeprefix(b"{")


def _size(content: bytes) -> str:
    _, header = read_header(content)
    return size_text((header.width, header.height))
