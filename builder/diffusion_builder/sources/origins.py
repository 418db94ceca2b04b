"""Where files come from: a hub's revision and a folder; archives are in `archive`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, Reason, UnavailableError
from diffusion_builder.sources import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.sources.hub import Hub, HubFile, HubReference


class Origin(Protocol):
    """A set of files with names as in a checkpoint."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Names, with forward slashes, and bytes."""

    def ordered(self, names: Iterable[str]) -> Sequence[str]:
        """The order in which these files are best copied."""

    def copy(self, name: str, target: Path) -> None:
        """Put one file at a path that does not exist, in a folder that does.

        Raises:
            BuilderError: the origin is not as it should be.
            OSError: the target cannot be written.
        """


@dataclass(frozen=True)
class HubOrigin:
    """A revision on a hub; `scratch` keeps what is half downloaded."""

    hub: Hub
    reference: HubReference
    listing: Mapping[str, HubFile]
    scratch: Path

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """As the hub lists them."""
        return {name: file.size for name, file in self.listing.items()}

    def ordered(self, names: Iterable[str]) -> Sequence[str]:
        """By name."""
        return sorted(names)

    def copy(self, name: str, target: Path) -> None:
        """Download, continuing an earlier partial download, and compare with the hub's SHA-256 if it has one."""
        self.hub.download(self.reference, name, self.scratch)
        path = self.scratch / name
        expected = self.listing[name].sha256
        if expected and digests.file_digest(path) != expected:
            path.unlink()
            raise UnavailableError(
                Reason.DIGEST_MISMATCH,
                f"{name} of {self.reference.repo} came with another SHA-256 than the hub lists; it is tried again",
            )
        shutil.copyfile(path, target) if path.is_symlink() else path.rename(target)


class FolderOrigin:
    """A folder, such as a mounted volume.

    Args:
        folder: the checkpoint's.
        root: where links may lead to, such as the mount of a claim; by default the folder itself, or in the cache of a
            hub the repository's folder, whose snapshots are links to its blobs.

    Raises:
        BadInputError: a link leads out of the root, or there are too many files.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.folder = folder
        self._root = root or root_of(folder)
        self._real_root = self._root.resolve()
        self._broken: dict[str, str] = {}
        self.sizes: Mapping[str, int] = self._list()

    def ordered(self, names: Iterable[str]) -> Sequence[str]:
        """By name."""
        return sorted(names)

    def path(self, name: str) -> Path:
        """Where a file is.

        Raises:
            BadInputError: it is a link to nothing.
        """
        if name in self._broken:
            raise BadInputError(
                Reason.MISSING_FILE,
                f"{name} is a link to {self._broken[name]}, which is not there: bring what it leads to along, or copy "
                "the files instead of the links (cp -rL)",
            )
        return self.folder / name

    def copy(self, name: str, target: Path) -> None:
        """Copy the content alone: no owner, mode or times."""
        shutil.copyfile(self.path(name), target)

    def _list(self) -> Mapping[str, int]:
        """All regular files but hidden folders'; links are followed as long as they stay inside of the root."""
        sizes: dict[str, int] = {}
        # Folders to look into, each with the real ones that it is in.
        pending = [(self.folder, frozenset({self._real(self.folder)}))]
        count = 0
        while pending:
            directory, above = pending.pop()
            for path in _entries(directory):
                count += 1
                names.check_count(count)
                name = path.relative_to(self.folder).as_posix()
                real = self._real(path) if path.is_symlink() else path
                if path.is_dir():
                    real = real.resolve()
                    # A link to a folder that it is in would be followed for ever.
                    if real not in above and not path.name.startswith("."):
                        pending.append((path, above | {real}))
                elif path.is_file():
                    sizes[name] = path.stat().st_size
                elif path.is_symlink():
                    self._broken[name] = str(path.readlink())
                    sizes[name] = 0
        return sizes

    def _real(self, path: Path) -> Path:
        try:
            real = path.resolve()
        except (OSError, RuntimeError):  # links that lead to each other
            return path.absolute()
        if not real.is_relative_to(self._real_root):
            raise BadInputError(
                Reason.UNSAFE_PATH,
                f"{path} is a link that leads out of {self._root}: copy the files instead (cp -rL)",
            )
        return real


def _entries(directory: Path) -> list[Path]:
    """What is in a folder; nothing where access is denied, such as lost+found."""
    try:
        return sorted(directory.iterdir())
    except PermissionError:
        return []


def root_of(folder: Path) -> Path:
    """Where links of a folder may lead to: itself, or the repository in the cache of huggingface_hub around it.

    A snapshot there is made of links to `blobs` beside `snapshots`.
    """
    for path in (folder.absolute(), *folder.absolute().parents):
        if path.parent.name == "snapshots" and (path.parent.parent / "blobs").is_dir():
            return path.parent.parent
    return folder
