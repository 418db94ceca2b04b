"""Errors in the form that clients of the OpenAI API read."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


class SettingsError(Exception):
    """An option or a file of the gateway is wrong; the message says which one and what to do."""


class ApiError(Exception):
    """A request that is not answered with an image.

    Args:
        message: what was wrong, and what to send.
        param: field of the request that it is about; empty where there is none.
        status: HTTP status.
        code: short word for programs.
        retry_after: seconds after which the request may be sent again; 0 where the header is left out.
    """

    def __init__(
        self,
        message: str,
        param: str = "",
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        code: str = "invalid_value",
        retry_after: int = 0,
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code, self.retry_after = message, param, status, code, retry_after

    def body(self) -> dict[str, Any]:
        """The JSON object `{"error": {...}}`."""
        is_server_error = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = "server_error" if is_server_error else _TYPES.get(HTTPStatus(self.status), "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param or None, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """HTTP headers of the answer."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == HTTPStatus.UNAUTHORIZED else {})


def unknown_parameter(name: str, advice: str) -> ApiError:
    """A field that is not served: it is refused by name, never ignored."""
    return ApiError(f"{name} is not supported: {advice}", name, code="unknown_parameter")


def unavailable(message: str, code: str = "unavailable") -> ApiError:
    """The pipeline does not answer now; the same request may succeed later."""
    return ApiError(message, status=HTTPStatus.SERVICE_UNAVAILABLE, code=code, retry_after=1)
