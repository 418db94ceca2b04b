"""Compare a repository and everything it links to with what was published. Standard library only.

Runs in front of every server: a file that was cut off or changed on the volume must never be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_builder import digests
from diffusion_builder.errors import Reason, StoreError
from diffusion_builder.store import Artifact, Kind, Store
from diffusion_builder.store.verification import file_problem

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class VerifyReport:
    """Number of compared files."""

    files: int
    size: int


def verify(store: Store, repository: Artifact) -> VerifyReport:
    """Check every file of a repository and of the artifacts that it links to.

    Raises:
        StoreError: with the first file that is missing, of another size or content, or links elsewhere.
    """
    artifacts = {repository.path: repository}
    for name, target in repository.manifest.links.items():
        linked = _linked_artifact(store, repository, name, target)
        artifacts[linked.path] = linked
    for artifact in artifacts.values():
        for name, entry in artifact.manifest.files.items():
            if problem := file_problem(artifact.path / name, entry):
                raise _damaged(artifact.path / name, problem)
    manifests = [artifact.manifest for artifact in artifacts.values()]
    return VerifyReport(sum(len(item.files) for item in manifests), sum(item.size for item in manifests))


def _linked_artifact(store: Store, repository: Artifact, name: str, target: str) -> Artifact:
    """The artifact that a link of the repository leads to, by name and not by following it."""
    path = repository.path / name
    if not path.is_symlink() or str(path.readlink()) != target:
        raise _damaged(path, f"it should be a link to {target}")
    for kind, digest, file in _split(target):
        artifact = store.find(kind, digest)
        if artifact is None:
            raise _damaged(path, f"{kind}/{digest} is gone from the store")
        if file in artifact.manifest.files:
            return artifact
    raise _damaged(path, f"it links to {target}, which is no file of the store")


def _split(target: str) -> Iterator[tuple[Kind, str, str]]:
    """Read `../../<kind>/<digest>/<file>`."""
    parts = [part for part in Path(target).parts if part != ".."]
    if len(parts) >= 3 and parts[0] in set(Kind) and digests.is_digest(parts[1]):  # noqa: PLR2004 - see above
        yield Kind(parts[0]), parts[1], "/".join(parts[2:])


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(
        Reason.ARTIFACT_DAMAGED, f"{path} is damaged: {why}. Delete its artifact's folder and let it be built again"
    )
