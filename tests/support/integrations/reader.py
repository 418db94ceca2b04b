"""Somebody who follows a page of the documentation: its commands, in a shell, with names of their own."""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.cluster.kube import eventually
from tests.support.documents import typed_lines
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_COMMAND_SECONDS = 1800
_PORT_SECONDS = 60


@dataclass(frozen=True)
class Reader:
    """A person at a shell in the checkout.

    Attributes:
        environment: of the shell.
        names: name in the documentation → the person's own.
    """

    environment: Mapping[str, str]
    names: Mapping[str, str]

    def lines(self, document: Path, heading: str) -> list[str]:
        """The commands of a section, with the person's own names.

        Raises:
            AssertionError: A name that is to be replaced does not occur.
        """
        text = "\n".join(typed_lines(document, heading))
        for name, own in self.names.items():
            assert name in text, f"{heading} of {document} does not say {name}"
            text = text.replace(name, own)
        return text.splitlines()

    def type(self, line: str) -> str:
        """Run a line to its end; return what it printed.

        Raises:
            AssertionError: It failed; with its output.
        """
        process = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", line],
            cwd=ROOT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
        assert process.returncode == 0, f"{line}\n{process.stdout}\n{process.stderr}"
        return process.stdout

    @contextmanager
    def type_in_background(self, line: str, port: int) -> Iterator[None]:
        """Run a line that ends with `&` while the block runs, which begins when the local port answers."""
        command = f"exec {line.removesuffix('&').strip()}"
        with subprocess.Popen(["/bin/bash", "-c", command], cwd=ROOT, env=dict(self.environment)) as process:
            try:
                eventually(lambda: _answers(port), _PORT_SECONDS, f"{line}: port {port} answers")
                yield
            finally:
                process.terminate()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
