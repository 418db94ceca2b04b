"""The content-addressed store: immutable directories named by digest, each with a `manifest.json`.

An artifact is written to `.tmp-*` beside its final place, flushed to disk and renamed, so that it is either
there and complete or not there at all, whatever kills the writer. Of two writers of the same artifact the first
to rename wins and the other drops its copy. Ages are taken from names, never from file times: network filesystems
disagree about those.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, Reason, StoreError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_STAGING = ".tmp-"
# Longer than any Job is allowed to run: an older staging folder belongs to a writer that was killed.
STAGING_GRACE_SECONDS = 24 * 3600
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


class Kind(StrEnum):
    """Folders of the store, one per kind of artifact."""

    SOURCE = "sources"
    ONNX = "onnx"
    ENGINE = "engines"
    REPOSITORY = "repositories"


@dataclass(frozen=True)
class FileEntry:
    """A regular file of an artifact: SHA-256 as hex, size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, what it was made of and with.

    Args:
        kind: the folder of the store.
        digest: the artifact's name.
        inputs: everything that went into the name.
        files: relative path to content.
        links: relative path to the target of a symbolic link, both inside the store.
        tools: tool name to version.
        seconds: how long it took to make.
        created_at: Unix time in seconds, for people only.
        extra: what the stage reports besides.
    """

    kind: Kind
    digest: str
    inputs: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    links: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    created_at: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all regular files."""
        return sum(entry.size for entry in self.files.values())

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        body = {
            "formatVersion": FORMAT_VERSION,
            "kind": str(self.kind),
            "digest": self.digest,
            "inputs": self.inputs,
            "files": {path: asdict(entry) for path, entry in self.files.items()},
            "links": self.links,
            "tools": self.tools,
            "seconds": self.seconds,
            "createdAt": self.created_at,
            "extra": self.extra,
        }
        return json.dumps(body, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read `manifest.json`.

        Raises:
            ValueError: not a manifest of this format version.
        """
        try:
            body = json.loads(text)
            if body["formatVersion"] != FORMAT_VERSION:
                raise ValueError(f"format version {body['formatVersion']}, this builder knows {FORMAT_VERSION}")
            files = {path: FileEntry(**entry) for path, entry in body["files"].items()}
            return cls(
                Kind(body["kind"]), body["digest"], body["inputs"], files, body["links"],
                body["tools"], body["seconds"], body["createdAt"], body["extra"],
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from error


@dataclass(frozen=True)
class Artifact:
    """A published directory and its manifest."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True)
class Recipe:
    """What an artifact is named by and made with; `inputs` alone decide the digest."""

    kind: Kind
    inputs: Mapping[str, Any]
    tools: Mapping[str, str] = field(default_factory=dict)
    needed_bytes: int = 0

    @property
    def digest(self) -> str:
        """The name of the artifact."""
        return digests.of_json({"kind": str(self.kind), "format": FORMAT_VERSION, "inputs": self.inputs})


# Fills an empty folder and returns the manifest's `extra`.
Writer = Callable[[Path], Mapping[str, Any]]


class Store:
    """A folder of artifacts that several processes and machines may use at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

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
            text = (path / MANIFEST).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _store_error(error, self.root) from error
        try:
            return Artifact(path, Manifest.from_json(text))
        except ValueError as error:
            raise StoreError(
                Reason.ARTIFACT_DAMAGED, f"{path / MANIFEST} is damaged ({error}); delete {path} and build it again"
            ) from error

    def get(self, kind: Kind, digest: str) -> Artifact:
        """The artifact that an earlier stage has published.

        Raises:
            BadInputError: there is none, or the digest is not one.
            StoreError: as in `find`.
        """
        if not digests.is_digest(digest):
            raise BadInputError(
                Reason.INVALID_ARGUMENT, f"{digest!r} is not a digest: 64 lower-case hex digits are expected"
            )
        artifact = self.find(kind, digest)
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
        present = self.find(recipe.kind, digest)
        if present is not None:
            return present, True
        try:
            with self._staging(recipe, digest) as staging:
                began = time.monotonic()
                extra = write(staging)
                manifest = _manifest(recipe, staging, extra, time.monotonic() - began)
                (staging / MANIFEST).write_text(manifest.to_json())
                _flush(staging)
                _rename(staging, self.folder(recipe.kind, digest))
        except OSError as error:
            raise _store_error(error, self.root, recipe.needed_bytes) from error
        return self.get(recipe.kind, digest), False

    def artifacts(self) -> Iterator[Artifact]:
        """All published artifacts, by kind and digest."""
        for kind in Kind:
            names = sorted(path.name for path in (self.root / kind).glob("*") if digests.is_digest(path.name))
            for name in names:
                artifact = self.find(kind, name)
                if artifact is not None:
                    yield artifact

    @contextlib.contextmanager
    def _staging(self, recipe: Recipe, digest: str) -> Iterator[Path]:
        parent = self.root / recipe.kind
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        _require_space(parent, recipe.needed_bytes)
        staging = parent / f"{_STAGING}{int(time.time())}-{digest[:12]}-{secrets.token_hex(4)}"
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _manifest(recipe: Recipe, folder: Path, extra: Mapping[str, Any], seconds: float) -> Manifest:
    files: dict[str, FileEntry] = {}
    links: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            links[name] = str(path.readlink())
        elif path.is_file():
            files[name] = FileEntry(digests.of_file(path), path.stat().st_size)
    return Manifest(
        recipe.kind, recipe.digest, recipe.inputs, files, links, recipe.tools,
        round(seconds, 3), round(time.time(), 3), extra,
    )  # fmt: skip


def _sweep(parent: Path) -> None:
    """Remove what writers that were killed long ago have left."""
    for path in parent.glob(f"{_STAGING}*"):
        began = path.name.removeprefix(_STAGING).split("-")[0]
        if began.isdigit() and time.time() - int(began) > STAGING_GRACE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _require_space(parent: Path, needed: int) -> None:
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise StoreError(
            Reason.STORE_FULL,
            f"the store {parent} needs {needed} bytes for this artifact and has {free} free: make room or enlarge it",
        )


def _flush(folder: Path) -> None:
    """Bring every file and folder to disk before the rename makes them visible."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rename(staging: Path, final: Path) -> None:
    try:
        staging.rename(final)
    except OSError as error:
        # Another writer was faster; its artifact has the same inputs, so ours is dropped.
        if error.errno not in _TAKEN:
            raise
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _store_error(error: OSError, root: Path, needed: int = 0) -> StoreError:
    if error.errno in _FULL:
        free = shutil.disk_usage(root).free
        size = f"{needed} bytes are needed, {free} are free" if needed else f"{free} bytes are free"
        return StoreError(Reason.STORE_FULL, f"the store {root} is full ({size}): make room or enlarge it")
    if error.errno in _DENIED:
        return StoreError(
            Reason.STORE_READ_ONLY,
            f"the store {root} cannot be written ({error}): mount it writable for user {os.getuid()}",
        )
    return StoreError(Reason.STORE_UNAVAILABLE, f"the store {root} cannot be used: {error}")
