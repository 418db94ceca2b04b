"""What can go wrong in a stage, each with a reason, a message that says what to do, and an exit code."""

from __future__ import annotations

from diffusion_contract.enums import ExitCode
from diffusion_contract.reasons import Reason

__all__ = ["BadInputError", "BuilderError", "ExitCode", "Reason", "SmokeTestError", "StoreError", "UnavailableError"]


class BuilderError(Exception):
    """Base of everything that is reported without a traceback.

    Args:
        reason: what kind of problem it is.
        message: one or two sentences: what was wrong, where, and what to do.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class BadInputError(BuilderError):
    """The same input can never succeed; retrying is pointless."""

    exit_code = ExitCode.BAD_INPUT


class UnavailableError(BuilderError):
    """Something outside is not there right now; trying again later is right."""

    exit_code = ExitCode.UNAVAILABLE


class StoreError(BuilderError):
    """The store cannot be read or written as it should."""

    exit_code = ExitCode.STORE


class SmokeTestError(BuilderError):
    """A running server does not answer as it should (yet)."""

    exit_code = ExitCode.NOT_READY
