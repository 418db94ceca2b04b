"""How a command ends: its result on stdout and in a file, its error as one readable block, its exit code."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffusion_builder.errors import BuilderError, ExitCode, Reason
from diffusion_builder.stages.progress import Mode, reporter
from diffusion_builder.store import Store
from diffusion_contract.limits import MAX_ERROR_MESSAGE, MAX_RESULT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion_builder.stages.run import Result, StageContext


store_option = click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the artifact store."
)
result_option = click.option(
    "--result", type=click.Path(path_type=Path, dir_okay=False), help="File for the JSON result or error."
)


def stage_command(group: click.Group, name: str | None = None) -> Callable[[Callable[..., Result]], click.Command]:
    """Make a command of a function that is given the stage's context and the command's options.

    Args:
        group: that it becomes part of.
        name: of the command, if it is not the function's.
    """

    def decorate(work: Callable[..., Result]) -> click.Command:
        @wraps(work)
        def command(mode: Mode, /, store: Path, result: Path | None, **options: Any) -> None:  # noqa: ANN401 - click's
            run_command(mode, store, result, lambda context: work(context, **options))

        return group.command(name)(store_option(result_option(click.pass_obj(command))))

    return decorate


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: exit code and JSON result."""

    code: ExitCode
    result: Result


def run_command(mode: Mode, root: Path, file: Path | None, work: Callable[[StageContext], Result]) -> Result:
    """Run a stage, print and write its result, and leave with its exit code when it failed."""
    outcome = _run(mode, root, work)
    text = _fit_result(outcome.result)
    if file is not None:
        file.write_text(text + "\n")
    if outcome.code is not ExitCode.OK:
        raise SystemExit(int(outcome.code))
    click.echo(text)
    return outcome.result


def _fit_result(result: Result) -> str:
    """JSON of a result; what is too long is cut in its longest lists, and `omitted` says how much of which."""
    body: dict[str, Any] = dict(result)
    omitted: dict[str, int] = {}
    while len(text := json.dumps(body if not omitted else {**body, "omitted": omitted}) + "\n") > MAX_RESULT_BYTES:
        name = max((key for key, value in body.items() if isinstance(value, list | dict)), key=lambda k: len(body[k]))
        entries = list(body[name].items()) if isinstance(body[name], dict) else body[name]
        retained = entries[: len(entries) // 2]
        omitted[name] = omitted.get(name, 0) + len(entries) - len(retained)
        body[name] = dict(retained) if isinstance(body[name], dict) else retained
    return text.rstrip("\n")


def _run(mode: Mode, root: Path, work: Callable[[StageContext], Result]) -> CommandResult:
    from diffusion_builder.stages.run import StageContext

    try:
        with reporter(mode) as progress:
            return CommandResult(ExitCode.OK, work(StageContext(Store(root), progress)))
    except BuilderError as error:
        return _failed(error.exit_code, error.reason, error.message)
    except click.ClickException:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is reported as one
        traceback.print_exc()
        return _failed(
            ExitCode.INTERNAL, Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}. Please report this."
        )


def _failed(code: ExitCode, reason: Reason, message: str) -> CommandResult:
    print_error(reason, message)
    return CommandResult(code, {"error": {"reason": str(reason), "message": message[:MAX_ERROR_MESSAGE]}})


def print_error(reason: Reason, message: str) -> None:
    """Show an error as one readable block."""
    click.echo(f"error: {reason}\n  {message}", err=True)
