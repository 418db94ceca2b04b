"""Where things lie: the checkout and the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
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
    cache = os.environ.get("DIFFUSION_OPERATOR_CACHE") or str(Path.home() / ".cache" / "diffusion-operator")
    return Paths(root=Path(__file__).resolve().parents[2], cache=Path(cache) / "images")
