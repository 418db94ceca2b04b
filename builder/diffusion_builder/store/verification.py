"""Hash everything that is published, and compare it with the manifests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, Reason, StoreError
from diffusion_builder.store.manifest import MANIFEST, Artifact, FileEntry, Kind, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusion_builder.store.core import Store


@dataclass(frozen=True)
class Damage:
    """Problem of one path of the store."""

    path: Path
    problem: str


@dataclass(frozen=True)
class StoreReport:
    """Number of compared artifacts, and their damages."""

    artifacts: int
    size: int
    damages: tuple[Damage, ...]


def verify_store(
    store: Store, on_artifact: Callable[[str], None] = lambda _name: None, prefix: str = ""
) -> StoreReport:
    """Compare every file of every artifact with its manifest; nothing stops at the first damage.

    Args:
        store: the store; a read-only one will do.
        on_artifact: called with each artifact's kind and digest before it is read.
        prefix: only artifacts whose digest begins so.

    Raises:
        BadInputError: there is no artifact with this prefix.
    """
    count, size = 0, 0
    damages: list[Damage] = []
    for kind, digest in store.names():
        if not digest.startswith(prefix):
            continue
        on_artifact(f"{kind}/{digest}")
        count += 1
        try:
            artifact = store.find(kind, digest)
        except StoreError as error:
            damages.append(Damage(store.folder(kind, digest), error.message))
            continue
        if artifact is None:
            damages.append(Damage(store.folder(kind, digest), f"it has no {MANIFEST}"))
            continue
        size += artifact.manifest.size
        damages += _damages(store, artifact)
    if prefix and not count:
        raise BadInputError(Reason.ARTIFACT_NOT_FOUND, f"no artifact of the store {store.root} begins with {prefix}")
    return StoreReport(count, size, tuple(damages))


def _damages(store: Store, artifact: Artifact) -> Iterator[Damage]:
    folder, manifest = artifact.path, artifact.manifest
    if manifest.digest != Recipe(manifest.kind, manifest.inputs).digest:
        yield Damage(folder / MANIFEST, "its inputs do not give its name")
    for name, entry in manifest.files.items():
        if problem := file_problem(folder / name, entry):
            yield Damage(folder / name, problem)
    for name, target in manifest.links.items():
        if problem := _link_problem(store, folder / name, target):
            yield Damage(folder / name, problem)
    published = {*manifest.files, *manifest.links, MANIFEST}
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).as_posix() not in published and (path.is_symlink() or not path.is_dir()):
            yield Damage(path, "it is not in the manifest")


def file_problem(path: Path, entry: FileEntry) -> str:
    """What differs from the manifest; empty for a sound file."""
    try:
        if path.is_symlink() or not path.is_file():
            return "it should be a file"
        if path.stat().st_size != entry.size:
            return f"it has {path.stat().st_size} bytes, it was published with {entry.size}"
        actual_sha256 = digests.file_digest(path)
    except OSError as error:
        return str(error.strerror)
    return (
        "" if actual_sha256 == entry.sha256 else f"its SHA-256 is {actual_sha256}, it was published as {entry.sha256}"
    )


def _link_problem(store: Store, path: Path, target: str) -> str:
    if not path.is_symlink() or str(path.readlink()) != target:
        return f"it should be a link to {target}"
    kinds = [store.root.resolve() / kind for kind in Kind]
    resolved = path.resolve()
    if not any(resolved.is_relative_to(kind) for kind in kinds):
        return f"it leads out of the store, to {target}"
    return "" if resolved.is_file() else f"it leads to {target}, which is gone"
