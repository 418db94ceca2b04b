"""Plans that were compiled before from the same bytes, so that tests compile only graphs that have changed.

What comes before the compilation, the ONNX parser and the profiles, is never skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FOLDER_VARIABLE = "TEST_TRTEXEC_PLANS"
"""Environment variable that names the folder; without it nothing is cached."""
_LARGEST_BYTES = 64 << 20
_UNUSED_SECONDS = 30 * 86400.0
_PLAN, _LOG, _DIGEST = "model.plan", "log.json", "sha256"

Message = tuple[str, str]
"""Severity, and what the library says."""


@dataclass(frozen=True)
class CompiledPlan:
    """A plan with the messages of its compilation."""

    plan: bytes
    messages: tuple[Message, ...]


def compilation_key(graph: Path, settings: Iterable[str]) -> str:
    """Digest of everything that decides what a compilation comes to.

    Args:
        graph: the ONNX file; its weights lie beside it, in files whose names begin with its name.
        settings: compiler, version and options, each as text.
    """
    digest = hashlib.sha256(json.dumps(list(settings)).encode())
    for path in sorted(graph.parent.glob(f"{graph.name}*")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class PlanCache:
    """Folder with one folder per compilation, which appears whole or not at all."""

    folder: Path

    def read(self, key: str) -> CompiledPlan | None:
        """Return what the compilation came to; None where it was not made before, or its files are damaged."""
        entry = self.folder / key
        try:
            plan, log = (entry / _PLAN).read_bytes(), json.loads((entry / _LOG).read_text())
            is_whole = log[_DIGEST] == hashlib.sha256(plan).hexdigest()
        except (OSError, ValueError, KeyError):
            return None
        if not is_whole:
            return None
        os.utime(entry)
        return CompiledPlan(plan, tuple((severity, text) for severity, text in log["messages"]))

    def write(self, key: str, compiled: CompiledPlan) -> None:
        """Add a compilation, unless it is large, and remove those that were not read for a month."""
        if len(compiled.plan) > _LARGEST_BYTES:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_unused()
        staging = self.folder / f".tmp-{secrets.token_hex(4)}"
        staging.mkdir()
        try:
            (staging / _PLAN).write_bytes(compiled.plan)
            log = {_DIGEST: hashlib.sha256(compiled.plan).hexdigest(), "messages": compiled.messages}
            (staging / _LOG).write_text(json.dumps(log))
            # One that cannot be read gives way to the new one.
            shutil.rmtree(self.folder / key, ignore_errors=True)
            staging.rename(self.folder / key)
        except OSError:
            # Another process was faster.
            shutil.rmtree(staging, ignore_errors=True)

    def _remove_unused(self) -> None:
        limit = time.time() - _UNUSED_SECONDS
        for entry in self.folder.iterdir():
            if entry.stat().st_mtime < limit:
                shutil.rmtree(entry, ignore_errors=True)
