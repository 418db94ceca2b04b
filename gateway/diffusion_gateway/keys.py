"""Keys of clients: a file of hashes, read again when it changes."""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusion_contract.limits import DIGEST_PATTERN
from diffusion_gateway.errors import ApiError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_PREFIX, _SECRET_BYTES = "sk-", 32
_SCHEME = "bearer "
# What clients count as where no keys are required.
ANONYMOUS = "anonymous"
# Clients whose work can wait; Triton's second level.
LOW_PRIORITY = 2


class ApiKey(BaseModel):
    """One key. Two entries of one name share their limits, so that a key can be replaced while both are valid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]{0,62}$")]
    sha256: Annotated[str, Field(pattern=DIGEST_PATTERN)]
    priority: Literal[1, 2] = 1
    concurrent: int | None = Field(default=None, ge=1)
    waiting: int | None = Field(default=None, ge=0)


class KeyFile(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[ApiKey, ...] = ()


@dataclass(frozen=True)
class KeyRing:
    """Keys by the SHA-256 of their text."""

    by_digest: Mapping[str, ApiKey]

    def identify(self, authorization: str) -> ApiKey:
        """The key of a request.

        Args:
            authorization: value of the header; empty where there is none.

        Raises:
            ApiError: there is no key, or it is not valid.
        """
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise _unauthorized("a key is required: send the header Authorization: Bearer KEY")
        key = self.by_digest.get(digest_of(authorization[len(_SCHEME) :].strip()))
        if key is None:
            raise _unauthorized("the key is not valid: send one that is in use")
        return key


class KeyStore:
    """The keys that are valid now.

    Args:
        path: of the file; a mounted Secret.

    Raises:
        SettingsError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = _read(path)
        self.ring = parse_keys(self._content, path)

    def refresh(self) -> None:
        """Read the file again; one that is broken or gone changes nothing and is logged."""
        try:
            content = _read(self._path)
            if content != self._content:
                self.ring = parse_keys(content, self._path)
                self._content = content
                _LOG.info("read %d keys from %s", len(self.ring.by_digest), self._path)
        except SettingsError as error:
            _LOG.error("the keys stay as they are: %s", error)


def digest_of(key: str) -> str:
    """SHA-256 in hex. Keys are random, so that no slower hash is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(name: str) -> tuple[str, ApiKey]:
    """Make a key: its text, which is stored nowhere, and its entry in the file."""
    text = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    return text, ApiKey(name=name, sha256=digest_of(text))


def parse_keys(content: bytes, path: Path) -> KeyRing:
    """Read the content of a file of keys.

    Raises:
        SettingsError: it is not valid; the message does not repeat its content.
    """
    try:
        keys = KeyFile.model_validate_json(content).keys
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise SettingsError(f"{path}: {place}: {problem['msg']}") from None
    ring = {key.sha256: key for key in keys}
    if len(ring) != len(keys):
        raise SettingsError(f"{path}: two entries have the same sha256: leave one of them out")
    return KeyRing(ring)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error


def _unauthorized(message: str) -> ApiError:
    return ApiError(message, status=HTTPStatus.UNAUTHORIZED, code="invalid_api_key")
