"""Where things lie: the checkout and the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.common.paths import ROOT, cache_directory

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Folders that a build reads and writes."""

    root: Path
    cache: Path

    @property
    def downloads(self) -> Path:
        """Wheels and exported requirements, by content."""
        return self.cache / "downloads"

    @property
    def storage(self) -> Path:
        """Buildah's images; ours alone, so that the host's own images stay untouched."""
        return self.cache / "storage"

    @property
    def logs(self) -> Path:
        """One log for each image."""
        return self.cache / "logs"


def default_paths() -> Paths:
    """Return the paths of this checkout, with the cache that the environment names."""
    return Paths(root=ROOT, cache=cache_directory() / "images")
