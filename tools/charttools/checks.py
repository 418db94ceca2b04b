"""The checkers on rendered charts."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from tools.charttools import exceptions, programs
from tools.charttools.errors import ChartError
from tools.charttools.schemas import LOCATION, write

if TYPE_CHECKING:
    from pathlib import Path


def kubeconform(manifests: Path, openapi: dict[str, Any], folder: Path) -> int:
    """Check every object under a folder strictly against its schema; return how many were checked.

    Args:
        manifests: folder of YAML files.
        openapi: answer of an API server at /openapi/v2.
        folder: for the schemas.

    Raises:
        ChartError: what does not fit.
    """
    write(openapi, folder)
    command = [str(programs.built(programs.KUBECONFORM)), "-strict", "-output", "json", "-summary"]
    command += ["-schema-location", f"{folder}/{LOCATION}", "-skip", ",".join(exceptions.NO_SCHEMA), str(manifests)]
    answer = _run(command)
    return int(json.loads(answer)["summary"]["valid"])


def kube_score(manifests: Path) -> None:
    """Check a file for what makes workloads fragile or unsafe.

    Raises:
        ChartError: what it finds.
    """
    # Requests are set; limits for CPU would only slow the operator down.
    command = [str(programs.built(programs.KUBE_SCORE)), "score", "--ignore-container-cpu-limit"]
    command += [part for name in exceptions.KUBE_SCORE for part in ("--ignore-test", name)]
    _run([*command, "--output-format", "ci", str(manifests)])


def actionlint(*workflows: Path) -> None:
    """Check workflow files.

    Raises:
        ChartError: what it finds.
    """
    _run([str(programs.built(programs.ACTIONLINT)), "-no-color", *map(str, workflows)])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise ChartError(f"{command[0]}:\n{done.stdout}{done.stderr}")
    return done.stdout
