"""Other programs: kubectl, helm, and the project's own drivers."""

from __future__ import annotations

import json
import os
import subprocess
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from examples.demo_support.errors import DemoError
from examples.demo_support.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TAIL_LINES = 12


@dataclass(frozen=True)
class Tools:
    """Runs programs with one environment; what fails becomes one readable error."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def output(self, *command: str, stdin: str | None = None, what: str = "") -> str:
        """Return standard output; DemoError with the program's own words where it fails."""
        try:
            process = subprocess.run(  # noqa: S603 - the demo's own commands
                command,
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                cwd=ROOT,
                env=self.environment,
            )
        except FileNotFoundError:
            raise DemoError(f"{command[0]} is not installed. Install it and run this again.") from None
        if process.returncode != 0:
            words = (process.stderr or process.stdout).strip()
            raise DemoError(f"{what or ' '.join(command[:3])} failed (exit {process.returncode}):\n{words[-2000:]}")
        return process.stdout

    def data(self, *command: str) -> bytes:
        """Return standard output as bytes; empty where the program fails."""
        process = subprocess.run(command, capture_output=True, check=False, cwd=ROOT, env=self.environment)  # noqa: S603 - the demo's own commands
        return process.stdout if process.returncode == 0 else b""

    def follow(self, command: Sequence[str], tell: Callable[[str], None], *, what: str) -> None:
        """Run to the end and tell each line of output; DemoError with the last lines where it fails."""
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with subprocess.Popen(  # noqa: S603 - the demo's own commands
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environment,
        ) as process:
            for line in process.stdout or ():
                if line.strip():
                    tail.append(line.rstrip())
                    tell(line.strip())
        if process.returncode != 0:
            raise DemoError(f"{what} failed (exit {process.returncode}):\n" + "\n".join(tail))

    def kubectl_json(self, *arguments: str) -> dict[str, Any]:
        """Return what kubectl answers as JSON; an empty dict where the object is not there."""
        text = self.output("kubectl", *arguments, "--ignore-not-found", "-o", "json")
        document: dict[str, Any] = json.loads(text) if text.strip() else {}
        return document

    def apply(self, manifest: str) -> None:
        """Apply a manifest by server-side apply."""
        fixed = ("kubectl", "apply", "--server-side", "--force-conflicts", "--field-manager=demo", "-f", "-")
        self.output(*fixed, stdin=manifest, what="kubectl apply")

    def with_environment(self, variables: Mapping[str, str]) -> Tools:
        """Return the same with further variables."""
        return Tools({**self.environment, **variables})
