"""Download one file over HTTP(S) to disk, continuing after a broken connection.

Proxies are those of the environment (`https_proxy`, `http_proxy`, `no_proxy`), certificates those of the system or of
`SSL_CERT_FILE`.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, BuilderError, Reason, UnavailableError
from diffusion_builder.sources import names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60.0
# Attempts in a row that bring nothing.
_ATTEMPTS = 5
_FIRST_WAIT_SECONDS = 0.1
_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
_RETRYABLE = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


@dataclass(frozen=True)
class Download:
    """A file on a web server.

    Args:
        url: http or https.
        sha256: of its content, 64 lower-case hex digits.
    """

    url: str
    sha256: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInputError(Reason.INVALID_ARGUMENT, f"url {self.name!r} must begin with https:// or http://")
        if parts.username or parts.password:
            raise BadInputError(
                Reason.INVALID_ARGUMENT, f"url {self.name!r} must not hold a password: it would be logged"
            )
        if not digests.is_digest(self.sha256):
            raise BadInputError(Reason.INVALID_ARGUMENT, f"sha256 {self.sha256!r} must be 64 lower-case hex digits")

    @property
    def name(self) -> str:
        """The address for messages: without user, password and query, which may hold secrets."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def run(self, target: Path, on_file: Callable[[str, float], None], on_size: Callable[[int], None]) -> None:
        """Bring the file to `target`; an earlier, partial download is continued.

        Args:
            target: path of the file.
            on_file: called with the name and the fraction that is done.
            on_size: called with the number of remaining bytes, before they are read.

        Raises:
            BuilderError: not there, denied, too large, another SHA-256, or the server does not answer.
            OSError: the target cannot be written.
        """
        continued = target.exists()
        self._complete(target, on_file, on_size)
        if continued and digests.file_digest(target) != self.sha256:
            # What was left may be damaged; only a download of its own can blame the server.
            target.unlink()
            self._complete(target, on_file, on_size)
        actual_sha256 = digests.file_digest(target)
        if actual_sha256 != self.sha256:
            target.unlink()
            raise BadInputError(
                Reason.DIGEST_MISMATCH, f"{self.name} has the SHA-256 {actual_sha256}, {self.sha256} was expected"
            )

    def _complete(self, target: Path, on_file: Callable[[str, float], None], on_size: Callable[[int], None]) -> None:
        failures = 0
        while True:
            before = _size(target)
            try:
                with self._open(before) as response:
                    self._append(response, target, on_file, on_size)
            except _AlreadyComplete:
                return
            except _ConnectionLostError as error:
                failures = 1 if _size(target) > before else failures + 1
                if failures >= _ATTEMPTS:
                    raise UnavailableError(
                        Reason.SOURCE_UNREACHABLE,
                        f"{self.name} cannot be read ({error}): check address, proxy and network policy; it is tried "
                        "again",
                    ) from error
                time.sleep(_FIRST_WAIT_SECONDS * 2**failures)
            else:
                return

    def _open(self, begin: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": "diffusion-builder", "Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310 - the scheme is checked
        try:
            response: http.client.HTTPResponse = _opener().open(request, timeout=_TIMEOUT_SECONDS)
        except HTTPError as error:
            error.close()
            raise self._status_error(error.code) from error
        except (OSError, http.client.HTTPException) as error:
            raise _ConnectionLostError(_error_text(error)) from error
        return response

    def _status_error(self, status: int) -> BuilderError | _ConnectionLostError | _AlreadyComplete:
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _AlreadyComplete()
        if status in _RETRYABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _ConnectionLostError(f"status {status}")
        if status in _DENIED:
            return BadInputError(Reason.ACCESS_DENIED, f"access to {self.name} is denied (status {status})")
        return BadInputError(Reason.SOURCE_NOT_FOUND, f"there is no {self.name} (status {status}): check the address")

    def _append(
        self,
        response: http.client.HTTPResponse,
        target: Path,
        on_file: Callable[[str, float], None],
        on_size: Callable[[int], None],
    ) -> None:
        begin = _begin(response)
        if begin > _size(target):
            raise _ConnectionLostError(f"the server begins at byte {begin}")
        length = response.headers.get("Content-Length")
        total = begin + int(length) if length and length.isdigit() else None
        names.check_total(self.name, total or 0)
        on_size((total or begin) - begin)
        with target.open("r+b" if target.exists() else "wb") as stream:
            stream.truncate(begin)
            received = stream.seek(begin)
            while piece := _read(response):
                received += stream.write(piece)
                names.check_total(self.name, received)
                on_file("archive", received / total if total else 0.0)
        if total is not None and received < total:
            raise _ConnectionLostError(f"the connection broke after {received} of {total} bytes")


class _ConnectionLostError(Exception):
    """A connection that may work the next time."""


class _AlreadyComplete(Exception):  # noqa: N818 - never leaves this module
    """Nothing is left to download, so all of it is here; its SHA-256 is verified afterwards."""


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone: a redirect must not lead to a file or elsewhere."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _begin(response: http.client.HTTPResponse) -> int:
    """Offset of the response's first byte in the file; a server may ignore that only the rest was requested."""
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return 0
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match:
        raise _ConnectionLostError("the server sends a part without saying which")
    return int(match[1])


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionLostError(_error_text(error)) from error


def _error_text(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
