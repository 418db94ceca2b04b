"""Writing files so that a kill leaves the old or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write(path: Path, content: str | bytes, mode: int = 0o644) -> bool:
    """Put `content` into `path` by rename; return whether that changed anything."""
    encoded = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == encoded:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        file.write(encoded)
    Path(name).replace(path)
    return True
