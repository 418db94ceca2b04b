"""Charts as OCI artifacts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tools.common.errors import ToolError
from tools.common.shell import attempt
from tools.release.files import CHARTS, find_helm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def push_charts(folder: Path, address: str, options: Sequence[str] = ()) -> list[str]:
    """Push the packaged charts of a folder.

    Args:
        folder: With one `CHART-VERSION.tgz` per chart.
        address: `REGISTRY/PATH` below which they go.
        options: Of `helm push`: `--plain-http`, `--ca-file`.

    Returns:
        `REGISTRY/PATH/CHART@sha256:…` of each.

    Raises:
        ToolError: Helm cannot push, or names no digest.
    """
    return [_push(_package(folder, chart), address, options) for chart in CHARTS]


def _package(folder: Path, chart: str) -> Path:
    [package] = folder.glob(f"{chart}-[0-9]*.tgz")
    return package


def _push(package: Path, address: str, options: Sequence[str]) -> str:
    process = attempt([find_helm(), "push", package, f"oci://{address}", *options])
    output = process.stdout + process.stderr
    reference = re.search(r"^Pushed: (\S+):\S+$", output, flags=re.MULTILINE)
    digest = re.search(r"^Digest: (sha256:[0-9a-f]{64})$", output, flags=re.MULTILINE)
    if process.returncode or not reference or not digest:
        raise ToolError(f"helm could not push {package.name} to {address}", detail=output.strip())
    return f"{reference[1]}@{digest[1]}"
