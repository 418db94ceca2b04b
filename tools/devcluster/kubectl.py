"""kubectl with the administrator's rights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tools.common.shell import attempt, run

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl against the cluster."""

    program: Path
    kubeconfig: Path

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return what it printed; raises ToolError when it fails."""
        return run(self._argv(*arguments), stdin=stdin)

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run kubectl, which may fail."""
        return attempt(self._argv(*arguments))

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object or a list; raises ToolError when there is none."""
        document: dict[str, Any] = json.loads(self.run("get", "-o", "json", *arguments))
        return document

    def apply(self, objects: list[dict[str, Any]]) -> None:
        """Apply objects from the server's side."""
        document = {"apiVersion": "v1", "kind": "List", "items": objects}
        flags = ("--server-side", "--force-conflicts", "--field-manager=devcluster")
        self.run("apply", *flags, "-f", "-", stdin=json.dumps(document))

    def _argv(self, *arguments: str) -> list[str | Path]:
        return [self.program, f"--kubeconfig={self.kubeconfig}", "--request-timeout=20s", *arguments]
