"""Steps that the conformance tests share: a checkpoint → graphs → plans, through the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SKU = "NVIDIA-L4"
EVERYTHING = os.environ.get("CONFORMANCE") == "everything"
"""Whether this is `make test-conformance`; `make test` leaves out what takes minutes and is much like what it has."""


class StageError(Exception):
    """A stage ended with an error; the message is its output."""


@dataclass(frozen=True)
class Workshop:
    """A store, and the test-only programs that are first on PATH.

    Args:
        store: folder of the store.
        programs: folder with trtexec and nvidia-smi.
    """

    store: Path
    programs: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for processes that are to find the programs, and our packages."""
        paths = [str(ROOT / "contract"), str(ROOT / "builder"), str(ROOT)]
        return os.environ | {
            "PATH": os.pathsep.join((str(self.programs), os.environ["PATH"])),
            "PYTHONPATH": os.pathsep.join(paths),
        }

    def stage(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run a stage as a Job would; returns its result.

        Raises:
            StageError: it failed.
        """
        command = [sys.executable, "-m", "diffusion_builder", "--progress", "plain", name, "--store", str(self.store)]
        process = subprocess.run(
            [*command, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        if process.returncode:
            raise StageError(f"{name} ended with {process.returncode}:\n{process.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(process.stdout)
        return result

    def compile_plan(self, onnx: str, shapes: str, *options: str) -> dict[str, Any]:
        """Compile a graph for the SKU."""
        return self.stage(
            "compile", "--onnx", onnx, "--runtime", "tensorrt", "--sku", SKU, "--shapes", shapes,
            *options,
        )  # fmt: skip

    def engine(self, result: dict[str, Any]) -> Path:
        """Folder of a compiled plan."""
        return self.store / "engines" / str(result["digest"])
