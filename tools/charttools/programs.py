"""Checkers from Go modules, built once per version into the cache."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.common.paths import cache_directory
from tools.common.shell import run
from tools.devcluster.build import find_go
from tools.devcluster.layout import default_root, layout_at


@dataclass(frozen=True)
class Program:
    """A program, its Go package, and the version of its module; Go's checksum database vouches for the content."""

    name: str
    package: str
    version: str


KUBECONFORM: Final = Program("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", "v0.8.0")
KUBE_SCORE: Final = Program("kube-score", "github.com/zegl/kube-score/cmd/kube-score", "v1.20.0")
ACTIONLINT: Final = Program("actionlint", "github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12")


def ensure_built(program: Program) -> Path:
    """Where the program is; it is built when it is not there yet.

    Raises:
        ToolError: the build failed; carries the end of its output.
    """
    entry = cache_directory() / "checkers" / f"{program.name}-{program.version}" / program.name
    if not entry.is_file():
        _build(program, entry)
    return entry


def _build(program: Program, entry: Path) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    # Beside the entry: a rename publishes it, so a build that was killed leaves nothing that is trusted.
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".build-") as folder:
        go = str(find_go(layout_at(default_root()), print))
        command = ["nice", go, "install", "-trimpath", "-ldflags=-s -w", f"{program.package}@{program.version}"]
        settings = {"GOBIN": folder, "GOROOT": "", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
        run(command, what=f"building {program.name} {program.version}", env=settings, cwd=Path(folder))
        shutil.move(Path(folder) / program.name, entry)
