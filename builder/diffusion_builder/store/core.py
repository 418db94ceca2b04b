"""Find and publish artifacts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, BuilderError, Reason, StoreError
from diffusion_builder.store import errors, last_used, staging
from diffusion_builder.store.manifest import MANIFEST, Artifact, FileEntry, Kind, Manifest, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    # Fills an empty folder and returns the manifest's `extra`.
    Writer = Callable[[Path], Mapping[str, Any]]

# Below this a filesystem is full, whatever words a library has found for it.
_FULL_BYTES = 64 << 10


class Store:
    """A folder of artifacts that several processes and machines may use at once.

    Args:
        root: the folder; made by the first writer.
        clock: returns Unix time in seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.clock = clock

    def folder(self, kind: Kind, digest: str) -> Path:
        """Where the artifact is or would be."""
        return self.root / kind / digest

    def find(self, kind: Kind, digest: str) -> Artifact | None:
        """The artifact, or None when it has not been published.

        Raises:
            StoreError: it is there but its manifest is damaged, or the store cannot be read.
        """
        path = self.folder(kind, digest)
        try:
            text = (path / MANIFEST).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise errors.store_error(error, self.root) from error
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        try:
            manifest = Manifest.from_json(text)
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        if (manifest.kind, manifest.digest) != (kind, digest):
            raise _damaged(path, f"it belongs to {manifest.kind}/{manifest.digest}")
        return Artifact(path, manifest)

    def use(self, kind: Kind, digest: str) -> Artifact | None:
        """The artifact as `find` has it, safe from garbage collection for its grace time."""
        artifact = self.find(kind, digest)
        if artifact is None:
            return None
        last_used.record_use(self.root, digest, self.clock())
        # Collection looks for the mark after it has moved an artifact away. So either it sees ours, or we see this.
        return artifact if (artifact.path / MANIFEST).exists() else None

    def get(self, kind: Kind, digest: str) -> Artifact:
        """Artifact of an earlier stage.

        Raises:
            BadInputError: there is none, or the digest is not one.
            StoreError: as in `find`.
        """
        if not digests.is_digest(digest):
            raise BadInputError(
                Reason.INVALID_ARGUMENT, f"{digest!r} is not a digest: 64 lower-case hex digits are expected"
            )
        artifact = self.use(kind, digest)
        if artifact is None:
            raise BadInputError(
                Reason.ARTIFACT_NOT_FOUND,
                f"the store {self.root} has no {kind}/{digest}: run the stage that makes it first",
            )
        return artifact

    def publish(self, recipe: Recipe, write: Writer) -> tuple[Artifact, bool]:
        """Return the artifact of a recipe, making it when it is not there.

        Args:
            recipe: names the artifact.
            write: fills the staging folder; only called when needed.

        Returns:
            The artifact, and whether it was there already.

        Raises:
            StoreError: no space, read-only, or otherwise not writable.
        """
        digest = recipe.digest
        present = self.use(recipe.kind, digest)
        if present is not None:
            return present, True
        parent = self.root / recipe.kind
        try:
            parent.mkdir(parents=True, exist_ok=True)
            staging.sweep(parent, self.clock(), digest if recipe.resumable else None)
            errors.require_space(parent, recipe.required_bytes)
            with staging.staging(parent, digest, self.clock, resumable=recipe.resumable) as folder:
                self._fill(recipe, folder, write)
                final = self.folder(recipe.kind, digest)
                staging.publish(folder, final, replace=final.exists() and not (final / MANIFEST).exists())
        except OSError as error:
            raise errors.store_error(error, self.root, recipe.required_bytes) from error
        return self.get(recipe.kind, digest), False

    def artifacts(self) -> Iterator[Artifact]:
        """All published artifacts, by kind and digest.

        Raises:
            StoreError: as in `find`.
        """
        for kind, digest in self.names():
            artifact = self.find(kind, digest)
            if artifact is not None:
                yield artifact

    def names(self) -> Iterator[tuple[Kind, str]]:
        """Kind and digest of everything that is published, readable or not."""
        for kind in Kind:
            for path in sorted((self.root / kind).glob("*")):
                if digests.is_digest(path.name):
                    yield kind, path.name

    def _fill(self, recipe: Recipe, folder: Path, write: Writer) -> None:
        began = time.monotonic()
        try:
            extra = write(folder)
            manifest = self._manifest(recipe, folder, extra, time.monotonic() - began)
            (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        except StoreError:
            raise
        except OSError as error:
            raise errors.store_error(error, self.root, max(recipe.required_bytes, _size(folder))) from error
        except (BuilderError, RuntimeError, ValueError) as error:
            # Libraries report a full disk in many ways, as a broken model among others.
            if errors.free(folder) < _FULL_BYTES:
                raise errors.store_full_error(self.root, max(recipe.required_bytes, _size(folder))) from error
            raise

    def _manifest(self, recipe: Recipe, folder: Path, extra: Mapping[str, Any], seconds: float) -> Manifest:
        files: dict[str, FileEntry] = {}
        links: dict[str, str] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                links[name] = str(path.readlink())
            elif path.is_file():
                files[name] = FileEntry(digests.file_digest(path), path.stat().st_size)
        return Manifest(
            recipe.kind, recipe.digest, recipe.inputs, files, links, recipe.tools,
            round(seconds, 3), round(self.clock(), 3), extra,
            tuple(sorted({artifact.manifest.digest for artifact in recipe.derived_from})),
        )  # fmt: skip


def _size(folder: Path) -> int:
    """Bytes in the writer's folder and its scratch folder; 0 where they are going away."""
    try:
        paths = (*folder.rglob("*"), *staging.scratch_of(folder).rglob("*"))
        return sum(path.stat().st_size for path in paths if path.is_file())
    except OSError:
        return 0


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(
        Reason.ARTIFACT_DAMAGED, f"{path / MANIFEST} is damaged ({why}); delete {path} and build it again"
    )
