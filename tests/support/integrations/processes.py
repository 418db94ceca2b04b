"""Controllers that run on the host beside the cluster, where its pods, Services and API server are reachable."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from tests.support.cluster.kube import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# Where pods and the API server reach programs of the host (docs/devcluster.md).
HOST = "10.212.0.1"
_STOP_SECONDS = 30
_START_SECONDS = 120


@dataclass(frozen=True)
class Program:
    """What to start.

    Attributes:
        ready: URL that answers 200 once the program is ready.
        log: file that gets its output.
    """

    argv: Sequence[str | Path]
    ready: str
    log: Path
    environment: Mapping[str, str]


@contextmanager
def running(program: Program) -> Iterator[None]:
    """Run the program while the block runs; AssertionError with the end of its log where it does not get ready."""
    argv = [str(word) for word in program.argv]
    with (
        program.log.open("wb") as log,
        subprocess.Popen(argv, stdout=log, stderr=log, env=dict(program.environment)) as process,
    ):
        try:
            eventually(lambda: _is_ready(process, program), _START_SECONDS, lambda: _complaint(program))
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _is_ready(process: subprocess.Popen[bytes], program: Program) -> bool:
    assert process.poll() is None, _complaint(program)
    try:
        # The certificates are the test's own.
        return httpx.get(program.ready, verify=False, timeout=5).status_code == httpx.codes.OK  # noqa: S501
    except httpx.TransportError:
        return False


def _complaint(program: Program) -> str:
    return f"{program.argv[0]} is ready at {program.ready}\n{program.log.read_text(errors='replace')[-3000:]}"
