"""Lines as trtexec writes them."""

from __future__ import annotations

import sys
import time


def _write(severity: str, message: str) -> None:
    stamp = time.strftime("%m/%d/%Y-%H:%M:%S")
    stream = sys.stderr if severity == "E" else sys.stdout
    print(f"[{stamp}] [{severity}] {message}", file=stream, flush=True)


def info(message: str) -> None:
    """Say what is being done."""
    _write("I", message)


def warning(message: str) -> None:
    """Say what may be wrong."""
    _write("W", message)


def error(message: str) -> None:
    """Say what is wrong."""
    _write("E", message)


def library(severity: str, message: str) -> None:
    """Pass a message of the library on."""
    _write(severity, f"[TRT] {message}")


def report(result: str, name: str) -> None:
    """The lines around everything else."""
    sys.stdout.write(f"&&&& {result} {name}\n")
    sys.stdout.flush()
