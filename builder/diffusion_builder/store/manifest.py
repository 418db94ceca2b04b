"""What an artifact is: its kind, its name, and the manifest inside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_builder import digests

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT_VERSION = 2
MANIFEST = "manifest.json"


class Kind(StrEnum):
    """Folders of the store, one per kind of artifact, in the order in which they are made of each other."""

    SOURCE = "sources"
    ONNX = "onnx"
    ENGINE = "engines"
    REPOSITORY = "repositories"
    PARITY = "parity"
    COMPARISON = "comparisons"


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
        created_at: Unix time in seconds.
        extra: what the stage reports besides.
        derived_from: names of the artifacts that it was made from, for garbage collection; not part of its own name.
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
    derived_from: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all regular files."""
        return sum(entry.size for entry in self.files.values())

    def references(self) -> frozenset[str]:
        """Digests of the artifacts that this one was made from or links to."""
        linked = {part for target in self.links.values() for part in Path(target).parts}
        return frozenset(name for name in linked | set(self.derived_from) if digests.is_digest(name))

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
            "derivedFrom": list(self.derived_from),
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
                body["tools"], body["seconds"], body["createdAt"], body["extra"], tuple(body["derivedFrom"]),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a manifest: {error}") from error


@dataclass(frozen=True)
class Artifact:
    """A published directory and its manifest."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True)
class Recipe:
    """What an artifact is named by and made with; `inputs` alone decide the digest.

    Args:
        kind: the folder of the store.
        inputs: JSON; everything that decides the content.
        tools: tool name to version, for display.
        required_bytes: how much space making it takes; 0 if unknown.
        derived_from: artifacts that garbage collection retains as long as this one.
        resumable: whether a writer can go on with what a killed one has left in `scratch_of(folder)`.
    """

    kind: Kind
    inputs: Mapping[str, Any]
    tools: Mapping[str, str] = field(default_factory=dict)
    required_bytes: int = 0
    derived_from: tuple[Artifact, ...] = ()
    resumable: bool = False

    @property
    def digest(self) -> str:
        """The name of the artifact."""
        return digests.json_digest({"kind": str(self.kind), "format": FORMAT_VERSION, "inputs": self.inputs})
