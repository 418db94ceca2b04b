"""The frame of every tool's command line: exit codes, and errors as one readable block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tools.common.errors import BAD_INPUT, ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130


def run_command(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        command: The command or group.
        program: How it is called, for its help.
        arguments: Its arguments; those of this process where None.

    Returns:
        Exit status: 0, 1 (something failed), 64 (change something) or 130 (interrupted).
    """
    try:
        command.main(args=arguments, prog_name=program, standalone_mode=False)
    except ToolError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return BAD_INPUT
    except click.Abort:
        click.echo("interrupted: run the same command again to continue", err=True)
        return _INTERRUPTED
    return 0
