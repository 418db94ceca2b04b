"""The one error of the Python models."""

from __future__ import annotations


class InvalidRequest(ValueError):  # noqa: N818 - named for what it is, as the HTTP status is
    """A request cannot be answered; the message is for its sender: what is wrong, and what to send."""
