"""The one error that ends a command with a readable block instead of a traceback."""

from __future__ import annotations

BAD_INPUT = 64
FAILED = 1


class DevclusterError(Exception):
    """What was wrong, and what to do about it.

    Attributes:
        exit_code: 64 when the caller or the machine must change something, 1 when a component failed.
    """

    def __init__(self, what: str, *, do: str = "", detail: str = "", exit_code: int = FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.do = do
        self.detail = detail
        self.exit_code = exit_code

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        lines += [f"  | {line}" for line in self.detail.splitlines()]
        if self.do:
            lines.append(f"  do: {self.do}")
        return "\n".join(lines)


def bad_input(what: str, *, do: str, detail: str = "") -> DevclusterError:
    """Return an error about something that the caller or the machine must change (exit code 64)."""
    return DevclusterError(what, do=do, detail=detail, exit_code=BAD_INPUT)
