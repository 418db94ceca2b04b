"""Bodies of requests: JSON or a multipart form, into fields and images.

Nothing of a body is fetched, unpacked or written to a disk.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser

from diffusion_gateway.errors import ApiError, unknown_parameter
from diffusion_gateway.inference import IMAGE, Files, is_image_field

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from starlette.datastructures import FormData, Headers

_JSON, _FORM = "application/json", "multipart/form-data"
_MAX_FILES, _MAX_FIELDS, _MAX_BOUNDARY = 16, 64, 200
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!;base64,)")
_DATA_URL = re.compile(r"data:[-\w.+/]*(?:;[-\w.+=/]+)*;base64,")
_URL_FIELD = "image_url"


@dataclass(frozen=True)
class RequestBody:
    """What a client sent.

    Args:
        values: fields by name: JSON values, or texts of a form.
        files: images by the name of their field.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    files: Files = field(default_factory=dict)


async def parse_body(headers: Headers, content: bytearray, max_bytes: int) -> RequestBody:
    """Read a body.

    Args:
        headers: of the request.
        content: the whole body.
        max_bytes: largest text field of a form.

    Raises:
        ApiError: it is of another type, or broken.
    """
    if headers.get("content-encoding", "identity") != "identity":
        raise _unsupported("a compressed body is not supported: send it as it is")
    kind, options = parse_options_header(headers.get("content-type", ""))
    if kind.decode() == _JSON:
        return _parse_json(content)
    if kind.decode() == _FORM:
        if len(options.get(b"boundary", b"")) > _MAX_BOUNDARY:
            raise ApiError(f"the form's boundary is longer than {_MAX_BOUNDARY} bytes: send a shorter one")
        return await _parse_form(headers, content, max_bytes)
    raise _unsupported(f"the content type is not supported: send {_JSON} or {_FORM}")


def _unsupported(message: str) -> ApiError:
    return ApiError(message, status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE, code="unsupported_content_type")


def _parse_json(content: bytearray) -> RequestBody:
    try:
        values = from_json(bytes(content), allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(values, dict):
        raise ApiError("the body is not a JSON object: send one with prompt and the like", code="invalid_json")
    files = {_canonical(name): tuple(_images(name, value)) for name, value in values.items() if _is_image(name, value)}
    return RequestBody({name: value for name, value in values.items() if not is_image_field(_canonical(name))}, files)


def _is_image(name: str, value: object) -> bool:
    return value is not None and is_image_field(_canonical(name))


def _canonical(name: str) -> str:
    """`image[]` and `images` are what clients call a list of images."""
    name = name.removesuffix("[]")
    return IMAGE if name == f"{IMAGE}s" else name


def _images(name: str, value: object) -> Iterator[bytes]:
    for item in value if isinstance(value, list) else [value]:
        text = item.get(_URL_FIELD) if isinstance(item, dict) and item.keys() == {_URL_FIELD} else item
        if not isinstance(text, str):
            raise ApiError(f"{name} is not an image: send the file as base64 text or as a data URL", name)
        yield _decode(name, text)


def _decode(name: str, text: str) -> bytes:
    data_url = _DATA_URL.match(text)
    if data_url is None and _SCHEME.match(text):
        raise ApiError(f"{name} is a URL, which is not fetched: send the file as base64 text or as a data URL", name)
    try:
        return base64.b64decode(text[data_url.end() if data_url else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(
            f"{name} is not base64 ({error}): send the file as base64 text or as a data URL", name
        ) from error


class _MemoryFormParser(MultiPartParser):
    """Keeps files in memory: their size was checked, and a pod has no disk for them."""

    spool_max_size = 2**31


async def _parse_form(headers: Headers, content: bytearray, max_bytes: int) -> RequestBody:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield bytes(content)

    parser = _MemoryFormParser(headers, stream(), max_files=_MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=max_bytes)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ApiError(f"the form is broken: {error.message}", code="invalid_form") from error
    try:
        return await _read_form(form)
    finally:
        await form.close()


async def _read_form(form: FormData) -> RequestBody:
    values: dict[str, object] = {}
    files: Files = {}
    for name, value in form.multi_items():
        field_name = _canonical(name)
        if is_image_field(field_name):
            content = _decode(name, value) if isinstance(value, str) else await value.read()
            files[field_name] = (*files.get(field_name, ()), content)
        elif not isinstance(value, str):
            raise unknown_parameter(name, "files are sent as image, mask or control_image_<name>")
        elif name in values:
            raise ApiError(f"{name} was sent twice: send it once", name)
        else:
            values[name] = value
    return RequestBody(values, files)
