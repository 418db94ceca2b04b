"""The one error that ends a tool's command with a readable block instead of a traceback."""

from __future__ import annotations

BAD_INPUT = 64
FAILED = 1


class ToolError(Exception):
    """What was wrong, and what to do about it.

    Attributes:
        what: One sentence about what was wrong, and where.
        do: What the reader can do about it; empty where `what` says it.
        detail: Output of another program.
        exit_code: 64 when the caller or the machine must change something, 1 when something failed.
    """

    def __init__(self, what: str, *, do: str = "", detail: str = "", exit_code: int = FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.do = do
        self.detail = detail
        self.exit_code = exit_code

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  | {line}" for line in self.detail.splitlines()]
        if self.do:
            lines.append(f"  do: {self.do}")
        return "\n".join(lines)


def bad_input(what: str, *, do: str, detail: str = "") -> ToolError:
    """Return an error about something that the caller or the machine must change (exit code 64)."""
    return ToolError(what, do=do, detail=detail, exit_code=BAD_INPUT)
