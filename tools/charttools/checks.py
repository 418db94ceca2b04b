"""The checkers on rendered charts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tools.charttools import allowlist, programs
from tools.charttools.schemas import LOCATION, write
from tools.common.errors import ToolError
from tools.common.shell import attempt

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SECONDS = 300


def kubeconform(manifests: Path, openapi: dict[str, Any], folder: Path) -> int:
    """Check every object under a folder strictly against its schema; return how many were checked.

    Args:
        manifests: folder of YAML files.
        openapi: answer of an API server at /openapi/v2.
        folder: for the schemas.

    Raises:
        ToolError: what does not fit.
    """
    write(openapi, folder)
    command = [str(programs.ensure_built(programs.KUBECONFORM)), "-strict", "-output", "json", "-summary"]
    command += ["-schema-location", f"{folder}/{LOCATION}", "-skip", ",".join(allowlist.NO_SCHEMA), str(manifests)]
    return int(json.loads(_run(command))["summary"]["valid"])


def kube_score(manifests: Path, exemptions: Iterable[str] = ()) -> None:
    """Check a file for what makes workloads fragile or unsafe.

    Args:
        manifests: YAML file.
        exemptions: checks to leave out besides those that are left out of every file.

    Raises:
        ToolError: what it finds.
    """
    # Requests are set; limits for CPU would only slow the operator down.
    command = [str(programs.ensure_built(programs.KUBE_SCORE)), "score", "--ignore-container-cpu-limit"]
    command += [part for name in (*allowlist.KUBE_SCORE, *exemptions) for part in ("--ignore-test", name)]
    _run([*command, "--output-format", "ci", str(manifests)])


def actionlint(*workflows: Path) -> None:
    """Check workflow files.

    Raises:
        ToolError: what it finds.
    """
    _run([str(programs.ensure_built(programs.ACTIONLINT)), "-no-color", *map(str, workflows)])


def _run(command: list[str]) -> str:
    process = attempt(command, seconds=_SECONDS)
    if process.returncode:
        raise ToolError(f"{command[0]} found faults", detail=process.stdout + process.stderr)
    return process.stdout
